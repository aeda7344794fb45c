//! One thin wrapper per kind of NATS resource.

pub mod connection;
pub mod ledger_store;
