//! How memory gets into the bucket: one compare-and-set at a time for each entry, many entries at
//! once, registrations and removals first.

use std::borrow::Cow;

use async_nats::connection::State as Connection;
use bytes::Bytes;
use loom_protocol::agent::{Agent, RegisterRequest};
use loom_protocol::{AgentGuid, ErrorCode, Timestamp, WireError};

use super::actor::{BOUNDS, State};
use super::entry_state::{EntryState, InFlightWrite, Keeper, PendingRequest};
use super::entry_states::Freshness;
use super::messages::{Msg, RETRY_AFTER, answer};
use super::requests::is_dead;
use super::shared::delete_shared;
use crate::domain::agent::OwnEntry;
use crate::keyed_writer::{Panicked, Rejected, Rejection};
use crate::nats::error::{StoreError, StoreErrorKind};

impl State {
    /// What is known of an entry.
    pub fn slot(&mut self, guid: AgentGuid) -> &mut EntryState {
        self.entries.of(guid)
    }

    /// Takes a request about an entry.
    pub fn push_request(&mut self, guid: AgentGuid, request: PendingRequest) {
        if !self.writer.is_draining() && self.fence.is_closed() {
            return request.refuse(not_owner(guid));
        }
        // What it has to know of the entry begins with the request.
        self.entries.of(guid);
        let Err(Rejected { request, why }) = self.writer.push(guid, request) else {
            return;
        };
        request.refuse(match why {
            Rejection::Draining => {
                let message = "the coordinator is shutting down; try again in a moment";
                WireError::unavailable(message, RETRY_AFTER)
            }
            Rejection::KeyFull => {
                let most = BOUNDS.requests_of_a_key;
                let message = format!("{most} requests about agent {guid} are waiting already");
                WireError::overloaded(message, RETRY_AFTER)
            }
            Rejection::Full => {
                let message = "too many requests about agents are waiting already";
                WireError::overloaded(message, RETRY_AFTER)
            }
        });
        self.forget_if_idle(guid);
    }

    /// Has an entry written when there is time.
    pub fn mark_dirty(&mut self, guid: AgentGuid) {
        self.slot(guid).dirty = true;
        self.queue(guid);
    }

    /// Puts an entry in line, if there is something to do for it that nobody waits for.
    pub fn queue(&mut self, guid: AgentGuid) {
        let state = self.entries.get(guid);
        if state.is_some_and(EntryState::has_chores) {
            self.writer.ask_for_chore(guid);
        }
    }

    /// Begins what can be begun.
    pub fn work_off(&mut self) {
        while let Some(guid) = self.writer.next_turn() {
            self.advance(guid);
        }
    }

    /// The next step of one entry.
    fn advance(&mut self, guid: AgentGuid) {
        let request = self.writer.first(&guid);
        let has_chores = self.entries.get(guid).is_some_and(EntryState::has_chores);
        if request.is_none() && !has_chores {
            return self.forget_if_idle(guid);
        }
        if self.fence.is_closed() {
            // What nobody waits for stays in mind: the ownership may be had again.
            while let Some(request) = self.writer.take_first(&guid) {
                request.refuse(not_owner(guid));
            }
            return;
        }
        let slot = self.entries.of(guid);
        if slot.in_doubt && !self.bucket_view.is_missing() {
            return self.begin_reading(guid);
        }
        // The watch was faster than the reading.
        slot.question = None;
        let is_dirty = slot.dirty;
        match request {
            Some(PendingRequest::Register { registration, .. }) => {
                let registration = registration.clone();
                match self.draft(guid, &registration) {
                    Ok(agent) => self.begin_registering(guid, agent, &registration.request),
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
            None if is_dirty => self.begin_flushing(guid),
            None => self.forget_if_idle(guid),
        }
    }

    /// A slot without an agent is kept only while it has something to do.
    pub fn forget_if_idle(&mut self, guid: AgentGuid) {
        let is_gone = self.args.directory.get(guid).is_none();
        let is_kept = |state: &EntryState| state.has_chores() || state.quarantined;
        if is_gone
            && self.writer.is_at_rest(&guid)
            && self.entries.get(guid).is_some_and(|state| !is_kept(state))
        {
            self.entries.forget(guid);
        }
    }

    pub fn begin_reading(&mut self, guid: AgentGuid) {
        let bucket = self.bucket.clone();
        let resource = bucket.resource().clone();
        let key = self.slot(guid).key(guid);
        let read = async move { bucket.last(&key).await };
        let message = move |outcome: Result<_, Panicked>| {
            let lost = |why| Err(StoreError::unknown("reading", &resource, why));
            Msg::ReadEnded {
                guid,
                outcome: outcome.unwrap_or_else(lost),
            }
        };
        let what = InFlightWrite::Reading;
        self.writer.begin(guid, what, read, message);
    }

    fn begin_registering(&mut self, guid: AgentGuid, agent: Agent, request: &RegisterRequest) {
        // An order to end was given to a run; another run begins without it.
        let with_order = self.goes_on(guid, request);
        match self.encoded(guid, &agent, with_order) {
            Ok(value) => {
                let expected = self.slot(guid).revision;
                let agent = Box::new(agent);
                let what = InFlightWrite::Registering { expected, agent };
                self.write_at_any_rate(guid, what, value, expected);
            }
            Err(error) => self.refuse_first(guid, error),
        }
    }

    fn begin_removing(&mut self, guid: AgentGuid) {
        let known = self.args.directory.get(guid).is_some();
        let tidying = matches!(self.writer.first(&guid), Some(PendingRequest::TidyUp));
        if tidying && known {
            // It has come back meanwhile.
            self.writer.take_first(&guid);
            return self.queue(guid);
        }
        let slot = self.entries.of(guid);
        let expected = slot.revision;
        let key = slot.holds.then(|| slot.key(guid));
        let shared = self.args.directory.get(guid);
        let shared = shared.and_then(|entry| entry.shared_place());
        if key.is_none() && shared.is_none() {
            // The buckets have nothing that could be removed.
            return self.removed(guid);
        }
        let removed = shared.clone();
        let what = InFlightWrite::Removing {
            expected,
            shared: removed,
        };
        let (bucket, args) = (self.bucket.clone(), self.args.clone());
        let writer = self.fence.writer().to_owned();
        self.begin_write(guid, what, async move {
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
        if self.bucket_view.is_missing() {
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
                let (bucket, args) = (self.bucket.clone(), self.args.clone());
                let plain = self.fence.writer().to_owned();
                let writer = keeper.writer(&plain);
                self.begin_write(guid, retiring, async move {
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
            if let Some(PendingRequest::Bury { reply, .. }) = self.writer.take_first(&guid) {
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
        if self.bucket_view.is_missing() {
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
                let what = InFlightWrite::Flushing {
                    expected,
                    heartbeat: agent.last_heartbeat,
                    count: agent.current_task_count,
                };
                self.write(guid, what, value, expected, Keeper::Registry);
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

    /// Begins a write; its outcome comes back as [`Msg::WriteEnded`].
    pub fn begin_write(
        &mut self,
        guid: AgentGuid,
        what: InFlightWrite,
        write: impl Future<Output = Result<u64, StoreError>> + Send + 'static,
    ) {
        let resource = self.bucket.resource().clone();
        self.writer.begin(guid, what, write, move |outcome| {
            let lost = |why| Err(StoreError::unknown("writing", &resource, why));
            Msg::WriteEnded {
                guid,
                outcome: outcome.unwrap_or_else(lost),
            }
        });
    }

    pub fn write(
        &mut self,
        guid: AgentGuid,
        what: InFlightWrite,
        value: Bytes,
        expected: u64,
        keeper: Keeper,
    ) {
        let bucket = self.bucket.clone();
        let writer = keeper.writer(self.fence.writer());
        let key = self.slot(guid).key(guid);
        self.begin_write(guid, what, async move {
            bucket.write(&key, value, expected, &writer).await
        });
    }

    /// As [`State::write`], for a registration by request: where there is no bucket, one is made.
    fn write_at_any_rate(
        &mut self,
        guid: AgentGuid,
        what: InFlightWrite,
        value: Bytes,
        expected: u64,
    ) {
        let bucket = self.bucket.clone();
        let writer = self.fence.writer().to_owned();
        let key = self.slot(guid).key(guid);
        let is_missing = self.bucket_view.is_missing();
        self.begin_write(guid, what, async move {
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

    /// Writes heartbeats before they are old, and tries again what failed.
    pub fn sweep(&mut self) {
        if self.fence.is_closed() {
            return;
        }
        if self.args.client.connection_state() != Connection::Connected {
            return;
        }
        let freshness = Freshness {
            now: self.now(),
            heartbeat: self.args.settings.stale_after / 4,
            entry: self.bucket_view.keeps_for().map(|age| age / 3),
        };
        for guid in self.entries.due(&self.args.directory, freshness) {
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
