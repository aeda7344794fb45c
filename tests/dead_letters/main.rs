//! Dead letters: each promise by a test of its name, on a real coordinator and a real nats-server.
//!
//! | module | what is promised |
//! |---|---|
//! | `written` | every failed item has exactly one dead letter, with its whole story |
//! | `crashes` | a death between any two steps leaves exactly one |
//! | `retried` | back to the queue: by hand, by filter, by schedule; the fence never falls |
//! | `removed` | a stream that somebody removed is an empty one, and is made again |
//! | `listeners` | whoever listens, or has streams over our subjects, stops none |
//! | `doors` | list, get and discard over requests, REST and the command line |
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod crashes;
mod doors;
mod house;
mod listeners;
mod removed;
mod retried;
mod written;
