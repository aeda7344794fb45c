//! One supervised child: an actor of a tree, or a tree of the root. Pure: events and the time come in, effects go out.
//!
//! A supervisor keeps one [`Child`] for each thing that it runs, tells it what happened and carries out the one effect
//! that it answers with. Everything that differs is an argument: what an exhaustion leads to ([`Exhaustion`]), whether a
//! child loads after its start ([`Event::Started`]), and whether a former incarnation may be left ([`Event::Begin`]).
//!
//! # States
//! | state | means |
//! |---|---|
//! | idle | has not begun, waits for its turn |
//! | pausing | backs off, or is parked; nothing of it runs when the pause is over |
//! | starting | an incarnation is being made |
//! | loading | it runs, and is not up (yet, or any more: a tree with an actor that restarts) |
//! | up | it runs, and works |
//! | stopping | it runs, and was asked to end |
//! | gone | stopped, or escalated: it never runs again |
//!
//! # Events
//! What is not in the table changes nothing. "Crash" is the line at the end.
//!
//! | state | event | becomes | effect |
//! |---|---|---|---|
//! | idle | begin, nothing is left of a former incarnation | starting | start |
//! | idle | begin, something may be left | pausing | pause, of no length |
//! | pausing | pause over, the former incarnation has ended | starting | start |
//! | pausing | pause over, the former incarnation has not ended | – | crash |
//! | starting | started, loads after it | loading | load |
//! | starting | started | up | announce |
//! | starting | start failed, or ended | – | crash |
//! | starting, loading | up (a child may have loaded before its start is known to have ended) | up | announce |
//! | up | down | loading | none |
//! | loading, up | ended | – | crash |
//! | idle, pausing, starting | stop | gone | forget |
//! | loading, up | stop | stopping | drain |
//! | stopping | ended | gone | forget |
//! | *crash* | the policy allows a restart | pausing | pause, for the backoff |
//! | *crash* | exhausted, [`Exhaustion::Parks`] | pausing | park: a longer pause, of which somebody who calls may see the end sooner |
//! | *crash* | exhausted, [`Exhaustion::Escalates`] | gone | escalate, once |
//!
//! # Failure cases
//! - **A late outcome.** Pauses and starts have numbers (attempts), and an event that carries another number than the last
//!   changes nothing: a timer that fires when its pause was given up starts nothing, and a start that ends well after it
//!   timed out is not announced. The numbers are the supervisor's: no two of its children, nor two of one name after each
//!   other, have the same.
//! - **A start that hangs, a former incarnation that blocks its thread.** The supervisor bounds both and says how they ended;
//!   there is never a second incarnation beside one that has not ended.
//! - **A crash while it stops** is the end that was asked for. **A stop during a pause or a start**: it is gone, and the start
//!   is abandoned by whoever carries out the effect.
//! - **A parked child** is on trial until it is up: one crash before that parks it again, for twice as long, up to
//!   the maximum ([`RestartHistory::give_up`]). Once up, it has all of its restarts again.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::policy::{RestartHistory, RestartPolicy, RestartVerdict};

/// What happened to a child. `attempt`: the number of the pause or start that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// It is its turn. `former_ended`: nothing can be left of an incarnation from before.
    Begin { former_ended: bool },
    /// The pause is over. `former_ended`: the incarnation from before has ended.
    PauseOver { attempt: u64, former_ended: bool },
    /// An incarnation was made. `loads`: it says itself when it is up.
    Started { attempt: u64, loads: bool },
    /// No incarnation could be made, or not in time.
    StartFailed { attempt: u64, reason: Arc<str> },
    /// It works.
    Up { attempt: u64 },
    /// It runs, and does not work.
    Down { attempt: u64 },
    /// Its incarnation has ended.
    Ended { attempt: u64, reason: Arc<str> },
    /// It is not to run any more.
    Stop,
}

/// What a supervisor has to do then. Each one replaces what it did for the child before: a pause, or the watching of
/// a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// Tell [`Event::PauseOver`] after this time, and when the incarnation from before has ended, or does not.
    /// `crash`: why, unless it is the first start.
    Pause {
        attempt: u64,
        after: Duration,
        crash: Option<Arc<str>>,
    },
    /// It crashed too often. As a pause, and over sooner when somebody calls it.
    Park {
        attempt: u64,
        after: Duration,
        crash: Arc<str>,
    },
    /// It crashed too often: this supervisor ends its children and then itself.
    Escalate { crash: Arc<str> },
    /// Make an incarnation, and tell how that ends, in a bounded time.
    Start { attempt: u64 },
    /// It runs: it is to be let alone until it says that it is up.
    Load,
    /// It is up: whoever waits for it may know.
    Announce,
    /// Ask it to end.
    Drain,
    /// Nothing of it is left but perhaps a start that is under way, which is to be abandoned.
    Forget,
}

/// What becomes of a child that crashes more often than its policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exhaustion {
    /// Its supervisor ends, which is a crash one level up.
    Escalates,
    /// It is given up for a while, and then tried again.
    Parks,
}

/// A child is in one of these; see the table above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Pausing,
    Starting,
    Loading,
    Up,
    Stopping,
    Gone,
}

/// What an event is judged by.
pub(super) struct Circumstances<'a> {
    pub(super) policy: &'a RestartPolicy,
    pub(super) now: Instant,
    /// In `0.0..1.0`.
    pub(super) jitter: f64,
    /// The last number that this supervisor has given.
    pub(super) last_attempt: &'a mut u64,
}

/// Why a child is parked, until it is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parked {
    pub(super) reason: Arc<str>,
    /// `None`: it is being tried.
    pub(super) next_try: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Child {
    exhaustion: Exhaustion,
    phase: Phase,
    attempt: u64,
    history: RestartHistory,
    was_up: bool,
    parked: Option<Parked>,
}

impl Child {
    pub(super) fn new(exhaustion: Exhaustion) -> Self {
        Self {
            exhaustion,
            phase: Phase::Idle,
            attempt: 0,
            history: RestartHistory::default(),
            was_up: false,
            parked: None,
        }
    }

    /// What has to be done about an event.
    pub(super) fn on(&mut self, event: Event, at: &mut Circumstances<'_>) -> Effect {
        if event.attempt().is_some_and(|of| of != self.attempt) {
            return Effect::None;
        }
        match (self.phase, event) {
            (Phase::Idle, Event::Begin { former_ended: true })
            | (
                Phase::Pausing,
                Event::PauseOver {
                    former_ended: true, ..
                },
            ) => self.start(at),
            (
                Phase::Idle,
                Event::Begin {
                    former_ended: false,
                },
            ) => self.pause(Duration::ZERO, None, at),
            (Phase::Pausing, Event::PauseOver { .. }) => {
                let reason = "its former incarnation blocks a thread and does not end";
                self.crash(reason.into(), at)
            }
            (Phase::Starting, Event::Started { loads: true, .. }) => {
                self.phase = Phase::Loading;
                Effect::Load
            }
            (Phase::Starting, Event::Started { .. })
            | (Phase::Starting | Phase::Loading, Event::Up { .. }) => self.up(at),
            (Phase::Up, Event::Down { .. }) => {
                self.phase = Phase::Loading;
                self.history.note_up(at.policy, at.now, false);
                Effect::None
            }
            (Phase::Starting, Event::StartFailed { reason, .. })
            | (Phase::Starting | Phase::Loading | Phase::Up, Event::Ended { reason, .. }) => {
                self.crash(reason, at)
            }
            (Phase::Loading | Phase::Up, Event::Stop) => {
                self.phase = Phase::Stopping;
                Effect::Drain
            }
            (Phase::Idle | Phase::Pausing | Phase::Starting, Event::Stop)
            | (Phase::Stopping, Event::Ended { .. }) => {
                self.phase = Phase::Gone;
                Effect::Forget
            }
            _ => Effect::None,
        }
    }

    pub(super) const fn phase(&self) -> Phase {
        self.phase
    }

    /// The number of the last pause or start.
    pub(super) const fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Whether it has been up.
    pub(super) const fn was_up(&self) -> bool {
        self.was_up
    }

    /// It was given up, and has not been up since.
    pub(super) const fn parked(&self) -> Option<&Parked> {
        self.parked.as_ref()
    }

    /// Idle or Pausing → Starting.
    fn start(&mut self, at: &mut Circumstances<'_>) -> Effect {
        self.phase = Phase::Starting;
        if let Some(parked) = &mut self.parked {
            parked.next_try = None;
        }
        let attempt = self.next_attempt(at);
        Effect::Start { attempt }
    }

    /// Starting or Loading → Up.
    fn up(&mut self, at: &Circumstances<'_>) -> Effect {
        self.phase = Phase::Up;
        self.was_up = true;
        self.parked = None;
        self.history.note_up(at.policy, at.now, true);
        Effect::Announce
    }

    /// Any → Pausing.
    fn pause(
        &mut self,
        after: Duration,
        crash: Option<Arc<str>>,
        at: &mut Circumstances<'_>,
    ) -> Effect {
        self.phase = Phase::Pausing;
        let attempt = self.next_attempt(at);
        Effect::Pause {
            attempt,
            after,
            crash,
        }
    }

    /// Any → Pausing, for the backoff or as a parked one, or Gone.
    fn crash(&mut self, reason: Arc<str>, at: &mut Circumstances<'_>) -> Effect {
        let verdict = self.history.record_crash(at.policy, at.now, at.jitter);
        match (verdict, self.exhaustion) {
            (RestartVerdict::RestartAfter(backoff), _) => self.pause(backoff, Some(reason), at),
            (RestartVerdict::Exhausted, Exhaustion::Escalates) => {
                self.phase = Phase::Gone;
                Effect::Escalate { crash: reason }
            }
            (RestartVerdict::Exhausted, Exhaustion::Parks) => self.park(reason, at),
        }
    }

    /// Any → Pausing, for longer.
    fn park(&mut self, reason: Arc<str>, at: &mut Circumstances<'_>) -> Effect {
        let after = self.history.give_up(at.policy, at.jitter);
        self.phase = Phase::Pausing;
        self.parked = Some(Parked {
            reason: Arc::clone(&reason),
            next_try: Some(at.now + after),
        });
        let attempt = self.next_attempt(at);
        Effect::Park {
            attempt,
            after,
            crash: reason,
        }
    }

    fn next_attempt(&mut self, at: &mut Circumstances<'_>) -> u64 {
        *at.last_attempt += 1;
        self.attempt = *at.last_attempt;
        self.attempt
    }
}

impl Event {
    const fn attempt(&self) -> Option<u64> {
        match self {
            Self::Begin { .. } | Self::Stop => None,
            Self::PauseOver { attempt, .. }
            | Self::Started { attempt, .. }
            | Self::StartFailed { attempt, .. }
            | Self::Up { attempt }
            | Self::Down { attempt }
            | Self::Ended { attempt, .. } => Some(*attempt),
        }
    }
}
