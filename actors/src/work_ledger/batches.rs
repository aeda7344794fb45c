//! Requests of several operations, answered together.

use ractor::RpcReplyPort;
use slab::Slab;

use super::ledger_error::Outcome;
use super::operation::Operation;

/// The requests that are not answered yet.
#[derive(Default)]
pub(super) struct Batches(Slab<Batch>);

/// An operation, and the place of its outcome in the answer.
pub(super) struct Job {
    pub operation: Operation,
    batch: usize,
    place: usize,
}

struct Batch {
    outcomes: Vec<Option<Outcome>>,
    left: usize,
    reply: RpcReplyPort<Vec<Outcome>>,
}

impl Batches {
    /// Begins a request. Its jobs stand in the order of the operations; each is to be settled once. One without operations
    /// is answered at once.
    pub fn begin<'a>(
        &mut self,
        operations: &'a [Operation],
        reply: RpcReplyPort<Vec<Outcome>>,
    ) -> impl Iterator<Item = Job> + use<'a> {
        let batch = if operations.is_empty() {
            let _ = reply.send(Vec::new());
            0
        } else {
            self.0.insert(Batch {
                outcomes: vec![None; operations.len()],
                left: operations.len(),
                reply,
            })
        };
        let operations = operations.iter().enumerate();
        operations.map(move |(place, operation)| Job {
            operation: operation.clone(),
            batch,
            place,
        })
    }

    /// A job has its outcome. The request is answered when all have theirs.
    pub fn settle(&mut self, job: &Job, outcome: Outcome) {
        let Some(batch) = self.0.get_mut(job.batch) else {
            return;
        };
        batch.outcomes[job.place] = Some(outcome);
        batch.left -= 1;
        if batch.left == 0 {
            let batch = self.0.remove(job.batch);
            let outcomes = batch.outcomes.into_iter().flatten().collect();
            let _ = batch.reply.send(outcomes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use loom_protocol::WorkId;
    use tokio::sync::oneshot;
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;
    use crate::domain::work::Command;
    use crate::work_ledger::LedgerError;

    #[test]
    fn a_request_is_answered_when_all_have_their_outcome_in_the_order_of_the_operations() {
        let ids: Vec<WorkId> = (0..3).map(|_| WorkId::generate()).collect();
        let cancel = Arc::new(Command::Cancel {
            by: "ann".into(),
            reason: None,
            again: false,
        });
        let operation = |id: &WorkId| Operation::Apply(*id, cancel.clone());
        let operations: Vec<Operation> = ids.iter().map(operation).collect();
        let mut batches = Batches::default();
        let (none, mut of_none) = oneshot::channel();
        assert_eq!(batches.begin(&[], none.into()).count(), 0);
        assert!(of_none.try_recv().unwrap().is_empty());
        let (reply, mut answer) = oneshot::channel();
        let jobs: Vec<Job> = batches.begin(&operations, reply.into()).collect();
        for job in jobs.iter().rev() {
            assert!(matches!(answer.try_recv(), Err(TryRecvError::Empty)));
            batches.settle(job, Err(LedgerError::Lost(job.operation.id())));
        }
        let outcomes = answer.try_recv().unwrap();
        let lost = outcomes.iter().map(|outcome| match outcome {
            Err(LedgerError::Lost(id)) => *id,
            other => panic!("{other:?}"),
        });
        assert_eq!(lost.collect::<Vec<_>>(), ids);
        assert!(batches.0.is_empty());
    }
}
