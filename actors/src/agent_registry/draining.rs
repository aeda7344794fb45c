//! The end of the actor: what was asked is written first.

use ractor::RpcReplyPort;

use super::actor::{State, answer};

impl State {
    /// Ends what is in flight: requests that were taken, and changes that are not written yet.
    pub fn drain(&mut self, reply: RpcReplyPort<()>) {
        self.draining.get_or_insert_default().push(reply);
        self.sweep();
    }

    pub(super) fn finish_drain(&mut self) {
        let busy = self.backlog.under_way > 0
            || !self.backlog.urgent.is_empty()
            || !self.backlog.idle.is_empty();
        if !busy && let Some(waiting) = &mut self.draining {
            for reply in waiting.drain(..) {
                answer(reply, ());
            }
        }
    }
}
