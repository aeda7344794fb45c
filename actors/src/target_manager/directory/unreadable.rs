//! Records of the bucket that cannot be read: left alone, told, and removed by their names.

use std::time::Duration;

use loom_protocol::agent::UnreadableEntry;
use loom_protocol::{ErrorCode, ProjectId, WireError, names};
use serde_json::{Value, json};

use super::TargetDirectory;
use crate::domain::targets::{NotARecord, TicketRefusal};
use crate::target_manager::birth_command::refused;
use crate::target_manager::key::TargetKey;

/// After how long a client should ask again: a person has to remove what lies there.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::target_manager) struct Unreadable {
    /// Why.
    pub why: NotARecord,
    /// Its revision.
    pub revision: u64,
}

impl Unreadable {
    /// What lies there, why it is no target, and how to get rid of it.
    pub fn sentence(&self, project: &ProjectId, key: &str) -> String {
        let remedy = match names::target_of_key(key).filter(|name| TargetKey::of(name).is_some()) {
            Some(name) => format!("`loom targets remove {name} --project {project}`"),
            None => format!("`nats kv del {} {key}`", names::targets_bucket(project)),
        };
        format!(
            "the record {key} cannot be read as a target ({}) and is left alone, its name is taken; {remedy} removes it",
            self.why
        )
    }
}

impl TargetDirectory {
    /// The error about a name whose record cannot be read, if it is such a one: `not-found`, with how to get rid of it.
    pub fn unreadable_named(&self, name: &str) -> Option<WireError> {
        let sentence = self.unreadable_sentence(name)?;
        Some(WireError::new(ErrorCode::NotFound, sentence).with_details(details(name)))
    }

    /// The error of whoever asks something of the target of a name whose record cannot be read: `unavailable`, since
    /// nobody knows what stands there, and it is possible again once that was removed.
    pub(in crate::target_manager) fn unreadable_now(&self, name: &str) -> Option<WireError> {
        let sentence = self.unreadable_sentence(name)?;
        Some(WireError::unavailable(sentence, ASK_AGAIN).with_details(details(name)))
    }

    /// The error of an agent whose ticket nobody knows: it is to end. As long as something cannot be read that may know
    /// the ticket, it is to try again: `unavailable`.
    pub(in crate::target_manager) fn unknown_ticket(&self) -> WireError {
        let index = self.index.read();
        let (why, name) = if let Some((key, unreadable)) = index.unreadable.first_key_value() {
            (
                unreadable.sentence(&self.project, key),
                names::target_of_key(key),
            )
        } else if index.unreadable_ends > 0 {
            let text = format!(
                "the ends of {} starts in {} cannot be read, and go by themselves after targets.keep_operations",
                index.unreadable_ends,
                names::targets_bucket(&self.project)
            );
            (text, None)
        } else {
            return refused(&TicketRefusal::Unknown);
        };
        let text = format!(
            "the agent is not registered yet: its ticket is not known, and may be that of a start that cannot be read; {why}"
        );
        let error = WireError::unavailable(text, ASK_AGAIN);
        match name {
            Some(name) => error.with_details(details(&name)),
            None => error,
        }
    }

    /// The records that cannot be read, at most so many.
    pub fn unreadable(&self, most: usize) -> Vec<UnreadableEntry> {
        let index = self.index.read();
        let entries = index.unreadable.iter().take(most);
        let entry = |(key, unreadable): (&String, &Unreadable)| UnreadableEntry {
            bucket: names::targets_bucket(&self.project),
            key: key.clone(),
            revision: unreadable.revision,
            project_id: Some(self.project.to_string()),
            reason: unreadable.sentence(&self.project, key),
        };
        entries.map(entry).collect()
    }

    fn unreadable_sentence(&self, name: &str) -> Option<String> {
        let key = names::target_key(name);
        let index = self.index.read();
        let unreadable = index.unreadable.get(&key)?;
        Some(unreadable.sentence(&self.project, &key))
    }

    /// The revision of what lies unreadable under a name.
    pub(in crate::target_manager) fn unreadable_revision(&self, name: &str) -> Option<u64> {
        let index = self.index.read();
        let unreadable = index.unreadable.get(&names::target_key(name))?;
        Some(unreadable.revision)
    }

    /// What lies under a name cannot be read.
    pub(in crate::target_manager) fn note_unreadable(
        &self,
        key: TargetKey,
        name: &str,
        unreadable: Unreadable,
    ) {
        self.forget(key);
        let mut index = self.index.write();
        index.unreadable.insert(names::target_key(name), unreadable);
    }

    /// What lay unreadable under a name has gone.
    pub(in crate::target_manager) fn forget_unreadable(&self, name: &str) {
        let mut index = self.index.write();
        index.unreadable.remove(&names::target_key(name));
        index.changes += 1;
    }
}

/// The same for programs.
fn details(name: &str) -> Value {
    json!({"unreadable": name.to_ascii_lowercase()})
}
