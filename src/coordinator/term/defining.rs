//! Registers the targets that the configuration file defines, and changes those that it defines otherwise than before.
//!
//! The file is the truth about what it has registered, at each start; what others have registered it never touches. A
//! target that it defines no longer stays as it is, until somebody removes it. One that can't be so yet (its mechanism is
//! another one, and agents of the old one live) is tried again until it can.

use std::time::Duration;

use futures_util::future::join_all;
use loom_actors::projects::Projects;
use loom_protocol::{ProjectId, WireError};

use crate::settings::{DefinedTarget, DefinedTargets};

/// The pause before the first of them is tried again; doubles up to the longest.
const AGAIN_FIRST: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// After so many tries it is told why one is not as the file says, and again after so many more: every ten minutes.
const TOLD_AFTER: u32 = 4;
const TOLD_EVERY: u32 = 20;

/// Does it, until each is done or refused. None waits for another one.
pub(super) async fn define_targets(
    projects: Projects,
    defined: DefinedTargets,
    default: ProjectId,
) {
    let all = defined.0.iter().map(|target| {
        let project = target.project.as_ref().unwrap_or(&default);
        define_until_done(&projects, project, target)
    });
    join_all(all).await;
}

async fn define_until_done(projects: &Projects, project: &ProjectId, target: &DefinedTarget) {
    let name = &target.definition.target.name;
    let (mut pause, mut tries) = (AGAIN_FIRST, 0);
    loop {
        match define(projects, project, target).await {
            Ok(true) => tracing::info!(%project, name, "the target is as the file defines it"),
            Ok(false) => {}
            Err(error) if error.code.is_transient() => {
                tries += 1;
                if tries % TOLD_EVERY == TOLD_AFTER {
                    tracing::warn!(%project, name, "the target is not yet as the file defines it: {error}");
                } else {
                    tracing::debug!(%project, name, "the target is not defined yet: {error}");
                }
                tokio::time::sleep(pause).await;
                pause = AGAIN_MAX.min(pause * 2);
                continue;
            }
            Err(error) => {
                tracing::warn!(%project, name, "the target of the file is not registered: {error}");
            }
        }
        return;
    }
}

/// Whether something was written.
async fn define(
    projects: &Projects,
    project: &ProjectId,
    target: &DefinedTarget,
) -> Result<bool, WireError> {
    let project = projects.activate(project).await?;
    let definition = &target.definition;
    let outcome = project.target_manager.define(definition.clone()).await?;
    if outcome.target.mechanism != definition.target.config.mechanism() {
        // It was only switched off so far; the next answer says what it waits for.
        let outcome = project.target_manager.define(definition.clone()).await?;
        return Ok(outcome.changed);
    }
    Ok(outcome.changed)
}
