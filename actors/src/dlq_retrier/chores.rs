//! What is looked at once a second while there are letters: those that have expired, are outdated, or are due.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::actor::{DlqMsg, LOOK_EVERY, State, TICK};
use super::orders::{Retried, RetryBatch};
use super::publish_batch::BATCH;

/// How much later than the server a letter counts as expired here.
const SLACK: Duration = Duration::from_secs(2);

impl State {
    pub(super) fn arm_tick(&mut self, after: Duration) {
        self.tick += 1;
        self.ticks_slowly = after > TICK;
        let epoch = self.tick;
        self.me.send_after(after, move || DlqMsg::TickDue { epoch });
    }

    /// There are no letters, and none are to be.
    pub(super) fn is_at_rest(&self) -> bool {
        self.is_read
            && self.again_from.is_none()
            && self.orphaned.is_empty()
            && !self.writing
            && self.args.letters.total() == 0
            && !self.args.letters.store.was_removed()
    }

    pub(super) fn tick(&mut self, epoch: u64) {
        if epoch != self.tick {
            return;
        }
        self.arm_tick(if self.is_at_rest() { LOOK_EVERY } else { TICK });
        if self.draining() {
            return;
        }
        self.expire();
        // Before anything is written or deleted by places that a new stream gives out again.
        if self.args.letters.store.was_removed() {
            self.is_read = false;
        }
        if !self.is_read {
            if self.args.nats.is_up() {
                self.read();
            }
            return;
        }
        if let Some(revision) = self.again_from.take() {
            self.after = revision.saturating_sub(1);
        }
        self.sweep();
        self.follow_schedule();
        if self.next_look <= Instant::now() {
            self.next_look = Instant::now() + LOOK_EVERY;
            if !self.args.letters.store.is_listed() {
                self.look();
            }
        }
    }

    /// Looks whether the stream is there; the next tick reads again where it is not.
    pub(super) fn look(&mut self) {
        if !self.args.nats.is_up() {
            return;
        }
        let letters = self.args.letters.clone();
        let look = async move { letters.store.look().await };
        self.run(look, |looked| {
            tracing::trace!(
                ?looked,
                "whether there is a stream of dead letters was looked at"
            );
            DlqMsg::Looked
        });
    }

    /// What the server has let go by its age.
    pub(super) fn expire(&self) {
        let letters = &self.args.letters;
        let age = letters.store.retention().saturating_add(SLACK);
        let gone = letters
            .index
            .write()
            .forget_before(self.args.clock.now().before(age));
        if gone > 0 {
            letters.expired.fetch_add(gone as u64, Ordering::Relaxed);
            tracing::info!(project = %self.args.read.project(), gone, "dead letters have expired");
        }
    }

    /// Deletes letters whose items live.
    pub(super) fn sweep(&mut self) {
        let known = self.args.letters.index.read();
        self.orphaned.retain(|sequence| known.has(*sequence));
        drop(known);
        if self.sweeping || self.orphaned.is_empty() || !self.args.nats.is_up() {
            return;
        }
        self.sweeping = true;
        let (context, gate) = (self.context.clone(), self.gate.clone());
        let some: Vec<u64> = self.orphaned.iter().copied().take(BATCH).collect();
        let sweep = async move {
            let _while_nobody_reads = gate.read().await;
            context.delete_all(some).await
        };
        self.run(sweep, DlqMsg::Swept);
    }

    pub(super) fn swept(&mut self, left: Option<BTreeSet<u64>>) {
        self.sweeping = false;
        self.orphaned.extend(left.into_iter().flatten());
    }

    /// Puts back what is due.
    pub(super) fn follow_schedule(&mut self) {
        if self.scheduled || !self.args.nats.is_up() {
            return;
        }
        let now = self.args.clock.now();
        let due = self.args.letters.index.read().due(now, BATCH);
        if due.is_empty() {
            return;
        }
        self.scheduled = true;
        let order = RetryBatch {
            ids: due.iter().map(|letter| letter.id).collect(),
            reset_attempts: true,
            automatic: true,
        };
        let (context, gate) = (self.context.clone(), self.gate.clone());
        let turn = async move {
            let _while_nobody_reads = gate.read().await;
            context.retry_all(&order).await
        };
        self.run(turn, DlqMsg::ScheduleDone);
    }

    /// What the schedule can never put back it leaves alone.
    pub(super) fn schedule_done(&mut self, retried: Option<Retried>) {
        self.scheduled = false;
        let mut index = self.args.letters.index.write();
        for (id, outcome) in retried.into_iter().flatten() {
            let Err(error) = outcome else { continue };
            tracing::info!(%id, "the schedule could not put a dead letter back: {error}");
            if !error.code.is_transient()
                && let Some(letter) = index.get(id).cloned()
            {
                index.not_by_schedule(&letter);
            }
        }
    }
}
