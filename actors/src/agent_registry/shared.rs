//! Agents with an entry in the bucket of all projects. We write nothing into it.
//!
//! | what | where |
//! |---|---|
//! | who the agent is, and its signs of life | its entry there, told by the one reader of all ([`SharedAgents`](crate::shared_agents::SharedAgents)) |
//! | our verdict | memory: requests, REST and events show it |
//! | a pause, a quarantine | an entry of ours under the same guid in `loom-agents-{p}`, while it lasts |
//! | its burial | the entry there is deleted, if it is still the one that was judged |

use loom_protocol::{AgentGuid, Timestamp};

use super::AgentRegistryArgs;
use super::actor::State;
use super::entry::SharedPlace;
use super::entry_state::Keeper;
use super::notifications::Departure;
use super::shared_news::{SharedChange, SharedNews, SharedRefusal};
use super::watch_events::is_of_a_replaced_run;
use crate::domain::agent::{AgentPut, Seen, Verdict};
use crate::nats::error::{StoreError, StoreErrorKind};

impl State {
    /// Applies what the reader tells. Telling it twice changes nothing.
    pub fn shared_news(&mut self, news: &[SharedNews]) -> Vec<SharedRefusal> {
        let mut refused = Vec::new();
        for news in news {
            let place = &news.place;
            match &news.what {
                SharedChange::Put {
                    put,
                    found,
                    stored_at,
                } => {
                    if let Err(problem) = self.shared_put(place, put, *found, *stored_at) {
                        refused.push(SharedRefusal {
                            place: place.clone(),
                            reason: problem.to_string(),
                        });
                    }
                }
                SharedChange::Deleted => self.shared_gone(news.guid, place, Departure::Deleted),
                SharedChange::Vanished => self.shared_gone(news.guid, place, Departure::Vanished),
            }
        }
        refused
    }

    fn shared_put(
        &mut self,
        place: &SharedPlace,
        put: &AgentPut,
        found: bool,
        stored_at: Timestamp,
    ) -> Result<(), crate::domain::agent::Unreadable> {
        let guid = put.guid;
        let known = self.args.directory.get(guid);
        let applied = known.as_ref().and_then(|known| known.shared_place());
        // Of two spellings the older one counts again when the later one is deleted.
        let is_known = applied.is_some_and(|applied| {
            let is_same = applied.bucket == place.bucket && applied.key == place.key;
            is_same && applied.revision >= place.revision
        });
        if is_known {
            return Ok(());
        }
        if let Some(known) = &known
            && is_of_a_replaced_run(known, put)
        {
            // No sign of life of the run that is registered.
            known.set_shared_place(Some(place.clone()));
            return Ok(());
        }
        let seen = if found {
            self.found(stored_at)
        } else {
            Seen::Put
        };
        self.take_put(put, seen, stored_at, None)?;
        if let Some(entry) = self.args.directory.get(guid) {
            entry.set_shared_place(Some(place.clone()));
            let is_writing = self.is_writing(guid);
            let slot = self.slot(guid);
            if !slot.holds && !is_writing {
                slot.keeper = Keeper::Shared;
            }
            if Verdict::of(entry.agent()).is_durable() || self.slot(guid).holds {
                self.mark_dirty(guid);
            }
        }
        Ok(())
    }

    /// Its entry in the bucket of all projects is gone: so is the agent, if it has no other one.
    fn shared_gone(&mut self, guid: AgentGuid, place: &SharedPlace, how: Departure) {
        let Some(entry) = self.args.directory.get(guid) else {
            return;
        };
        let Some(applied) = entry.shared_place() else {
            return;
        };
        let is_newer = applied.bucket == place.bucket && applied.revision > place.revision;
        if applied.key != place.key || is_newer {
            return;
        }
        entry.set_shared_place(None);
        let slot = self.slot(guid);
        if slot.keeper != Keeper::Shared {
            return;
        }
        if let Some(agent) = self.quarantined(guid) {
            self.remove_quarantined(agent);
            return self.mark_dirty(guid);
        }
        if how == Departure::Vanished && entry.is_missed() {
            // Its age is no goodbye: it is judged by its silence.
            return;
        }
        self.remove_agent(guid, how);
        self.tidy_up(guid);
    }
}

/// Deletes an entry from the bucket of all projects, if it is still the one that was judged.
/// `Conflict`: the agent has put it again meanwhile.
pub(super) async fn delete_shared(
    args: &AgentRegistryArgs,
    place: &SharedPlace,
    writer: &str,
) -> Result<(), StoreError> {
    let bucket = args.shared_bucket();
    let now = bucket.info().await.map_err(StoreError::in_doubt)?;
    if now.is_none_or(|info| crate::nats::kv::identity(&info) != place.bucket) {
        return Ok(());
    }
    match bucket
        .delete_foreign(&place.key, place.revision, writer)
        .await
    {
        Err(error) if error.kind() == StoreErrorKind::Conflict => {
            let last = bucket
                .last(&place.key)
                .await
                .map_err(StoreError::in_doubt)?;
            match last.and_then(|record| record.value) {
                Some(_) => Err(error),
                // It went by its age.
                None => Ok(()),
            }
        }
        deleted => deleted.map(drop),
    }
}
