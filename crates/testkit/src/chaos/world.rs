//! What the agents, the submitters and the schedule share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use loom_actors::nats::connection::{READ_AGAIN_AFTER, WRITE_TIMEOUT};
use loom_protocol::{ErrorCode, WireError, WorkId};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::fleet::TestProject;
use crate::history::{Action, Open, Recorder};

/// Agents that know everything and keep every clock.
pub(super) const STEADY: usize = 4;
/// The others.
pub(super) const ROUGH: usize = 16;

/// Of `loom agent run` as processes.
pub(super) const PROCESSES: usize = 2;

pub(super) const CAPABILITIES: [&str; 4] = ["rust", "python", "docs", "ops"];
pub(super) const BOUNDARIES: [&str; 3] = ["default", "corporate", "personal"];
pub(super) const TYPES: [&str; 2] = ["claude-code", "codex"];

/// How often an item may be tried that only agents do whom no recorder sees: so that the storm alone fails none.
pub(super) const MAX_ATTEMPTS: u32 = 100;
const AFTER_REFUSAL: Duration = Duration::from_millis(100);

/// How long after a fault no order is expected. An item whose write or read got lost in it is out of the queue until that
/// is known: a write is given up after [`WRITE_TIMEOUT`], and what became of it is read, as is a record, with a question that
/// is asked again after [`READ_AGAIN_AFTER`] where the first one got lost.
pub(super) const SETTLES: Duration = WRITE_TIMEOUT.saturating_add(READ_AGAIN_AFTER);

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct World(Arc<Shared>);

pub(super) struct Shared {
    pub project: TestProject,
    pub recorder: Recorder,
    pub seed: u64,
    /// Everybody behaves from now on.
    calm: watch::Sender<bool>,
    counts: Mutex<BTreeMap<String, u64>>,
    /// Items that were submitted lately, for those who call some off.
    recent: Mutex<Vec<WorkId>>,
    last_trouble: Mutex<Option<String>>,
    /// For which capability a submit was refused for good, and why.
    refused: Mutex<Vec<(String, String)>>,
}

impl std::ops::Deref for World {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl World {
    pub fn new(project: TestProject, recorder: Recorder, seed: u64) -> Self {
        Self(Arc::new(Shared {
            project,
            recorder,
            seed,
            calm: watch::Sender::new(false),
            counts: Mutex::default(),
            recent: Mutex::default(),
            last_trouble: Mutex::default(),
            refused: Mutex::default(),
        }))
    }
}

impl Shared {
    /// Says on stderr what happens.
    pub fn tell(&self, what: &str) {
        eprintln!("{:>12}  {what}", self.recorder.now().to_string());
    }

    pub fn count(&self, kind: &str) {
        *self.counts.lock().entry(kind.to_owned()).or_default() += 1;
    }

    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().clone()
    }

    pub fn calm_down(&self) {
        self.calm.send_replace(true);
    }

    pub fn is_calm(&self) -> bool {
        *self.calm.borrow()
    }

    /// Writes the answer down, and counts the refusals.
    pub fn close(&self, open: Open, answer: &Result<Value, WireError>) {
        if let Err(error) = answer {
            self.count(&format!("refused with `{}`", error.code));
            if error.code == ErrorCode::Internal {
                self.tell(&format!("a defect of ours: {error}"));
            }
            if error.code.is_transient() {
                *self.last_trouble.lock() = Some(format!("{}: {error}", self.recorder.now()));
            }
        }
        open.answered(answer);
    }

    /// What was not possible last, and when: says why a run does not settle.
    pub fn last_trouble(&self) -> Option<String> {
        self.last_trouble.lock().clone()
    }

    pub fn begin(&self, action: Action) -> Open {
        self.recorder.begin(action)
    }

    /// The same, of one run of an agent.
    pub fn begin_as(&self, action: Action, run: &str) -> Open {
        self.recorder.begin_as(action, Some(run))
    }

    /// Submits an item that no recorder sees until there is a definite answer; its id, if it was accepted.
    pub async fn submit_unseen(&self, capability: &str) -> Option<WorkId> {
        let id = WorkId::generate();
        let item = json!({
            "id": id, "description": "for whoever is there or started", "capability": capability,
            "maxAttempts": MAX_ATTEMPTS,
        });
        loop {
            match self.project.request("work.submit", item.clone()).await {
                Ok(_) => {
                    self.count(&format!("item for {capability}"));
                    return Some(id);
                }
                Err(error) if may_pass(&error) => sleep(AFTER_REFUSAL).await,
                Err(error) => {
                    let why =
                        format!("a submit of an item that breaks no rule was refused: {error}");
                    self.tell(&why);
                    self.refused.lock().push((capability.to_owned(), why));
                    return None;
                }
            }
        }
    }

    /// Why items for a capability that nobody recorded were refused for good: they break no rule.
    pub fn refused(&self, capability: &str) -> Vec<String> {
        let all = self.refused.lock();
        let of = all.iter().filter(|(whose, _)| whose == capability);
        of.map(|(_, why)| why.clone()).collect()
    }

    pub fn remember(&self, id: WorkId) {
        const KEPT: usize = 64;
        let mut recent = self.recent.lock();
        if recent.len() == KEPT {
            recent.remove(0);
        }
        recent.push(id);
    }

    pub fn any_recent(&self, rng: &mut fastrand::Rng) -> Option<WorkId> {
        rng.choice(self.recent.lock().iter().copied())
    }
}

/// Whether the same request may succeed later.
pub(super) fn may_pass(error: &WireError) -> bool {
    error.code.is_transient() || error.code == ErrorCode::Internal
}
