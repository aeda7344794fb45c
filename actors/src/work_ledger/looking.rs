//! When the actor looks at its bucket, and what it makes of that.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use ractor::ActorRef;

use super::actor::{LedgerMsg, State};
use super::inspection::{Inspector, Looked, Looks};
use super::read_model::ReadModel;
use crate::nats::connection::Nats;
use crate::nats::listing::{FollowedStream, StreamChange};

/// How a look at the bucket has ended.
#[derive(Debug)]
pub struct LookEnd(Looked);

/// Follows the bucket in the list of all streams: a changed configuration, or a purge, may take records away.
pub(super) fn follow(nats: &Nats, read: &ReadModel, ledger: ActorRef<LedgerMsg>) -> FollowedStream {
    let told = move |change| {
        let _ = ledger.cast(LedgerMsg::LookDue(change));
    };
    nats.listing.follow(read.store().stream_name(), told)
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

    /// A look begins, if one is due and none is under way.
    fn begin(&mut self) -> Option<Looks> {
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
    fn end(&mut self, ended: Option<Box<LookEnd>>) -> bool {
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

impl State {
    pub(super) fn look_due(&mut self, change: StreamChange) {
        match change {
            StreamChange::Other => self.looking.looks.suspect(),
            // What expires goes in this way too.
            StreamChange::Fewer => self.looking.looks.hasten(),
        }
        self.look();
    }

    /// Looks at the bucket where that is due.
    pub(super) fn look(&mut self) {
        if self.args.read.take_suspicion() {
            self.looking.looks.force();
        }
        if self.writer.is_draining() || !self.args.nats.is_up() {
            return;
        }
        let Some(looks) = self.looking.begin() else {
            return;
        };
        let retention = self.args.settings.retention;
        let inspector = Inspector {
            read: self.args.read.clone(),
            ownership: self.args.ownership.clone(),
            keep: self.args.settings.max_finished,
            expired: self.args.clock.now().before(retention),
            is_idle: self.writer.requests() == 0,
            lookout: self.lookout.clone(),
        };
        let ledger = self.myself.clone();
        self.tasks.spawn(async move {
            let looking = AssertUnwindSafe(inspector.look(looks));
            let ended = match looking.catch_unwind().await {
                Ok(Ok(looked)) => Some(Box::new(LookEnd(looked))),
                Ok(Err(error)) => {
                    tracing::debug!("the bucket cannot be looked at yet: {error}");
                    None
                }
                Err(_) => None,
            };
            let _ = ledger.cast(LedgerMsg::LookDone(ended));
        });
    }

    pub(super) fn looked(&mut self, ended: Option<Box<LookEnd>>) {
        if self.looking.end(ended) {
            self.replay();
        }
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
