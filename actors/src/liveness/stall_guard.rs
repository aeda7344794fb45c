//! Since when everybody's clocks run at the earliest.

use std::sync::Arc;
use std::time::Duration;

use async_nats::client::{RequestError, RequestErrorKind};
use async_nats::{Client, Request};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::nats::connection::Nats;

/// A timer that fires later than this after its time shows that we stood still.
pub const MAX_TIMER_LAG: Duration = Duration::from_secs(1);
/// How often the process looks whether it has stood still, and whether NATS answers.
const TICK: Duration = Duration::from_millis(250);
/// Whoever looks so often, and waits for NATS in between, has looked within this time.
const LOOKED_WITHIN: Duration = TICK
    .saturating_add(MAX_TIMER_LAG)
    .saturating_add(MAX_TIMER_LAG);

/// The moment at which every clock began anew: after a start, a reconnect, a stall of ours.
///
/// Whoever holds a clock measures from `max(last sign, grace.since())`, each time it judges; so
/// nothing has to be told or armed again at a stall, however many clocks there are. A project has
/// one of its own within the one of the process. Cheap to clone.
#[derive(Clone)]
pub struct StallGuard(Arc<Inner>);

struct Inner {
    own: Mutex<Instant>,
    disturbed: watch::Receiver<Instant>,
    process: Option<StallGuard>,
    /// When the watch over the process looked last, if there is one.
    last_tick: Mutex<Option<Instant>>,
}

impl StallGuard {
    /// That of the process: begins now.
    pub fn of_process(nats: &Nats) -> Self {
        Self::begun(nats.disturbed.clone(), None)
    }

    /// That of a project: begins now, and anew whenever that of the process does.
    #[must_use]
    pub fn of_project(&self) -> Self {
        Self::begun(self.0.disturbed.clone(), Some(self.clone()))
    }

    fn begun(disturbed: watch::Receiver<Instant>, process: Option<Self>) -> Self {
        Self(Arc::new(Inner {
            own: Mutex::new(Instant::now()),
            disturbed,
            process,
            last_tick: Mutex::default(),
        }))
    }

    /// Since when clocks run at the earliest. Whoever asks just after the process stood still learns of
    /// that, though no timer has fired yet.
    pub fn since(&self) -> Instant {
        let last_tick = *self.0.last_tick.lock();
        if last_tick.is_some_and(|last_tick| last_tick.elapsed() > LOOKED_WITHIN) {
            self.looks();
            self.reset_all("this process stood still");
        }
        let own = (*self.0.own.lock()).max(*self.0.disturbed.borrow());
        let process = self.0.process.as_ref();
        process.map_or(own, |process| own.max(process.since()))
    }

    /// We could not hear: every clock begins anew now. Logged once a second at the most.
    pub fn reset_all(&self, why: &str) {
        let before = std::mem::replace(&mut *self.0.own.lock(), Instant::now());
        if before.elapsed() > MAX_TIMER_LAG {
            tracing::warn!("every lease and every agent has a full grace again: {why}");
        }
    }

    /// We still cannot hear.
    pub(super) fn extend(&self) {
        *self.0.own.lock() = Instant::now();
    }

    /// To be asked by whoever has a timer, before it acts: a timer due at `due` fires now. If it is
    /// late we stood still, and every clock begins anew.
    pub fn timer_fired(&self, due: Instant) {
        let late = due.elapsed();
        if late > MAX_TIMER_LAG {
            self.reset_all(&format!("a timer fired {late:?} late"));
        }
    }

    fn looks(&self) {
        *self.0.last_tick.lock() = Some(Instant::now());
    }

    /// Looks whether the process or NATS stands still, for ever: while NATS does not answer within
    /// a second, every clock begins anew again and again.
    pub async fn watch_over(self, nats: Client) {
        let mut answers = true;
        loop {
            let due = Instant::now() + TICK;
            self.looks();
            sleep(TICK).await;
            self.timer_fired(due);
            self.looks();
            let answered = round_trip(&nats).await;
            if answers && !answered {
                self.reset_all(&format!("NATS does not answer within {MAX_TIMER_LAG:?}"));
            } else if !answered {
                self.extend();
            }
            answers = answered;
        }
    }
}

/// Whether the server answers in time: it says at once that nobody listens there.
async fn round_trip(nats: &Client) -> bool {
    let began = Instant::now();
    let nobody = nats.new_inbox();
    let request = Request::new().timeout(Some(MAX_TIMER_LAG));
    let answer = nats.send_request(nobody, request).await;
    let nobody_there = |error| RequestError::kind(&error) == RequestErrorKind::NoResponders;
    answer.is_err_and(nobody_there) && began.elapsed() <= MAX_TIMER_LAG
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> (watch::Sender<Instant>, StallGuard) {
        let (disturbed, seen) = watch::channel(Instant::now());
        (disturbed, StallGuard::begun(seen, None))
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_of_the_process_is_one_of_each_project_but_not_the_other_way_round() {
        let (_nats, process) = process();
        let (one, other) = (process.of_project(), process.of_project());
        tokio::time::advance(Duration::from_secs(5)).await;
        one.reset_all("test");
        assert_eq!(one.since(), Instant::now());
        assert!(other.since() < one.since());
        tokio::time::advance(Duration::from_secs(5)).await;
        process.reset_all("test");
        assert_eq!(one.since(), Instant::now());
        assert_eq!(other.since(), Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_just_after_a_standstill_learns_of_it_before_any_timer() {
        let (_nats, process) = process();
        let project = process.of_project();
        tokio::time::advance(Duration::from_mins(1)).await;
        let unwatched = project.since();
        assert!(unwatched < Instant::now());
        process.looks();
        tokio::time::advance(LOOKED_WITHIN).await;
        assert_eq!(project.since(), unwatched);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(project.since(), Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reconnect_is_a_stall_of_all() {
        let (nats, process) = process();
        let project = process.of_project();
        tokio::time::advance(Duration::from_secs(5)).await;
        nats.send_replace(Instant::now());
        assert_eq!(project.since(), Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_fires_more_than_a_second_late_is_a_stall() {
        let (_nats, process) = process();
        let due = Instant::now();
        tokio::time::advance(MAX_TIMER_LAG).await;
        process.timer_fired(due);
        assert_eq!(process.since(), due);
        tokio::time::advance(Duration::from_millis(1)).await;
        process.timer_fired(due);
        assert_eq!(process.since(), Instant::now());
    }
}
