//! NATS as Loom uses it: one wrapper per kind of resource, the server itself, and who owns it. It knows no actor and no
//! settings: what it needs of either it is given as values.
//!
//! | room | what it is |
//! |---|---|
//! | [`connection`] | how a connection is made, and how its health is told |
//! | [`stream`] | one message of a stream: writes with a condition and a named outcome, reads from the leader, deletes by sequence |
//! | [`error`] | how a request ends that does not succeed, whatever it was about |
//! | [`kv`], [`ledger_store`], [`dead_letters`] | what is made of that: buckets, the ledger, letters |
//! | [`owner`] | one coordinator at a time: the lease in `LOOM_OWNERS` |
//! | [`store_guard`], [`stamp`] | whether a store is the one that is worked with; asked before every write |
//! | [`store`] | whether the store can be written at all |
//! | [`inspection`], [`terms`], [`overlap`] | how a stream is, how it must be configured, and what of somebody else's is in the way |
//! | [`listing`] | all streams at once, for those who look now and then whether theirs is as it was |
//! | [`inbox`], [`pull`] | what comes out of streams: one subscription for all consumers, requests that wait for long |
//! | [`positions`] | where streams stand: when each was made, how far it has come |
//! | [`server`] | a nats-server of our own |
//! | [`clock`], [`server_clock`], [`repetition`] | times as values: ours, the server's, when to say a thing again |
//! | [`verdicts`] | what is decided about stores, pure: values in, verdict out |
#![deny(missing_docs)]

mod asking_again;
pub mod clock;
pub mod connection;
pub mod dead_letters;
pub mod error;
pub mod inbox;
pub mod inspection;
pub mod kv;
pub mod ledger_store;
pub mod listing;
mod ordered;
mod outcome;
pub mod overlap;
pub mod owner;
mod ownership;
pub mod positions;
pub mod pull;
mod raw_bucket;
pub mod repetition;
mod replay;
mod said;
pub mod server;
pub mod server_clock;
pub mod stamp;
pub mod store;
pub mod store_guard;
pub mod stream;
pub mod terms;
pub mod verdicts;
