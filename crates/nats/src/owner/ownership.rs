//! Whether somebody who writes owns at this moment.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::LossReason;
use super::store::{OwnerEntry, OwnerStore};

/// Tells whoever writes whether the ownership lasts: a process that was stopped for longer than its
/// lease learns it before its first write. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ownership(Whose);

#[derive(Debug, Clone)]
enum Whose {
    /// Nobody else can own.
    Alone,
    /// Not ours, and it never was.
    NotOurs,
    Leased(Arc<Held>),
}

#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) valid_until: Arc<Mutex<Instant>>,
    pub(super) loss: watch::Receiver<Option<LossReason>>,
    pub(super) store: OwnerStore,
    pub(super) instance_id: Uuid,
}

impl Ownership {
    /// Of somebody who is alone on a NATS of his own, and needs no lease.
    pub const fn alone() -> Self {
        Self(Whose::Alone)
    }

    pub(super) fn leased(held: Held) -> Self {
        Self(Whose::Leased(Arc::new(held)))
    }

    /// Of somebody who has not won any yet.
    pub const fn none() -> Self {
        Self(Whose::NotOurs)
    }

    /// Whether it lasts at this moment.
    pub fn is_held(&self) -> bool {
        match &self.0 {
            Whose::Alone => true,
            Whose::NotOurs => false,
            Whose::Leased(held) => {
                held.loss.borrow().is_none() && Instant::now() < *held.valid_until.lock()
            }
        }
    }

    /// Asks the server whether it is still to be had: nobody else owns. No where the server does not say.
    pub async fn is_nobody_elses(&self) -> bool {
        let held = match &self.0 {
            Whose::Alone => return true,
            Whose::NotOurs => return false,
            Whose::Leased(held) => held,
        };
        match held.store.read().await {
            Ok(OwnerEntry::Free { .. }) => true,
            Ok(OwnerEntry::Held { holder, .. }) => holder.instance_id == held.instance_id,
            Ok(OwnerEntry::Unreadable(_)) | Err(_) => false,
        }
    }
}
