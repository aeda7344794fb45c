//! Deadlines of items: absolute times, rebuilt from the read model, in one order.
//!
//! | the item is | at its deadline |
//! |---|---|
//! | pending, delayed or not | it leaves the queue and fails |
//! | held by an agent | the agent is told to stop; the item fails when it says that it has, or when its grace is over |
//!
//! A completion that comes within that grace still counts.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::agent::Directive;
use loom_protocol::work::{LeaseRef, WorkStatus};
use loom_protocol::{AgentGuid, Timestamp, WorkId};
use tokio::time::Instant;

use super::env::DispatcherEnv;
use super::messages::DispatcherTimer;
use crate::deadline_queue::DeadlineQueue;
use crate::domain::work::Command;
use crate::hashing::HashMap;
use crate::work_ledger::{Header, Operation};

/// When an item that was to fail is looked at again, in case that came to nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How many items fail together; the ledger takes so much at a time.
const TOGETHER: usize = 1_024;

/// The deadlines of unfinished items.
#[derive(Debug, Default)]
pub(super) struct ItemDeadlines {
    due: DeadlineQueue<WorkId, Timestamp>,
    overdue: HashMap<WorkId, Overdue>,
}

/// An item that is held past its deadline: its agent was told.
#[derive(Debug, Clone, Copy)]
struct Overdue {
    guid: AgentGuid,
    attempt: u32,
    /// How long the agent may take to stop.
    until: Instant,
}

/// What has passed its deadline just now.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// Pending items: they fail, and nobody is to be given them.
    pub pending: Vec<Header>,
    /// Items whose agents were told to stop: from now on their leases end by their grace.
    pub leased: Vec<WorkId>,
}

impl ItemDeadlines {
    /// Every unfinished item with a deadline is looked at then.
    pub fn start(env: &DispatcherEnv) -> Self {
        let mut deadlines = Self::default();
        for (id, deadline) in env.args.read.deadlines() {
            deadlines.due.set(id, deadline);
        }
        deadlines
    }

    /// Until when the agent may take to stop an item whose deadline has passed.
    pub fn stop_grace_of(&self, id: WorkId, attempt: u32) -> Option<Instant> {
        let overdue = self.overdue.get(&id);
        let overdue = overdue.filter(|overdue| overdue.attempt == attempt)?;
        Some(overdue.until)
    }

    /// An item was written: its deadline counts until it has ended.
    pub fn item_changed(&mut self, env: &mut DispatcherEnv, header: &Header) {
        let Some(deadline) = header.deadline() else {
            return;
        };
        let known = self.overdue.get(&header.id);
        let is_told = known.is_some_and(|overdue| overdue.attempt == header.attempt);
        if header.status.is_leased() && is_told {
            return;
        }
        if let Some(overdue) = self.overdue.remove(&header.id) {
            let (id, attempt) = (header.id, overdue.attempt);
            env.clear_cancel_directive(overdue.guid, LeaseRef { id, attempt });
        }
        if header.status.is_terminal() {
            self.due.remove(&header.id);
        } else {
            self.due.set(header.id, deadline);
        }
    }

    /// The timer has fired: pending items fail, and the agents of the others are told to stop.
    pub fn timer_due(&mut self, env: &mut DispatcherEnv, epoch: u64) -> Passed {
        let mut passed = Passed::default();
        if self.due.fired(epoch).is_none() {
            return passed;
        }
        let now = env.args.clock.now();
        while passed.pending.len() < TOGETHER
            && let Some(id) = self.due.pop_due(now)
        {
            let Some(header) = env.args.read.header(id) else {
                continue;
            };
            if header.status == WorkStatus::Pending {
                self.due.set(id, now.after(LOOK_AGAIN));
                passed.pending.push(header);
            } else if let Some(guid) = header.holder.filter(|_| header.status.is_leased()) {
                self.order_to_stop(env, guid, &header);
                passed.leased.push(id);
            }
        }
        fail(env, &passed.pending);
        passed
    }

    /// The deadline of an item that is held has passed.
    fn order_to_stop(&mut self, env: &mut DispatcherEnv, guid: AgentGuid, header: &Header) {
        let grace = env.args.settings.stop_grace;
        let (id, attempt) = (header.id, header.attempt);
        let overdue = Overdue {
            guid,
            attempt,
            until: Instant::now() + grace,
        };
        self.overdue.insert(id, overdue);
        let directive = Directive {
            grace_ms: u64::try_from(grace.as_millis()).ok(),
            ..Directive::cancel(
                LeaseRef { id, attempt },
                Some("its deadline has passed".into()),
            )
        };
        env.add_directive(guid, directive);
    }

    pub fn arm(&mut self, env: &DispatcherEnv) {
        env.arm_by_date(DispatcherTimer::ItemDeadlines, self.due.next_to_arm());
    }
}

/// Pending → Failed. What comes of it is heard from the read model.
fn fail(env: &mut DispatcherEnv, items: &[Header]) {
    if items.is_empty() {
        return;
    }
    let operations = items.iter().map(|header| {
        let attempt = header.attempt;
        Operation::Apply(header.id, Arc::new(Command::MissDeadline { attempt }))
    });
    let Ok(answer) = env.args.ledger.begin(operations.collect()) else {
        return;
    };
    env.spawn(async move {
        for outcome in answer.await.unwrap_or_default() {
            if let Err(error) = outcome {
                tracing::debug!("an item past its deadline did not fail: {error}");
            }
        }
    });
}
