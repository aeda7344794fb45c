//! The states of all entries of the bucket, for as long as there is something to know of them.

use std::time::Duration;

use loom_protocol::agent::AgentStatus;
use loom_protocol::{AgentGuid, Timestamp};

use super::entry_state::{EntryState, Keeper};
use super::{AgentDirectory, AgentEntry};

use crate::hashing::HashMap;

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
            || (self.goes_soon(freshness) && entry.is_missed())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::agent::{Terms, register};
    use loom_protocol::ProjectId;
    use loom_protocol::agent::RegisterRequest;

    const OLD: Duration = Duration::from_secs(5);

    fn freshness(now: Timestamp, entry: Option<Duration>) -> Freshness {
        Freshness {
            now,
            heartbeat: OLD,
            entry,
        }
    }

    #[test]
    fn an_entry_of_ours_is_due_when_it_is_behind_and_a_clients_never() {
        let (guid, begun) = (AgentGuid::generate(), Timestamp::from_millis(1_000));
        let request = RegisterRequest {
            handle: "ada".into(),
            agent_type: "coder".into(),
            capabilities: vec!["rust".into()],
            ..RegisterRequest::default()
        };
        let terms = Terms {
            project: &ProjectId::new("p").unwrap(),
            heartbeat_every: OLD,
            now: begun,
        };
        let agent = register(&request, guid, None, false, &terms).unwrap();
        let directory = AgentDirectory::new();
        directory.put(agent);
        let later = begun.after(OLD);
        for keeper in [Keeper::Registry, Keeper::Client, Keeper::Shared] {
            let is_ours = keeper == Keeper::Registry;
            let mut entries = EntryStates::default();
            assert!(entries.of(guid).in_doubt, "the bucket was not read yet");
            assert!(entries.set_read() && !entries.set_read());
            assert!(!entries.of(AgentGuid::generate()).in_doubt);
            let state = entries.of(guid);
            state.keeper = keeper;
            state.written_heartbeat = begun;
            let quiet = entries.due(&directory, freshness(later, None));
            assert!(quiet.is_empty(), "it was not heard of since");
            let goes = entries.due(&directory, freshness(later, Some(Duration::ZERO)));
            assert_eq!(goes == [guid], is_ours, "{keeper:?}");
            entries.of(guid).dirty = false;
            directory.touch(guid, later);
            let fresh = entries.due(&directory, freshness(begun, None));
            assert!(fresh.is_empty(), "it is not old yet");
            let behind = entries.due(&directory, freshness(later, None));
            assert_eq!(behind == [guid], is_ours, "{keeper:?}");
            assert_eq!(entries.of(guid).dirty, is_ours);
        }
    }
}
