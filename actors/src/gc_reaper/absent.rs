//! Agents that are linked to a target and have no entry: they have left, or were linked and never came.
//!
//! | how it is known | its target is freed |
//! |---|---|
//! | its entry is gone: it has deregistered, was buried, or somebody has removed it | after [`TO_LEAVE`], in which it ends by itself |
//! | its ticket was redeemed, and what became of its registration is not known | when it was silent for `stale_after`, past a barrier |
//! | it was linked when the links were read | the same |
//!
//! Whoever has an entry by then is judged by that.

use std::collections::HashMap;
use std::time::Duration;

use loom_protocol::AgentGuid;
use tokio::time::Instant;

use super::actions::RETRY;
use super::actor::{GcReaperMsg, State};
use super::reap_action::ReapAction;

/// How long the process of an agent that has left may take to end by itself, before it is told to.
const TO_LEAVE: Duration = Duration::from_secs(2);

/// Such agents, with what is known of each.
#[derive(Debug, Default)]
pub(super) struct Absent(HashMap<AgentGuid, Awaited>);

#[derive(Debug, Clone, Copy)]
struct Awaited {
    since: Instant,
    has_left: bool,
}

impl Absent {
    /// It has an entry.
    pub fn forget(&mut self, guid: AgentGuid) {
        self.0.remove(&guid);
    }
}

impl State {
    /// Its entry is gone.
    pub(super) fn has_left(&mut self, guid: AgentGuid) {
        if self.args.born.is_linked(guid) {
            let awaited = Awaited {
                since: Instant::now(),
                has_left: true,
            };
            self.absent.0.insert(guid, awaited);
            self.look(guid);
        }
    }

    /// It may be linked in a moment, and has no entry yet.
    pub(super) fn expect(&mut self, guid: AgentGuid) {
        let awaited = Awaited {
            since: Instant::now(),
            has_left: false,
        };
        self.absent.0.insert(guid, awaited);
        self.look(guid);
    }

    /// Whoever is linked is to be there, or to come.
    pub(super) fn look_at_links(&mut self) {
        for guid in self.args.born.all() {
            self.absent.0.entry(guid).or_insert_with(|| Awaited {
                since: Instant::now(),
                has_left: false,
            });
            self.look(guid);
        }
    }

    /// Absent → absent, suspect, or in hand.
    pub(super) fn look_at_absent(&mut self, guid: AgentGuid) {
        match self.left_to_come(guid) {
            None => {}
            Some(left) if !left.is_zero() => self.deadlines.set(guid, Instant::now() + left),
            Some(_) if self.absent.0.get(&guid).is_some_and(|awaited| awaited.has_left) => {
                self.judge_absent(guid);
            }
            Some(_) => {
                self.suspects.insert(guid);
            }
        }
    }

    /// Absent or suspect → in hand, unless there is still time.
    pub(super) fn judge_absent(&mut self, guid: AgentGuid) {
        let Some(left) = self.left_to_come(guid) else {
            return;
        };
        if !left.is_zero() {
            return self.deadlines.set(guid, Instant::now() + left);
        }
        let (born, directory) = (&self.args.born, &self.args.directory);
        if !born.are_known() || !directory.is_loaded() {
            return self.deadlines.set(guid, Instant::now() + RETRY);
        }
        if !born.is_linked(guid) {
            self.absent.0.remove(&guid);
            return;
        }
        if self.is_draining() {
            return;
        }
        self.in_progress.insert(guid, ReapAction::FreeTarget);
        let (born, grace) = (born.clone(), self.args.settings.idle_grace);
        let freeing = async move {
            let freed = born.free_target(guid, grace).await;
            freed.map_err(|error| error.message)
        };
        self.run(freeing, move |outcome| {
            let outcome = outcome.unwrap_or_else(|| Err("its task panicked".to_owned()));
            Some(GcReaperMsg::Freed { guid, outcome })
        });
    }

    /// In hand → nothing, or absent.
    pub(super) fn freed(&mut self, guid: AgentGuid, outcome: Result<(), String>) {
        self.in_progress.remove(&guid);
        match outcome {
            Ok(()) => {
                tracing::info!(project = %self.args.project, %guid, "the target of an agent that is gone is free");
                self.absent.0.remove(&guid);
                self.look(guid);
            }
            Err(problem) => {
                tracing::warn!(%guid, "the target of an agent that is gone is not free yet: {problem}");
                self.deadlines.set(guid, Instant::now() + RETRY);
            }
        }
    }

    /// How long an agent without an entry may still take to come, or to go; `None`: nobody waits for it.
    fn left_to_come(&self, guid: AgentGuid) -> Option<Duration> {
        let awaited = self.absent.0.get(&guid)?;
        let (since, allowance) = if awaited.has_left {
            (awaited.since, TO_LEAVE)
        } else {
            let grace = self.args.barrier.grace().since();
            (awaited.since.max(grace), self.args.terms().allowance(None, true))
        };
        Some(allowance.saturating_sub(since.elapsed()))
    }
}
