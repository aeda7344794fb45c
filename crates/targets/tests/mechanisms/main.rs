//! The mechanisms against real things: processes, an ssh server, an HTTP server.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod dropped;
mod fixture;
mod github;
mod github_doubt;
mod github_runs;
mod killed;
#[cfg(feature = "k8s")]
mod kubernetes;
mod local;
mod ssh;
mod tunnel;
mod webhook;
