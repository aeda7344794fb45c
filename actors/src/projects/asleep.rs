//! The projects that sleep: no actor runs, their durable consumers stay. What is kept of each is its mark, and two
//! subscriptions that wake it.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::{Client, Subscriber};
use futures_util::StreamExt as _;
use loom_protocol::{ProjectId, Timestamp, WireError};
use tokio_util::task::AbortOnDropHandle;

use crate::domain::sleep::{Mark, StreamPositions};
use crate::hashing::DashMap;

/// After what time a client that was refused is to try again, and so do we where something failed.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Those that sleep.
#[derive(Default)]
pub(super) struct Asleep {
    by_id: DashMap<ProjectId, Sleeper>,
}

struct Sleeper {
    mark: Box<Mark>,
    /// Why it could not be woken when it was wanted last.
    kept_asleep: Option<Box<WireError>>,
    _waking: AbortOnDropHandle<()>,
}

impl Asleep {
    /// It sleeps from now on, as this mark says. `waking` is to wake it, and runs for no longer than it sleeps.
    pub fn insert(
        &self,
        id: &ProjectId,
        mark: Mark,
        waking: impl Future<Output = ()> + Send + 'static,
    ) {
        let waking = tokio::spawn(waking);
        let sleeper = Sleeper {
            mark: Box::new(mark),
            kept_asleep: None,
            _waking: AbortOnDropHandle::new(waking),
        };
        self.by_id.insert(id.clone(), sleeper);
    }

    /// It is wanted, and cannot be woken.
    pub fn kept_asleep(&self, id: &ProjectId, why: &WireError) {
        if let Some(mut sleeper) = self.by_id.get_mut(id) {
            sleeper.kept_asleep = Some(Box::new(why.clone()));
        }
    }

    /// Why nothing can be read from a project that sleeps; `None`: it does not.
    pub fn why_unread(&self, id: &ProjectId) -> Option<WireError> {
        let sleeper = self.by_id.get(id)?;
        let why = sleeper.kept_asleep.as_deref().cloned();
        Some(why.unwrap_or_else(|| {
            let text = format!("project {id} sleeps and is being woken; try again in a moment");
            WireError::unavailable(text, RETRY_AFTER)
        }))
    }

    /// It sleeps no longer. False: it did not.
    pub fn remove(&self, id: &ProjectId) -> bool {
        self.by_id.remove(id).is_some()
    }

    pub fn contains(&self, id: &ProjectId) -> bool {
        self.by_id.contains_key(id)
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Its mark, if it sleeps.
    pub fn mark(&self, id: &ProjectId) -> Option<Mark> {
        self.by_id.get(id).map(|sleeper| (*sleeper.mark).clone())
    }

    /// What `read` makes of the mark of each, by id.
    pub fn each<T>(&self, read: impl Fn(&Mark) -> T) -> Vec<(ProjectId, T)> {
        let all = self.by_id.iter();
        let mut all: Vec<_> = all
            .map(|sleeper| (sleeper.key().clone(), read(&sleeper.mark)))
            .collect();
        all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// Those whose marks do not hold any more: their streams stand elsewhere, or it is time. `settings`: as in [`Mark`].
    pub fn over(
        &self,
        now: Timestamp,
        settings: u64,
        stand: Option<&dyn Fn(&ProjectId) -> StreamPositions>,
    ) -> Vec<ProjectId> {
        let moved = |id: &ProjectId, mark: &Mark| {
            stand.is_some_and(|stand| !mark.holds(&stand(id), settings))
        };
        let all = self.by_id.iter();
        all.filter(|sleeper| sleeper.mark.is_over(now) || moved(sleeper.key(), &sleeper.mark))
            .map(|sleeper| sleeper.key().clone())
            .collect()
    }

    /// Those of which there is nothing among these.
    pub fn vanished(&self, there: &BTreeSet<ProjectId>) -> Vec<ProjectId> {
        let all = self.by_id.iter().map(|sleeper| sleeper.key().clone());
        all.filter(|id| !there.contains(id)).collect()
    }
}

/// What a project that sleeps is woken by: a message of a client that asks no request.
pub(super) struct WakeSubscriptions {
    /// `loom.{p}.>`: work and reports that are published.
    messages: Subscriber,
    /// `$KV.loom-agents-{p}.>`: agents that write their own entry.
    entries: Subscriber,
}

impl WakeSubscriptions {
    /// Subscribes, as far as the server has read; a flush of the client makes certain of it.
    pub async fn open(client: &Client, id: &ProjectId) -> Result<Self, async_nats::SubscribeError> {
        let bucket = loom_protocol::names::agents_bucket(id);
        Ok(Self {
            messages: client.subscribe(format!("loom.{id}.>")).await?,
            entries: client.subscribe(format!("$KV.{bucket}.>")).await?,
        })
    }

    /// Waits for a message. False: none will come any more.
    pub async fn heard(mut self, id: &ProjectId) -> bool {
        let heard = tokio::select! {
            heard = self.messages.next() => heard,
            heard = self.entries.next() => heard,
        };
        // What else comes is not kept: that something has come is all that is to be known.
        drop(self);
        let Some(message) = heard else { return false };
        tracing::info!(project = %id, subject = %message.subject, "a message wakes the project");
        true
    }
}
