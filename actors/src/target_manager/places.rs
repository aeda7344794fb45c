//! The places of `targets.max_concurrent`: who takes one, for how long, and whom to name where all are taken.
//!
//! A start takes a place from its beginning until it is decided or its agent is born, and for [`BirthTerms::place_for`] at
//! the most. Afterwards it waits for its agent without one: a mechanism that never says what became of a start keeps no
//! other target waiting for longer. A start that is found in the bucket takes its place for what is left of that time. One
//! that is begun again takes a place as a new one does: it waits for one where all are taken, and has it for the full time.

use std::collections::HashMap;
use std::fmt;

use loom_protocol::target::SpinUpOperation;
use loom_protocol::{SpinUpId, Timestamp};
use tokio::time::Instant;

use super::Reference;
use super::directory::TargetDirectory;
use super::env::Env;
use super::messages::TargetMsg;
use super::terms::{BirthTerms, OF_ALL_PROJECTS, StartPermit};
use crate::deadline_queue::DeadlineQueue;
use crate::domain::targets::Birth;

/// How many starts a sentence names.
const NAMED: usize = 10;

/// The places among those of all projects that starts of this one take.
#[derive(Default)]
pub(super) struct Places {
    taken: HashMap<SpinUpId, StartPermit>,
    due: DeadlineQueue<SpinUpId>,
}

impl Places {
    /// A start takes its place for what is left of its time, which runs from when it was begun last.
    pub fn take(&mut self, env: &Env, birth: &Birth<Reference>, permit: StartPermit) {
        let age = env.now().since(birth.begun_at());
        let left = env.args.births.place_for().saturating_sub(age);
        if !left.is_zero() {
            let id = birth.operation.operation_id;
            self.taken.insert(id, permit);
            self.due.set(id, Instant::now() + left);
        }
    }

    /// A start is decided, or its agent is born, or it is begun again: what it had of the places of all projects.
    pub fn leave(&mut self, id: SpinUpId) -> Option<StartPermit> {
        self.due.remove(&id);
        self.taken.remove(&id)
    }

    /// A timer has fired: whether some have taken their places for as long as they may.
    pub fn time_is_over(&mut self, epoch: u64) -> bool {
        if self.due.fired(epoch).is_none() {
            return false;
        }
        let mut has_left = false;
        while let Some(id) = self.due.pop_due(Instant::now()) {
            self.taken.remove(&id);
            has_left = true;
        }
        has_left
    }

    /// Arms the timer of who leaves next.
    pub fn arm(&mut self, env: &Env) {
        env.arm(self.due.next_to_arm(), |epoch| TargetMsg::PlacesDue {
            epoch,
        });
    }
}

/// That all places are taken, and by which starts of this project.
///
/// ```no_run
/// use loom_actors::project::Project;
///
/// fn why_nobody_is_started(project: &Project) -> Option<String> {
///     let taken = project.target_manager.places_taken()?;
///     Some(taken.to_string())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct PlacesTaken {
    terms: BirthTerms,
    /// With when each was begun last, the oldest first.
    by: Vec<(SpinUpOperation, Timestamp)>,
}

impl PlacesTaken {
    /// Who takes places now, be they all taken or not.
    pub(super) fn now(terms: &BirthTerms, directory: &TargetDirectory, now: Timestamp) -> Self {
        Self {
            by: directory.begun_since(now.before(terms.place_for())),
            terms: terms.clone(),
        }
    }

    /// Whether no place is left, in this project or in all.
    pub(super) fn are_all(terms: &BirthTerms, directory: &TargetDirectory, now: Timestamp) -> bool {
        let taken = directory.count_begun_since(now.before(terms.place_for()));
        taken >= terms.most_of_a_project() || terms.limit.is_reached()
    }
}

impl fmt::Display for PlacesTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.terms.settings.max_concurrent;
        write!(
            f,
            "as many starts are under way as may be at once ({most} of a project, targets.max_concurrent; {} of all)",
            self.terms
                .most_of_a_project()
                .saturating_mul(OF_ALL_PROJECTS)
        )?;
        for (number, (operation, since)) in self.by.iter().take(NAMED).enumerate() {
            let before = if number == 0 { ": " } else { ", " };
            let id = operation.operation_id;
            let target = &operation.target_name;
            write!(f, "{before}target {target} (operation {id}, since {since})")?;
        }
        match self.by.len() {
            0 => write!(f, ", of other projects or just begun")?,
            count if count > NAMED => write!(f, " and {} more", count - NAMED)?,
            _ => {}
        }
        write!(
            f,
            "; each takes its place for {:?} at the most",
            self.terms.place_for()
        )
    }
}
