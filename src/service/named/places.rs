//! What a text names among the places at which agents are started, and among the starts.

use std::sync::Arc;

use loom_actors::domain::id_prefix::bounds;
use loom_actors::project::Project;
use loom_actors::target_manager::OperationFilter;
use loom_protocol::target::{SpinUpOperation, Target};
use loom_protocol::{ErrorCode, ProjectId, SpinUpId, TargetId, WireError};

use super::{Found, SHOWN, is_short_id, is_whole_id, of_each, only};
use crate::access::Allowed;
use crate::service::{READY_WITHIN, Service};

impl Service {
    /// The target that a text names, in the project of the request.
    pub(in crate::service) async fn find_target(
        &self,
        caller: &Allowed,
        text: &str,
    ) -> Result<(Arc<Project>, Target), WireError> {
        let projects: Vec<_> = self.with_targets(caller).await?.into_iter().collect();
        let names = |found: &Found<TargetId>| {
            let name = |(project, id): &(Arc<Project>, TargetId)| {
                let target = project.targets.get(*id);
                format!(
                    "{id} ({})",
                    target.map_or("gone".into(), |target| target.name)
                )
            };
            found.iter().map(name).collect()
        };
        let how = "by its id or its name; see `loom targets list`";
        let (project, id) = only(targets_of(&projects, text), text, "target", how, names)
            .map_err(|error| self.found_nowhere(Some(self.project_of(caller)), error))?;
        let target = project.targets.get(id);
        let gone = || WireError::new(ErrorCode::NotFound, format!("target {id} has just gone"));
        Ok((project, target.ok_or_else(gone)?))
    }

    /// The start of an agent that a text names: its id or the beginning of it.
    pub(in crate::service) async fn find_operation(
        &self,
        project: Option<&ProjectId>,
        text: &str,
    ) -> Result<SpinUpOperation, WireError> {
        let mut found = operations_of(&self.meant(project, text)?, text).await?;
        if found.is_empty() {
            found = operations_of(&self.others(project, text)?, text).await?;
        }
        let names = |found: &Found<SpinUpId>| {
            let name = |(project, id): &(Arc<Project>, SpinUpId)| {
                let operation = project.targets.operation(*id);
                let at = operation.map_or_else(
                    || "gone".into(),
                    |operation| {
                        format!("{} at {}", operation.status.as_str(), operation.target_name)
                    },
                );
                format!("{id} ({at}, project {})", project.id)
            };
            found.iter().map(name).collect()
        };
        let how = "by its operationId; see `loom spin-up list` (those that have ended are kept for targets.keep_operations)";
        let (project, id) = only(found, text, "start of an agent", how, names)
            .map_err(|error| self.found_nowhere(project, error))?;
        let operation = project.targets.operation(id);
        let gone = || WireError::new(ErrorCode::NotFound, format!("the start {id} has just gone"));
        operation.ok_or_else(gone)
    }
}

fn targets_of(projects: &[Arc<Project>], text: &str) -> Found<TargetId> {
    let by_id = || {
        of_each(projects, |project| {
            project.targets.ids_like(text, SHOWN + 1)
        })
    };
    let mut found = if is_short_id(text) {
        by_id()
    } else {
        Vec::new()
    };
    // A whole id means that target and no other: what is sent again about one that is gone is not about another one that
    // is called like it.
    if found.is_empty() && !is_whole_id(text) {
        let of_name = |project: &Project| project.targets.id_of_name(text).into_iter().collect();
        found = of_each(projects, of_name);
    }
    if found.is_empty() {
        found = by_id();
    }
    found
}

async fn operations_of(
    projects: &[Arc<Project>],
    text: &str,
) -> Result<Found<SpinUpId>, WireError> {
    let found = operations_known(projects, text);
    if !found.is_empty() || projects.iter().all(|project| project.targets.is_loaded()) {
        return Ok(found);
    }
    for project in projects {
        project.targets.ready(READY_WITHIN).await?;
    }
    Ok(operations_known(projects, text))
}

fn operations_known(projects: &[Arc<Project>], text: &str) -> Found<SpinUpId> {
    of_each(projects, |project| operations_like(project, text))
}

/// The starts whose ids begin like this, a few more than are shown; all that are kept are looked through.
fn operations_like(project: &Project, text: &str) -> Vec<SpinUpId> {
    if let Ok(id) = text.parse() {
        let operation = project.targets.operation(id);
        return operation
            .map(|operation| operation.operation_id)
            .into_iter()
            .collect();
    }
    let Some((first, last)) = bounds::<SpinUpId>(text) else {
        return Vec::new();
    };
    // Without a cursor there is none to be refused.
    let all = OperationFilter::default();
    let all = project.targets.operations(&all, None, usize::MAX);
    let ids = all.into_iter().flat_map(|found| found.operations);
    ids.map(|operation| operation.operation_id)
        .filter(|id| (first..=last).contains(id))
        .take(SHOWN + 1)
        .collect()
}
