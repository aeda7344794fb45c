//! The mechanisms against real things: processes, an ssh server, an HTTP server.

mod fixture;
mod killed;
mod local;
mod ssh;
mod tunnel;
mod webhook;
