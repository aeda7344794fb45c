//! Who is told when an agent comes, changes or goes: the directory, its listeners, the events.

use loom_protocol::AgentGuid;
use loom_protocol::agent::{Agent, AgentStatus};
use loom_protocol::event::{AgentEvent, AgentEventKind, Event, EventAgent, ShutdownReason};

use super::actor::State;
use super::{AgentChange, AgentEntry};
use crate::domain::agent::differs;

/// By which way an agent goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Departure {
    /// It said so by request.
    Deregistered,
    /// Its entry was deleted, by itself as far as we know.
    Deleted,
    /// It was silent until its entry went.
    Silent,
    /// Its entry is not there any more, and nobody has deleted it.
    Vanished,
}

impl Departure {
    /// What is told of it: of one that was ordered to end, what the order was for.
    fn notice(self, entry: &AgentEntry) -> (ShutdownReason, String, bool) {
        let by_itself = matches!(self, Self::Deregistered | Self::Deleted);
        let (reason, detail) = match self {
            Self::Deregistered => (ShutdownReason::Manual, "deregistered"),
            Self::Deleted => (ShutdownReason::Manual, "its entry was deleted"),
            Self::Silent => (ShutdownReason::Error, "silent for too long"),
            Self::Vanished => (ShutdownReason::Error, "its entry has vanished"),
        };
        let Some(order) = entry.shutdown_order() else {
            return (reason, detail.to_owned(), by_itself);
        };
        let cause = entry.end_cause().unwrap_or(ShutdownReason::Manual);
        let detail = order.reason.unwrap_or_else(|| detail.to_owned());
        let had_time = order.grace_ms.is_none_or(|grace| grace > 0);
        (cause, detail, by_itself && had_time)
    }
}

impl State {
    /// Takes an agent into the directory, tells whom it concerns, and has it written.
    /// `announce`: whether it is news, or only read from the bucket.
    pub fn upsert_agent(&mut self, agent: Agent, announce: bool) {
        let guid = agent.guid;
        let before = self.args.directory.get(guid);
        let after = self.args.directory.put(agent);
        if after.agent().status == AgentStatus::Offline {
            // What it said of itself is over; the leases that are left still count.
            after.set_own_count(0);
        }
        self.note_pause(before.as_ref().map(|before| before.agent()), guid);
        let Some(before) = before else {
            if announce {
                let agent = after.agent();
                self.notify(AgentEvent {
                    capabilities: Some(agent.capabilities.clone()),
                    boundaries: Some(agent.boundaries.clone()),
                    status: Some(agent.status),
                    ..self.event(AgentEventKind::Registered, agent)
                });
            }
            self.changed(guid, AgentChange::Registered);
            return;
        };
        let (before, agent) = (before.agent(), after.agent());
        if !differs(before, agent) {
            return;
        }
        // This tells the number of its items, too.
        after.take_unannounced_count();
        self.notify(AgentEvent {
            previous_status: Some(before.status),
            new_status: Some(agent.status),
            current_task_count: Some(after.snapshot().current_task_count),
            ..self.event(AgentEventKind::Updated, agent)
        });
        let change = match agent.status {
            AgentStatus::Offline => AgentChange::Offline,
            _ => AgentChange::Updated,
        };
        self.changed(guid, change);
    }

    fn changed(&self, guid: AgentGuid, change: AgentChange) {
        self.args.directory.changes().notify((guid, change));
    }

    /// Any → gone.
    pub fn remove_agent(&mut self, guid: AgentGuid, how: Departure) {
        let Some(entry) = self.args.directory.remove(guid) else {
            return;
        };
        self.pauses.remove(entry.agent());
        let (reason, detail, graceful) = how.notice(&entry);
        self.notify(AgentEvent {
            reason: Some(reason),
            detail: Some(detail),
            graceful: Some(graceful),
            ..self.event(AgentEventKind::Shutdown, entry.agent())
        });
        self.args.directory.departures().notify(entry);
        self.changed(guid, AgentChange::Gone);
    }

    pub fn event(&self, kind: AgentEventKind, agent: &Agent) -> AgentEvent {
        AgentEvent {
            kind,
            timestamp: self.now(),
            project_id: self.args.project.to_string(),
            agent: EventAgent::from(agent),
            capabilities: None,
            boundaries: None,
            status: None,
            previous_status: None,
            new_status: None,
            current_task_count: None,
            reason: None,
            detail: None,
            graceful: None,
        }
    }

    pub fn notify(&self, event: AgentEvent) {
        self.args.events.emit(Event::Agent(Box::new(event)));
    }
}
