//! One thin wrapper per kind of NATS resource, and the server itself.

pub mod connection;
pub mod dead_letters;
pub mod kv;
pub mod ledger_store;
mod outcome;
pub(crate) mod overlap;
pub mod owner;
pub mod server;
pub mod server_clock;
pub mod stamp;
pub mod store;
pub mod store_guard;
pub(crate) mod terms;
