//! Whose graves there are, as far as that is kept in memory: the latest, for as long as they last.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use loom_protocol::AgentGuid;
use tokio::time::Instant;

/// How many graves are known by guid.
pub const MAX_GRAVES: usize = 100_000;

/// Graves by guid, the oldest first to be forgotten.
#[derive(Debug)]
pub(super) struct GraveIndex {
    since: HashMap<AgentGuid, Instant>,
    in_order: VecDeque<(Instant, AgentGuid)>,
    retention: Duration,
}

impl GraveIndex {
    /// None yet; each lasts for `retention`.
    pub fn new(retention: Duration) -> Self {
        Self {
            since: HashMap::new(),
            in_order: VecDeque::new(),
            retention,
        }
    }

    /// A grave was laid, or read: it is known from now on.
    pub fn insert(&mut self, guid: AgentGuid) {
        let now = Instant::now();
        self.forget_expired(now);
        self.since.insert(guid, now);
        self.in_order.push_back((now, guid));
        while self.in_order.len() > MAX_GRAVES {
            self.forget_oldest();
        }
    }

    /// There is none any more; false where none was known.
    pub fn remove(&mut self, guid: AgentGuid) -> bool {
        // Its place in the order goes when its time comes.
        self.since.remove(&guid).is_some()
    }

    pub fn contains(&mut self, guid: AgentGuid) -> bool {
        self.forget_expired(Instant::now());
        self.since.contains_key(&guid)
    }

    pub fn len(&self) -> usize {
        let now = Instant::now();
        let lasts = |since: &&Instant| now - **since < self.retention;
        self.since.values().filter(lasts).count()
    }

    fn forget_expired(&mut self, now: Instant) {
        while let Some((since, _)) = self.in_order.front()
            && now - *since >= self.retention
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((since, guid)) = self.in_order.pop_front()
            && self.since.get(&guid) == Some(&since)
        {
            self.since.remove(&guid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guid(n: u128) -> AgentGuid {
        AgentGuid::new(uuid::Uuid::from_u128(n))
    }

    #[tokio::test(start_paused = true)]
    async fn a_grave_is_known_for_as_long_as_it_lasts() {
        let mut graves = GraveIndex::new(Duration::from_secs(10));
        graves.insert(guid(1));
        tokio::time::advance(Duration::from_secs(6)).await;
        graves.insert(guid(2));
        // Laid anew: the first time does not end it.
        graves.insert(guid(1));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!((graves.contains(guid(1)), graves.len()), (true, 2));
        assert!(graves.remove(guid(1)) && !graves.remove(guid(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(graves.len(), 0);
        assert!(!graves.contains(guid(2)));
        assert!(graves.in_order.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn of_too_many_the_latest_are_known() {
        let mut graves = GraveIndex::new(Duration::from_hours(1));
        let most = MAX_GRAVES as u128;
        for n in 0..most + 3 {
            graves.insert(guid(n));
        }
        assert_eq!(graves.len(), MAX_GRAVES);
        assert!(!graves.contains(guid(2)));
        assert!(graves.contains(guid(3)) && graves.contains(guid(most + 2)));
    }
}
