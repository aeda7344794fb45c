//! Which store this coordinator works with, what was in one that is gone, and going on with another one.

use loom_protocol::WireError;
use loom_protocol::store::{AcceptAnswer, LostAnswer, MOST_LOST, StoreAnswer};

use super::Service;
use crate::access::Allowed;

impl Service {
    /// The store, and what is wrong with it.
    pub fn store(&self, _caller: &Allowed) -> StoreAnswer {
        self.projects().terms().stores.describe()
    }

    /// What was known of a project, or of all, and is not in the store that is there. After an acceptance: what was not.
    pub async fn lost(&self, caller: &Allowed) -> Result<LostAnswer, WireError> {
        let project = caller.project();
        let stores = self.projects().terms().stores.clone();
        let which = match project {
            Some(project) => vec![project.clone()],
            None => stores.known_projects(),
        };
        let mut answer = LostAnswer::default();
        for project in which {
            let lost = stores.lost(&project).await?;
            answer.total += lost.len();
            let left = MOST_LOST.saturating_sub(answer.items.len());
            answer.items.extend(lost.iter().take(left).cloned());
        }
        Ok(answer)
    }

    /// Goes on with the store that is there: of a project, or all that is not the one that was worked with. Where
    /// `nats.store_id` names another one, that is refused: the setting is to be changed.
    pub async fn accept_store(&self, caller: &Allowed) -> Result<AcceptAnswer, WireError> {
        let project = caller.project();
        let projects = self.projects();
        let stores = projects.terms().stores.clone();
        let whole = stores.whole();
        if let Some(sentence) = whole.foreign().filter(|_| whole.is_pinned()) {
            return Err(WireError::invalid(sentence.to_string()));
        }
        let which = match (project, whole.foreign()) {
            (Some(_), Some(whole)) => {
                return Err(WireError::invalid(format!(
                    "{whole}: it is accepted as a whole, so name no project"
                )));
            }
            (Some(project), None) => vec![project.clone()],
            (None, _) => stores.known_projects(),
        };
        let mut answer = AcceptAnswer::default();
        for project in &which {
            if let Some(lost) = stores.accept(project).await? {
                answer.projects.push(project.to_string());
                answer.lost += lost.len();
            }
        }
        answer.whole = project.is_none() && stores.accept_whole();
        // With the whole the ownership is lost too, and all is opened when it is won again.
        if self.owns() && !answer.whole {
            for project in answer.projects.iter().filter_map(|id| id.parse().ok()) {
                projects.activate(&project).await?;
            }
        }
        Ok(answer)
    }
}
