//! The states of all entries of the bucket, for as long as there is something to know of them.

use std::collections::HashMap;
use std::time::Duration;

use loom_protocol::agent::AgentStatus;
use loom_protocol::{AgentGuid, Timestamp};

use super::entry_state::{EntryState, Keeper};
use super::watch_events::is_missed;
use super::{AgentDirectory, AgentEntry};

/// What is known of each entry. One that nobody has asked for yet is in doubt until the bucket has been read once; then it
/// has no value.
#[derive(Default)]
pub(super) struct EntryStates {
    of: HashMap<AgentGuid, EntryState>,
    has_read: bool,
}

/// When an entry of ours has to be written again although nothing has changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Freshness {
    pub now: Timestamp,
    /// How old the written heartbeat of an agent that lives may become.
    pub heartbeat: Duration,
    /// How old an entry may become in a bucket where it would go by itself.
    pub entry: Option<Duration>,
}

impl EntryStates {
    /// The state of an entry, which begins here.
    pub fn of(&mut self, guid: AgentGuid) -> &mut EntryState {
        let in_doubt = !self.has_read;
        self.of.entry(guid).or_insert_with(|| EntryState {
            in_doubt,
            ..EntryState::default()
        })
    }

    /// The state of an entry of which something is known.
    pub fn get(&self, guid: AgentGuid) -> Option<&EntryState> {
        self.of.get(&guid)
    }

    /// Nothing has to be known of it any more.
    pub fn forget(&mut self, guid: AgentGuid) {
        self.of.remove(&guid);
    }

    /// The bucket has been read once, or is not there. Whether that is news.
    pub const fn set_read(&mut self) -> bool {
        !std::mem::replace(&mut self.has_read, true)
    }

    /// Whether this incarnation has read the bucket once.
    pub const fn has_read(&self) -> bool {
        self.has_read
    }

    /// The bucket is not there: nothing is known of what it held.
    pub fn lose_all(&mut self) {
        for state in self.of.values_mut() {
            state.lose();
        }
    }

    /// The entries that are to be written: those that become too old, which are dirty from now on, and what failed.
    pub fn due(&mut self, directory: &AgentDirectory, freshness: Freshness) -> Vec<AgentGuid> {
        let mut due = Vec::new();
        for (guid, state) in &mut self.of {
            if !state.dirty && state.keeper == Keeper::Registry {
                let is_old = state.may_be_old(freshness);
                let entry = is_old.then(|| directory.get(*guid)).flatten();
                state.dirty = entry.is_some_and(|entry| state.is_old(&entry, freshness));
            }
            if state.has_chores() {
                due.push(*guid);
            }
        }
        due
    }
}

impl EntryState {
    /// Whether its agent has to be asked for [`is_old`](Self::is_old).
    fn may_be_old(&self, freshness: Freshness) -> bool {
        self.has_old_heartbeat(freshness) || self.goes_soon(freshness) || self.written_count > 0
    }

    /// Whether an entry of ours has to be written again.
    fn is_old(&self, entry: &AgentEntry, freshness: Freshness) -> bool {
        let is_offline = entry.agent().status == AgentStatus::Offline;
        let has_beaten = !is_offline && entry.last_seen() > self.written_heartbeat;
        // Its leases go after its status has been written.
        let has_lost_leases =
            is_offline && self.written_count > 0 && entry.leases() != self.written_count;
        (self.has_old_heartbeat(freshness) && has_beaten)
            || (self.goes_soon(freshness) && is_missed(entry))
            || has_lost_leases
    }

    fn has_old_heartbeat(&self, freshness: Freshness) -> bool {
        freshness.now.since(self.written_heartbeat) >= freshness.heartbeat
    }

    fn goes_soon(&self, freshness: Freshness) -> bool {
        let is_due = |age| self.written_at.is_none_or(|at| at.elapsed() >= age);
        freshness.entry.is_some_and(is_due)
    }
}
