use proptest::prelude::*;

use super::super::command::{Command, Decision};
use super::super::record::WorkRecord;
use super::super::run_report::RunReport;
use super::super::transition::tests::{at, by, failure, fresh, holder, lose, result};
use super::super::view::total_usage;
use super::*;
use loom_protocol::work::Reason;

fn any_usage() -> impl Strategy<Value = Usage> {
    let count = || prop::option::of(0..1_000_u64);
    let source = prop::option::of(prop::sample::select(vec![
        CostSource::Reported,
        CostSource::Estimated,
        CostSource::Unknown,
    ]));
    let cost = prop::option::of((0..100_u32).prop_map(|cents| f64::from(cents) / 100.0));
    (count(), count(), count(), count(), count(), cost, source).prop_map(
        |(input, output, read, write, tokens, cost_usd, cost_source)| Usage {
            input_tokens: input,
            output_tokens: output,
            cache_read_tokens: read,
            cache_write_tokens: write,
            tokens,
            cost_usd,
            cost_source,
            model: None,
        },
    )
}

/// How an attempt ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Fail,
    Release,
    Lost,
    Resumed,
}

fn any_end() -> impl Strategy<Value = End> {
    prop::sample::select(vec![End::Fail, End::Release, End::Lost, End::Resumed])
}

fn apply(record: &mut WorkRecord, command: &Command) {
    if let Ok(Decision::Write(next)) = command.decide(record, at(10)) {
        *record = *next;
    }
}

fn progress(attempt: u32, usage: &Usage) -> Command {
    Command::Progress {
        by: by(1, attempt),
        progress: None,
        message: None,
        report: RunReport::of_usage(usage.clone()),
    }
}

proptest! {
    /// What is told of an attempt comes in any order, several times, and under attempts that are over.
    #[test]
    fn any_interleaving_of_reports_gives_the_same_sum(
        attempts in prop::collection::vec(
            (prop::collection::vec(any_usage(), 0..5), any_end(), any::<u64>()), 1..5
        ),
    ) {
        let mut record = fresh(1_000);
        let mut expected: Option<Usage> = None;
        let mut run: Option<Usage> = None;
        let mut fence = 0;
        let mut resumes = false;
        for (reports, end, seed) in &attempts {
            let claim = if resumes {
                Command::Resume { holder: holder(1), attempt: fence, claim_id: None, start: true }
            } else {
                expected = over_attempts(expected.take(), run.take());
                Command::Assign { holder: holder(1), claim_id: None, start: true }
            };
            apply(&mut record, &claim);
            fence += 1;
            prop_assert_eq!(record.attempt, fence);
            let mut shuffled = reports.clone();
            let len = shuffled.len().max(1);
            shuffled.rotate_left(usize::try_from(*seed % 7).unwrap() % len);
            if seed % 2 == 0 {
                shuffled.reverse();
            }
            for (n, usage) in shuffled.iter().enumerate() {
                apply(&mut record, &progress(fence, usage));
                // Repeated, and under an attempt that is over.
                apply(&mut record, &progress(fence, &shuffled[n / 2]));
                apply(&mut record, &progress(fence - 1, usage));
            }
            for usage in reports {
                run = within_attempt(run.take(), Some(usage.clone()));
            }
            let ending = match end {
                End::Fail => Command::Fail {
                    by: by(1, fence),
                    failure: failure(true, true),
                    report: reports.first().cloned().map(RunReport::of_usage).unwrap_or_default(),
                },
                End::Release => Command::Release {
                    by: by(1, fence), reason: Reason::Released, message: None, not_before: None,
                    report: reports.last().cloned().map(RunReport::of_usage).unwrap_or_default(),
                },
                End::Lost | End::Resumed => lose(1, fence, Reason::AgentLost),
            };
            apply(&mut record, &ending);
            resumes = matches!(end, End::Resumed);
        }
        prop_assert_eq!(total_usage(&record), over_attempts(expected, run));
    }

    #[test]
    fn within_an_attempt_order_and_repetition_do_not_matter(
        one in any_usage(), other in any_usage(), third in any_usage(),
    ) {
        let with = |known: &Usage, reported: &Usage| {
            within_attempt(Some(known.clone()), Some(reported.clone())).unwrap()
        };
        prop_assert_eq!(with(&one, &other), with(&other, &one));
        prop_assert_eq!(with(&with(&one, &other), &third), with(&one, &with(&other, &third)));
        prop_assert_eq!(with(&with(&one, &other), &other), with(&one, &other));
    }
}

#[test]
fn a_sum_is_reported_only_if_all_its_parts_are() {
    let part = |cost_usd, cost_source| Usage {
        tokens: Some(10),
        cost_usd,
        cost_source,
        ..Usage::default()
    };
    let reported = part(Some(0.5), None);
    let source = |one: &Usage, other: &Usage| {
        let sum = over_attempts(Some(one.clone()), Some(other.clone())).unwrap();
        (sum.tokens, sum.cost_usd, sum.cost_source)
    };
    let sum = source(&reported, &reported);
    assert_eq!(sum, (Some(20), Some(1.0), Some(CostSource::Reported)));
    let estimated = part(Some(0.25), Some(CostSource::Estimated));
    let sum = source(&reported, &estimated);
    assert_eq!(sum, (Some(20), Some(0.75), Some(CostSource::Estimated)));
    let without_money = part(None, None);
    let sum = source(&estimated, &without_money);
    assert_eq!(sum, (Some(20), Some(0.25), Some(CostSource::Unknown)));
}

#[test]
fn a_lost_attempt_keeps_what_it_reported_and_its_late_completion_counts_once() {
    let used = |tokens| Usage {
        tokens: Some(tokens),
        ..Usage::default()
    };
    let mut record = fresh(3);
    let assign = |n| Command::Assign {
        holder: holder(n),
        claim_id: None,
        start: true,
    };
    apply(&mut record, &assign(1));
    apply(&mut record, &progress(1, &used(100)));
    apply(&mut record, &lose(1, 1, Reason::AgentLost));
    let tokens = |record: &WorkRecord| total_usage(record).unwrap().tokens;
    assert_eq!(tokens(&record), Some(100));
    let done = Command::Complete {
        by: by(1, 1),
        result: result(),
        report: RunReport::of_usage(used(130)),
    };
    let mut late = record.clone();
    apply(&mut late, &done);
    assert_eq!(tokens(&late), Some(130));
    apply(&mut record, &assign(2));
    assert!(done.decide(&record, at(20)).is_err());
    let by_another = Command::Complete {
        by: by(2, 2),
        result: result(),
        report: RunReport::of_usage(used(7)),
    };
    apply(&mut record, &by_another);
    assert_eq!(tokens(&record), Some(107));
}

#[test]
fn what_a_cancelled_attempt_used_counts_when_it_has_stopped_and_once() {
    let mut record = fresh(3);
    for command in [
        Command::Assign {
            holder: holder(1),
            claim_id: None,
            start: true,
        },
        Command::Cancel {
            by: "me".into(),
            reason: None,
            again: false,
        },
        Command::CancelDelivered(by(1, 1)),
    ] {
        apply(&mut record, &command);
    }
    let stopped = Command::Stopped {
        by: by(1, 1),
        result: None,
        report: RunReport::of_usage(Usage {
            tokens: Some(5),
            ..Usage::default()
        }),
    };
    apply(&mut record, &stopped);
    assert_eq!(total_usage(&record).unwrap().tokens, Some(5));
    assert_eq!(stopped.decide(&record, at(30)), Ok(Decision::Already));
}

#[test]
fn tokens_are_the_sum_of_their_parts_where_nobody_says_more() {
    let told = complete(Usage {
        input_tokens: Some(1),
        cache_read_tokens: Some(2),
        ..Usage::default()
    });
    assert_eq!(told.tokens, Some(3));
    assert_eq!(complete(Usage::default()), Usage::default());
}
