//! When the actor looks at its bucket, and what it makes of that.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::inspection::{Inspector, Looked, Looks};
use super::read_model::ReadModel;
use super::retention::SWEEP_EVERY;
use crate::nats::connection::Nats;
use crate::nats::listing::{FollowedStream, StreamChange};

/// How a look at the bucket has ended.
#[derive(Debug)]
pub struct LookEnd(Looked);

/// Follows the bucket in the list of all streams: a changed configuration, or a purge, may take records away. A change is
/// told to `told`.
pub(super) fn follow(
    nats: &Nats,
    read: &ReadModel,
    told: impl Fn(StreamChange) + Send + Sync + 'static,
) -> FollowedStream {
    nats.listing.follow(read.store().stream_name(), told)
}

/// Tells of reconnects, and of what was not there that should be, until one of them says that nobody listens.
pub(super) async fn listen(
    mut reconnects: watch::Receiver<u64>,
    read: Arc<ReadModel>,
    reconnected: impl Fn() -> bool + Send,
    suspected: impl Fn() -> bool + Send,
) {
    reconnects.mark_unchanged();
    // Whoever asks for a missing record again and again has it looked for once in a while.
    let mut not_before = Instant::now();
    loop {
        let suspicion = async {
            sleep_until(not_before).await;
            read.suspected().await;
        };
        let is_heard = tokio::select! {
            changed = reconnects.changed() => changed.is_ok() && reconnected(),
            () = suspicion => {
                not_before = Instant::now() + SWEEP_EVERY;
                suspected()
            }
        };
        if !is_heard {
            return;
        }
    }
}

/// When the bucket is looked at: one look at a time.
pub(super) struct Looking {
    looks: Looks,
    is_under_way: bool,
}

impl Looking {
    /// None is under way.
    pub fn new() -> Self {
        Self {
            looks: Looks::new(),
            is_under_way: false,
        }
    }

    /// The bucket was changed by somebody: a look is due sooner.
    pub fn told(&mut self, change: StreamChange) {
        match change {
            StreamChange::Other => self.looks.suspect(),
            // What expires goes in this way too.
            StreamChange::Fewer => self.looks.hasten(),
        }
    }

    /// Something was not there that should be.
    pub fn force(&mut self) {
        self.looks.force();
    }

    /// Whether a look is due, whether or not one is under way.
    pub fn is_due(&self) -> bool {
        self.looks.are_due()
    }

    /// A look begins, if one is due and none is under way.
    pub fn begin(&mut self) -> Option<Looks> {
        if self.is_under_way || !self.looks.are_due() {
            return None;
        }
        self.is_under_way = true;
        let looks = self.looks.clone();
        // A suspicion from now on is one for the next look.
        self.looks = looks.clone().begun();
        Some(looks)
    }

    /// It has ended. Whether something was written that is not known here.
    pub fn end(&mut self, ended: Option<Box<LookEnd>>) -> bool {
        self.is_under_way = false;
        let Some(LookEnd(looked)) = ended.map(|ended| *ended) else {
            return false;
        };
        if !self.looks.are_due() {
            self.looks = looked.looks;
        }
        looked.replay
    }
}

/// Looks at the bucket; `None`: that could not be done.
pub(super) async fn look(inspector: Inspector, looks: Looks) -> Option<Box<LookEnd>> {
    let looking = AssertUnwindSafe(inspector.look(looks));
    match looking.catch_unwind().await {
        Ok(Ok(looked)) => Some(Box::new(LookEnd(looked))),
        Ok(Err(error)) => {
            tracing::debug!("the bucket cannot be looked at yet: {error}");
            None
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::inspection::LOOK_EVERY;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_look_at_a_time_and_a_suspicion_meanwhile_is_for_the_next() {
        let mut looking = Looking::new();
        assert!(looking.begin().is_none(), "not due yet");
        tokio::time::advance(LOOK_EVERY).await;
        let looks = looking.begin().unwrap();
        tokio::time::advance(LOOK_EVERY).await;
        assert!(looking.begin().is_none(), "one is under way");
        assert!(!looking.end(None));
        looking.looks.suspect();
        let again = looking.begin().unwrap();
        looking.looks.suspect();
        let ended = |looks: &Looks| Looked {
            looks: looks.clone().begun(),
            replay: true,
        };
        assert!(looking.end(Some(Box::new(LookEnd(ended(&again))))));
        assert!(looking.begin().is_some(), "the suspicion is not forgotten");
        assert!(looking.end(Some(Box::new(LookEnd(ended(&looks))))));
        assert!(looking.begin().is_none());
    }
}
