//! What becomes of an entry when a read or a write of it has ended.

use loom_protocol::agent::Agent;
use loom_protocol::{AgentGuid, WireError};
use tokio::time::Instant;

use super::actor::State;
use super::entry_state::{InFlightWrite, Keeper, PendingRequest, RecheckReason};
use super::messages::{RETRY_AFTER, answer};
use super::notifications::Departure;
use super::writes::not_owner;
use crate::domain::agent::{Verdict, differs};
use crate::keyed_writer::AfterWrite;
use crate::nats::error::{Cause, StoreError, StoreErrorKind};
use crate::nats::kv::Record;

/// How often a request is tried again after a conflict.
const MOST_CONFLICTS: u32 = 5;

impl State {
    /// Each outcome of a write, and what it means for the entry.
    pub fn write_ended(&mut self, guid: AgentGuid, outcome: Result<u64, StoreError>) {
        let Some(doing) = self.writer.ended(&guid) else {
            return;
        };
        let shared_now = self.args.directory.get(guid);
        let shared_now = shared_now.and_then(|entry| entry.shared_place());
        let slot = self.entries.of(guid);
        match AfterWrite::of(outcome, false) {
            // It lives: judged anew, by what it put.
            AfterWrite::Stored(revision)
                if doing.is_removal_overtaken(slot.revision > revision, shared_now.as_ref()) =>
            {
                self.conflicted(guid, &doing);
            }
            AfterWrite::Stored(revision) => {
                // The watch may have told already what somebody wrote afterwards: the entry is not as we left it.
                let is_overtaken = slot.revision > revision;
                slot.revision = revision;
                slot.conflicts.end();
                self.stored(guid, doing);
                if is_overtaken {
                    let slot = self.slot(guid);
                    slot.in_doubt = true;
                    slot.dirty = true;
                }
            }
            AfterWrite::Overtaken => self.conflicted(guid, &doing),
            AfterWrite::InDoubt(error) => {
                tracing::debug!(%guid, "a write to the agents bucket is in doubt: {error}");
                slot.in_doubt = true;
                if doing.is_chore() {
                    slot.dirty = true;
                } else {
                    slot.question = Some(RecheckReason::Stored);
                }
                let message = format!(
                    "NATS did not confirm the change of agent {guid} ({}); try again with the same guid",
                    error.reason()
                );
                self.refuse_awaited(guid, &doing, WireError::unavailable(message, RETRY_AFTER));
                // Not at once: the sweep tries again what nobody waits for.
                return;
            }
            AfterWrite::Refused(error) | AfterWrite::NotYet(error)
                if error.kind() == StoreErrorKind::Refused(Cause::NotOwner) =>
            {
                slot.dirty |= doing.is_chore();
                return self.refuse_awaited(guid, &doing, not_owner(guid));
            }
            AfterWrite::Refused(error) | AfterWrite::NotYet(error) => {
                let is_for_good = error.kind() == StoreErrorKind::Refused(Cause::TooLarge);
                slot.dirty |= doing.is_chore() && !is_for_good;
                if let Some(passed_over) = self.refusals.comes(std::time::Instant::now()) {
                    tracing::error!(%guid, passed_over, "NATS refuses a write to the agents bucket: {error}");
                }
                self.args.health.refused(&error);
                let message = format!(
                    "NATS refuses to store agent {guid}: {}; give JetStream room, and try again with the same guid",
                    error.why()
                );
                let error = WireError::unavailable(message, RETRY_AFTER);
                return self.refuse_awaited(guid, &doing, error);
            }
        }
        self.queue(guid);
        self.forget_if_idle(guid);
    }

    fn stored(&mut self, guid: AgentGuid, doing: InFlightWrite) {
        match doing {
            InFlightWrite::Registering { agent, .. } => self.registered(guid, &agent),
            InFlightWrite::Removing { .. } => self.removed(guid),
            InFlightWrite::Retiring { agent, .. } => self.retired(guid, *agent),
            InFlightWrite::Flushing {
                heartbeat, count, ..
            } => {
                let slot = self.slot(guid);
                slot.written_heartbeat = heartbeat;
                slot.written_count = count;
                slot.written_at = Some(Instant::now());
                slot.holds = true;
                slot.keeper = Keeper::Registry;
            }
            InFlightWrite::Showing { shown, .. } => {
                let slot = self.slot(guid);
                slot.shown = shown;
                slot.shown_by_us = true;
            }
            InFlightWrite::Remembering { shown, .. } => {
                let slot = self.slot(guid);
                slot.shown = shown;
                slot.holds = true;
            }
            InFlightWrite::Forgetting { .. } => {
                let slot = self.slot(guid);
                slot.shown = Verdict::default();
                slot.holds = false;
            }
            InFlightWrite::Reading => {}
        }
    }

    fn registered(&mut self, guid: AgentGuid, written: &Agent) {
        let slot = self.slot(guid);
        slot.written_heartbeat = written.last_heartbeat;
        slot.written_at = Some(Instant::now());
        slot.holds = true;
        slot.keeper = Keeper::Registry;
        let key = slot.key(guid);
        let was_quarantined = std::mem::take(&mut slot.quarantined);
        let order = self.writer.take_first(&guid);
        if was_quarantined {
            self.args.directory.forget_unreadable(&key);
        }
        let Some(PendingRequest::Register {
            registration,
            reply,
        }) = order
        else {
            return;
        };
        let request = &registration.request;
        // Memory may have moved on while the write was under way.
        let agent = match self.args.directory.get(guid) {
            Some(_) => self
                .draft(guid, &registration)
                .unwrap_or_else(|_| written.clone()),
            None => written.clone(),
        };
        if differs(&agent, written) {
            self.slot(guid).dirty = true;
        }
        let another_run = !self.goes_on(guid, request);
        if another_run && let Some(known) = self.args.directory.get(guid) {
            known.begin_anew(request.instance_id.is_some());
        }
        self.upsert_agent(agent, true);
        if another_run {
            self.note_pause(None, guid);
        }
        if let Some(entry) = self.args.directory.get(guid) {
            answer(reply, Ok(entry.snapshot()));
        }
    }

    /// The entry is not in the bucket any more.
    pub fn removed(&mut self, guid: AgentGuid) {
        let slot = self.slot(guid);
        slot.holds = false;
        slot.shown = Verdict::default();
        match self.writer.take_first(&guid) {
            Some(PendingRequest::Deregister { reply }) => {
                self.remove_agent(guid, Departure::Deregistered);
                answer(reply, Ok(()));
            }
            Some(PendingRequest::Bury { reply, .. }) => {
                self.remove_agent(guid, Departure::Silent);
                answer(reply, Ok(true));
            }
            Some(PendingRequest::Register { .. } | PendingRequest::TidyUp) | None => {}
        }
        self.queue(guid);
        self.forget_if_idle(guid);
    }

    /// The entry says in the bucket that its agent has left in quarantine.
    pub fn retired(&mut self, guid: AgentGuid, agent: Agent) {
        let holds = !self.bucket_view.is_missing();
        let slot = self.slot(guid);
        slot.holds = holds;
        slot.shown = Verdict::of(&agent);
        let order = self.writer.take_first(&guid);
        self.remove_quarantined(agent);
        if let Some(PendingRequest::Deregister { reply }) = order {
            answer(reply, Ok(()));
        }
    }

    /// Somebody wrote in between: read, merge, again. The watch may have told it already.
    fn conflicted(&mut self, guid: AgentGuid, doing: &InFlightWrite) {
        let (InFlightWrite::Registering { expected, .. }
        | InFlightWrite::Removing { expected, .. }
        | InFlightWrite::Retiring { expected, .. }
        | InFlightWrite::Flushing { expected, .. }
        | InFlightWrite::Showing { expected, .. }
        | InFlightWrite::Remembering { expected, .. }
        | InFlightWrite::Forgetting { expected }) = doing
        else {
            return;
        };
        let slot = self.slot(guid);
        slot.in_doubt = slot.revision <= *expected;
        slot.dirty |= doing.is_chore();
        slot.raw = None;
        if !slot.conflicts.decide_again(MOST_CONFLICTS) {
            let message = format!(
                "the entry of agent {guid} was changed by others {MOST_CONFLICTS} times in a row; try again"
            );
            let error = WireError::unavailable(message, RETRY_AFTER);
            self.refuse_awaited(guid, doing, error);
        }
    }

    /// What the bucket holds, from the leader.
    pub fn read_ended(&mut self, guid: AgentGuid, outcome: Result<Option<Record>, StoreError>) {
        self.writer.ended(&guid);
        match outcome {
            Ok(record) => {
                let slot = self.slot(guid);
                slot.in_doubt = false;
                let question = slot.question.take();
                if let Some(record) = record {
                    self.on_record(&record, true);
                    let slot = self.slot(guid);
                    if slot.revision == record.revision && slot.key(guid) == record.key {
                        slot.raw = record.value.filter(|_| slot.wants_raw);
                    }
                    slot.wants_raw = false;
                } else {
                    slot.revision = 0;
                    slot.holds = false;
                    slot.wants_raw = false;
                    slot.shown = Verdict::default();
                    slot.shown_by_us = false;
                    if question == Some(RecheckReason::Gone) {
                        self.entry_lost(guid);
                    }
                }
                self.queue(guid);
                self.forget_if_idle(guid);
            }
            Err(error) => {
                let message = format!(
                    "the entry of agent {guid} cannot be read just now ({error}); try again"
                );
                let error = WireError::unavailable(message, RETRY_AFTER);
                // Not at once: the sweep reads again what nobody waits for.
                if let Some(request) = self.writer.take_first(&guid) {
                    request.refuse(error);
                }
                self.forget_if_idle(guid);
            }
        }
    }

    /// Answers the request that a failed write was for.
    fn refuse_awaited(&mut self, guid: AgentGuid, doing: &InFlightWrite, error: WireError) {
        if !doing.is_chore() {
            self.refuse_first(guid, error);
        }
    }

    /// Answers the request that is first in line.
    pub fn refuse_first(&mut self, guid: AgentGuid, error: WireError) {
        if let Some(order) = self.writer.take_first(&guid) {
            order.refuse(error);
        }
        self.queue(guid);
        self.forget_if_idle(guid);
    }
}
