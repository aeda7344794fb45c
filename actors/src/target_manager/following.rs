//! When the bucket is read again: after a reconnect, and when it is not as it was read. It may be destroyed, purged or
//! brought back from outside; the directory must not go on listing what is gone, nor keep silent about what is there.
//!
//! | what tells | what of |
//! |---|---|
//! | the list of all streams, or the server's own word | it is another one, gone, back, or holds less though nothing was written |
//! | the last list, every `LOOK_EVERY`, and where there is none a question by name | it holds fewer records than there are targets, or was written since it was read, some time ago; in the first minute of an ownership, when writes of the one before may come late, at each look |
//! | a change that finds what somebody else has written | nothing is read: what it finds is gone on with at once |
//! | a change that finds nothing where a record is known | somebody else removes there |
//!
//! Only a project that has or had a bucket follows it. What a reading shows to be as it was known is told to nobody.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::bucket::TargetBucket;
use super::directory::TargetDirectory;
use super::env::Env;
use super::messages::TargetMsg;
use crate::nats::connection::Nats;
use crate::nats::kv::Standing;
use crate::nats::listing::{FollowedStream, Sight};

/// The pause before a reading that has failed is tried again.
const READ_AGAIN: Duration = Duration::from_secs(2);
/// How often it is seen how much the bucket holds.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often a bucket that is written to is read again: somebody else may be among the writers.
const READ_EVERY: Duration = Duration::from_mins(1);
/// For how long after the project was opened that is at each look: what a former owner has sent may be stored late.
const SETTLES_WITHIN: Duration = Duration::from_mins(1);

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

impl Following {
    /// From the first target on.
    pub fn begin(&mut self, env: &Env) {
        let (nats, bucket) = (&env.args.nats, &env.bucket);
        if self.stream.is_some() || !bucket.is_there() {
            return;
        }
        let told = env.myself();
        let stream = nats.listing.follow(&bucket.stream(), move |_change| {
            let _ = told.cast(TargetMsg::ReloadDue);
        });
        stream.note(bucket.seen().0.map(|seen| seen.identity));
        let stream = Arc::new(stream);
        let watching = watch(
            nats.clone(),
            (bucket.clone(), env.args.directory.clone()),
            stream.clone(),
            (env.myself(), env.args.opened_at),
        );
        self.watching = Some(AbortOnDropHandle::new(tokio::spawn(watching)));
        self.stream = Some(stream);
    }

    /// Something speaks against what is known: the bucket is read again, once more where it is being read.
    pub fn reload(&mut self, env: &Env) {
        if !env.is_loaded {
            return;
        }
        if self.reading.is_some() {
            self.is_due_again = true;
            return;
        }
        let (bucket, directory) = (env.bucket.clone(), env.args.directory.clone());
        let myself = env.myself();
        self.reading = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let read = bucket.read_into(&directory).await;
            if let Err(error) = &read {
                tracing::debug!("the targets could not be read again yet: {error}");
            }
            let _ = myself.cast(TargetMsg::Reloaded(read.ok()));
        })));
    }

    /// The reading has ended: whether anything is otherwise than was known, or `None`. Whether the bucket was read.
    pub fn reloaded(&mut self, env: &Env, read: Option<bool>) -> bool {
        self.reading = None;
        let Some(is_other) = read else {
            self.is_due_again = false;
            env.tell_after(READ_AGAIN, || TargetMsg::ReloadDue);
            return false;
        };
        if let Some(stream) = &self.stream {
            stream.note(env.bucket.seen().0.map(|seen| seen.identity));
        }
        if is_other {
            env.args.events.gap(Some(&env.args.project));
        }
        if std::mem::take(&mut self.is_due_again) {
            self.reload(env);
        }
        true
    }
}

/// Tells of reconnects, and of records that are missing where no list tells.
async fn watch(
    nats: Nats,
    (bucket, directory): (TargetBucket, Arc<TargetDirectory>),
    stream: Arc<FollowedStream>,
    (myself, opened_at): (ActorRef<TargetMsg>, Instant),
) {
    let mut reconnects = nats.reconnects.clone();
    reconnects.mark_unchanged();
    loop {
        let is_suspicious = tokio::select! {
            changed = reconnects.changed() => match changed {
                Ok(()) => true,
                Err(_) => return,
            },
            () = sleep(LOOK_EVERY) => {
                let now = match stream.sight() {
                    Sight::There(listed) => Ok(Some(listed.into())),
                    Sight::Absent => Ok(None),
                    Sight::Unknown => bucket.look().await,
                };
                let (seen, at) = bucket.seen();
                let every = read_every(opened_at.elapsed());
                let is_due = at.elapsed() >= every;
                now.is_ok_and(|now| is_to_be_read(now, directory.len(), seen, is_due))
            }
        };
        if is_suspicious && myself.cast(TargetMsg::ReloadDue).is_err() {
            return;
        }
    }
}

/// How often a bucket that is written to is read, of a project that was opened so long ago.
fn read_every(opened: Duration) -> Duration {
    if opened < SETTLES_WITHIN {
        LOOK_EVERY
    } else {
        READ_EVERY
    }
}

/// Whether a bucket that stands so is to be read, where so many records are known and it was seen to stand so. `is_due`:
/// whether that was long ago.
fn is_to_be_read(
    now: Option<Standing>,
    known: usize,
    seen: Option<Standing>,
    is_due: bool,
) -> bool {
    let messages = now.map_or(0, |now| now.messages);
    let is_less = usize::try_from(messages).is_ok_and(|messages| messages < known);
    is_less || (now != seen && is_due)
}
