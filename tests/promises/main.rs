//! The promises of the wire, each by a test of its name, on a real coordinator and a real nats-server.
//!
//! | module | what is promised |
//! |---|---|
//! | `repetition` | repeating a request gives the same answer |
//! | `fences` | only the present attempt of the present agent counts |
//! | `late` | what an agent may still do about a lease that was taken from it |
//! | `matching` | who gets what, in which order, and how much of it |
//! | `attempts` | what is told of attempts adds up, stays with the item, and is told to the next one |
//! | `explain` | why who may not take what |
//! | `reports` | what is published durably, and what is told |
//! | `requests` | encodings, unknown fields, unknown projects, bad input |
//! | `ownership` | who owns no more answers nothing; nobody is answered twice or not at all when it changes |
//! | `sequence` | what one sender asks without waiting is taken in that order |
//! | `run_reports` | what a run of an agent publishes counts for that run only |
//! | `room` | what a nats-server with another `max_payload` takes, and what becomes of the rest |
//! | `sizes` | what was recorded is answered, however large |
//! | `aging` | entries and buckets that go by themselves take no work from the living |
//! | `clocks` | who loses a lease, when, and who never does; the pause before the next attempt |
//! | `endings` | deadlines, and orders to stop |
//! | `liveness` | who is dead and who is not, and what becomes of their work |
//! | `load` | what costs much takes its turn, and keeps nobody else waiting |
//! | `limits` | usage limits, broken agents, idle ones, what the reaper says |
//! | `orders` | orders to those who do not hear them |
//! | `runs` | two runs of one guid: the later one is the agent |
//! | `events` | an event is told only when reads see what it tells |
//! | `actor_deaths` | an actor dies: nothing is lost, nothing counts twice, nobody waits for ever |
//! | `crashes` | the coordinator dies, NATS is away: nothing is lost, nothing counts twice |
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod actor_deaths;
mod aging;
mod attempts;
mod clocks;
mod crashes;
mod endings;
mod events;
mod explain;
mod fences;
mod late;
mod limits;
mod liveness;
mod load;
mod matching;
mod orders;
mod ownership;
mod repetition;
mod reports;
mod requests;
mod room;
mod run_reports;
mod runs;
mod sequence;
mod sizes;
