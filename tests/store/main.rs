//! A server that comes back with an empty store, or an older one, under the same URL: nothing vanishes without a word,
//! nothing is decided on it, and a person says how it goes on.
//!
//! | module | what is promised |
//! |---|---|
//! | `replaced` | another store while the coordinator runs: red, nothing taken in, `lost`, `accept` |
//! | `innocent` | what is no other store: restarts, expiry, purges, stores of an older version |
//! | `limits` | limits that somebody sets on a stream are set back |
//! | `quiet` | a project that nobody uses asks for none of its streams by name |
//! | `missing` | what somebody purged, deleted or overwrote in a ledger is told, and given to nobody |
//! | `starts` | what a start remembers, and `nats.store_id` |
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod house;
mod innocent;
mod limits;
mod missing;
mod quiet;
mod replaced;
mod starts;
