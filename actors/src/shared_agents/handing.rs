//! What was read is handed to the registries of the projects, each at its own pace.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use loom_protocol::agent::UnreadableEntry;
use loom_protocol::{AgentGuid, ProjectId, names};

use super::{Lane, Registries, SharedAgents};
use crate::agent_registry::{SharedChange, SharedNews, SharedPlace};

/// How much is handed over at once.
const AT_ONCE: usize = 512;
/// The pause before a project that cannot be started is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// The pause before a registry that does not answer is asked again.
const RESTARTS_WITHIN: Duration = Duration::from_millis(200);

/// The latest of each agent.
pub(super) type Waiting = HashMap<AgentGuid, SharedNews>;

/// What could not be handed over, and when to try again.
struct NotYet {
    left: Waiting,
    pause: Duration,
}

impl SharedAgents {
    /// Puts something on its way. Whether nobody is handing over to that project.
    pub(super) fn send(&self, project: &ProjectId, news: SharedNews) -> bool {
        let mut lanes = self.0.lanes.lock();
        let lane = match lanes.get_mut(project) {
            Some(lane) => lane,
            None => lanes.entry(project.clone()).or_default(),
        };
        lane.received += 1;
        lane.waiting.insert(news.guid, news);
        !std::mem::replace(&mut lane.is_busy, true)
    }

    /// Hands over to one project until nothing waits.
    pub(super) async fn hand_over(self, registries: impl Registries, id: ProjectId) {
        while let Some((waiting, received)) = self.take(&id) {
            match self.hand(&registries, &id, waiting).await {
                Ok(()) => self.applied(&id, received),
                Err(NotYet { left, pause }) => {
                    self.put_back(&id, left);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    fn take(&self, id: &ProjectId) -> Option<(Waiting, u64)> {
        let mut lanes = self.0.lanes.lock();
        let lane = lanes.get_mut(id)?;
        if lane.waiting.is_empty() {
            lane.is_busy = false;
            return None;
        }
        Some((std::mem::take(&mut lane.waiting), lane.received))
    }

    fn applied(&self, id: &ProjectId, received: u64) {
        if let Some(lane) = self.0.lanes.lock().get(id) {
            lane.applied.send_replace(received);
        }
    }

    /// All entries of a project have been told; where nothing waits, all of it is applied.
    pub(super) fn was_told(&self, id: &ProjectId) {
        if let Some(lane) = self.0.lanes.lock().get(id)
            && lane.waiting.is_empty()
            && !lane.is_busy
        {
            lane.applied.send_replace(lane.received);
        }
    }

    /// What is newer stays.
    fn put_back(&self, id: &ProjectId, left: Waiting) {
        let mut lanes = self.0.lanes.lock();
        let Some(lane) = lanes.get_mut(id) else {
            return;
        };
        for (guid, news) in left {
            lane.waiting.entry(guid).or_insert(news);
        }
    }

    async fn hand(
        &self,
        registries: &impl Registries,
        id: &ProjectId,
        waiting: Waiting,
    ) -> Result<(), NotYet> {
        let is_alive = |news: &SharedNews| matches!(news.what, SharedChange::Put { .. });
        let registry = match registries.awake(id) {
            Some(registry) => registry,
            // Of a project that is not awake nobody is missed.
            None if !waiting.values().any(is_alive) => return Ok(()),
            None => match registries.started(id).await {
                Ok(registry) => registry,
                Err(error) => {
                    for news in waiting.values().filter(|news| is_alive(news)) {
                        let reason = format!("its project {id} cannot be started: {error}");
                        self.refuse(&news.place, id, reason);
                    }
                    return Err(NotYet {
                        left: waiting,
                        pause: TRY_AGAIN,
                    });
                }
            },
        };
        let mut left = waiting;
        while !left.is_empty() {
            let batch: Arc<[SharedNews]> = left.values().take(AT_ONCE).cloned().collect();
            match registry.shared_news(batch.clone()).await {
                Ok(refused) => {
                    for news in &*batch {
                        left.remove(&news.guid);
                        self.was_taken(&news.place.key, news.place.revision);
                    }
                    for refusal in refused {
                        self.refuse(&refusal.place, id, refusal.reason);
                    }
                }
                Err(error) => {
                    tracing::debug!(project = %id, "shared entries wait for the registry: {error}");
                    return Err(NotYet {
                        left,
                        pause: RESTARTS_WITHIN,
                    });
                }
            }
        }
        Ok(())
    }

    fn refuse(&self, place: &SharedPlace, project: &ProjectId, reason: String) {
        self.note_unreadable(UnreadableEntry {
            bucket: names::SHARED_AGENTS_BUCKET.to_owned(),
            key: place.key.clone(),
            revision: place.revision,
            project_id: Some(project.to_string()),
            reason,
        });
    }

    /// Nobody hands over any more: whoever reads next begins anew.
    pub(super) fn begin_anew(&self) {
        for lane in self.0.lanes.lock().values_mut() {
            lane.is_busy = false;
        }
    }

    /// Where something waits and nobody hands it over.
    pub(super) fn abandoned(&self) -> Vec<ProjectId> {
        let mut lanes = self.0.lanes.lock();
        let waits = |lane: &Lane| !lane.is_busy && !lane.waiting.is_empty();
        let found: Vec<ProjectId> = lanes
            .iter()
            .filter(|(_, lane)| waits(lane))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &found {
            if let Some(lane) = lanes.get_mut(id) {
                lane.is_busy = true;
            }
        }
        found
    }
}
