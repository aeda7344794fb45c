//! Records read or written lately, so that a claim need not read what a submit just wrote.

use std::collections::VecDeque;
use std::sync::Arc;

use loom_protocol::WorkId;
use parking_lot::Mutex;

use crate::domain::work::WorkRecord;
use crate::hashing::HashMap;

const MAX_RECORDS: usize = 32 * 1024;
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// First in, first out, bounded by count and by size.
#[derive(Debug, Default)]
pub(super) struct RecordCache(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    records: HashMap<WorkId, Cached>,
    order: VecDeque<(WorkId, u64)>,
    bytes: usize,
}

#[derive(Debug)]
struct Cached {
    revision: u64,
    record: Arc<WorkRecord>,
    bytes: usize,
}

impl RecordCache {
    /// The record, if it is here at just this revision.
    pub fn get(&self, id: WorkId, revision: u64) -> Option<Arc<WorkRecord>> {
        let inner = self.0.lock();
        let cached = inner.records.get(&id)?;
        (cached.revision == revision).then(|| cached.record.clone())
    }

    pub fn put(&self, record: Arc<WorkRecord>, revision: u64) {
        let bytes = weight(&record);
        let id = record.id;
        let mut inner = self.0.lock();
        inner.remove(id);
        inner.bytes += bytes;
        inner.order.push_back((id, revision));
        inner.records.insert(
            id,
            Cached {
                revision,
                record,
                bytes,
            },
        );
        while inner.bytes > MAX_BYTES || inner.order.len() > MAX_RECORDS {
            let Some((oldest, revision)) = inner.order.pop_front() else {
                break;
            };
            if inner.records.get(&oldest).map(|cached| cached.revision) == Some(revision) {
                inner.remove(oldest);
            }
        }
    }

    pub fn remove(&self, id: WorkId) {
        self.0.lock().remove(id);
    }
}

impl Inner {
    fn remove(&mut self, id: WorkId) {
        if let Some(cached) = self.records.remove(&id) {
            self.bytes -= cached.bytes;
        }
    }
}

fn weight(record: &WorkRecord) -> usize {
    let body = |body: Option<&loom_protocol::Body>| body.map_or(0, loom_protocol::Body::len);
    let result = record.result.as_ref().map_or(0, |result| {
        body(result.output.as_ref())
            + body(result.artifacts.as_ref())
            + result.summary.as_ref().map_or(0, String::len)
    });
    size_of::<WorkRecord>() + record.description.len() + body(record.context_data.as_ref()) + result
}
