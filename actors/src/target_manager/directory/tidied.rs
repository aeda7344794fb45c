//! What is still to be ended, or removed, of starts that are decided and of agents that have left. No record has it any
//! more: the project stays awake for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::TargetDirectory;
use crate::target_manager::Ended;

/// Counts what is under way.
#[derive(Debug, Clone, Default)]
pub(in crate::target_manager) struct Tidied(Arc<AtomicUsize>);

/// One that is under way, until it is dropped.
#[derive(Debug)]
pub(in crate::target_manager) struct UnderWay(Tidied);

impl Tidied {
    /// One more is under way.
    pub fn begin(&self) -> UnderWay {
        self.0.fetch_add(1, Ordering::SeqCst);
        UnderWay(self.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        (self.0.0).fetch_sub(1, Ordering::SeqCst);
    }
}

impl TargetDirectory {
    /// How many starts there are of which something is still to be ended or removed.
    pub fn tidied(&self) -> usize {
        (self.tidied.0).load(Ordering::SeqCst)
    }

    /// Something is to be ended or removed for as long as what this gives lives.
    pub(in crate::target_manager) fn begin_tidying(&self) -> UnderWay {
        self.tidied.begin()
    }

    /// The decided starts whose agent is not linked, or has left.
    pub(in crate::target_manager) fn over(&self) -> Vec<Arc<Ended>> {
        let index = self.index.read();
        let is_over = |end: &&Arc<Ended>| {
            let id = end.operation.operation_id;
            let guid = end.operation.agent_guid;
            let linked = guid.and_then(|guid| index.agent(guid));
            index.birth(id).is_none() && linked.is_none_or(|(_, agent)| agent.operation_id != id)
        };
        index.ended.iter().filter(is_over).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom_protocol::ProjectId;

    #[test]
    fn what_is_under_way_is_counted_until_it_ends_however_it_does() {
        let directory = TargetDirectory::new(ProjectId::new("p").unwrap());
        let (one, other) = (directory.begin_tidying(), directory.begin_tidying());
        assert_eq!(directory.tidied(), 2);
        drop(one);
        assert_eq!(directory.tidied(), 1);
        drop(other);
        assert_eq!(directory.tidied(), 0);
    }
}
