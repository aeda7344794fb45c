//! One thin wrapper per kind of NATS resource, and the server itself.

pub mod connection;
pub mod dead_letters;
pub mod kv;
pub mod ledger_store;
pub mod owner;
pub mod server;
pub mod store;
