//! What the bucket shows: puts and removals by agents, and our own writes of an earlier life.
//!
//! An entry that an agent put is the agent's: it is merged into memory and left as it is. Our
//! verdict goes into it only where it has to be seen (`verdicts`).

use loom_protocol::AgentGuid;
use loom_protocol::agent::{AgentStatus, UnreadableEntry};

use super::actor::State;
use super::entry_state::{Keeper, PendingRequest, RecheckReason};
use super::notifications::Departure;
use super::{AgentEntry, MAX_AGENTS};
use crate::domain::agent::{
    AgentPut, Seen, Unreadable, Verdict, differs, guid_of_key, merge, read_own, read_put,
};
use crate::hashing::HashSet;
use crate::nats::kv::{Record, WatchEvent};

/// How many unreadable entries are remembered, so that each is logged once.
const MAX_QUARANTINED: usize = 10_000;

impl State {
    pub fn bucket_event(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Missing => {
                self.args.arrivals.bucket_reopened(None);
                self.bucket_is_missing();
            }
            WatchEvent::Opened {
                bucket,
                anew,
                keeps_for,
            } => {
                self.bucket_view.set_keeps_for(keeps_for);
                self.args.arrivals.bucket_reopened(Some(bucket));
                self.reading_begins(anew);
            }
            WatchEvent::Records(records) => {
                let up_to = records.last().map(|record| record.revision);
                for record in records {
                    self.on_record(&record, false);
                }
                if let Some(up_to) = up_to {
                    self.args.arrivals.bucket_applied(up_to);
                }
            }
            WatchEvent::Current { up_to } => {
                self.reading_ends();
                self.args.arrivals.bucket_applied(up_to);
            }
        }
    }

    /// There is no bucket: its owner destroyed it, or nobody has needed one yet. It stays so until
    /// the next registration by request. Who is known stays known, and is judged by its silence.
    fn bucket_is_missing(&mut self) {
        if self.entries.has_read() {
            tracing::warn!(
                bucket = self.bucket.name(),
                agents = self.args.directory.len(),
                "the agents bucket was destroyed; it stays so until an agent registers by request"
            );
        }
        self.bucket_view.set_missing();
        self.entries.lose_all();
        self.args.directory.forget_all_unreadable();
        self.is_loaded();
    }

    /// All keys will be told. In a bucket that was created anew none of ours are: they are
    /// written again from memory, but for those that a client keeps.
    fn reading_begins(&mut self, anew: bool) {
        let known = self.args.directory.all();
        let mut missing = HashSet::default();
        if anew {
            tracing::warn!(
                bucket = self.bucket.name(),
                agents = known.len(),
                "the agents bucket was lost; writing again from memory what is ours"
            );
            self.args.directory.forget_all_unreadable();
        }
        for entry in &known {
            let guid = entry.agent().guid;
            if anew {
                entry.set_put_applied(0);
                let slot = self.slot(guid);
                slot.lose();
                slot.in_doubt = true;
                self.mark_dirty(guid);
            } else if entry.shared_place().is_none() {
                missing.insert(guid);
            }
        }
        self.bucket_view.begin_reading(missing);
    }

    /// All keys have been told. Agents that were not among them have lost their entry without a mark, or
    /// were written while they were told: each is asked for.
    fn reading_ends(&mut self) {
        for guid in self.bucket_view.end_reading() {
            let slot = self.slot(guid);
            slot.in_doubt = true;
            slot.question = Some(RecheckReason::Gone);
            self.queue(guid);
        }
        self.is_loaded();
    }

    fn is_loaded(&mut self) {
        let (directory, events) = (&self.args.directory, &self.args.events);
        let is_first = self.entries.set_read();
        if !directory.is_loaded() {
            directory.set_loaded();
        } else if is_first {
            // What its last incarnation applied and did not live to tell.
            events.gap(Some(&self.args.project));
        }
        for message in self.held.release() {
            let _ = self.me.send_message(message);
        }
    }

    /// A record of one key, from the watch or (`asked`) read on purpose.
    pub fn on_record(&mut self, record: &Record, asked: bool) {
        let guid = match guid_of_key(&record.key) {
            Ok(guid) => guid,
            Err(problem) => {
                match &record.value {
                    Some(_) => self.note_unreadable(&record.key, record.revision, &problem),
                    None => self.args.directory.forget_unreadable(&record.key),
                }
                return;
            }
        };
        self.bucket_view.note(guid);
        if self.fence.note(record) {
            tracing::error!(
                bucket = self.bucket.name(),
                "a later owner has written an agent's entry: this coordinator writes none any more"
            );
        }
        let in_flight = record
            .writer
            .as_deref()
            .is_some_and(|w| self.fence.is_mine(w));
        let is_writing = self.is_writing(guid);
        let slot = self.slot(guid);
        let replayed = record.revision <= slot.revision;
        // The outcome of a write that is under way tells more than its echo.
        let echo = in_flight && is_writing && !asked;
        if replayed || echo || !self.is_counting_spelling(guid, record) {
            return;
        }
        let slot = self.slot(guid);
        let held = slot.holds;
        slot.revision = record.revision;
        slot.in_doubt = false;
        slot.holds = record.value.is_some();
        slot.raw = None;
        let Some(value) = &record.value else {
            if record.expired {
                self.readable(guid, record);
                return self.entry_lost(guid);
            }
            return self.on_removal(guid, record, record.writer.is_some());
        };
        if !held {
            slot.keeper = Keeper::Client;
        }
        match (Keeper::of(record.writer.as_deref()), &record.writer) {
            (Keeper::Client, writer) => {
                let patched = writer.is_some();
                match read_put(guid, value) {
                    Ok(put) => self.on_put(record, value, &put, patched, asked),
                    Err(problem) => self.quarantine_entry(guid, record, &problem),
                }
            }
            (keeper, _) => self.on_own_record(guid, record, value, keeper),
        }
    }

    /// Two spellings of one id are one agent; the one that was put last counts.
    fn is_counting_spelling(&mut self, guid: AgentGuid, record: &Record) -> bool {
        let slot = self.slot(guid);
        let counts = slot.key(guid);
        if counts == record.key {
            return true;
        }
        if record.value.is_none() {
            self.args.directory.forget_unreadable(&record.key);
            return false;
        }
        let (held, revision) = (slot.holds, slot.revision);
        let usual = guid.to_string();
        slot.key = (record.key != usual).then(|| record.key.clone());
        self.args.directory.forget_unreadable(&record.key);
        if held {
            self.note_unreadable(&counts, revision, &Unreadable::superseded(&record.key));
        }
        true
    }

    /// An entry that the registry wrote: in an earlier life, or without hearing the answer.
    fn on_own_record(&mut self, guid: AgentGuid, record: &Record, value: &[u8], keeper: Keeper) {
        let entry = match read_own(guid, value) {
            Ok(entry) => entry,
            Err(problem) => return self.quarantine_entry(guid, record, &problem),
        };
        self.readable(guid, record);
        let (shutdown_order, cause) = (entry.shutdown_order, entry.shutdown_cause);
        let mut agent = entry.agent.into_owned();
        let slot = self.slot(guid);
        slot.keeper = keeper;
        slot.written_heartbeat = agent.last_heartbeat;
        slot.written_count = agent.current_task_count;
        slot.shown = Verdict::of(&agent);
        if let Some(known) = self.args.directory.get(guid) {
            // Memory is never behind what was written from it.
            if differs(known.agent(), &agent) {
                self.mark_dirty(guid);
            }
            return;
        }
        // The number that was written counts leases too; those are counted anew.
        agent.current_task_count = 0;
        if keeper == Keeper::Shared {
            // Whether it lives is said in the bucket of all projects.
            agent.status = AgentStatus::Offline;
        }
        let announce = self.entries.has_read();
        self.upsert_agent(agent, announce);
        if let (Some(order), Some(entry)) = (shutdown_order, self.args.directory.get(guid)) {
            entry.add_directive(order);
            entry.set_end_cause(cause);
        }
    }

    /// An agent's own put: a registration, a heartbeat, or a goodbye. `patched`: with our verdict
    /// in it, which was not put by the agent.
    fn on_put(
        &mut self,
        record: &Record,
        value: &[u8],
        put: &AgentPut,
        patched: bool,
        asked: bool,
    ) {
        let guid = put.guid;
        let shown = Verdict::shown_in(value);
        let is_found = self.bucket_view.is_being_read() && !asked;
        let known = self.args.directory.get(guid);
        if known.is_some_and(|known| is_of_a_replaced_run(&known, put)) {
            // A replaced run writes over the entry of the one that is registered: that one stands,
            // and only an entry of ours says so.
            self.slot(guid).keeper = Keeper::Registry;
            self.readable(guid, record);
            return self.mark_dirty(guid);
        }
        let slot = self.slot(guid);
        // Of one that registered by request the entry stays ours: it is merged and written again.
        if slot.keeper != Keeper::Registry || patched {
            slot.keeper = Keeper::Client;
        }
        slot.shown = shown.clone();
        slot.shown_by_us = patched;
        let known = self.args.directory.get(guid);
        if let Some(known) = &known
            && (patched || known.put_applied() >= record.revision)
        {
            // Told before, to an earlier incarnation; or nothing that the agent did.
            known.set_put_applied(record.revision);
            self.readable(guid, record);
            return self.mark_dirty(guid);
        }
        let seen = if known.is_none() && is_found {
            self.found(record.stored_at)
        } else {
            Seen::Put
        };
        let durable = patched.then_some(&shown);
        match self.take_put(put, seen, record.stored_at, durable) {
            Ok(()) => {}
            Err(problem) => return self.quarantine_entry(guid, record, &problem),
        }
        self.readable(guid, record);
        let Some(entry) = self.args.directory.get(guid) else {
            return;
        };
        entry.set_put_applied(record.revision);
        // Of one that was found and is old nobody has judged yet that it is silent.
        if known.is_some() || Verdict::of(entry.agent()).is_durable() {
            self.mark_dirty(guid);
        }
    }

    /// How an entry is seen that was there when we looked for the first time.
    pub fn found(&self, stored_at: loom_protocol::Timestamp) -> Seen {
        Seen::Found {
            stored_at,
            in_our_time: stored_at >= self.args.begun_at,
            terms: self.args.settings.reap_terms(),
        }
    }

    /// Nothing, or any → what an agent's put makes of it, in whichever bucket. `durable`: what we
    /// had written into it.
    pub fn take_put(
        &mut self,
        put: &AgentPut,
        seen: Seen,
        stored_at: loom_protocol::Timestamp,
        durable: Option<&Verdict>,
    ) -> Result<(), Unreadable> {
        let guid = put.guid;
        let directory = &self.args.directory;
        let known = directory.get(guid);
        if known.is_none() && directory.len() >= MAX_AGENTS {
            return Err(Unreadable::too_many(MAX_AGENTS));
        }
        let leaving = known.as_ref().is_some_and(|known| known.is_leaving());
        let snapshot = known.as_ref().map(|known| known.snapshot());
        let mut agent = merge(snapshot.as_ref(), put, leaving, seen, &self.terms())?;
        if let Some(durable) = durable {
            agent = durable.apply(agent);
        }
        let agent = self.apply_group_pause(snapshot.as_ref(), agent);
        let now = self.now();
        let lives = agent.status != AgentStatus::Offline && seen.is_alive(put, now);
        let is_news = matches!(seen, Seen::Put) || stored_at >= self.args.begun_at;
        self.upsert_agent(agent, is_news);
        if let Some(entry) = self.args.directory.get(guid) {
            if let Some(count) = put.current_task_count.filter(|_| lives) {
                self.args.directory.count(&entry, count);
            }
            if lives {
                entry.touch(now);
            }
        }
        Ok(())
    }

    /// An agent removed its entry: it deregistered. Our own removal of an earlier life: the same.
    /// The mark stays as it is.
    fn on_removal(&mut self, guid: AgentGuid, record: &Record, ours: bool) {
        self.readable(guid, record);
        let is_known = self.args.directory.get(guid).is_some();
        let is_former = record.epoch().is_some_and(|epoch| epoch < self.args.epoch);
        if ours && is_known && is_former {
            // A former owner has buried it, or let it go, after this one had read it.
            return self.mark_dirty(guid);
        }
        let slot = self.slot(guid);
        slot.dirty = false;
        slot.shown = Verdict::default();
        slot.shown_by_us = false;
        let shared = self.args.directory.get(guid);
        if shared.is_some_and(|entry| entry.shared_place().is_some()) {
            // It has another entry, in the bucket of all projects.
            self.slot(guid).keeper = Keeper::Shared;
            return self.mark_dirty(guid);
        }
        if let Some(agent) = self.quarantined(guid).filter(|_| !ours) {
            self.remove_quarantined(agent);
            self.slot(guid).keeper = Keeper::Registry;
            return self.mark_dirty(guid);
        }
        self.remove_agent(guid, Departure::Deleted);
        self.forget_if_idle(guid);
    }

    /// There is no entry any more, and nobody has removed it: it went by its age, or with others. That is no
    /// goodbye. Who lives, or has leases, is judged by its silence; what is ours is written again.
    pub fn entry_lost(&mut self, guid: AgentGuid) {
        let Some(entry) = self.args.directory.get(guid) else {
            return self.forget_if_idle(guid);
        };
        let slot = self.slot(guid);
        slot.dirty = false;
        slot.shown = Verdict::default();
        slot.shown_by_us = false;
        if entry.shared_place().is_some() {
            slot.keeper = Keeper::Shared;
        } else if !entry.is_missed() {
            self.remove_agent(guid, Departure::Vanished);
            return self.forget_if_idle(guid);
        }
        self.mark_dirty(guid);
    }

    fn readable(&mut self, guid: AgentGuid, record: &Record) {
        let slot = self.slot(guid);
        if std::mem::take(&mut slot.quarantined) {
            self.args.directory.forget_unreadable(&record.key);
        }
    }

    fn quarantine_entry(&mut self, guid: AgentGuid, record: &Record, problem: &Unreadable) {
        self.slot(guid).quarantined = true;
        self.note_unreadable(&record.key, record.revision, problem);
    }

    pub fn note_unreadable(&mut self, key: &str, revision: u64, problem: &Unreadable) {
        let directory = &self.args.directory;
        if directory.is_noted(key, revision) {
            return;
        }
        let shown: String = key.chars().take(64).collect();
        tracing::warn!(
            bucket = self.bucket.name(), key = shown, revision, %problem,
            "an entry is no agent; it is left as it is"
        );
        let entry = UnreadableEntry {
            bucket: self.bucket.name().to_owned(),
            key: key.to_owned(),
            revision,
            project_id: Some(self.args.project.to_string()),
            reason: problem.to_string(),
        };
        directory.note_unreadable(entry, MAX_QUARANTINED);
    }

    /// Something of ours is left of an agent that is gone.
    pub fn tidy_up(&mut self, guid: AgentGuid) {
        if !self.writer.is_draining() && self.slot(guid).holds {
            self.push_request(guid, PendingRequest::TidyUp);
        } else {
            self.forget_if_idle(guid);
        }
    }
}

/// Whether an entry was put by a run of the agent whose place was taken.
pub(super) fn is_of_a_replaced_run(known: &AgentEntry, put: &AgentPut) -> bool {
    let admitted = known.admit(put.run());
    admitted.is_err_and(|error| error.details.is_some())
}
