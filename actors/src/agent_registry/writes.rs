//! How memory gets into the bucket: one compare-and-set at a time for each entry, many entries at
//! once, registrations and removals first.

use std::borrow::Cow;
use std::time::Duration;

use async_nats::connection::State as Connection;
use bytes::Bytes;
use loom_protocol::agent::{Agent, AgentStatus, RegisterRequest};
use loom_protocol::{AgentGuid, ErrorCode, Timestamp, WireError};

use super::actor::{Msg, State, answer};
use super::entry_state::{EntryState, InFlightWrite, Keeper, PendingRequest};
use super::requests::is_dead;
use super::shared::delete_shared;
use super::watch_events::is_missed;
use crate::domain::agent::OwnEntry;
use crate::nats::error::{StoreError, StoreErrorKind};

/// How many reads and writes are under way at once.
const AT_ONCE: usize = 256;
/// How many requests may wait for one entry.
const MAX_ORDERS: usize = 16;
/// What a refused client is told to wait.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(500);

impl State {
    /// The slot of an entry.
    pub fn slot(&mut self, guid: AgentGuid) -> &mut EntryState {
        let in_doubt = !self.has_read;
        self.slots.entry(guid).or_insert_with(|| EntryState {
            in_doubt,
            ..EntryState::default()
        })
    }

    /// Takes an order for an entry.
    pub fn order(&mut self, guid: AgentGuid, order: PendingRequest) {
        if self.draining.is_some() {
            let message = "the coordinator is shutting down; try again in a moment";
            return order.refuse(WireError::unavailable(message, RETRY_AFTER));
        }
        if self.is_fenced() {
            return order.refuse(not_owner(guid));
        }
        let slot = self.slot(guid);
        if slot.orders.len() >= MAX_ORDERS {
            let message = format!("{MAX_ORDERS} requests about agent {guid} are waiting already");
            return order.refuse(WireError::overloaded(message, RETRY_AFTER));
        }
        slot.orders.push_back(order);
        self.backlog.urgent.push_back(guid);
    }

    /// Has an entry written when there is time.
    pub fn mark_dirty(&mut self, guid: AgentGuid) {
        self.slot(guid).dirty = true;
        self.queue(guid);
    }

    /// Puts an entry in line, if there is something to do for it.
    pub fn queue(&mut self, guid: AgentGuid) {
        let Some(slot) = self.slots.get_mut(&guid) else {
            return;
        };
        if !slot.orders.is_empty() {
            self.backlog.urgent.push_back(guid);
        } else if slot.has_chores() && !slot.queued {
            slot.queued = true;
            self.backlog.idle.push_back(guid);
        }
    }

    /// Begins what can be begun.
    pub fn work_off(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        while self.backlog.under_way < AT_ONCE {
            let Some(guid) = self.next_guid() else {
                break;
            };
            self.advance(guid);
        }
        self.finish_drain();
    }

    fn next_guid(&mut self) -> Option<AgentGuid> {
        if let Some(guid) = self.backlog.urgent.pop_front() {
            return Some(guid);
        }
        let guid = self.backlog.idle.pop_front()?;
        if let Some(slot) = self.slots.get_mut(&guid) {
            slot.queued = false;
        }
        Some(guid)
    }

    /// The next step of one entry.
    fn advance(&mut self, guid: AgentGuid) {
        let Some(slot) = self.slots.get_mut(&guid) else {
            return;
        };
        if slot.doing.is_some() {
            return;
        }
        if slot.orders.is_empty() && !slot.has_chores() {
            return self.forget_if_idle(guid);
        }
        if self.is_fenced() {
            // What nobody waits for stays in mind: the ownership may be had again.
            while let Some(order) = self.slot(guid).orders.pop_front() {
                order.refuse(not_owner(guid));
            }
            return;
        }
        let missing = self.bucket_missing;
        let Some(slot) = self.slots.get_mut(&guid) else {
            return;
        };
        if slot.in_doubt && !missing {
            return self.begin_reading(guid);
        }
        // The watch was faster than the reading.
        slot.question = None;
        match slot.orders.front() {
            Some(PendingRequest::Register { request, .. }) => {
                let request = request.clone();
                match self.draft(guid, &request) {
                    Ok(agent) => self.begin_registering(guid, agent, &request),
                    Err(error) => self.refuse_first(guid, error),
                }
            }
            Some(PendingRequest::Deregister { .. }) => match self.quarantined(guid) {
                Some(agent) => self.begin_retiring(guid, agent),
                None => self.begin_removing(guid),
            },
            Some(PendingRequest::TidyUp) => self.begin_removing(guid),
            Some(PendingRequest::Bury { silent_since, .. }) => {
                let silent_since = *silent_since;
                self.begin_burying(guid, silent_since);
            }
            None if slot.dirty => self.begin_flushing(guid),
            None => self.forget_if_idle(guid),
        }
    }

    /// A slot without an agent is kept only while it has something to do.
    pub fn forget_if_idle(&mut self, guid: AgentGuid) {
        let gone = self.args.directory.get(guid).is_none();
        if gone && self.slots.get(&guid).is_some_and(EntryState::is_at_rest) {
            self.slots.remove(&guid);
        }
    }

    pub fn begin_reading(&mut self, guid: AgentGuid) {
        let bucket = self.bucket.clone();
        let resource = bucket.resource().clone();
        let key = self.slot(guid).key(guid);
        self.begin(guid, InFlightWrite::Reading);
        self.run(async move { bucket.last(&key).await }, move |outcome| {
            let lost = |why| Err(StoreError::unknown("reading", &resource, why));
            Msg::ReadEnded {
                guid,
                outcome: outcome.unwrap_or_else(lost),
            }
        });
    }

    fn begin_registering(&mut self, guid: AgentGuid, agent: Agent, request: &RegisterRequest) {
        // An order to end was given to a run; another run begins without it.
        let with_order = self.goes_on(guid, request);
        match self.encoded(guid, &agent, with_order) {
            Ok(value) => {
                let expected = self.slot(guid).revision;
                let agent = Box::new(agent);
                self.begin(guid, InFlightWrite::Registering { expected, agent });
                self.write_at_any_rate(guid, value, expected);
            }
            Err(error) => self.refuse_first(guid, error),
        }
    }

    fn begin_removing(&mut self, guid: AgentGuid) {
        let known = self.args.directory.get(guid).is_some();
        let slot = self.slot(guid);
        let expected = slot.revision;
        let tidying = matches!(slot.orders.front(), Some(PendingRequest::TidyUp));
        if tidying && known {
            // It has come back meanwhile.
            slot.orders.pop_front();
            return self.queue(guid);
        }
        let key = slot.holds.then(|| slot.key(guid));
        let shared = self.args.directory.get(guid);
        let shared = shared.and_then(|entry| entry.shared_place());
        if key.is_none() && shared.is_none() {
            // The buckets have nothing that could be removed.
            return self.removed(guid);
        }
        let removed = shared.clone();
        self.begin(
            guid,
            InFlightWrite::Removing {
                expected,
                shared: removed,
            },
        );
        let (bucket, args) = (self.bucket.clone(), self.args.clone());
        let writer = self.writer.clone();
        self.run_write(guid, async move {
            if let Some(place) = shared {
                delete_shared(&args, &place, &writer).await?;
            }
            match key {
                Some(key) => bucket.remove(&key, expected, &writer).await,
                None => Ok(expected),
            }
        });
    }

    /// Any → offline, of one that deregisters in quarantine: who comes back with its guid is not
    /// offered work again before an operator says so.
    fn begin_retiring(&mut self, guid: AgentGuid, agent: Agent) {
        if self.bucket_missing {
            return self.retired(guid, agent);
        }
        match self.encoded(guid, &agent, false) {
            Ok(value) => {
                let shared = self.args.directory.get(guid);
                let shared = shared.and_then(|entry| entry.shared_place());
                let slot = self.slot(guid);
                let expected = slot.revision;
                let key = slot.key(guid);
                let keeper = if shared.is_some() {
                    Keeper::Shared
                } else {
                    Keeper::Registry
                };
                slot.keeper = keeper;
                let agent = Box::new(agent);
                let retiring = InFlightWrite::Retiring {
                    expected,
                    shared: shared.clone(),
                    agent,
                };
                self.begin(guid, retiring);
                let (bucket, args) = (self.bucket.clone(), self.args.clone());
                let (writer, plain) = (keeper.writer(&self.writer), self.writer.clone());
                self.run_write(guid, async move {
                    if let Some(place) = shared {
                        delete_shared(&args, &place, &plain).await?;
                    }
                    bucket.write(&key, value, expected, &writer).await
                });
            }
            Err(error) => self.refuse_first(guid, error),
        }
    }

    /// It may have come back while it waited for its turn.
    fn begin_burying(&mut self, guid: AgentGuid, silent_since: Timestamp) {
        let entry = self.args.directory.get(guid);
        if entry.is_some_and(|entry| !is_dead(&entry, silent_since)) {
            if let Some(PendingRequest::Bury { reply, .. }) = self.slot(guid).orders.pop_front() {
                answer(reply, Ok(false));
            }
            return self.queue(guid);
        }
        self.begin_removing(guid);
    }

    /// Memory is ahead of the bucket: what of that has to be seen there?
    fn begin_flushing(&mut self, guid: AgentGuid) {
        let Some(entry) = self.args.directory.get(guid) else {
            self.slot(guid).dirty = false;
            return self.forget_if_idle(guid);
        };
        let agent = entry.snapshot();
        if self.bucket_missing {
            self.slot(guid).dirty = false;
            return;
        }
        match self.slot(guid).keeper {
            Keeper::Registry => self.begin_writing(guid, &agent),
            Keeper::Client => self.show_in_a_clients(guid, &agent),
            Keeper::Shared => self.remember_of_a_shared(guid, &agent),
        }
    }

    /// The whole entry is ours.
    pub fn begin_writing(&mut self, guid: AgentGuid, agent: &Agent) {
        match self.encoded(guid, agent, true) {
            Ok(value) => {
                let slot = self.slot(guid);
                slot.dirty = false;
                let expected = slot.revision;
                let (heartbeat, count) = (agent.last_heartbeat, agent.current_task_count);
                self.begin(
                    guid,
                    InFlightWrite::Flushing {
                        expected,
                        heartbeat,
                        count,
                    },
                );
                self.write(guid, value, expected, Keeper::Registry);
            }
            Err(error) => {
                tracing::error!(%guid, %error, "an agent cannot be written");
                self.slot(guid).dirty = false;
            }
        }
    }

    pub fn encoded(
        &self,
        guid: AgentGuid,
        agent: &Agent,
        with_order: bool,
    ) -> Result<Bytes, WireError> {
        let entry = self.args.directory.get(guid).filter(|_| with_order);
        let entry = OwnEntry {
            agent: Cow::Borrowed(agent),
            shutdown_cause: entry.as_ref().and_then(|entry| entry.end_cause()),
            shutdown_order: entry.and_then(|entry| entry.shutdown_order()),
        };
        serde_json::to_vec(&entry).map(Bytes::from).map_err(|e| {
            WireError::new(
                ErrorCode::Internal,
                format!("agent {guid} cannot be written as JSON: {e}"),
            )
        })
    }

    pub fn begin(&mut self, guid: AgentGuid, doing: InFlightWrite) {
        self.slot(guid).doing = Some(doing);
        self.backlog.under_way += 1;
    }

    /// As [`State::run`], for a write: its outcome comes back as [`Msg::WriteEnded`].
    pub fn run_write(
        &mut self,
        guid: AgentGuid,
        write: impl Future<Output = Result<u64, StoreError>> + Send + 'static,
    ) {
        let resource = self.bucket.resource().clone();
        self.run(write, move |outcome| {
            let lost = |why| Err(StoreError::unknown("writing", &resource, why));
            Msg::WriteEnded {
                guid,
                outcome: outcome.unwrap_or_else(lost),
            }
        });
    }

    pub fn write(&mut self, guid: AgentGuid, value: Bytes, expected: u64, keeper: Keeper) {
        let bucket = self.bucket.clone();
        let writer = keeper.writer(&self.writer);
        let key = self.slot(guid).key(guid);
        self.run_write(guid, async move {
            bucket.write(&key, value, expected, &writer).await
        });
    }

    /// As [`State::write`], for a registration by request: where there is no bucket, one is made.
    fn write_at_any_rate(&mut self, guid: AgentGuid, value: Bytes, expected: u64) {
        let bucket = self.bucket.clone();
        let writer = self.writer.clone();
        let key = self.slot(guid).key(guid);
        let is_missing = self.bucket_missing;
        self.run_write(guid, async move {
            if !is_missing {
                let written = bucket.write(&key, value.clone(), expected, &writer).await;
                let is_unknown = written
                    .as_ref()
                    .is_err_and(|error| error.kind() == StoreErrorKind::Unknown);
                if !is_unknown || !matches!(bucket.info().await, Ok(None)) {
                    return written;
                }
            }
            let made = bucket.ensure().await;
            made.map_err(StoreError::in_doubt)?;
            bucket.write(&key, value, 0, &writer).await
        });
    }

    /// Whether somebody else may own by now: what is in memory is not to be written.
    pub fn is_fenced(&self) -> bool {
        self.superseded || !self.args.ownership.is_held()
    }

    /// Writes heartbeats before they are old, and tries again what failed.
    pub fn sweep(&mut self) {
        if self.is_fenced() {
            return;
        }
        if self.args.client.connection_state() != Connection::Connected {
            return;
        }
        let now = self.now();
        let old = self.args.settings.stale_after / 4;
        let keeps_for = self.keeps_for;
        let mut due = Vec::new();
        for (guid, slot) in &mut self.slots {
            let stale = now.since(slot.written_heartbeat) >= old;
            if stale
                && slot.keeper == Keeper::Registry
                && !slot.dirty
                && let Some(entry) = self.args.directory.get(*guid)
            {
                slot.dirty = entry.agent().status != AgentStatus::Offline
                    && entry.last_seen() > slot.written_heartbeat;
            }
            // In a bucket where it would go by itself.
            if let Some(age) = keeps_for
                && slot.keeper == Keeper::Registry
                && slot.written_at.is_none_or(|at| at.elapsed() >= age / 3)
                && let Some(entry) = self.args.directory.get(*guid)
            {
                slot.dirty |= is_missed(&entry);
            }
            // Its leases go after its status has been written.
            if !slot.dirty
                && slot.keeper == Keeper::Registry
                && slot.written_count > 0
                && let Some(entry) = self.args.directory.get(*guid)
            {
                slot.dirty = entry.agent().status == AgentStatus::Offline
                    && entry.leases() != slot.written_count;
            }
            if slot.has_chores() {
                due.push(*guid);
            }
        }
        for guid in due {
            self.queue(guid);
        }
    }
}

/// The refusal of a change where somebody else may own by now.
pub(super) fn not_owner(guid: AgentGuid) -> WireError {
    let text = format!(
        "agent {guid} is not changed: another coordinator may own the projects by now; try again"
    );
    WireError::unavailable(text, RETRY_AFTER)
}
