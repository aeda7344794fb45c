//! When the bucket is read again: after a reconnect, and when it is not as it was read. It may be destroyed, purged or
//! brought back from outside; the directory must not go on listing what is gone, nor keep silent about what is there.
//!
//! | what tells | what of |
//! |---|---|
//! | the list of all streams, or the server's own word | it is another one, gone, back, or holds less though nothing was written |
//! | where no list is made: a count by name, every [`COUNT_EVERY`] | it holds fewer records than there are targets |
//! | a change that finds another record than is known, or none | somebody else writes there |
//!
//! Only a project that has or had a bucket follows it.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::actor::State;
use super::bucket::TargetBucket;
use super::directory::TargetDirectory;
use super::messages::TargetMsg;
use crate::nats::connection::Nats;
use crate::nats::listing::FollowedStream;

/// The pause before a reading that has failed is tried again.
const READ_AGAIN: Duration = Duration::from_secs(2);
/// How often the records are counted where no list of all streams says that the bucket is as it was.
const COUNT_EVERY: Duration = Duration::from_secs(30);

/// What is known of the bucket's being as it was read.
#[derive(Default)]
pub(super) struct Following {
    /// A reading is under way.
    reading: Option<AbortOnDropHandle<()>>,
    /// What is read may be older than what was told since.
    is_due_again: bool,
    /// Only where there is, or was, a bucket.
    stream: Option<Arc<FollowedStream>>,
    watching: Option<AbortOnDropHandle<()>>,
}

impl State {
    /// From the first target on.
    pub(super) fn follow_bucket(&mut self) {
        if self.following.stream.is_some() || !self.bucket().is_there() {
            return;
        }
        let (nats, bucket) = (&self.args.nats, self.bucket());
        let told = self.myself.clone();
        let stream = nats.listing.follow(&bucket.stream(), move |_change| {
            let _ = told.cast(TargetMsg::ReloadDue);
        });
        stream.note(bucket.identity());
        let stream = Arc::new(stream);
        let watching = watch(
            nats.clone(),
            (bucket.clone(), self.args.directory.clone()),
            stream.clone(),
            self.myself.clone(),
        );
        self.following.watching = Some(AbortOnDropHandle::new(tokio::spawn(watching)));
        self.following.stream = Some(stream);
    }

    /// Something speaks against what is known: the bucket is read again, once more where it is being read.
    pub(super) fn reload(&mut self) {
        if self.loading.is_some() {
            return;
        }
        if self.following.reading.is_some() {
            self.following.is_due_again = true;
            return;
        }
        let (bucket, directory) = (self.bucket().clone(), self.args.directory.clone());
        let myself = self.myself.clone();
        self.following.reading = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let read = bucket.read_into(&directory).await;
            if let Err(error) = &read {
                tracing::debug!("the targets could not be read again yet: {error}");
            }
            let _ = myself.cast(TargetMsg::Reloaded(read.is_ok()));
        })));
    }

    /// The reading has ended.
    pub(super) fn reloaded(&mut self, is_read: bool) {
        self.following.reading = None;
        if !is_read {
            self.following.is_due_again = false;
            self.myself.send_after(READ_AGAIN, || TargetMsg::ReloadDue);
            return;
        }
        if let Some(stream) = &self.following.stream {
            stream.note(self.bucket().identity());
        }
        self.args.events.gap(Some(&self.args.project));
        self.recover();
        self.plan_all_looks();
        if std::mem::take(&mut self.following.is_due_again) {
            self.reload();
        }
    }
}

/// Tells of reconnects, and of records that are missing where no list tells.
async fn watch(
    nats: Nats,
    (bucket, directory): (TargetBucket, Arc<TargetDirectory>),
    stream: Arc<FollowedStream>,
    myself: ActorRef<TargetMsg>,
) {
    let mut reconnects = nats.reconnects.clone();
    reconnects.mark_unchanged();
    loop {
        let is_suspicious = tokio::select! {
            changed = reconnects.changed() => match changed {
                Ok(()) => true,
                Err(_) => return,
            },
            () = sleep(COUNT_EVERY) => {
                let known = directory.len();
                !stream.is_as_noted() && bucket.holds_fewer(known).await.unwrap_or(false)
            }
        };
        if is_suspicious && myself.cast(TargetMsg::ReloadDue).is_err() {
            return;
        }
    }
}
