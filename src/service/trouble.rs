//! What keeps the coordinator as a whole from serving: NATS, its store, the ownership. The same sentences stand in
//! `/ready` and in the answers that it has to refuse, so that nobody is told of a consequence for the cause.

use std::time::Duration;

use loom_actors::nats::owner::LossReason;
use loom_actors::nats::verdicts::store::StoreVerdict;
use loom_protocol::readiness::{Problem, ProblemKind};
use loom_protocol::{ErrorCode, WireError};

use super::Service;

/// What a refused caller is told to wait while the whole coordinator cannot serve.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whether this process owns the projects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owning {
    /// It does.
    Yes,
    /// It does not just now; why, in a sentence.
    No(String),
}

impl Owning {
    /// It never has.
    pub fn not_yet() -> Self {
        let text = "this coordinator does not own yet; it takes the ownership when the store is the right one and no other coordinator has it";
        Self::No(text.into())
    }

    /// It has lost the ownership in this way.
    pub fn lost(loss: &LossReason) -> Self {
        Self::No(match loss {
            LossReason::Overwritten(entry) => format!(
                "the ownership was lost: {entry}; it is won again when that has not changed for the length of a lease (14 s), \
                 or at once after `nats kv del LOOM_OWNERS coordinator`"
            ),
            LossReason::TakenBy(holder) => {
                format!("another coordinator has taken over ({holder}); this one stands by")
            }
            loss => format!(
                "this coordinator does not own just now ({loss}); it takes the ownership again as soon as NATS stores that"
            ),
        })
    }
}

impl Service {
    /// Whether this process owns.
    pub(super) fn owns(&self) -> bool {
        *self.0.options.owner.borrow() == Owning::Yes
    }

    /// What is wrong with NATS, its store and the ownership, the cause before its consequences.
    pub(super) fn troubles(&self) -> Vec<Problem> {
        let projects = self.projects();
        let nats = &projects.terms().nats;
        let mut troubles = Vec::new();
        let mut add = |kind, sentence: String| troubles.push(Problem::new(kind, sentence));
        if !nats.is_up() {
            let sentence = format!("NATS at {} is away; reconnecting", nats.shown_url);
            add(ProblemKind::NatsAway, sentence);
        } else if let Some(since) = nats.store.without_majority(self.owns()) {
            let secs = since.as_secs();
            add(
                ProblemKind::NoLeader,
                format!(
                    "no majority of the servers of NATS has had a leader for LOOM_OWNERS for {secs} s, so nothing can be written; start the servers that are away"
                ),
            );
        }
        match nats.store.verdict() {
            StoreVerdict::Sound => {}
            StoreVerdict::Short(sentence) | StoreVerdict::Refusing(sentence) => {
                add(ProblemKind::StoreFull, sentence);
            }
            StoreVerdict::Missing(sentence) => add(ProblemKind::StoreMissing, sentence),
        }
        // Where the store is another one, that it does not own follows from it.
        if let Some(sentence) = projects.terms().stores.whole().foreign() {
            add(ProblemKind::StoreChanged, sentence.to_string());
        }
        if let Owning::No(why) = &*self.0.options.owner.borrow() {
            add(ProblemKind::NotOwner, why.clone());
        }
        troubles
    }

    /// The refusal as its sender is to read it: where something is `unavailable` because the whole coordinator cannot
    /// serve, that is what it says.
    pub fn explained(&self, mut error: WireError) -> WireError {
        if error.code != ErrorCode::Unavailable {
            return error;
        }
        // That NATS is away is said by what could not be done already.
        let trouble = self
            .troubles()
            .into_iter()
            .find(|trouble| trouble.kind != ProblemKind::NatsAway);
        if let Some(Problem { sentence, .. }) = trouble {
            let retry_after = error.retry_after_ms;
            error = WireError {
                details: error.details,
                ..WireError::unavailable(sentence, RETRY_AFTER)
            };
            error.retry_after_ms = error.retry_after_ms.max(retry_after);
        }
        error
    }

    /// Refuses new work while the store is short: what is left is for the ends of what was taken in.
    pub(super) fn has_room_for_work(&self) -> Result<(), WireError> {
        match self.projects().terms().nats.store.verdict().sentence() {
            None => Ok(()),
            Some(sentence) => Err(WireError::unavailable(sentence, RETRY_AFTER)),
        }
    }
}
