//! Taking the ownership: one look, and one conditional write.

use std::sync::Arc;

use async_nats::jetstream;
use tokio::time::Instant;

use super::store::{OwnerEntry, OwnerStore};
use super::{Holder, OwnerError, OwnerOptions, UnreadableEntry};

/// An ownership that was won.
pub(super) struct Won {
    pub store: OwnerStore,
    /// The sequence of the write that won it.
    pub sequence: u64,
    /// When that was sent.
    pub sent: Instant,
}

/// One look and, where the entry is free, of this data directory, or the unreadable one that has `expired`, one write.
pub(super) async fn try_to_acquire(
    jetstream: &jetstream::Context,
    me: &Holder,
    options: &OwnerOptions,
    expired: Option<UnreadableEntry>,
) -> Result<Won, OwnerError> {
    let store = match OwnerStore::open(jetstream, options).await {
        Err(OwnerError::OtherStore(why)) => {
            return Err(in_another_store(jetstream, me, options, why).await);
        }
        opened => opened?,
    };
    let expected = match store.read().await? {
        OwnerEntry::Free { sequence } => sequence,
        OwnerEntry::Held { sequence, holder } if holder.instance_id == me.instance_id => sequence,
        OwnerEntry::Held { holder, .. } => return Err(held_by(holder, options)),
        OwnerEntry::Unreadable(entry) if expired == Some(entry) => {
            tracing::warn!(
                "{entry}, and has not changed for the length of a lease: it is replaced"
            );
            entry.revision
        }
        OwnerEntry::Unreadable(entry) => return Err(unreadable(entry, options)),
    };
    let sent = Instant::now();
    let error = match store.write(expected, me, options.times.ttl).await {
        Ok(sequence) => {
            return won(store, sequence, sent, options).await;
        }
        Err(error) => error,
    };
    match store.read().await? {
        OwnerEntry::Held { sequence, holder } if holder.session == me.session => {
            won(store, sequence, sent, options).await
        }
        OwnerEntry::Held { holder, .. } if holder.instance_id != me.instance_id => {
            Err(held_by(holder, options))
        }
        OwnerEntry::Unreadable(entry) => Err(unreadable(entry, options)),
        OwnerEntry::Held { .. } | OwnerEntry::Free { .. } => Err(error.into()),
    }
}

/// The store is another one. Where another coordinator owns in it, that one answers for it, and this one stands by.
async fn in_another_store(
    jetstream: &jetstream::Context,
    me: &Holder,
    options: &OwnerOptions,
    why: Arc<str>,
) -> OwnerError {
    match OwnerStore::peek(jetstream).await {
        Some(OwnerEntry::Held { holder, .. })
            if holder.instance_id != me.instance_id && options.guard.forget_unless_pinned() =>
        {
            held_by(holder, options)
        }
        _ => OwnerError::OtherStore(why),
    }
}

fn held_by(holder: Box<Holder>, options: &OwnerOptions) -> OwnerError {
    OwnerError::HeldBy {
        holder,
        ttl: options.times.ttl,
    }
}

fn unreadable(entry: UnreadableEntry, options: &OwnerOptions) -> OwnerError {
    OwnerError::Unreadable {
        entry,
        ttl: options.times.ttl,
    }
}

/// The lease is won. A store of an older format or without a stamp gets them before anything else is read.
async fn won(
    store: OwnerStore,
    sequence: u64,
    sent: Instant,
    options: &OwnerOptions,
) -> Result<Won, OwnerError> {
    if let Err(error) = store.note_format().await {
        // A standby need not wait until the entry expires.
        let _ = store.free(sequence, options.times.ttl).await;
        return Err(error);
    }
    store.stamp().await;
    Ok(Won {
        store,
        sequence,
        sent,
    })
}
