//! The projects that sleep: no actor runs, their durable consumers stay. What is kept of each is its mark, and a subscription for
//! what wakes it.

use std::collections::BTreeSet;
use std::time::Duration;

use loom_protocol::{ProjectId, Timestamp, WireError};
use tokio_util::task::AbortOnDropHandle;

use super::wake_subscriptions::WakeSubscription;
use crate::domain::sleep::{AsleepTotals, DigestedMark, StreamPositions};
use crate::hashing::DashMap;

/// After what time a client that was refused is to try again, and so do we where something failed.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Those that sleep.
#[derive(Default)]
pub(super) struct Asleep {
    /// Boxed: a map has room for twice as many as it holds.
    by_id: DashMap<ProjectId, Box<Sleeper>>,
}

struct Sleeper {
    mark: DigestedMark,
    /// Why it could not be woken when it was wanted last.
    kept_asleep: Option<Box<WireError>>,
    subscription: WakeSubscription,
    /// There as soon as something has come.
    waking: Option<AbortOnDropHandle<()>>,
}

impl Asleep {
    /// It sleeps from now on, as this mark says. True: something has come for it already, and it is to be woken.
    pub fn insert(
        &self,
        id: &ProjectId,
        mark: DigestedMark,
        subscription: WakeSubscription,
    ) -> bool {
        let sleeper = Sleeper {
            mark,
            kept_asleep: None,
            subscription,
            waking: None,
        };
        self.by_id.insert(id.clone(), Box::new(sleeper));
        // What comes from here on finds it.
        self.by_id
            .get(id)
            .is_some_and(|sleeper| sleeper.subscription.has_heard())
    }

    /// Something has come for it: this is to wake it, and runs for no longer than it sleeps. Nothing where that goes on, or
    /// it does not sleep: false.
    pub fn wake(&self, id: &ProjectId, waking: impl Future<Output = ()> + Send + 'static) -> bool {
        let sleeper = self.by_id.get_mut(id);
        let Some(mut sleeper) = sleeper.filter(|sleeper| sleeper.waking.is_none()) else {
            return false;
        };
        sleeper.waking = Some(AbortOnDropHandle::new(tokio::spawn(waking)));
        true
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

    /// What is in it, if it sleeps.
    pub fn totals(&self, id: &ProjectId) -> Option<AsleepTotals> {
        self.by_id.get(id).map(|sleeper| sleeper.mark.totals)
    }

    /// What `read` makes of the mark of each, by id.
    pub fn each<T>(&self, read: impl Fn(&DigestedMark) -> T) -> Vec<(ProjectId, T)> {
        let all = self.by_id.iter();
        let mut all: Vec<_> = all
            .map(|sleeper| (sleeper.key().clone(), read(&sleeper.mark)))
            .collect();
        all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// Those whose marks do not hold any more: their streams stand elsewhere, or it is time. `settings`: as in the mark.
    pub fn over(
        &self,
        now: Timestamp,
        settings: u64,
        stand: Option<&dyn Fn(&ProjectId) -> StreamPositions>,
    ) -> Vec<ProjectId> {
        let moved = |id: &ProjectId, mark: &DigestedMark| {
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
