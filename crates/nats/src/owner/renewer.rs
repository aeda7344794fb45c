//! Keeps a lease that was won.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::store::{OwnerEntry, OwnerStore};
use super::{Holder, LOOK_EVERY, LeaseTimes, LossReason};
use crate::repetition::Repetition;

/// Renews until that is over.
pub(super) struct Renewer {
    pub(super) store: OwnerStore,
    pub(super) holder: Holder,
    pub(super) times: LeaseTimes,
    /// Of the last write of mine that is known.
    pub(super) sequence: u64,
    /// When the last renewal that is known to be stored was sent.
    pub(super) stored: Instant,
    /// When the next one is to be sent.
    pub(super) due: Instant,
    pub(super) valid_until: Arc<Mutex<Instant>>,
    /// Renewals that were not acknowledged, one after the other.
    pub(super) unacknowledged: Repetition,
}

impl Renewer {
    /// Returns when ownership is over.
    pub(super) async fn keep(&mut self) -> LossReason {
        loop {
            let until = self.stored + self.times.keep_for;
            *self.valid_until.lock() = until;
            match timeout_at(until, self.renew()).await {
                Ok(None) => {}
                Ok(Some(loss)) => return loss,
                Err(_elapsed) => return LossReason::Unanswered(self.times.keep_for),
            }
        }
    }

    /// The next renewal: `None` as long as nobody else is known to own.
    async fn renew(&mut self) -> Option<LossReason> {
        sleep_until(self.due).await;
        let sent = Instant::now();
        let written = self
            .store
            .write(self.sequence, &self.holder, self.times.ttl)
            .await;
        let failure = match written {
            Ok(sequence) => {
                self.sequence = sequence;
                self.stored = sent;
                self.due = sent + self.times.renew_every;
                self.unacknowledged.over();
                return None;
            }
            Err(failure) => failure,
        };
        let logged = self.unacknowledged.comes(sent.into_std());
        if let Some(passed_over) = logged {
            tracing::warn!(
                %failure,
                passed_over,
                "a renewal of the ownership was not acknowledged"
            );
        }
        self.due = Instant::now() + LOOK_EVERY;
        match self.store.read().await {
            // Stored after all, now or earlier; the next one will be known to be.
            Ok(OwnerEntry::Held { sequence, holder }) if holder.session == self.holder.session => {
                self.sequence = sequence;
                None
            }
            Ok(OwnerEntry::Held { holder, .. }) => Some(LossReason::TakenBy(holder)),
            Ok(OwnerEntry::Unreadable(entry)) => Some(LossReason::Overwritten(entry)),
            Ok(OwnerEntry::Free { .. }) => Some(LossReason::Gone),
            Err(error) => {
                if logged.is_some() {
                    tracing::warn!(%error, "who owns is not known just now");
                }
                None
            }
        }
    }
}
