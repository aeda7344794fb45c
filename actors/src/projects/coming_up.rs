//! What wakes a project, what is done with it until it can be read from, and what it owes to its agents when it is up.

use std::sync::{Arc, Weak};
use std::time::Duration;

use loom_protocol::{ProjectId, WireError};

use super::wake_subscriptions::WakeSubscription;
use super::{LOOK_EVERY, Projects, RETRY_AFTER};
use crate::dlq_retrier::LetterError;
use crate::domain::sleep::DigestedMark;
use crate::project::Project;
use crate::supervision::{TreeState, TreeStatus};

/// How long agents and dead letters of one may take to be read before the reason why it cannot be read from is that.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// The longest pause before a project for which something has come is tried again.
const RETRY_MAX: Duration = Duration::from_secs(5);

impl Projects {
    /// It sleeps from now on, until something comes for it.
    pub(super) fn lay_to_sleep(
        &self,
        id: &ProjectId,
        mark: DigestedMark,
        subscription: WakeSubscription,
    ) {
        if self.0.asleep.insert(id, mark, subscription) {
            self.wake_for_a_message(id);
        }
    }

    /// A message has come for a project that sleeps: it is started.
    pub(super) fn wake_for_a_message(&self, id: &ProjectId) {
        let (inner, of) = (Arc::downgrade(&self.0), id.clone());
        let waking = async move {
            let mut pause = RETRY_AFTER;
            // The start of the project ends this; where it cannot be started just now, it is tried again.
            while let Some(inner) = inner.upgrade() {
                // A task of its own is as large as what it may wait for.
                Box::pin(Self(inner).start_one_found(&of)).await;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        };
        if self.0.asleep.wake(id, waking) {
            tracing::info!(project = %id, "a message wakes the project");
        }
    }

    /// Starts one that was found again and again, with pauses, until it is up or its resources are gone: it can be read from
    /// no earlier.
    pub(super) fn start_until_up(&self, id: &ProjectId) {
        let (inner, id) = (Arc::downgrade(&self.0), id.clone());
        tokio::spawn(async move {
            let mut pause = RETRY_AFTER;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LOOK_EVERY);
                let Some(projects) = inner.upgrade().map(Projects) else {
                    return;
                };
                if !projects.0.found.contains(&id) || projects.started(&id).is_some() {
                    return;
                }
                projects.start_one_found(&id).await;
            }
        });
    }

    /// One whose start goes on can be read from when it is up.
    pub(super) fn note_when_up(&self, id: &ProjectId) {
        let (inner, root, id) = (Arc::downgrade(&self.0), self.0.root.clone(), id.clone());
        tokio::spawn(async move {
            let decided = |tree: Option<&TreeStatus>| {
                tree.is_none_or(|tree| {
                    matches!(tree.state, TreeState::Running | TreeState::Stopping)
                })
            };
            loop {
                let tree = tokio::select! {
                    tree = root.wait_for(id.as_str(), LOOK_EVERY, decided) => tree,
                    () = root.ended() => return,
                };
                let Some(projects) = Weak::upgrade(&inner).map(Projects) else {
                    return;
                };
                let Ok(tree) = tree else { continue };
                if tree.is_some_and(|tree| tree.state == TreeState::Running) {
                    tracing::info!(project = %id, "project is awake");
                    if let Some(project) = projects.get(&id) {
                        projects.note_when_read(&project);
                    }
                }
                return;
            }
        });
    }

    /// One that is up can be read from when its agents and its dead letters have been read too, or when those of them
    /// that cannot be say so themselves.
    pub(super) fn note_when_read(&self, project: &Arc<Project>) {
        let (inner, project) = (Arc::downgrade(&self.0), Arc::downgrade(project));
        tokio::spawn(async move {
            loop {
                let Some(reading) = project.upgrade() else {
                    return;
                };
                let agents = reading.registry.ready(READ_WITHIN).await;
                let letters = reading.letters.ready(READ_WITHIN).await;
                let Some(projects) = inner.upgrade().map(Projects) else {
                    return;
                };
                let id = &reading.id;
                let is_read = letters.is_ok() || matches!(letters, Err(LetterError::NoStream(_)));
                match agents {
                    Ok(()) if is_read => return projects.0.found.came_up(id),
                    Ok(()) => {
                        let text = format!("the dead letters of project {id} are not read yet");
                        let error = WireError::unavailable(text, RETRY_AFTER);
                        projects.0.found.failed(id, &error);
                    }
                    Err(error) => projects.0.found.failed(id, &error),
                }
                drop((reading, projects));
                tokio::time::sleep(RETRY_AFTER).await;
            }
        });
    }
}

/// What a project that has just started owes to its agents: a claim that was open when the coordinator before this one died
/// is answered by nobody, and leases of agents that are gone are held by nobody.
pub(super) async fn care_for(project: Weak<Project>, nats: async_nats::Client) {
    if let Some(project) = project.upgrade()
        && let Err(error) = project.greet_agents(&nats).await
    {
        tracing::debug!(project = %project.id, "its agents could not be greeted: {error}");
    }
    while let Some(project) = project.upgrade() {
        match project.revoke_orphaned_leases().await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(project = %project.id, "orphaned leases could not be taken back yet: {error}");
            }
        }
        drop(project);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
