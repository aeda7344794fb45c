//! Agents that were born from targets: their tickets, their links, and how they are sent home. As programs outside do it,
//! with real processes.
#![cfg(unix)]
#![allow(clippy::expect_used, reason = "a test may panic")]

mod fixture;
mod house;
mod killed;
mod left_behind;
mod links;
mod other_runs;
mod program;
mod scale_down;
mod standstill;
mod tickets;
