//! Whether the stream of dead letters is there, and still the one whose letters are known.

use async_nats::jetstream::stream;

use super::{LetterStore, WRITE_TIMEOUT};
use crate::error::StoreError;
use crate::listing::{FollowedStream, StreamChange, StreamIdentity};

impl LetterStore {
    /// Calls `hook` when a list of all streams, or the server, says that the stream is not as it was when it was looked at,
    /// until it is looked at again. Takes the place of the former hook.
    pub fn follow(&self, hook: impl Fn() + Send + Sync + 'static) {
        let followed = self.guard.listing().map(|listing| {
            listing.follow(&self.stream, move |change| {
                if change == StreamChange::Other {
                    hook();
                }
            })
        });
        self.seen.lock().followed = followed;
    }

    /// Whether the last list of all streams says that the stream is as it was when it was looked at: there, or not there.
    pub fn is_listed(&self) -> bool {
        let seen = self.seen.lock();
        let followed = seen.followed.as_ref();
        followed.is_some_and(FollowedStream::is_as_noted)
    }

    /// The stream was looked at, and was this; `None`: it was not there.
    pub(super) fn note(&self, identity: Option<StreamIdentity>) {
        if let Some(followed) = &self.seen.lock().followed {
            followed.note(identity);
        }
    }

    pub(super) fn seen_now(&self, stream: Option<&stream::Stream>) {
        if stream.is_some() {
            self.guard.note_problem(&self.stream, None);
        }
        let made = stream.map(|stream| stream.cached_info().created.unix_timestamp_nanos());
        let mut seen = self.seen.lock();
        if seen.made.is_some() && seen.made != made {
            seen.removed = true;
            tracing::error!(
                stream = self.stream,
                "the stream of dead letters was removed, with all letters in it"
            );
        }
        seen.made = made;
    }

    /// Looks whether the stream is there, and as it was made.
    ///
    /// # Errors
    /// The server does not say.
    pub async fn look(&self) -> Result<(), StoreError> {
        self.open().await.map(drop)
    }

    /// Whether the stream whose letters are known was removed, as far as anybody has looked.
    pub fn was_removed(&self) -> bool {
        self.seen.lock().removed
    }

    /// Whether the server says that there is no stream: then a letter is gone, and no read has failed.
    pub(super) async fn is_gone(&self) -> bool {
        self.guard.settled_within(WRITE_TIMEOUT).await.is_ok()
            && matches!(self.open().await, Ok(None))
    }

    /// Makes a stream again that was removed, once what was known of its letters is forgotten.
    ///
    /// # Errors
    /// It cannot be made, or the whole store is another one.
    pub async fn make_again(&self) -> Result<(), StoreError> {
        // Perhaps it is not this stream alone that is gone.
        self.guard.suspect();
        self.prepare().await?;
        tracing::warn!(
            stream = self.stream,
            "the stream of dead letters was made again, empty"
        );
        Ok(())
    }
}
