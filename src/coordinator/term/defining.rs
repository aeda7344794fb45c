//! Registers the targets that the configuration file defines, and changes those that it defines otherwise than before.
//!
//! The file is the truth about what it has registered, at each start; what others have registered it never touches. A
//! target that it defines no longer stays as it is, until somebody removes it.

use std::time::Duration;

use loom_actors::projects::Projects;
use loom_protocol::{ProjectId, WireError};

use crate::settings::{DefinedTarget, DefinedTargets};

/// The pause before the first of them is tried again; doubles up to the longest.
const AGAIN_FIRST: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// Does it, one after the other, until each is done or refused.
pub(super) async fn define_targets(
    projects: Projects,
    defined: DefinedTargets,
    default: ProjectId,
) {
    for target in &defined.0 {
        let project = target.project.as_ref().unwrap_or(&default);
        let mut pause = AGAIN_FIRST;
        loop {
            let name = &target.definition.target.name;
            match define(&projects, project, target).await {
                Ok(true) => tracing::info!(%project, name, "the target is as the file defines it"),
                Ok(false) => {}
                Err(error) if error.code.is_transient() => {
                    tracing::debug!(%project, name, "the target is not defined yet: {error}");
                    tokio::time::sleep(pause).await;
                    pause = AGAIN_MAX.min(pause * 2);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%project, name, "the target of the file is not registered: {error}");
                }
            }
            break;
        }
    }
}

/// Whether something was written.
async fn define(
    projects: &Projects,
    project: &ProjectId,
    target: &DefinedTarget,
) -> Result<bool, WireError> {
    let project = projects.activate(project).await?;
    let definition = target.definition.clone();
    let outcome = project.target_manager.define(definition).await?;
    Ok(outcome.changed)
}
