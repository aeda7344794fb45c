//! When a task has to ask for its stream by name.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::{FollowedStream, Sight, StreamChange, StreamIdentity, StreamListing};

/// For a task that keeps a stream as it must be: when it has to be asked for by name.
#[derive(Debug)]
pub struct Lookout {
    followed: Option<FollowedStream>,
    changed: Arc<Notify>,
}

impl Lookout {
    /// Over a stream; without a listing it is asked for by name each time.
    pub fn over(stream: &str, listing: Option<&StreamListing>) -> Self {
        let changed = Arc::new(Notify::new());
        let told = changed.clone();
        let followed = listing.map(|listing| {
            listing.follow(stream, move |change| {
                if change == StreamChange::Other {
                    told.notify_one();
                }
            })
        });
        Self { followed, changed }
    }

    /// It was asked for by name, and was this; `None`: it was not there.
    pub fn note(&self, identity: Option<StreamIdentity>) {
        if let Some(followed) = &self.followed {
            followed.note(identity);
        }
    }

    /// Whether it was noted to be this; without a listing nothing speaks against that.
    pub fn is_noted(&self, identity: Option<StreamIdentity>) -> bool {
        let followed = self.followed.as_ref();
        followed.is_none_or(|followed| followed.is_noted(identity))
    }

    /// Nothing is known of it, until it is noted anew.
    pub fn forget(&self) {
        if let Some(followed) = &self.followed {
            followed.forget();
        }
    }

    /// What the last list says of it.
    pub fn sight(&self) -> Sight {
        let sight = self.followed.as_ref().map(FollowedStream::sight);
        sight.unwrap_or(Sight::Unknown)
    }

    /// How many lists there have been.
    pub fn lists(&self) -> u64 {
        let followed = self.followed.as_ref();
        followed.map_or(0, |followed| followed.listing.lists())
    }

    /// Whether the last list says that it is as it was noted.
    pub fn is_as_noted(&self) -> bool {
        let followed = self.followed.as_ref();
        followed.is_some_and(FollowedStream::is_as_noted)
    }

    /// Ends when the stream is not as it was noted, as a list or the server has told. Safe to drop at any time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Ends when it has to be asked for by name: it is not as it was noted, or nothing says so when that is due. Safe to
    /// drop at any time.
    pub async fn until_due(&self, every: Duration) {
        while timeout(every, self.changed()).await.is_err() {
            if !self.is_as_noted() {
                return;
            }
        }
    }
}
