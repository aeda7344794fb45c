//! What a crash takes away: nothing. The program `loom` is killed, paused, terminated and started again around work
//! that real clients do.
//!
//! | file | what happens |
//! |---|---|
//! | [`steps`] | `kill -9` between any two steps of an item's life |
//! | [`asleep`], [`asleep_edges`] | projects sleep, and wake for whoever needs them |
//! | [`burst`] | `kill -9` in the middle of hundreds of submits and completions |
//! | [`own_server`] | the same with a nats-server of the coordinator's own |
//! | [`full_store`] | the disk is full, a limit is reached, the data directory is removed |
//! | [`many_projects`] | of many projects one cannot start, and the others do not wait for it |
//! | [`outage`] | NATS is away, for a moment and for long |
//! | [`signals`] | SIGTERM, a second one, SIGSTOP |
//! | [`standby`] | two coordinators on one NATS |
//! | [`standstill`] | SIGSTOP between a claim and its answer |
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod asleep;
mod asleep_edges;
mod burst;
mod full_store;
mod many_projects;
mod outage;
mod own_server;
mod signals;
mod sleepers;
mod standby;
mod standstill;
mod steps;
mod world;
