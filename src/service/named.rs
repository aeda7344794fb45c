//! What a text names, in one place for items, agents and dead letters.
//!
//! In this order: a whole id, or at least the first 8 digits of one (what tables show); the exact
//! name (an agent's handle, an item's taskId); a shorter beginning of an id. So nobody can get
//! in the way of an id by choosing its digits for a name. A text that names several things is refused with
//! all of them in `details.candidates` (at most [`SHOWN`]).
//!
//! All of that happens in the project that the request names. A request without one means the default project; the
//! others are looked in only where that one has nothing of the name.

mod places;

use std::collections::BTreeSet;
use std::sync::Arc;

use loom_actors::project::Project;
use loom_protocol::agent::AgentStatus;
use loom_protocol::token::MAX_TASK_ID;
use loom_protocol::{AgentGuid, ErrorCode, ProjectId, WireError, WorkId};
use serde_json::json;

use super::{READY_WITHIN, Service};

/// How many candidates of an ambiguous text are named.
const SHOWN: usize = 10;
/// How many digits of an id go before a name.
const SHORT_ID: usize = 8;
/// How much of a text an error repeats.
const REPEATED: usize = 64;

/// Where an id is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Among {
    /// Among the letters.
    Letters,
    /// Also among the items: a repeated request is about a letter that is gone.
    Items,
}

/// The things that a text may name.
type Found<Id> = Vec<(Arc<Project>, Id)>;

impl Service {
    /// The item that a text names.
    pub(super) async fn find_item(
        &self,
        project: Option<&ProjectId>,
        text: &str,
    ) -> Result<(Arc<Project>, WorkId), WireError> {
        let asleep = self.sleeping(project);
        let mut found = items_of(&self.meant(project, text)?, text).await?;
        if found.is_empty() {
            found = items_of(&self.others(project, text)?, text).await?;
        }
        if found.is_empty() {
            let woken = match project {
                Some(_) => Vec::new(),
                None => self.woken_for(asleep, text).await?,
            };
            found = items_of(&woken, text).await?;
        }
        let names = |found: &Found<WorkId>| {
            let status = |(project, id): &(Arc<Project>, WorkId)| {
                let header = project.work.header(*id);
                let status = header.map_or("gone", |header| header.status.as_str());
                format!("{id} ({status}, project {})", project.id)
            };
            found.iter().map(status).collect()
        };
        only(
            found,
            text,
            "work item",
            "by its id or its taskId; see `loom work list`",
            names,
        )
        .map_err(|error| self.found_nowhere(project, error))
    }

    /// The agent that a text names. Of several with one handle those that are offline do not
    /// count, unless all of them are.
    pub(super) fn find_agent(
        &self,
        project: Option<&ProjectId>,
        text: &str,
    ) -> Result<(Arc<Project>, AgentGuid), WireError> {
        let mut found = agents_of(&self.meant(project, text)?, text);
        if found.is_empty() {
            found = agents_of(&self.others(project, text)?, text);
        }
        let names = |found: &Found<AgentGuid>| {
            let name = |(project, guid): &(Arc<Project>, AgentGuid)| {
                let status = status_of(project, *guid).map_or("gone", AgentStatus::as_str);
                format!("{guid} ({status}, project {})", project.id)
            };
            found.iter().map(name).collect()
        };
        only(
            found,
            text,
            "agent",
            "by its guid or its handle; see `loom agents list`",
            names,
        )
        .map_err(|error| self.found_nowhere(project, error))
    }

    /// The letter that a text names; where asked for, also of an item that may have had one. By a
    /// taskId it is found as long as the record of its item is kept.
    pub(super) async fn find_letter(
        &self,
        project: Option<&ProjectId>,
        text: &str,
        among: Among,
    ) -> Result<(Arc<Project>, WorkId), WireError> {
        let asleep = self.sleeping(project);
        let mut found = letters_of(&self.meant(project, text)?, text, among).await?;
        if found.is_empty() {
            found = letters_of(&self.others(project, text)?, text, among).await?;
        }
        if found.is_empty() {
            let woken = match project {
                Some(_) => Vec::new(),
                None => self.woken_for(asleep, text).await?,
            };
            found = letters_of(&woken, text, among).await?;
        }
        let names = |found: &Found<WorkId>| {
            let name =
                |(project, id): &(Arc<Project>, WorkId)| format!("{id} (project {})", project.id);
            found.iter().map(name).collect()
        };
        only(
            found,
            text,
            "dead letter",
            "by its id or its taskId; see `loom dlq list`",
            names,
        )
        .map_err(|error| self.found_nowhere(project, error))
    }

    /// Where a text is looked for first: in the project that the request names, or else in the default one.
    ///
    /// # Errors
    /// `unavailable`: it cannot be read yet, so that what is found elsewhere may not be what is meant.
    fn meant(
        &self,
        project: Option<&ProjectId>,
        text: &str,
    ) -> Result<Vec<Arc<Project>>, WireError> {
        let first = self.active(project.unwrap_or(self.default_project()));
        match first {
            // A whole id is of one thing, wherever that is: no project that cannot be read hinders it.
            Err(_) if project.is_none() && is_whole_id(text) => Ok(Vec::new()),
            first => Ok(first?.into_iter().collect()),
        }
    }

    /// Where it is looked for next, where the first has nothing of the name: in all others, unless the request names a
    /// project.
    ///
    /// # Errors
    /// As there, of any of them.
    fn others(
        &self,
        project: Option<&ProjectId>,
        text: &str,
    ) -> Result<Vec<Arc<Project>>, WireError> {
        if project.is_some() {
            return Ok(Vec::new());
        }
        if !is_whole_id(text)
            && let Some((not_up, _)) = self.projects().not_up_yet().pop_first()
        {
            self.active(&not_up)?;
        }
        let mut others = self.projects().all_readable()?;
        others.retain(|project| project.id != *self.default_project());
        Ok(others)
    }

    /// Where it is looked for last: of the projects that slept when the search began or sleep now, in the one that has the
    /// item of this whole id; it is woken. By anything else nothing is found in a project that sleeps.
    async fn woken_for(
        &self,
        asleep: Vec<ProjectId>,
        text: &str,
    ) -> Result<Vec<Arc<Project>>, WireError> {
        let Ok(item) = text.parse::<WorkId>() else {
            return Ok(Vec::new());
        };
        let projects = self.projects();
        // One that fell asleep meanwhile is not among those that were awake.
        let mut candidates: BTreeSet<ProjectId> = asleep.into_iter().collect();
        candidates.extend(projects.all_asleep());
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let asleep = candidates.into_iter().collect();
        let Some(id) = projects.the_one_with(item, asleep).await? else {
            return Ok(Vec::new());
        };
        let _awake = self.activate(&id).await?;
        projects.settled(Some(&id), READY_WITHIN).await;
        Ok(self.active(&id)?.into_iter().collect())
    }

    /// The projects that sleep, where a thing is looked for in all. To be taken before those that are awake: one that wakes
    /// meanwhile is among both.
    fn sleeping(&self, project: Option<&ProjectId>) -> Vec<ProjectId> {
        match project {
            Some(_) => Vec::new(),
            None => self.projects().all_asleep(),
        }
    }
}

async fn items_of(projects: &[Arc<Project>], text: &str) -> Result<Found<WorkId>, WireError> {
    let found = items_known(projects, text).await?;
    if !found.is_empty() || projects.iter().all(|project| project.work.is_loaded()) {
        return Ok(found);
    }
    for project in projects {
        project.work.ready(READY_WITHIN).await?;
    }
    items_known(projects, text).await
}

async fn items_known(projects: &[Arc<Project>], text: &str) -> Result<Found<WorkId>, WireError> {
    let by_id = || of_each(projects, |project| project.work.ids_like(text, SHOWN + 1));
    let mut found = if is_short_id(text) {
        by_id()
    } else {
        Vec::new()
    };
    if found.is_empty() {
        found = items_of_task(projects, text).await?;
    }
    if found.is_empty() {
        found = by_id();
    }
    Ok(found)
}

fn agents_of(projects: &[Arc<Project>], text: &str) -> Found<AgentGuid> {
    let by_id = || {
        of_each(projects, |project| {
            project.agents.guids_like(text, SHOWN + 1)
        })
    };
    let mut found = if is_short_id(text) {
        by_id()
    } else {
        Vec::new()
    };
    if found.is_empty() {
        found = of_each(projects, |project| project.agents.guids_of_handle(text));
        let living = |(project, guid): &(Arc<Project>, AgentGuid)| {
            status_of(project, *guid).is_some_and(|status| status != AgentStatus::Offline)
        };
        if found.iter().any(living) {
            found.retain(living);
        }
    }
    if found.is_empty() {
        found = by_id();
    }
    found
}

fn status_of(project: &Project, guid: AgentGuid) -> Option<AgentStatus> {
    let entry = project.agents.get(guid);
    entry.map(|entry| entry.agent().status)
}

async fn letters_of(
    projects: &[Arc<Project>],
    text: &str,
    among: Among,
) -> Result<Found<WorkId>, WireError> {
    for project in projects {
        project.letters.ready(READY_WITHIN).await?;
    }
    let by_id = || {
        let letters = of_each(projects, |project| {
            project.letters.ids_like(text, SHOWN + 1)
        });
        if letters.is_empty() && among == Among::Items {
            of_each(projects, |project| project.work.ids_like(text, SHOWN + 1))
        } else {
            letters
        }
    };
    let mut found = if is_short_id(text) {
        by_id()
    } else {
        Vec::new()
    };
    if found.is_empty() {
        let items = items_of_task(projects, text).await?;
        let has_letter =
            |(project, id): &(Arc<Project>, WorkId)| project.letters.info(*id).is_some();
        found = items
            .iter()
            .filter(|item| has_letter(item))
            .cloned()
            .collect();
        if found.is_empty() && among == Among::Items {
            found = items;
        }
    }
    if found.is_empty() {
        found = by_id();
    }
    Ok(found)
}

fn of_each<Id>(projects: &[Arc<Project>], ids: impl Fn(&Project) -> Vec<Id>) -> Found<Id> {
    let found = projects.iter().flat_map(|project| {
        let ids = ids(project).into_iter();
        ids.map(|id| (project.clone(), id)).collect::<Vec<_>>()
    });
    found.collect()
}

async fn items_of_task(projects: &[Arc<Project>], text: &str) -> Result<Found<WorkId>, WireError> {
    let mut found = Vec::new();
    if text.trim().is_empty() || text.len() > MAX_TASK_ID {
        return Ok(found);
    }
    for project in projects {
        let ids = project.work.items_of_task(text, SHOWN + 1).await?;
        found.extend(ids.into_iter().map(|id| (project.clone(), id)));
    }
    Ok(found)
}

/// Whether a text is so much of an id that it goes before a name.
fn is_short_id(text: &str) -> bool {
    text.len() >= SHORT_ID && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

/// Whether a text is an id from its first to its last digit.
fn is_whole_id(text: &str) -> bool {
    text.parse::<WorkId>().is_ok()
}

/// The only thing found, or the error that says why there is none.
fn only<Id>(
    mut found: Found<Id>,
    text: &str,
    what: &str,
    how: &str,
    names: impl Fn(&Found<Id>) -> Vec<String>,
) -> Result<(Arc<Project>, Id), WireError> {
    let shown: String = text.chars().take(REPEATED).collect();
    match found.len() {
        1 => Ok(found.swap_remove(0)),
        0 if text.trim().is_empty() => Err(WireError::invalid(format!(
            "the {what} is not named; name it {how}"
        ))),
        0 => Err(WireError::new(
            ErrorCode::NotFound,
            format!("there is no {what} {shown}, {how}"),
        )),
        count => {
            let more = if count > SHOWN { " and more" } else { "" };
            found.truncate(SHOWN);
            let candidates = names(&found);
            let remedy = if is_whole_id(text) {
                "name the project"
            } else {
                "write one of these ids, or more of it, or name the project"
            };
            Err(WireError::invalid(format!(
                "{shown} names several: {}{more}; {remedy}",
                candidates.join(", ")
            ))
            .with_details(json!({ "candidates": candidates })))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_digits_of_an_id_go_before_a_name() {
        for id in [
            "01a203ca",
            "01A203CA-603d",
            "01a203ca-603d-7b4e-8d3f-0123456789ab",
        ] {
            assert!(is_short_id(id), "{id}");
        }
        for name in ["ada", "01a203c", "deadbeef!", "anna-1"] {
            assert!(!is_short_id(name), "{name}");
        }
    }
}
