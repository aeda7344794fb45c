//! What the bucket shows: puts and removals by agents, and our own writes of an earlier life.

use std::collections::HashSet;

use loom_protocol::AgentGuid;
use loom_protocol::agent::AgentStatus;

use super::MAX_AGENTS;
use super::actor::{Reading, State};
use super::slot::{Order, Question};
use crate::domain::agent::{AgentPut, Unreadable, differs, guid_of_key, merge, read_own, read_put};
use crate::nats::kv::{Record, WatchEvent};

/// How many unreadable entries are remembered, so that each is logged once.
const MAX_QUARANTINED: usize = 10_000;

impl State {
    pub fn bucket_event(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Opened { anew } => {
                self.args.arrivals.bucket_reopened();
                self.reading_begins(anew);
            }
            WatchEvent::Records(records) => {
                let up_to = records.last().map(|record| record.revision);
                for record in records {
                    self.sighted(record, false);
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

    /// All keys will be told. In a bucket that was created anew none of ours are: they are
    /// written again from memory.
    fn reading_begins(&mut self, anew: bool) {
        let known: HashSet<AgentGuid> = {
            let entries = self.args.directory.all();
            entries.iter().map(|entry| entry.agent().guid).collect()
        };
        if anew {
            tracing::warn!(
                bucket = self.bucket.name(),
                agents = known.len(),
                "the agents bucket was lost; writing it again from memory"
            );
            for guid in &known {
                let slot = self.slot(*guid);
                slot.revision = 0;
                slot.in_doubt = true;
                self.mark_dirty(*guid);
            }
        }
        let missing = if anew { HashSet::new() } else { known };
        self.reading = Some(Reading { missing });
    }

    /// All keys have been told. Agents that were not among them have vanished without a mark, or
    /// were written while they were told: each is asked for.
    fn reading_ends(&mut self) {
        if let Some(reading) = self.reading.take() {
            for guid in reading.missing {
                let slot = self.slot(guid);
                slot.in_doubt = true;
                slot.question = Some(Question::Gone);
                self.queue(guid);
            }
        }
        self.has_read = true;
        if !self.args.directory.is_loaded() {
            self.args.directory.set_loaded();
        }
        self.release_held();
    }

    /// A record of one key, from the watch or (`asked`) read on purpose.
    pub fn sighted(&mut self, record: Record, asked: bool) {
        let guid = match guid_of_key(&record.key) {
            Ok(guid) => guid,
            Err(problem) => {
                match record.value {
                    Some(_) => self.put_in_quarantine(record.key, record.revision, &problem),
                    None => self.release(&record.key),
                }
                return;
            }
        };
        if let Some(reading) = &mut self.reading {
            reading.missing.remove(&guid);
        }
        let ours = record.writer.is_some();
        if record.epoch() > Some(self.args.epoch) && !std::mem::replace(&mut self.superseded, true)
        {
            tracing::error!(
                bucket = self.bucket.name(),
                "a later owner has written an agent's entry: this coordinator writes none any more"
            );
        }
        let in_flight = record.writer.as_deref() == Some(&self.writer);
        let slot = self.slot(guid);
        let replayed = record.revision <= slot.revision;
        // The outcome of a write that is under way tells more than its echo.
        let echo = in_flight && slot.is_writing() && !asked;
        if replayed || echo {
            return;
        }
        slot.revision = record.revision;
        slot.in_doubt = false;
        match (&record.value, ours) {
            (Some(value), true) => self.own_sighted(guid, &record, value),
            (Some(value), false) => match read_put(guid, value) {
                Ok(put) => self.put_sighted(&record, &put),
                Err(problem) => self.quarantine_entry(guid, &record, &problem),
            },
            (None, ours) => self.removal_sighted(guid, &record, ours),
        }
    }

    /// An entry that the registry wrote: in an earlier life, or without hearing the answer.
    fn own_sighted(&mut self, guid: AgentGuid, record: &Record, value: &[u8]) {
        let entry = match read_own(guid, value) {
            Ok(entry) => entry,
            Err(problem) => return self.quarantine_entry(guid, record, &problem),
        };
        self.readable(guid, record);
        let shutdown_order = entry.shutdown_order;
        let mut agent = entry.agent.into_owned();
        let slot = self.slot(guid);
        slot.written_heartbeat = agent.last_heartbeat;
        slot.written_count = agent.current_task_count;
        if let Some(known) = self.args.directory.get(guid) {
            // Memory is never behind what was written from it.
            if differs(known.agent(), &agent) {
                self.mark_dirty(guid);
            }
            return;
        }
        // The number that was written counts leases too; those are counted anew.
        agent.current_task_count = 0;
        let announce = self.has_read;
        self.enter(agent, announce);
        if let (Some(order), Some(entry)) = (shutdown_order, self.args.directory.get(guid)) {
            entry.add_directive(order);
        }
    }

    /// An agent's own put: a registration, a heartbeat, or a goodbye.
    fn put_sighted(&mut self, record: &Record, put: &AgentPut) {
        let guid = put.guid;
        let directory = &self.args.directory;
        let known = directory.get(guid);
        let leaving = known.as_ref().is_some_and(|known| known.is_leaving());
        let snapshot = known.as_ref().map(|known| known.snapshot());
        if known.is_some_and(|known| known.admit(put.run()).is_err_and(|e| e.details.is_some())) {
            // A replaced run writes over the entry of the one that is registered: that one stands.
            self.readable(guid, record);
            return self.mark_dirty(guid);
        }
        let known = directory.get(guid);
        let full = known.is_none() && directory.len() >= MAX_AGENTS;
        let merged = if full {
            Err(Unreadable::too_many(MAX_AGENTS))
        } else {
            merge(snapshot.as_ref(), put, leaving, &self.terms())
        };
        let agent = match merged {
            Ok(agent) => self.born(snapshot.as_ref(), agent),
            Err(problem) => return self.quarantine_entry(guid, record, &problem),
        };
        self.readable(guid, record);
        let now = self.now();
        let alive = agent.status != AgentStatus::Offline;
        self.enter(agent, true);
        if let Some(entry) = self.args.directory.get(guid) {
            if let Some(count) = put.current_task_count.filter(|_| alive) {
                entry.set_own_count(count);
            }
            if alive {
                entry.touch(now);
            }
        }
        self.mark_dirty(guid);
    }

    /// An agent removed its entry: it deregistered. Our own removal of an earlier life: the same.
    fn removal_sighted(&mut self, guid: AgentGuid, record: &Record, ours: bool) {
        self.readable(guid, record);
        let is_known = self.args.directory.get(guid).is_some();
        let is_former = record.epoch().is_some_and(|epoch| epoch < self.args.epoch);
        if ours && is_known && is_former {
            // A former owner has buried it, or let it go, after this one had read it.
            return self.mark_dirty(guid);
        }
        self.slot(guid).dirty = false;
        if let Some(agent) = self.quarantined(guid).filter(|_| !ours) {
            self.leave_in_quarantine(agent);
            return self.mark_dirty(guid);
        }
        self.leave(guid, "deregistered");
        if ours {
            self.forget_if_idle(guid);
        } else if self.draining.is_none() {
            self.order(guid, Order::TidyUp);
        }
    }

    fn readable(&mut self, guid: AgentGuid, record: &Record) {
        let slot = self.slot(guid);
        if std::mem::take(&mut slot.quarantined) {
            self.release(&record.key);
        }
    }

    fn quarantine_entry(&mut self, guid: AgentGuid, record: &Record, problem: &Unreadable) {
        self.slot(guid).quarantined = true;
        self.put_in_quarantine(record.key.clone(), record.revision, problem);
    }

    fn put_in_quarantine(&mut self, key: String, revision: u64, problem: &Unreadable) {
        if self.quarantine.get(&key) == Some(&revision) {
            return;
        }
        let shown: String = key.chars().take(64).collect();
        tracing::warn!(
            bucket = self.bucket.name(), key = shown, revision, %problem,
            "an entry is no agent; it is left as it is"
        );
        if self.quarantine.len() < MAX_QUARANTINED || self.quarantine.contains_key(&key) {
            self.quarantine.insert(key, revision);
        }
        self.args.directory.set_quarantined(self.quarantine.len());
    }

    /// A key is readable again, or gone.
    pub fn release(&mut self, key: &str) {
        if self.quarantine.remove(key).is_some() {
            self.args.directory.set_quarantined(self.quarantine.len());
        }
    }
}
