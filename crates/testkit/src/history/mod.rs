//! What happened, as those saw it who took part, and whether Loom kept its promises in it.
//!
//! A [`Recorder`] notes every submit, claim and report of many tasks on one monotonic clock: when it was sent, when it
//! was answered and what the answer was. [`History::check`] holds that against the state at the end ([`FinalState`])
//! and gives a [`Verdict`]: every broken [`Rule`] as a sentence with the item, the times and the events.
//!
//! # What the checker may conclude
//! An effect takes place somewhere between the sending of a request and its answer. A request without an answer (and
//! one that was answered `unavailable`, `overloaded` or `internal`) may have had its effect at any time after it was
//! sent, or never. The checker accuses only where no choice of these moments would be innocent: a sound run is never
//! refused, however unlucky it was.
//!
//! ```
//! use loom_protocol::work::LeaseRef;
//! use loom_protocol::{AgentGuid, WorkId};
//! use loom_testkit::history::{Action, AgentSpec, Claim, FinalState, ItemSpec, Recorder, Rule};
//!
//! let (recorder, agent, item) = (Recorder::new(), AgentGuid::generate(), WorkId::generate());
//! recorder.begin(Action::Register(AgentSpec::new(agent, "fake", &["rust"]))).accepted();
//! recorder.begin(Action::Submit(ItemSpec::new(item, "python"))).accepted();
//! let lease = LeaseRef { id: item, attempt: 1 };
//! recorder.begin(Action::Claim(Claim::new(agent))).given(vec![lease]);
//!
//! let verdict = recorder.history().check(&FinalState::default());
//! let broken: Vec<Rule> = verdict.violations().iter().map(|violation| violation.rule).collect();
//! assert_eq!(broken, [Rule::NoEnd, Rule::WrongAgent]); // it is gone, and that agent knows no python
//! ```

mod final_state;
mod operation;
mod recorder;
mod rules;
mod stories;
mod verdict;

pub use final_state::{FinalItem, FinalState};
pub use operation::{Action, AgentSpec, Answer, Claim, ItemSpec, Moment, Operation, Outcome, Verb};
pub use recorder::{Disturbance, Open, Recorder};
pub use verdict::{Rule, Verdict, Violation};

use stories::Stories;

/// Everything that was recorded, in the order of sending.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What was asked, and what came of it.
    pub operations: Vec<Operation>,
    /// While something was broken on purpose, from and to: no order is expected then.
    pub disturbances: Vec<(Moment, Moment)>,
}

impl History {
    /// Holds the history and the state at its end against every rule.
    pub fn check(&self, at_the_end: &FinalState) -> Verdict {
        let stories = Stories::of(self, at_the_end);
        let mut violations = Vec::new();
        for rule in rules::ALL {
            rule(&stories, &mut violations);
        }
        Verdict::new(self.operations.len(), stories.count(), violations)
    }
}

#[cfg(test)]
mod tests;
