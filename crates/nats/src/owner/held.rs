//! A lease as those see it who write by it.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::LossReason;
use super::store::{OwnerEntry, OwnerStore};
use crate::ownership::Lease;

#[derive(Debug)]
pub(super) struct Held {
    pub valid_until: Arc<Mutex<Instant>>,
    pub loss: watch::Receiver<Option<LossReason>>,
    pub store: OwnerStore,
    pub instance_id: Uuid,
}

impl Lease for Held {
    fn is_held(&self) -> bool {
        self.loss.borrow().is_none() && Instant::now() < *self.valid_until.lock()
    }

    fn is_nobody_elses(&self) -> BoxFuture<'_, bool> {
        async {
            match self.store.read().await {
                Ok(OwnerEntry::Free { .. }) => true,
                Ok(OwnerEntry::Held { holder, .. }) => holder.instance_id == self.instance_id,
                Ok(OwnerEntry::Unreadable(_)) | Err(_) => false,
            }
        }
        .boxed()
    }
}
