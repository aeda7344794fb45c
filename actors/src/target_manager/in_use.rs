//! Tells the mechanisms what stands at the targets, for as long as this incarnation lives: what agents need beside
//! themselves is held by whoever owns the project, and by nobody else.

use std::collections::HashMap;
use std::sync::Arc;

use loom_protocol::TargetId;

use super::mechanism::Mechanisms;
use super::{Record, Reference};

/// The targets of which was told that something stands there. Dropped, nothing does any more.
pub(super) struct InUse {
    mechanisms: Arc<dyn Mechanisms>,
    told: HashMap<TargetId, Arc<Record>>,
}

impl InUse {
    /// Nothing was told.
    pub fn new(mechanisms: Arc<dyn Mechanisms>) -> Self {
        let told = HashMap::new();
        Self { mechanisms, told }
    }

    /// A record is so.
    pub fn is_so(&mut self, record: &Arc<Record>) {
        let starts = starts_of(record);
        let id = record.target.id;
        if !starts.is_empty() {
            self.mechanisms.in_use(&record.target, &starts);
            self.told.insert(id, record.clone());
        } else if self.told.remove(&id).is_some() {
            self.mechanisms.in_use(&record.target, &[]);
        }
    }

    /// These are all records that there are.
    pub fn are_all<'a>(&mut self, records: impl Iterator<Item = &'a Arc<Record>>) {
        let mut gone = std::mem::take(&mut self.told);
        for record in records {
            if let Some(told) = gone.remove(&record.target.id) {
                self.told.insert(record.target.id, told);
            }
            self.is_so(record);
        }
        self.release(gone);
    }

    fn release(&self, told: HashMap<TargetId, Arc<Record>>) {
        for record in told.into_values() {
            self.mechanisms.in_use(&record.target, &[]);
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let told = std::mem::take(&mut self.told);
        self.release(told);
    }
}

/// By what each of them is found.
fn starts_of(record: &Record) -> Vec<Option<&Reference>> {
    let births = record.births.iter().map(|birth| birth.reference.as_ref());
    let agents = record.agents.iter().map(|agent| agent.reference.as_ref());
    births.chain(agents).collect()
}
