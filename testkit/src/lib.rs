//! Tools for tests around Loom, for this project's own and for those of programs that use it.
//!
//! | module | what it gives |
//! |---|---|
//! | [`nats`] | a private nats-server that can be stopped, killed, paused and restarted on its store |
//! | [`process`] | the program `loom` as a child process that can be killed, paused and started again |
#![deny(missing_docs)]

pub mod nats;
pub mod process;
