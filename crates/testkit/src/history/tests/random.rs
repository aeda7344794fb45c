//! Random histories of a coordinator that keeps its promises: none may be refused. And the same with one thing wrong.

mod item;
mod model;

use loom_protocol::AgentGuid;
use loom_protocol::work::{LeaseRef, WorkStatus};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::history::{Action, Answer, FinalState, History, Moment, Operation, Outcome, Rule, Verb};

use model::{Ask, Model, Step};

const CASES: u32 = 150;

fn step() -> impl Strategy<Value = Step> {
    let ask = prop_oneof![
        4 => (0..4_usize, 1..=10_u8, 0..8_u8).prop_map(|(kind, priority, special)| Ask::Submit { kind, priority, special }),
        6 => (0..6_usize, 1..4_usize).prop_map(|(agent, max)| Ask::Claim { agent, max }),
        6 => (any::<Index>(), 0..15_u8).prop_map(|(which, how)| Ask::Report { which, how }),
        1 => any::<Index>().prop_map(Ask::Repeat),
        2 => any::<Index>().prop_map(Ask::ReportLate),
        1 => any::<Index>().prop_map(Ask::Resume),
        1 => any::<Index>().prop_map(Ask::Cancel),
        2 => (any::<Index>(), any::<bool>()).prop_map(|(which, spends)| Ask::Revoke { which, spends }),
        1 => any::<Index>().prop_map(Ask::Retry),
    ];
    (ask, 0..10_u64, 0..60_u64, 0..30_u64, 0..8_u8).prop_map(|(ask, pause, before, after, luck)| {
        Step {
            ask,
            pause,
            before,
            after,
            answered: luck > 0,
        }
    })
}

fn tell(steps: &[Step]) -> (History, FinalState) {
    let mut model = Model::new();
    for step in steps {
        model.take(step);
    }
    model.finish()
}

/// Something that did not happen like this.
#[derive(Debug, Clone)]
enum Lie {
    Lost(Index),
    Twice(Index),
    OtherEnd(Index),
    OneMoreLetter(Index),
    SpentTooMuch(Index),
    SpentByCompletion(Index),
    MovedAgents,
    SecondCompletion(Index),
    LateProgress(Index),
}

fn lie() -> impl Strategy<Value = Lie> {
    prop_oneof![
        any::<Index>().prop_map(Lie::Lost),
        any::<Index>().prop_map(Lie::Twice),
        any::<Index>().prop_map(Lie::OtherEnd),
        any::<Index>().prop_map(Lie::OneMoreLetter),
        any::<Index>().prop_map(Lie::SpentTooMuch),
        any::<Index>().prop_map(Lie::SpentByCompletion),
        Just(Lie::MovedAgents),
        any::<Index>().prop_map(Lie::SecondCompletion),
        any::<Index>().prop_map(Lie::LateProgress),
    ]
}

/// Puts the lie in; `None` where there is nothing to lie about.
fn put_in(lie: &Lie, history: &mut History, end: &mut FinalState) -> Option<Rule> {
    let accepted: Vec<_> = history
        .operations
        .iter()
        .filter_map(|operation| match &operation.action {
            Action::Submit(spec) => operation.accepted_at().map(|_| spec.id),
            _ => None,
        })
        .collect();
    match lie {
        Lie::Lost(which) => {
            let id = *which.get(some(&accepted)?);
            end.items.retain(|item| item.id != id);
            end.dead_letters.as_mut()?.retain(|letter| *letter != id);
            Some(Rule::NoEnd)
        }
        Lie::Twice(which) => {
            let again = which.get(some(&end.items)?).clone();
            end.items.push(again);
            Some(Rule::Phantom)
        }
        Lie::OtherEnd(which) => {
            let completed = completed(history);
            let lease = which.get(some(&completed)?).1;
            let item = end.items.iter_mut().find(|item| item.id == lease.id)?;
            item.status = WorkStatus::Failed;
            end.dead_letters.as_mut()?.push(lease.id);
            Some(Rule::WrongEnd)
        }
        Lie::OneMoreLetter(which) => {
            let id = which.get(some(&end.items)?).id;
            end.dead_letters.as_mut()?.push(id);
            Some(Rule::DeadLetter)
        }
        Lie::SpentTooMuch(which) => {
            let count = some(&end.items)?.len();
            let item = &mut end.items[which.index(count)];
            item.attempts = item.max_attempts + 1;
            Some(Rule::TooManyAttempts)
        }
        Lie::SpentByCompletion(which) => {
            let completed = completed(history);
            let lease = which.get(some(&completed)?).1;
            let item = end.items.iter_mut().find(|item| item.id == lease.id)?;
            item.attempts = item.attempt;
            Some(Rule::TooManyAttempts)
        }
        Lie::MovedAgents => {
            for operation in &mut history.operations {
                if let Action::Register(spec) = &mut operation.action {
                    spec.boundaries = vec!["elsewhere".into()];
                }
            }
            let given = history.operations.iter().any(|op| !op.given().is_empty());
            given.then_some(Rule::WrongAgent)
        }
        Lie::SecondCompletion(which) => {
            let completed = completed(history);
            let lease = which.get(some(&completed)?).1;
            append(history, AgentGuid::generate(), lease, Verb::Complete);
            Some(Rule::DoubleCompletion)
        }
        Lie::LateProgress(which) => {
            let completed = completed(history);
            let (agent, lease) = *which.get(some(&completed)?);
            append(history, agent, lease, Verb::Progress);
            Some(Rule::Overlap)
        }
    }
}

fn some<T>(all: &[T]) -> Option<&[T]> {
    (!all.is_empty()).then_some(all)
}

/// The completions that were answered.
fn completed(history: &History) -> Vec<(AgentGuid, LeaseRef)> {
    let operations = history.operations.iter();
    let accepted = operations.filter(|operation| operation.accepted_at().is_some());
    accepted
        .filter_map(|operation| match operation.action {
            Action::Report {
                verb: Verb::Complete,
                agent,
                lease,
            } => Some((agent, lease)),
            _ => None,
        })
        .collect()
}

/// An accepted report after everything else.
fn append(history: &mut History, agent: AgentGuid, lease: LeaseRef, verb: Verb) {
    let at = Moment::new(std::time::Duration::from_hours(1));
    history.operations.push(Operation {
        run: None,
        number: history.operations.len(),
        sent: at,
        action: Action::Report { verb, agent, lease },
        answer: Some(Answer {
            at,
            outcome: Outcome::Accepted,
        }),
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn a_sound_history_is_never_refused(steps in vec(step(), 0..100)) {
        let (history, end) = tell(&steps);
        let verdict = history.check(&end);
        prop_assert!(verdict.is_sound(), "{verdict}");
    }

    #[test]
    fn a_lie_is_always_found(steps in vec(step(), 0..100), lie in lie()) {
        let (mut history, mut end) = tell(&steps);
        if let Some(rule) = put_in(&lie, &mut history, &mut end) {
            let verdict = history.check(&end);
            let found = verdict.violations().iter().any(|violation| violation.rule == rule);
            prop_assert!(found, "{lie:?} was not found: {verdict}");
        }
    }
}

/// What the properties stand on: the random histories have in them what they are about.
#[test]
fn the_random_histories_are_not_empty() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut completions, mut failed, mut unknown, mut refused) = (0, 0, 0, 0);
    let mut resumed = 0;
    for _ in 0..50 {
        let steps = vec(step(), 100..120)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let (history, end) = tell(&steps);
        completions += completed(&history).len();
        failed += end
            .items
            .iter()
            .filter(|item| item.status == WorkStatus::Failed)
            .count();
        unknown += history
            .operations
            .iter()
            .filter(|op| op.answer.is_none())
            .count();
        let claims = history.operations.iter();
        resumed += claims
            .filter(|op| matches!(&op.action, Action::Claim(claim) if !claim.resume.is_empty()))
            .count();
        refused += history
            .operations
            .iter()
            .filter(|op| op.is_refused())
            .count();
    }
    let seen = [completions, failed, unknown, refused, resumed];
    assert!(seen.iter().all(|count| *count > 20), "{seen:?}");
}
