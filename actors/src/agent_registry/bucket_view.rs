//! What the watch has told of the bucket itself.

use std::time::Duration;

use loom_protocol::AgentGuid;

use crate::hashing::HashSet;

/// Whether there is a bucket, whether it is being told from its beginning, and how long it keeps entries.
#[derive(Debug, Default)]
pub(super) struct BucketView {
    /// There is none, and none is made before an agent registers by request.
    is_missing: bool,
    /// It is being told from its beginning: the known agents that have not been told yet.
    untold: Option<HashSet<AgentGuid>>,
    /// After how long an entry goes by itself, in a bucket that somebody else has made so.
    keeps_for: Option<Duration>,
}

impl BucketView {
    /// Any → missing.
    pub fn set_missing(&mut self) {
        self.is_missing = true;
        self.untold = None;
    }

    /// Any → being read: all keys will be told, these among them.
    pub fn begin_reading(&mut self, known: HashSet<AgentGuid>) {
        self.is_missing = false;
        self.untold = Some(known);
    }

    /// An entry was told.
    pub fn note(&mut self, guid: AgentGuid) {
        if let Some(untold) = &mut self.untold {
            untold.remove(&guid);
        }
    }

    /// Being read → read. Gives the agents that were not among what was told.
    pub fn end_reading(&mut self) -> HashSet<AgentGuid> {
        self.untold.take().unwrap_or_default()
    }

    /// How long the bucket keeps entries, where they go by themselves.
    pub const fn set_keeps_for(&mut self, keeps_for: Option<Duration>) {
        self.keeps_for = keeps_for;
    }

    /// After how long an entry goes by itself.
    pub const fn keeps_for(&self) -> Option<Duration> {
        self.keeps_for
    }

    /// Whether there is no bucket.
    pub const fn is_missing(&self) -> bool {
        self.is_missing
    }

    /// Whether it is being told from its beginning.
    pub const fn is_being_read(&self) -> bool {
        self.untold.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_not_told_is_known_once_and_only_after_a_whole_reading() {
        let (told, untold) = (AgentGuid::generate(), AgentGuid::generate());
        let mut view = BucketView::default();
        assert!(view.end_reading().is_empty());
        view.set_missing();
        view.begin_reading(HashSet::from_iter([told, untold]));
        assert!(view.is_being_read() && !view.is_missing());
        view.note(told);
        assert_eq!(view.end_reading(), HashSet::from_iter([untold]));
        assert!(view.end_reading().is_empty());
        view.begin_reading(HashSet::from_iter([told]));
        view.set_missing();
        assert!(!view.is_being_read() && view.is_missing());
        assert!(
            view.end_reading().is_empty(),
            "of no bucket anything is missed"
        );
    }
}
