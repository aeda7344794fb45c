//! The maps of everything that is looked up for each request.
//!
//! A submission looks ids and names up about thirty times, and with the hasher of the standard library that was a fourteenth
//! of its instructions. This is the one that `hashbrown` has by default. It has a seed of the process's own, so that who
//! chooses the names of things does not choose which of them collide; it promises no more than that against such a one.

use std::collections;

use foldhash::fast::RandomState;

/// A map. It begins as `HashMap::default()`.
pub type HashMap<K, V> = collections::HashMap<K, V, RandomState>;
/// A set. It begins as `HashSet::default()`.
pub type HashSet<K> = collections::HashSet<K, RandomState>;
/// A map that many may use at once.
pub type DashMap<K, V> = dashmap::DashMap<K, V, RandomState>;
/// A set that many may use at once.
pub type DashSet<K> = dashmap::DashSet<K, RandomState>;
