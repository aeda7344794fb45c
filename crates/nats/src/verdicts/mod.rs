//! Pure verdicts about stores: values in, verdict out. No clock, no network.

pub mod ledger_stamp;
pub mod server_time;
pub mod store;
pub mod stream_terms;
