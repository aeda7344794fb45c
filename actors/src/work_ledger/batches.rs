//! Requests of several operations, answered together.

use ractor::RpcReplyPort;
use slab::Slab;

use super::handle::Outcome;
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
