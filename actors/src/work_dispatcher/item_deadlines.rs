//! Deadlines of items: absolute times, rebuilt from the read model, in one order.
//!
//! | the item is | at its deadline |
//! |---|---|
//! | pending, held or not | it leaves the queue and fails |
//! | held by an agent | the agent is told to stop; the item fails when it says that it has, or when its grace is over |
//!
//! A completion that comes within that grace still counts.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use loom_protocol::agent::{Directive, DirectiveKind};
use loom_protocol::work::{LeaseRef, WorkStatus};
use loom_protocol::{AgentGuid, Timestamp, WorkId};
use tokio::time::Instant;

use super::actor::State;
use super::timers::Due;
use crate::domain::work::Command;
use crate::work_ledger::{Header, Operation};

/// When an item that was to fail is looked at again, in case that came to nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How many items fail together; the ledger takes so much at a time.
const TOGETHER: usize = 1_024;

/// The deadlines of unfinished items.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    due: BTreeSet<(Timestamp, WorkId)>,
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

impl Deadlines {
    /// Until when the agent may take to stop an item whose deadline has passed.
    pub fn grace_of(&self, id: WorkId, attempt: u32) -> Option<Instant> {
        let overdue = self.overdue.get(&id);
        let overdue = overdue.filter(|overdue| overdue.attempt == attempt)?;
        Some(overdue.until)
    }

    fn pop_due(&mut self, now: Timestamp) -> Option<WorkId> {
        let first = *self.due.first().filter(|(at, _)| *at <= now)?;
        self.due.remove(&first);
        Some(first.1)
    }
}

impl State {
    /// Every unfinished item with a deadline is looked at then.
    pub(super) fn start_deadlines(&mut self) {
        for (id, deadline) in self.args.read.deadlines() {
            self.deadlines.due.insert((deadline, id));
        }
        self.arm_deadlines();
    }

    /// Whether an item's deadline has passed.
    pub(super) fn is_overdue(&self, header: &Header) -> bool {
        let deadline = header.deadline();
        deadline.is_some_and(|deadline| deadline <= self.args.clock.now())
    }

    /// An item was written: its deadline counts until it has ended.
    pub(super) fn run_deadline(&mut self, header: &Header) {
        let Some(deadline) = header.deadline() else {
            return;
        };
        let known = self.deadlines.overdue.get(&header.id);
        let is_told = known.is_some_and(|overdue| overdue.attempt == header.attempt);
        if header.status.is_leased() && is_told {
            return;
        }
        if let Some(overdue) = self.deadlines.overdue.remove(&header.id) {
            self.take_order_back(header.id, overdue);
        }
        if header.status.is_terminal() {
            self.deadlines.due.remove(&(deadline, header.id));
        } else {
            self.deadlines.due.insert((deadline, header.id));
            self.arm_deadlines();
        }
    }

    fn arm_deadlines(&mut self) {
        if let Some((deadline, _)) = self.deadlines.due.first() {
            let wait = deadline.since(self.args.clock.now());
            self.timers.add_look(Instant::now() + wait, Due::Deadlines);
        }
    }

    /// Deadlines have passed.
    pub(super) fn look_at_deadlines(&mut self) {
        let now = self.args.clock.now();
        let mut missed = Vec::new();
        while missed.len() < TOGETHER
            && let Some(id) = self.deadlines.pop_due(now)
        {
            let Some(header) = self.args.read.header(id) else {
                continue;
            };
            if header.status == WorkStatus::Pending {
                self.queue.remove(&header);
                self.deadlines.due.insert((now.after(LOOK_AGAIN), id));
                let attempt = header.attempt;
                let command = Arc::new(Command::MissDeadline { attempt });
                missed.push(Operation::Apply(id, command));
            } else if let Some(guid) = header.holder.filter(|_| header.status.is_leased()) {
                self.order_to_stop(guid, &header);
            }
        }
        self.fail_late(missed);
        self.arm_deadlines();
    }

    /// Pending → Failed. What comes of it is heard from the read model.
    fn fail_late(&mut self, operations: Vec<Operation>) {
        if operations.is_empty() {
            return;
        }
        let Ok(answer) = self.args.ledger.begin(operations) else {
            return;
        };
        self.spawn(async move {
            for outcome in answer.await.unwrap_or_default() {
                if let Err(error) = outcome {
                    tracing::debug!("an item past its deadline did not fail: {error}");
                }
            }
        });
    }

    /// The deadline of an item that is held has passed.
    fn order_to_stop(&mut self, guid: AgentGuid, header: &Header) {
        let grace = self.args.settings.stop_grace;
        let overdue = Overdue {
            guid,
            attempt: header.attempt,
            until: Instant::now() + grace,
        };
        let lease = LeaseRef {
            id: header.id,
            attempt: header.attempt,
        };
        let order = Directive {
            grace_ms: u64::try_from(grace.as_millis()).ok(),
            ..cancel_directive(lease, "its deadline has passed")
        };
        self.deadlines.overdue.insert(header.id, overdue);
        self.wind_up(header.id);
        self.arm_leases();
        self.give_order(guid, order);
    }

    fn take_order_back(&mut self, id: WorkId, overdue: Overdue) {
        let attempt = overdue.attempt;
        let order = cancel_directive(LeaseRef { id, attempt }, "");
        let registry = self.args.registry.clone();
        self.spawn(async move {
            if let Err(error) = registry.clear_directive(overdue.guid, order).await {
                tracing::debug!(%id, "an order to stop could not be taken back: {error}");
            }
        });
    }

    /// Tells an agent, and goes on telling it in the answers to its heartbeats.
    pub(super) fn give_order(&mut self, guid: AgentGuid, order: Directive) {
        let registry = self.args.registry.clone();
        self.spawn(async move {
            if let Err(error) = registry.add_directive(guid, order).await {
                tracing::debug!(%guid, "the agent could not be told to stop: {error}");
            }
        });
    }
}

/// The order to stop one attempt at an item.
pub(super) fn cancel_directive(lease: LeaseRef, reason: &str) -> Directive {
    Directive {
        kind: DirectiveKind::Cancel,
        work_item_id: Some(lease.id),
        attempt: Some(lease.attempt),
        reason: Some(reason.to_owned()),
        grace_ms: None,
        instance_id: None,
    }
}
