//! One thin wrapper per kind of NATS resource, and the server itself.

pub mod server;
