//! Clients that know nothing but NATS, and keep the agents of all projects in one bucket.
//!
//! They put an entry, update it with the revision that they wrote last, and delete it. Each test has
//! a nats-server of its own: the bucket is one for all of it.

mod client;
mod consumers;
mod entries;
mod judged;
mod outages;
mod own_bucket;
mod streams;
mod told;
