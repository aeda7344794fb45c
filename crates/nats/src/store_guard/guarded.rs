//! What a guard is about, and how it is called.

use loom_protocol::{ProjectId, names};

/// What a guard is about. Its sentences are made when somebody is to read them: a coordinator has a guard for each project.
#[derive(Debug)]
pub struct Guarded {
    /// The project whose ledger tells; `None`: the store as a whole, which the bucket of the owner tells.
    pub project: Option<ProjectId>,
    /// What to do where it is another one, as a sentence.
    pub remedy: fn(Option<&ProjectId>) -> String,
}

impl Guarded {
    /// As it stands in a sentence: `project p`.
    pub(super) fn whose(&self) -> String {
        match &self.project {
            Some(project) => format!("project {project}"),
            None => "this NATS".into(),
        }
    }

    /// The stream that tells.
    pub(super) fn stream(&self) -> String {
        match &self.project {
            Some(project) => format!("KV_{}", names::work_bucket(project)),
            None => format!("KV_{}", names::OWNERS_BUCKET),
        }
    }

    /// Whether the end of the stream counts, and not its stamp alone.
    pub(super) const fn counts_sequences(&self) -> bool {
        self.project.is_some()
    }
}
