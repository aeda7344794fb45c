//! Supervision, with actors that do nothing but fail as they are told.
//!
//! The clock is tokio's paused one: it moves on only when nobody has anything left to do, so that backoffs and
//! deadlines of minutes pass at once, and always in the same order.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod calls;
mod loading;
mod matrix;
mod order;
mod parked;
mod probe;
mod trees;
