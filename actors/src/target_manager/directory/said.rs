//! What the mechanisms say of starts that go on, kept in memory only: it is of use as long as it is so, and a coordinator
//! that comes after this one asks them anew.

use loom_protocol::SpinUpId;
use loom_protocol::target::SpinUpOperation;

use super::{Index, TargetDirectory};

/// How much of it is kept, in bytes.
const MOST: usize = 1024;

impl TargetDirectory {
    /// The mechanism says something else of a start, or nothing any more.
    pub(in crate::target_manager) fn note_said(&self, id: SpinUpId, said: Option<String>) {
        let said = said.map(|mut said| {
            said.truncate(said.floor_char_boundary(MOST));
            said
        });
        self.index.write().births.note_said(id, said);
    }
}

impl Index {
    /// A start as it is shown: with what its mechanism says, as long as it goes on.
    pub(super) fn shown(&self, operation: &SpinUpOperation) -> SpinUpOperation {
        let mut shown = operation.clone();
        self.add_said(&mut shown);
        shown
    }

    /// The same for one that is a copy already.
    pub(super) fn add_said(&self, operation: &mut SpinUpOperation) {
        if !operation.status.is_over() && operation.output.is_none() {
            let said = self.births.said(operation.operation_id);
            operation.output = said.map(ToOwned::to_owned);
        }
    }
}
