//! Taking the ownership: the lease, and then the queue group that goes with it.

use std::sync::Arc;

use async_nats::jetstream;
use tokio::time::Instant;

use super::group::GroupNote;
use super::store::{OwnerEntry, OwnerStore};
use super::{Holder, OwnerError, OwnerOptions, TRIES, UnreadableEntry};

/// An ownership that was won.
pub(super) struct Won {
    pub store: OwnerStore,
    /// The sequence of the write that won it.
    pub sequence: u64,
    /// When that was sent.
    pub sent: Instant,
    pub group: GroupInUse,
}

/// The note of this owner, and where it stands.
#[derive(Debug)]
pub(super) struct GroupInUse {
    note: GroupNote,
    sequence: u64,
}

impl GroupInUse {
    pub fn name(&self) -> &str {
        &self.note.queue_group
    }

    /// Says that this owner has left its group in order. Where that fails, the next one takes another group.
    pub async fn give_back(&self, store: &OwnerStore) {
        let note = GroupNote {
            given_back: true,
            ..self.note.clone()
        };
        if let Err(error) = store.write_note(self.sequence, &note).await {
            tracing::debug!("that the queue group is free was not noted: {error}");
        }
    }
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
            return won(store, sequence, sent, me, options).await;
        }
        Err(error) => error,
    };
    match store.read().await? {
        OwnerEntry::Held { sequence, holder } if holder.session == me.session => {
            won(store, sequence, sent, me, options).await
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

/// The lease is won; now the note beside it says who owns, before any request is taken. A death in between
/// leaves the note of the owner before, which took requests last.
async fn won(
    store: OwnerStore,
    sequence: u64,
    sent: Instant,
    me: &Holder,
    options: &OwnerOptions,
) -> Result<Won, OwnerError> {
    if let Err(error) = store.note_format().await {
        // A standby need not wait until the entry expires.
        let _ = store.free(sequence, options.times.ttl).await;
        return Err(error);
    }
    let mut tries = 0;
    loop {
        let (expected, before) = store.read_note().await?;
        let now = options.clock.now();
        let note = GroupNote::next(before.as_ref(), me.instance_id, sequence, now);
        match store.write_note(expected, &note).await {
            Ok(written) => {
                store.stamp().await;
                let group = GroupInUse {
                    note,
                    sequence: written,
                };
                return Ok(Won {
                    store,
                    sequence,
                    sent,
                    group,
                });
            }
            Err(error) => {
                tries += 1;
                if tries == TRIES {
                    return Err(error.into());
                }
            }
        }
    }
}
