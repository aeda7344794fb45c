//! Pure verdicts: values in, verdict out. No clock, no network, no actor.

pub mod agent;
pub mod breaker;
pub mod foreign;
pub mod id_prefix;
pub mod lease;
pub mod letter;
pub mod listing;
pub mod matching;
pub mod reaping;
pub mod retry;
pub mod room;
pub mod sleep;
pub mod subjects;
pub mod targets;
pub mod work;
