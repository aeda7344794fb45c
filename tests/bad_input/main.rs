//! Input that has to be refused: each with its code, a sentence that names the thing, and what to do.
//!
//! | file | what is wrong |
//! |---|---|
//! | [`names`] | tokens: capabilities, boundaries, agent types, handles, project ids |
//! | [`bodies`] | values, fields, sizes, documents that cannot be read |
//! | [`leases`] | who says it: agents that are not registered, that do not hold the item, that come late |
//! | [`scopes`] | filters that are misspelt or empty, in requests about many things |
//! | [`startup`] | the configuration, the port, and the NATS that `loom up` is given |
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bodies;
mod doors;
mod leases;
mod names;
mod scopes;
mod startup;
