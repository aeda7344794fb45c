//! Which coordinator owns: a lease on `LOOM_OWNERS/coordinator`. Owns: bucket LOOM_OWNERS. Writes nowhere else.
//!
//! What fences is the compare-and-set of each record; the lease only makes sure that two coordinators do not work
//! against each other for long. The owner renews every [`LeaseTimes::renew_every`], and stops by itself
//! [`LeaseTimes::keep_for`] after it sent the last renewal that is known to have been stored, before its entry can
//! expire at [`LeaseTimes::ttl`] and a standby takes it. All of that is measured on the monotonic clock, so a paused
//! process finds on waking that it owns no more.
//!
//! | a write came back as | then |
//! |---|---|
//! | stored | the lease counts from when it was sent |
//! | conflict, or unknown | the entry is read: mine (of this session): renew again; another's or none: lost |
//! | unknown, and the server does not say what the entry is | tried again, until `keep_for` is over: lost |
//!
//! An entry that is no entry (another program has written it, by hand or by mistake) belongs to a holder whom nobody
//! knows. It counts as one that does not renew: left as it is for [`LeaseTimes::ttl`], it has expired, and is replaced by
//! compare-and-set; one that changes meanwhile has another [`LeaseTimes::ttl`] from then on.
//!
//! # The queue group
//! Each ownership takes its requests in a queue group of its own, `loom-{epoch}`. A former owner that is frozen (SIGSTOP, a
//! suspended machine) stays a member of its group until the server drops its connection, minutes later. The server
//! gives each request to every group, so that it is given copies only, and takes no request from the owner; the copies
//! it drops when it wakes, since it owns no more. A store never gives an epoch twice, so neither a group, and nothing about
//! groups has to be remembered. (Earlier versions kept `LOOM_OWNERS/queue-group`; it is neither read nor removed.)

mod format;
mod held;
mod identity;
mod loss;
mod renewer;
mod store;
mod taking;
mod unreadable;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use loom_protocol::{Timestamp, names};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

pub use self::format::FORMAT;
use self::held::Held;
pub use self::identity::{Identity, IdentityError};
pub use self::loss::LossReason;
use self::renewer::Renewer;
use self::store::{OwnerEntry, OwnerStore};
use self::taking::{Won, try_to_acquire};
use self::unreadable::Unchanged;
pub use self::unreadable::UnreadableEntry;
use super::store::StoreHealth;
use crate::clock::Clock;
use crate::error::{StoreError, StoreErrorKind};
pub use crate::ownership::Ownership;
use crate::repetition::Repetition;
use crate::store_guard::StoreGuard;

/// How often a standby looks whether the entry has gone, and a failed renewal is tried again.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often NATS is asked before an acquisition is given up, where it does not wait.
const TRIES: u32 = 3;

/// The clocks of the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseTimes {
    /// After how long without a renewal the server drops the entry; whole seconds.
    pub ttl: Duration,
    /// How often the owner renews.
    pub renew_every: Duration,
    /// How long after sending its last stored renewal the owner stops. Less than `ttl`.
    pub keep_for: Duration,
}

impl Default for LeaseTimes {
    /// A standby takes over within 15 s of the owner's death: the server is up to half a second late with expiring,
    /// and the standby looks every quarter, so the entry lives for 14 s.
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(14),
            renew_every: Duration::from_secs(5),
            keep_for: Duration::from_secs(12),
        }
    }
}

/// How ownership is taken.
#[derive(Debug, Clone)]
pub struct OwnerOptions {
    /// Copies of the bucket, where it has to be made.
    pub replicas: usize,
    /// The clocks of the lease.
    pub times: LeaseTimes,
    /// Tells since when.
    pub clock: Clock,
    /// Whether the store is the one that this process works with.
    pub guard: StoreGuard,
    /// Whether somebody who waits waits for the right store too, where it never was there; one that was is waited for
    /// in any case.
    pub store_may_come: bool,
    /// Is told how the writes of the lease end.
    pub health: StoreHealth,
    /// Is told why it is not to be had yet, whenever that is something else.
    pub why_not_yet: Option<watch::Sender<Option<OwnerError>>>,
}

impl Default for OwnerOptions {
    fn default() -> Self {
        Self {
            replicas: 1,
            times: LeaseTimes::default(),
            clock: Clock::system(),
            guard: StoreGuard::unwatched(),
            store_may_come: false,
            health: StoreHealth::default(),
            why_not_yet: None,
        }
    }
}

/// Who owns, as the entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// Of the data directory.
    pub instance_id: Uuid,
    /// Of one acquisition: tells a process from an earlier one in the same data directory.
    pub session: Uuid,
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// Where it keeps its data.
    pub data_directory: String,
    /// When it became the owner.
    pub since: Timestamp,
}

impl Holder {
    fn new(identity: &Identity, clock: &Clock) -> Self {
        Self {
            instance_id: identity.instance_id,
            session: Uuid::new_v4(),
            host: identity.host.clone(),
            pid: identity.pid,
            data_directory: identity.data_directory.clone(),
            since: clock.now(),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "host {}, process {}, data directory {}, since {}",
            self.host, self.pid, self.data_directory, self.since
        )
    }
}

/// Why this coordinator does not own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// Another one does.
    #[error(
        "this NATS has a coordinator already: {holder}; stop that one (if it has died, try again in {ttl:?}), or start this one with --standby, to take over when that one ends"
    )]
    HeldBy {
        /// Who.
        holder: Box<Holder>,
        /// After how long a dead one's entry is gone.
        ttl: Duration,
    },
    /// Somebody does whom nobody knows.
    #[error(
        "who owns this NATS cannot be read: {entry}; it is replaced when it has not changed for {ttl:?}, or at once after `nats kv del LOOM_OWNERS coordinator`"
    )]
    Unreadable {
        /// Which entry.
        entry: UnreadableEntry,
        /// How long it must not have changed.
        ttl: Duration,
    },
    /// NATS did not answer, or not as it should.
    #[error(
        "which coordinator owns is not known: {0}; is NATS reachable, and may this user use JetStream?"
    )]
    Unavailable(#[from] StoreError),
    /// It is another store than the one that this process works with.
    #[error("{0}")]
    OtherStore(Arc<str>),
    /// A later program has made the store.
    #[error(
        "the store of this NATS has format {found}, written by loom {made_by}; this is loom {}, which knows format {} at the most; start loom {made_by} or a later one. Nothing was read or changed",
        env!("CARGO_PKG_VERSION"),
        FORMAT
    )]
    LaterFormat {
        /// Its format.
        found: String,
        /// The version of the program that wrote that.
        made_by: String,
    },
    /// The bucket can't let entries expire.
    #[error(
        "the bucket {bucket} was made without a time to live per message, so a dead owner would own for ever; remove it (it holds nothing else) and start again"
    )]
    NoTtl {
        /// Which.
        bucket: &'static str,
    },
}

impl OwnerError {
    /// The same for whoever asks one that waits for the ownership: nobody has to start that one once more.
    pub fn while_waiting(&self) -> String {
        match self {
            Self::HeldBy { holder, .. } => format!(
                "another coordinator owns this NATS ({holder}); this one stands by, and takes over when that one ends"
            ),
            error => format!("this coordinator does not own yet: {error}"),
        }
    }
}

/// Ownership, for as long as it lasts. Dropped without [`OwnerLease::release`] it expires by itself.
#[derive(Debug)]
pub struct OwnerLease {
    epoch: u64,
    holder: Holder,
    times: LeaseTimes,
    store: OwnerStore,
    valid_until: Arc<Mutex<Instant>>,
    loss: watch::Receiver<Option<LossReason>>,
    renewer: AbortOnDropHandle<()>,
    _terms: AbortOnDropHandle<()>,
    others_owned: bool,
}

impl OwnerLease {
    /// Takes ownership. Where another coordinator has it: an error that says who, or with `wait` (standby) goes on
    /// trying until that one has died or gives it back, also while NATS is away.
    ///
    /// The entry of an earlier process in the same data directory is taken over at once.
    pub async fn acquire(
        jetstream: &jetstream::Context,
        identity: Identity,
        wait: bool,
    ) -> Result<Self, OwnerError> {
        Self::acquire_with(jetstream, identity, wait, OwnerOptions::default()).await
    }

    /// As [`OwnerLease::acquire`], with these options.
    pub async fn acquire_with(
        jetstream: &jetstream::Context,
        identity: Identity,
        wait: bool,
        options: OwnerOptions,
    ) -> Result<Self, OwnerError> {
        let holder = Holder::new(&identity, &options.clock);
        let mut told = None;
        let mut tries = 0;
        let mut others_owned = false;
        let mut unreadable = Unchanged::default();
        loop {
            let expired = unreadable.expired(options.times.ttl);
            let error = match try_to_acquire(jetstream, &holder, &options, expired).await {
                Ok(won) => {
                    let mut lease = Self::won(won, holder, identity, &options);
                    lease.others_owned = others_owned;
                    return Ok(lease);
                }
                Err(error) => error,
            };
            others_owned |= matches!(
                error,
                OwnerError::HeldBy { .. } | OwnerError::Unreadable { .. }
            );
            let is_news = unreadable.note(&error);
            // A store that was never the right one is a mistake of whoever starts; one that was may come back.
            let may_come = options.store_may_come || options.guard.was_trusted();
            match &error {
                OwnerError::NoTtl { .. } | OwnerError::LaterFormat { .. } => return Err(error),
                OwnerError::OtherStore(_) if !(wait && may_come) => return Err(error),
                OwnerError::HeldBy { .. } if !wait => return Err(error),
                // Whoever writes it goes on writing it.
                OwnerError::Unreadable { .. }
                    if !wait && is_news && matches!(told, Some(OwnerError::Unreadable { .. })) =>
                {
                    return Err(error);
                }
                OwnerError::Unavailable(_) if !wait => {
                    tries += 1;
                    if tries == TRIES {
                        return Err(error);
                    }
                }
                OwnerError::HeldBy { .. }
                | OwnerError::Unreadable { .. }
                | OwnerError::OtherStore(_)
                | OwnerError::Unavailable(_) => {}
            }
            if told.as_ref() != Some(&error) {
                if let Some(why_not_yet) = &options.why_not_yet {
                    why_not_yet.send_replace(Some(error.clone()));
                }
                if wait || matches!(error, OwnerError::Unreadable { .. }) {
                    tracing::info!("standing by: {}", error.while_waiting());
                }
                told = Some(error);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn won(won: Won, holder: Holder, identity: Identity, options: &OwnerOptions) -> Self {
        let times = options.times.clone();
        let valid_until = Arc::new(Mutex::new(won.sent + times.keep_for));
        let (lost, loss) = watch::channel(None);
        let mut renewer = Renewer {
            store: won.store.clone(),
            holder: holder.clone(),
            times: times.clone(),
            sequence: won.sequence,
            stored: won.sent,
            due: won.sent + times.renew_every,
            valid_until: Arc::clone(&valid_until),
            unacknowledged: Repetition::default(),
        };
        let renewer = tokio::spawn(async move {
            // The data directory stays locked for as long as it may own something.
            let _identity = identity;
            let loss = renewer.keep().await;
            tracing::error!(reason = %loss, "the ownership is lost");
            lost.send_replace(Some(loss));
        });
        let terms = won
            .store
            .clone()
            .keep(options.replicas, options.guard.clone());
        let terms = tokio::spawn(terms);
        tracing::info!(epoch = won.sequence, "this coordinator owns");
        Self {
            epoch: won.sequence,
            holder,
            times,
            store: won.store,
            valid_until,
            loss,
            renewer: AbortOnDropHandle::new(renewer),
            _terms: AbortOnDropHandle::new(terms),
            others_owned: false,
        }
    }

    /// The number of this ownership: higher than of every earlier one.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether another coordinator owned while this acquisition waited: it may have changed anything.
    pub const fn others_owned(&self) -> bool {
        self.others_owned
    }

    /// What the entry says of this coordinator.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// The queue group to take requests in: of this ownership alone. See the module.
    pub fn queue_group(&self) -> String {
        names::queue_group(self.epoch)
    }

    /// Whether it lasts at this moment.
    pub fn is_held(&self) -> bool {
        self.ownership().is_held()
    }

    /// The same question for those who write by this lease.
    pub fn ownership(&self) -> Ownership {
        Ownership::leased(Held {
            valid_until: Arc::clone(&self.valid_until),
            loss: self.loss.clone(),
            store: self.store.clone(),
            instance_id: self.holder.instance_id,
        })
    }

    /// Resolves when ownership is over, with the reason. May be awaited anywhere, and often.
    pub fn lost(&self) -> impl Future<Output = LossReason> + Send + use<> {
        let mut loss = self.loss.clone();
        async move {
            match loss.wait_for(Option::is_some).await {
                Ok(loss) => loss.clone().unwrap_or(LossReason::Released),
                Err(_) => LossReason::Released,
            }
        }
    }

    /// Gives ownership back, so that a standby takes over at once. Where that fails the entry expires by itself.
    /// Requests are not taken any more by now.
    pub async fn release(self) {
        self.renewer.abort();
        for _ in 0..TRIES {
            let Ok(OwnerEntry::Held { sequence, holder }) = self.store.read().await else {
                return;
            };
            if holder.session != self.holder.session {
                return;
            }
            match self.store.free(sequence, self.times.ttl).await {
                Ok(_) => return,
                // A renewal was still under way.
                Err(error) if error.kind() == StoreErrorKind::Conflict => {}
                Err(error) => {
                    tracing::warn!("the ownership could not be given back; it expires: {error}");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_stops_before_a_standby_can_start_and_that_within_15_seconds() {
        let times = LeaseTimes::default();
        assert!(times.renew_every * 2 < times.keep_for);
        assert!(times.keep_for < times.ttl);
        let late = Duration::from_millis(500);
        assert!(times.ttl + late + LOOK_EVERY < Duration::from_secs(15));
    }
}
