//! Targets: register, list, get, update, remove, enable, disable, test.
//!
//! To register a target is to say what is executed. Which mechanisms may come by request is the operator's to say
//! (`targets.api_mechanisms`); what `loom.toml` defines is not asked about.

use std::sync::Arc;

use loom_actors::project::Project;
use loom_actors::target_manager::Outcome;
use loom_protocol::agent::UnreadableEntry;
use loom_protocol::batch::TargetBatchFilter;
use loom_protocol::rest::PageInfo;
use loom_protocol::target::{
    ListTargetsRequest, Mechanism, RegisterTarget, RemovedTarget, Target, TargetAnswer,
    TargetHealth, TargetUpdates,
};
use loom_protocol::{ErrorCode, TargetId, WireError};

use super::{BatchFilter, Named, Page, READY_WITHIN, Service, page_limit};
use crate::access::{Allowed, Door};

/// How many records that cannot be read are told at once.
const MOST_UNREADABLE: usize = 100;

impl BatchFilter for TargetBatchFilter {
    const FIELDS: &'static str = "agentType, capability, boundary, mechanism or tag";
}

impl Service {
    /// One page of the targets of a project.
    ///
    /// # Errors
    /// The project cannot be read, or a filter is wrong.
    pub async fn list_targets(
        &self,
        caller: &Allowed,
        request: &ListTargetsRequest,
    ) -> Result<Page<TargetAnswer>, WireError> {
        let limit = page_limit(request.limit)?;
        let Some(project) = self.with_targets(caller).await? else {
            return Ok(Page {
                items: Vec::new(),
                info: PageInfo::default(),
            });
        };
        let mut found = project.targets.find(request, limit)?;
        let fitting = self.how_many_fit(&found.targets);
        if fitting < found.targets.len() {
            found = project.targets.find(request, fitting)?;
        }
        Ok(Page {
            items: found.targets.into_iter().map(Target::answer).collect(),
            info: found.info,
        })
    }

    /// One target, by its id, its name in whatever case, or an unambiguous beginning of its id.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub async fn get_target(
        &self,
        caller: &Allowed,
        text: &str,
    ) -> Result<TargetAnswer, WireError> {
        let (_, target) = self.find_target(caller, text).await?;
        Ok(target.answer())
    }

    /// Registers a target. Refused while the store is short, so that there is room to change and remove what is there.
    ///
    /// # Errors
    /// A field is wrong, the mechanism may not come by request, or there is one of that name.
    pub async fn register_target(
        &self,
        caller: &Allowed,
        request: RegisterTarget,
    ) -> Result<TargetAnswer, WireError> {
        let new = request.check()?;
        self.check_mechanism(new.config.mechanism())?;
        self.has_room_for_work()?;
        let project = self.activate(self.project_of(caller)).await?;
        let by = match caller.caller().door {
            Door::Nats => "nats",
            Door::Rest => "rest",
        };
        let outcome = project.target_manager.register(new, by.into()).await?;
        Ok(outcome.target.answer())
    }

    /// Changes a target; what is absent stays.
    ///
    /// # Errors
    /// A field is wrong, there is no such target, or how it starts agents may not be changed by request.
    pub async fn update_target(
        &self,
        caller: &Allowed,
        text: &str,
        updates: TargetUpdates,
    ) -> Result<TargetAnswer, WireError> {
        let (project, target) = self.find_target(caller, text).await?;
        if updates.changes_config() {
            self.check_mechanism(target.mechanism)?;
        }
        let outcome = project.target_manager.update(&target, updates).await?;
        Ok(outcome.target.answer())
    }

    /// Removes a target, or by its name a record that cannot be read as one; what it was.
    ///
    /// # Errors
    /// There is none, or it has agents.
    pub async fn remove_target(
        &self,
        caller: &Allowed,
        text: &str,
    ) -> Result<RemovedTarget, WireError> {
        let (project, target) = match self.find_target(caller, text).await {
            Ok(found) => found,
            Err(error) => return self.discard_target(caller, text, error).await,
        };
        let outcome = project.target_manager.remove(&target).await?;
        Ok(RemovedTarget::Target(outcome.target.answer().into()))
    }

    /// Removes what lies under a name and cannot be read; `error`: why it is no target.
    async fn discard_target(
        &self,
        caller: &Allowed,
        name: &str,
        error: WireError,
    ) -> Result<RemovedTarget, WireError> {
        match self.with_targets(caller).await? {
            Some(project) if project.targets.unreadable_named(name).is_some() => {
                project.target_manager.discard_unreadable(name).await?;
                Ok(RemovedTarget::Unreadable {
                    name: name.to_ascii_lowercase(),
                    unreadable: true,
                })
            }
            _ => Err(error),
        }
    }

    /// Switches a target on or off.
    ///
    /// # Errors
    /// There is none.
    pub async fn switch_target(
        &self,
        caller: &Allowed,
        text: &str,
        on: bool,
    ) -> Result<TargetAnswer, WireError> {
        let (project, target) = self.find_target(caller, text).await?;
        let switched: Outcome = project.target_manager.switch(&target, on).await?;
        Ok(switched.target.answer())
    }

    /// Looks whether an agent could be started at a target, without starting one.
    ///
    /// # Errors
    /// There is none, or what there is to see is not known in time. That none could be started is no error.
    pub async fn test_target(
        &self,
        caller: &Allowed,
        text: &str,
    ) -> Result<TargetHealth, WireError> {
        let (project, target) = self.find_target(caller, text).await?;
        project.target_manager.test(&target).await
    }

    /// The records of a project that cannot be read as targets.
    ///
    /// # Errors
    /// The project cannot be read.
    pub async fn unreadable_targets(
        &self,
        caller: &Allowed,
    ) -> Result<Vec<UnreadableEntry>, WireError> {
        let project = self.with_targets(caller).await?;
        Ok(project.map_or_else(Vec::new, |project| {
            project.targets.unreadable(MOST_UNREADABLE)
        }))
    }

    /// The targets that a filter names and that may start agents.
    ///
    /// # Errors
    /// The project cannot be read.
    pub async fn targets_named(
        &self,
        caller: &Allowed,
        wanted: &TargetBatchFilter,
    ) -> Result<Named<TargetId>, WireError> {
        let request = ListTargetsRequest {
            agent_type: wanted.agent_type.clone(),
            capability: wanted.capability.clone(),
            boundary: wanted.boundary.clone(),
            mechanism: wanted.mechanism,
            tag: wanted.tag.clone(),
            ..ListTargetsRequest::default()
        };
        let found = match self.with_targets(caller).await? {
            Some(project) => project.targets.find(&request, usize::MAX)?.targets,
            None => Vec::new(),
        };
        Ok(Named {
            ids: found.iter().map(|target| target.id).collect(),
            has_more: false,
        })
    }

    /// The target that a text names, in the project of the request.
    ///
    /// # Errors
    /// There is none, or there are several. Of a record that cannot be read, how to get rid of it.
    async fn find_target(
        &self,
        caller: &Allowed,
        text: &str,
    ) -> Result<(Arc<Project>, Target), WireError> {
        let found = self.find_readable_target(caller, text).await;
        let error = match found {
            Err(error) if error.code == ErrorCode::NotFound => error,
            found => return found,
        };
        let project = self.with_targets(caller).await?;
        let unreadable = project.and_then(|project| project.targets.unreadable_named(text));
        Err(unreadable.unwrap_or(error))
    }

    /// The project of a request, if it is there and its targets have been read.
    pub(super) async fn with_targets(
        &self,
        caller: &Allowed,
    ) -> Result<Option<Arc<Project>>, WireError> {
        let project = self.active(self.project_of(caller))?;
        if let Some(project) = &project {
            project.targets.ready(READY_WITHIN).await?;
        }
        Ok(project)
    }

    fn check_mechanism(&self, mechanism: Mechanism) -> Result<(), WireError> {
        if self.0.options.api_mechanisms.contains(&mechanism) {
            return Ok(());
        }
        let text = format!(
            "how {mechanism} targets start agents may not be said by request here (targets.api_mechanisms): it is a way to execute programs; define the target in loom.toml ([[targets.define]]), or ask the operator to allow it"
        );
        Err(WireError::new(ErrorCode::Forbidden, text))
    }
}
