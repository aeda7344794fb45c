//! Pure verdicts: values in, verdict out. No clock, no network, no actor.

pub mod agent;
pub mod breaker;
pub mod foreign;
pub mod id_prefix;
pub mod lease;
pub mod ledger_stamp;
pub mod letter;
pub mod listing;
pub mod matching;
pub mod reaping;
pub mod retry;
pub mod room;
pub mod server_time;
pub mod store;
pub mod stream_terms;
pub mod subjects;
pub mod work;
