//! What is being done with projects, for all who wait for it.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::{BoxFuture, Shared};
use loom_protocol::{ProjectId, WireError};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::project::Project;
use crate::supervision::StopError;

/// How many of those that were found start at a time. Each is a dozen requests of JetStream; more at a time make none of
/// them sooner.
pub(super) const STARTS: usize = 16;
/// How something that was done with a project has ended.
#[derive(Clone)]
pub(super) enum Done {
    Started(Result<Arc<Project>, WireError>),
    Stopped(Result<(), StopError>),
}

/// Something that is being done with a project, for all who wait for it.
pub(super) type Doing = Shared<BoxFuture<'static, Done>>;

/// What is being done with each project, and how.
pub(super) type ByProject = HashMap<ProjectId, (What, Doing)>;

/// Whether a project is being started, or its actors end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Start,
    End,
}

/// What is being done with projects.
pub(super) struct Starting {
    pub doing: Mutex<ByProject>,
    /// Places for those that were found.
    pub places: Semaphore,
}

impl Default for Starting {
    fn default() -> Self {
        Self {
            doing: Mutex::default(),
            places: Semaphore::new(STARTS),
        }
    }
}
