//! What others ask of the matching: how an item stands, and whether an agent has nothing to do.

use std::time::Duration;

use loom_protocol::AgentGuid;
use tokio::time::Instant;

use super::super::env::DispatcherEnv;
use super::super::messages::QueuePosition;
use super::{Matching, Waiting};
use crate::domain::matching::fits;
use crate::work_ledger::Header;

/// How far the items before another one are counted.
const MOST_AHEAD: usize = 10_000;
/// How long an agent is offered nothing that is to be told to go. Longer than a request waits for its answer: whoever
/// tells it knows by then that it was told, or does not tell it any more.
const WITHHELD_FOR: Duration = Duration::from_secs(4);
/// So long before the end of that the order has to be given.
const ORDER_MARGIN: Duration = Duration::from_secs(1);

impl Matching {
    /// What stands between a pending item and an agent.
    pub fn queue_position(&self, header: &Header) -> QueuePosition {
        QueuePosition {
            ahead: self.queue.ahead_of(header, MOST_AHEAD),
            cooling_down: self.slots.cooling_down(header.id, Instant::now()),
            taken: self.slots.all_taken(),
        }
    }

    /// Offers an agent nothing for a moment, so that it may be told to go: until when the order has to be given. `None`:
    /// it has an item, is being given one, has not stopped one yet, or something waits that it may take.
    ///
    /// A claim is filled by this actor alone. So what was claimed before is seen here, and what is claimed afterwards
    /// gets nothing: by then the order has made the agent `draining`, or is not given any more.
    pub fn withhold(&mut self, env: &DispatcherEnv, guid: AgentGuid) -> Option<Instant> {
        let agent = env.args.agents.get(guid)?;
        let read = &env.args.read;
        let has_work = read.lease_count(guid) > 0
            || self.slots.taken(guid) > 0
            || self.unacknowledged.has(guid);
        let filter = agent.candidate(false).filter();
        if has_work || read.has_pending(|needs| fits(&filter, needs).is_ok()) {
            return None;
        }
        let until = Instant::now() + WITHHELD_FOR;
        self.slots.withhold(guid, until);
        self.waits.set(Waiting::Withheld(guid), until);
        Some(until - ORDER_MARGIN)
    }

    /// The moment is over: it has been told to go by now, or goes on as before.
    pub(super) fn offer_again(&mut self, env: &mut DispatcherEnv, guid: AgentGuid) {
        self.slots.offer_again(guid);
        self.ask_again(env, guid);
    }
}
