//! The AgentRegistry against a real nats-server: what it keeps, whom it believes, what it survives.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod bucket;
mod chaos;
mod fixture;
mod outage;
mod owners;
mod quarantine;
mod requests;
