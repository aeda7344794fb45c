//! What an item may submit: only for the capabilities that its agent allows, in its own boundary, in bounds.
//!
//! The bound on their number holds for the item, whichever agents had it and however often: the ids of its submissions
//! follow from its own id and from their place, so that a place is used once as long as its item is kept. Which of two
//! submissions of one place a stored item is, is told by its task id, which is random and new for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom_client::Client;
use loom_protocol::work::{SubmitAnswer, SubmitRequest, WorkItem};
use loom_protocol::{ErrorCode, VerbName, WireError, WorkId};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::message::Submit;
use super::refusal::wire;

/// How many items lie above one that may be submitted, at the most.
pub const MAX_DEPTH: usize = 3;
/// How many items one may submit.
pub const MAX_CHILDREN: u32 = 20;

/// How many of an agent's slots are in use. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Slots {
    all: usize,
    used: Arc<AtomicUsize>,
}

/// A slot in use.
#[derive(Debug)]
pub struct Slot(Arc<AtomicUsize>);

impl Slots {
    /// So many, all free.
    pub fn new(all: usize) -> Self {
        Self {
            all,
            used: Arc::default(),
        }
    }

    /// Takes one until it is dropped.
    pub fn take(&self) -> Slot {
        self.used.fetch_add(1, Ordering::Relaxed);
        Slot(self.used.clone())
    }

    fn is_one_free(&self) -> bool {
        self.used.load(Ordering::Relaxed) < self.all
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The submissions of one attempt.
#[derive(Debug)]
pub struct Children {
    /// What may be asked for.
    allowed: Arc<[String]>,
    slots: Slots,
    /// The place of the next one, as far as this attempt knows.
    next: Mutex<u32>,
}

impl Children {
    /// For an agent that allows these capabilities.
    pub fn new(allowed: Arc<[String]>, slots: Slots) -> Self {
        Self {
            allowed,
            slots,
            next: Mutex::default(),
        }
    }

    /// Whether the agent lets this be submitted at all.
    ///
    /// # Errors
    /// `forbidden`, with what would do.
    pub fn check(&self, asked: &Submit) -> Result<(), WireError> {
        if !self.allowed.contains(&asked.capability) {
            let allowed = match &*self.allowed {
                [] => "nothing may be submitted".to_owned(),
                some => format!("allowed: {}", some.join(", ")),
            };
            return Err(forbidden(format!(
                "work for {:?} may not be submitted from inside this agent ({allowed}); `loom agent run --may-submit` says what may",
                asked.capability
            )));
        }
        if asked.wait && !self.slots.is_one_free() {
            return Err(forbidden(
                "waiting would hold the last free slot of this agent, and what is waited for may never be begun; submit without --wait, or run the agent with more --slots",
            ));
        }
        Ok(())
    }

    /// Submits it as a child of `item`, on behalf of the agent that is called `handle`.
    ///
    /// # Errors
    /// It lies too deep, the item has submitted enough, or the coordinator refuses.
    pub async fn submit(
        &self,
        client: &Client,
        item: &WorkItem,
        handle: &str,
        asked: Submit,
    ) -> Result<SubmitAnswer, WireError> {
        check_depth(client, item).await?;
        let task = Uuid::new_v4().to_string();
        let mut request = SubmitRequest {
            description: asked.description,
            capability: asked.capability,
            boundary: Some(item.boundary.clone()),
            parent_id: Some(item.id.to_string()),
            task_id: Some(task.clone()),
            priority: asked.priority.map(Into::into),
            labels: asked.labels,
            context_data: asked.context_data,
            offered_by: Some(format!("agent {handle}")),
            strict: true,
            ..SubmitRequest::default()
        };
        // One after the other: each place is asked for once.
        let mut next = self.next.lock().await;
        while *next < MAX_CHILDREN {
            request.id = Some(child_id(item.id, *next).to_string());
            let answer = client.request(VerbName::WorkSubmit, &request).await;
            let answer: SubmitAnswer = answer.map_err(|error| wire(&error))?;
            *next += 1;
            if answer.task_id == task {
                return Ok(answer);
            }
        }
        Err(forbidden(format!(
            "item {} has submitted {MAX_CHILDREN} items, and may submit no more",
            item.id
        )))
    }
}

/// Whether an item may have children, by the items above it.
async fn check_depth(client: &Client, item: &WorkItem) -> Result<(), WireError> {
    let mut above = item.parent_id;
    let mut depth = 1;
    while let Some(id) = above {
        depth += 1;
        if depth > MAX_DEPTH {
            return Err(forbidden(format!(
                "item {} was itself submitted by one that was submitted, {MAX_DEPTH} deep; it may submit nothing",
                item.id
            )));
        }
        above = match client.get(id).await {
            Ok(item) => item.parent_id,
            Err(error) if error.code() == Some(ErrorCode::NotFound) => {
                return Err(forbidden(format!(
                    "item {id}, above this one, is not kept any more, so that nobody can tell how deep this one lies; it may submit nothing"
                )));
            }
            Err(error) => return Err(wire(&error)),
        };
    }
    Ok(())
}

/// The id of the item that `parent` submits in the place of this number.
pub fn child_id(parent: WorkId, place: u32) -> WorkId {
    let mut digest = Sha256::new();
    digest.update(b"loom child");
    digest.update(parent.uuid().as_bytes());
    digest.update(place.to_le_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.finalize()[..16]);
    WorkId::from_digest(bytes)
}

fn forbidden(message: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::Forbidden, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(capability: &str, wait: bool) -> Submit {
        Submit {
            description: "d".into(),
            capability: capability.into(),
            wait,
            ..Submit::default()
        }
    }

    #[test]
    fn nothing_may_be_submitted_but_what_is_allowed() {
        let none = Children::new(Arc::new([]), Slots::new(1));
        let error = none.check(&asked("c", false)).unwrap_err();
        assert!(
            error.message.contains("nothing may be submitted"),
            "{error}"
        );
        let some = Children::new(Arc::new(["c".into()]), Slots::new(1));
        some.check(&asked("c", true)).unwrap();
        let error = some.check(&asked("C", false)).unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden);
        assert!(error.message.contains("allowed: c)"), "{error}");
    }

    #[test]
    fn who_waits_needs_a_slot_beside_its_own() {
        let slots = Slots::new(2);
        let children = Children::new(Arc::new(["c".into()]), slots.clone());
        let own = slots.take();
        children.check(&asked("c", true)).unwrap();
        let other = slots.take();
        let error = children.check(&asked("c", true)).unwrap_err();
        assert!(error.message.contains("--slots"), "{error}");
        children.check(&asked("c", false)).unwrap();
        drop(other);
        children.check(&asked("c", true)).unwrap();
        drop(own);
    }

    #[test]
    fn places_have_ids_of_their_own() {
        let parent = WorkId::generate();
        let ids: std::collections::HashSet<WorkId> = (0..MAX_CHILDREN)
            .map(|place| child_id(parent, place))
            .collect();
        assert_eq!(ids.len(), MAX_CHILDREN as usize);
        assert!(ids.contains(&child_id(parent, 7)));
        assert_ne!(child_id(WorkId::generate(), 0), child_id(parent, 0));
    }
}
