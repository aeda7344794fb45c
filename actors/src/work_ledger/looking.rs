//! When the actor looks at its bucket, and what it makes of that.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _};
use ractor::ActorRef;

use super::actor::{LedgerMsg, State};
use super::inspection::{Inspector, Looked};
use super::read_model::ReadModel;

/// How a look at the bucket has ended.
#[derive(Debug)]
pub struct LookEnd(Looked);

/// Hears from the server when the stream's configuration is changed: a limit takes records away at once. Where that may not
/// be heard, the look that there is now and then finds it.
pub(super) async fn watch_changes(read: Arc<ReadModel>, ledger: ActorRef<LedgerMsg>) {
    let subject = format!(
        "$JS.EVENT.ADVISORY.STREAM.UPDATED.{}",
        read.store().stream_name()
    );
    let Ok(mut changes) = read.store().client().subscribe(subject).await else {
        return;
    };
    while changes.next().await.is_some() && ledger.cast(LedgerMsg::LookDue).is_ok() {}
}

impl State {
    pub(super) fn suspect(&mut self) {
        self.looks.suspect();
        self.look();
    }

    /// Looks at the bucket where that is due.
    pub(super) fn look(&mut self) {
        if self.args.read.take_suspicion() {
            self.looks.force();
        }
        if self.looking
            || self.writer.is_draining()
            || !self.looks.are_due()
            || !self.args.nats.is_up()
        {
            return;
        }
        self.looking = true;
        let retention = self.args.settings.retention;
        let inspector = Inspector {
            read: self.args.read.clone(),
            ownership: self.args.ownership.clone(),
            keep: self.args.settings.max_finished,
            expired: self.args.clock.now().before(retention),
            is_idle: self.writer.requests() == 0,
        };
        let (looks, ledger) = (self.looks.clone(), self.myself.clone());
        // A suspicion from now on is one for the next look.
        self.looks = looks.clone().begun();
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
        self.looking = false;
        let Some(LookEnd(looked)) = ended.map(|ended| *ended) else {
            return;
        };
        if !self.looks.are_due() {
            self.looks = looked.looks;
        }
        if looked.replay {
            self.replay();
        }
    }
}
