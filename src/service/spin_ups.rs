//! Starts of agents: begin one, look at one, list them.

use loom_actors::domain::targets::{Need, TargetProfile, serves};
use loom_actors::project::Project;
use loom_actors::target_manager::OperationFilter;
use loom_actors::work_ledger::ReadError;
use loom_protocol::rest::PageInfo;
use loom_protocol::target::{ListSpinUpsRequest, SpinUpOperation, SpinUpRequest, Target};
use loom_protocol::work::WorkStatus;
use loom_protocol::{ErrorCode, TargetId, WireError, WorkId};

use super::{Page, Service, page_limit};
use crate::access::Allowed;

impl Service {
    /// Starts an agent at a target, whatever waits. The answer is given when the start is recorded; it goes on by itself.
    ///
    /// # Errors
    /// There is no such target or item, the agent would be none for the item, or the rule against a start now.
    pub async fn trigger_spin_up(
        &self,
        caller: &Allowed,
        request: &SpinUpRequest,
    ) -> Result<SpinUpOperation, WireError> {
        let (project, target) = self.find_target(caller, &request.target).await?;
        let started_for = match &request.work_item_id {
            Some(text) => Some(self.waiting_item(&project, &target, text).await?),
            None => None,
        };
        let (need, item) = started_for.unzip();
        project.target_manager.trigger(&target, need, item).await
    }

    /// An item that an agent of this target may take once it is there.
    async fn waiting_item(
        &self,
        project: &Project,
        target: &Target,
        text: &str,
    ) -> Result<(Need, WorkId), WireError> {
        let (project, id) = self.find_item(Some(&project.id), text).await?;
        let header = project.work.header(id).ok_or(ReadError::NotFound(id))?;
        if header.status != WorkStatus::Pending {
            let text = format!(
                "work item {id} is {}, and waits for no agent; leave workItemId out to start one all the same",
                header.status
            );
            return Err(WireError::new(ErrorCode::TerminalState, text));
        }
        let need = Need::from(&*header.needs);
        let profile = TargetProfile::from(target);
        serves(&profile, &need).map_err(|rule| {
            WireError::invalid(format!(
                "an agent of target {} may never take work item {id}: it needs {need}, and the target's agents are of the type {:?}, can do {:?} and work in the boundaries {:?} ({rule}); name another target",
                target.name, target.agent_type, target.capabilities, target.boundaries,
            ))
        })?;
        Ok((need, id))
    }

    /// One start, by its id or an unambiguous beginning of it.
    ///
    /// # Errors
    /// There is none (any more), or there are several.
    pub async fn get_spin_up(
        &self,
        caller: &Allowed,
        text: &str,
    ) -> Result<SpinUpOperation, WireError> {
        self.find_operation(caller.project(), text).await
    }

    /// One page of the starts of a project, the latest first.
    ///
    /// # Errors
    /// The project cannot be read, or a filter is wrong.
    pub async fn list_spin_ups(
        &self,
        caller: &Allowed,
        request: &ListSpinUpsRequest,
    ) -> Result<Page<SpinUpOperation>, WireError> {
        let limit = page_limit(request.limit)?;
        let Some(project) = self.with_targets(caller).await? else {
            return Ok(Page {
                items: Vec::new(),
                info: PageInfo::default(),
            });
        };
        let target = match request.target.as_deref() {
            None => None,
            Some(text) => Some(self.target_or_one_that_was(caller, text).await?),
        };
        let filter = OperationFilter {
            status: request.status,
            target,
        };
        let cursor = request.cursor.as_deref();
        let mut found = project.targets.operations(&filter, cursor, limit)?;
        let fitting = self.how_many_fit(&found.operations);
        if fitting < found.operations.len() {
            found = project.targets.operations(&filter, cursor, fitting)?;
        }
        Ok(Page {
            items: found.operations,
            info: found.info,
        })
    }

    /// The target that a text names; a whole id need not be known (any more).
    async fn target_or_one_that_was(
        &self,
        caller: &Allowed,
        text: &str,
    ) -> Result<TargetId, WireError> {
        match (self.find_target(caller, text).await, text.parse()) {
            (Ok((_, target)), _) => Ok(target.id),
            (Err(error), Ok(id)) if error.code == ErrorCode::NotFound => Ok(id),
            (Err(error), _) => Err(error),
        }
    }
}
