//! What all projects have in common where agents are started.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::birth_step::BirthStepHook;
use super::mechanism::{Mechanisms, NoMechanisms};
use crate::settings::{BirthSettings, BirthTimeoutSettings};

/// How many targets of a process are looked at at once.
const MOST_LOOKS: usize = 16;
/// How many times as many starts of all projects are under way at once as of one.
pub(super) const OF_ALL_PROJECTS: usize = 4;
/// For how long a start takes its place at the most: as long as a local start may take where nothing else is set
/// (`targets.birth_timeout.local`), in which a mechanism that knows what it does has begun.
const LONGEST_PLACE: Duration = Duration::from_secs(30);

/// What all projects have in common where agents are started. Cheap to clone.
#[derive(Clone)]
pub struct BirthTerms {
    pub(super) settings: BirthSettings,
    pub(super) mechanisms: Arc<dyn Mechanisms>,
    pub(super) on_step: BirthStepHook,
    pub(super) limit: StartLimit,
    /// How many targets of all projects are looked at at once.
    pub(super) looks: Arc<Semaphore>,
}

impl BirthTerms {
    /// Those of one process.
    pub fn new(settings: BirthSettings, mechanisms: Arc<dyn Mechanisms>) -> Self {
        Self {
            limit: StartLimit::new(most_of(&settings).saturating_mul(OF_ALL_PROJECTS)),
            looks: Arc::new(Semaphore::new(MOST_LOOKS)),
            settings,
            mechanisms,
            on_step: BirthStepHook::default(),
        }
    }

    /// The same, with somebody who is told each step.
    #[must_use]
    pub fn telling(mut self, on_step: BirthStepHook) -> Self {
        self.on_step = on_step;
        self
    }

    /// For how long a start takes one of the places at the most; no longer than a local start may take.
    pub(super) fn place_for(&self) -> Duration {
        LONGEST_PLACE.min(self.settings.birth_timeout.local)
    }

    /// How many starts of one project may take places at once.
    pub(super) fn most_of_a_project(&self) -> usize {
        most_of(&self.settings)
    }

    /// Those of a process that starts nothing.
    pub fn of_nobody() -> Self {
        let nothing = BirthSettings {
            max_concurrent: 0,
            cooldown: Duration::ZERO,
            items_per_agent: 1,
            keep_operations: Duration::from_secs(1),
            birth_timeout: BirthTimeoutSettings::default(),
        };
        Self::new(nothing, Arc::new(NoMechanisms))
    }
}

fn most_of(settings: &BirthSettings) -> usize {
    usize::try_from(settings.max_concurrent).unwrap_or(usize::MAX)
}

impl fmt::Debug for BirthTerms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BirthTerms")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// How many starts of all projects are under way, and how many may be.
#[derive(Debug, Clone)]
pub(super) struct StartLimit {
    most: usize,
    taken: Arc<AtomicUsize>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct StartPermit(Arc<AtomicUsize>);

impl StartLimit {
    fn new(most: usize) -> Self {
        Self {
            most,
            taken: Arc::default(),
        }
    }

    /// For one that is to be begun: `None` where there are as many as may be.
    pub fn take(&self) -> Option<StartPermit> {
        let one_more = |taken| (taken < self.most).then_some(taken + 1);
        let taken = &self.taken;
        let updated = taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        updated.ok().map(|_| StartPermit(taken.clone()))
    }

    /// Whether there are as many as may be.
    pub fn is_reached(&self) -> bool {
        self.taken.load(Ordering::Acquire) >= self.most
    }

    /// For one that is under way already, whatever the limit is.
    pub fn take_for_one_begun(&self) -> StartPermit {
        self.taken.fetch_add(1, Ordering::AcqRel);
        StartPermit(self.taken.clone())
    }
}

impl Drop for StartPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_under_way_and_those_of_before_count() {
        let limit = StartLimit::new(2);
        let before = [limit.take_for_one_begun(), limit.take_for_one_begun()];
        let third = limit.take_for_one_begun();
        assert!(limit.take().is_none());
        drop(before);
        let next = limit.take();
        assert!(next.is_some() && limit.take().is_none());
        drop(third);
        assert!(
            limit.take().is_some(),
            "one is free again when it is dropped"
        );
    }
}
