//! The health of NATS' store: what was seen of it, kept in one place for everybody who asks.
//!
//! Writers tell of what was refused or not answered ([`StoreHealth::refused`]); a watcher looks at the disk and the log
//! of our own server, restarts it where that helps, and asks whether the cluster has a majority (`watcher`). Readiness,
//! answers, metrics and the intake of published work read the verdict ([`crate::verdicts::store`]).

mod log;
mod watcher;

pub use watcher::space_at;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::{Cause, StoreError, StoreErrorKind};
use crate::verdicts::store::{
    Refusal, Space, StoreFacts, StoreVerdict, Unconfirmed, store_verdict, without_majority,
};

/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What is known of the store of one NATS. Cheap to clone; a new one knows of nothing bad.
#[derive(Debug, Clone)]
pub struct StoreHealth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    facts: Mutex<StoreFacts>,
    /// A write that is confirmed is news.
    in_trouble: AtomicBool,
    refusals: AtomicU64,
    restarts: AtomicU64,
}

impl Default for StoreHealth {
    fn default() -> Self {
        Self(Arc::new(Inner {
            began: Instant::now(),
            facts: Mutex::default(),
            in_trouble: AtomicBool::new(false),
            refusals: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
        }))
    }
}

impl StoreHealth {
    /// A write has failed. Whether it was the store that refused it.
    pub fn refused(&self, error: &StoreError) -> bool {
        let StoreErrorKind::Refused(Cause::Full(kind)) = error.kind() else {
            return false;
        };
        self.0.refusals.fetch_add(1, Ordering::Relaxed);
        let at = self.now();
        self.0.facts.lock().refused = Some(Refusal {
            kind,
            said: error.why().to_owned(),
            at,
        });
        self.0.in_trouble.store(true, Ordering::Release);
        true
    }

    /// A write to this stream was not answered in time.
    pub fn unanswered(&self, stream: &str) {
        let now = self.now();
        let mut facts = self.0.facts.lock();
        match &mut facts.unconfirmed {
            Some(writes) if writes.stream == stream => writes.last = now,
            // One at a time is enough to be told.
            Some(writes) if now.saturating_sub(writes.last) < Duration::from_secs(5) => {}
            unconfirmed => {
                *unconfirmed = Some(Unconfirmed {
                    stream: stream.to_owned(),
                    since: now,
                    last: now,
                });
            }
        }
        drop(facts);
        self.0.in_trouble.store(true, Ordering::Release);
    }

    /// A write to the stream that `name` gives was stored. Costs nothing where nothing was wrong.
    pub fn confirmed(&self, name: impl FnOnce() -> String) {
        if !self.0.in_trouble.load(Ordering::Acquire) {
            return;
        }
        let stream = name();
        let mut facts = self.0.facts.lock();
        facts.refused = None;
        facts.unconfirmed.take_if(|writes| writes.stream == stream);
        let still = facts.unconfirmed.is_some();
        self.0.in_trouble.store(still, Ordering::Release);
    }

    /// How the store is now.
    pub fn verdict(&self) -> StoreVerdict {
        store_verdict(&self.0.facts.lock(), self.now())
    }

    /// Something was just stored that takes a majority: the ownership. From then on a missing one is told, also where
    /// it is gone before anybody has looked.
    pub fn majority_seen(&self) {
        let now = self.now();
        self.0.facts.lock().majority_seen = Some(now);
    }

    /// Since when the cluster of NATS has no majority, if it has none; told sooner to one that is no owner any more.
    pub fn without_majority(&self, is_owner: bool) -> Option<Duration> {
        without_majority(&self.0.facts.lock(), self.now(), is_owner)
    }

    /// Returns when new work may be taken in.
    pub async fn until_sound(&self) {
        while self.verdict() != StoreVerdict::Sound {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The disk of our own server.
    pub fn space(&self) -> Option<Space> {
        self.0.facts.lock().space
    }

    /// How many writes the store has refused.
    pub fn refusals(&self) -> u64 {
        self.0.refusals.load(Ordering::Relaxed)
    }

    /// How often our own server was restarted because of its store.
    pub fn restarts(&self) -> u64 {
        self.0.restarts.load(Ordering::Relaxed)
    }

    fn now(&self) -> Duration {
        self.0.began.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Resource;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_over_with_the_next_write_that_is_stored() {
        let health = StoreHealth::default();
        let refused = |code, said: &str| {
            let resource = Resource::bucket("b");
            health.refused(&StoreError::by_server(
                "writing",
                &resource,
                code,
                said.into(),
            ))
        };
        assert!(!refused(10_071, "wrong last sequence: 7"));
        assert!(!refused(10_077, "maximum messages exceeded"));
        assert_eq!(health.verdict(), StoreVerdict::Sound);
        assert!(refused(10_023, "insufficient resources"));
        assert!(matches!(health.verdict(), StoreVerdict::Refusing(_)));
        health.confirmed(|| "KV_any".into());
        assert_eq!(health.verdict(), StoreVerdict::Sound);
        assert_eq!(health.refusals(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_does_not_answer_is_not_mended_by_another_one() {
        let health = StoreHealth::default();
        for _ in 0..10 {
            health.unanswered("KV_stuck");
            tokio::time::advance(Duration::from_secs(1)).await;
            health.confirmed(|| "KV_other".into());
        }
        health.0.facts.lock().majority_seen = Some(health.now());
        let verdict = health.verdict();
        assert!(
            verdict.sentence().unwrap().contains("KV_stuck"),
            "{verdict:?}"
        );
        health.confirmed(|| "KV_stuck".into());
        assert_eq!(health.verdict(), StoreVerdict::Sound);
    }
}
