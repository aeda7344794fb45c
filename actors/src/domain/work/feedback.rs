//! What an attempt is told of those before it. Pure.

use loom_protocol::text::without_middle;
use loom_protocol::work::{Evidence, Feedback, FeedbackKind, limits};

use super::record::WorkRecord;

/// Errors and failed checks, the oldest first. Where it is too much, the oldest are left out.
pub fn feedback(record: &WorkRecord) -> Vec<Feedback> {
    let errors = record.errors.iter().map(|error| Feedback {
        kind: FeedbackKind::Error,
        message: error.message.clone(),
        attempt: error.attempt,
        at: error.occurred_at,
        reason: Some(error.reason),
        name: None,
    });
    let failed = record.evidence.iter().filter(|check| !check.is_good());
    let mut all: Vec<Feedback> = errors.chain(failed.map(of_check)).collect();
    // By attempt, not by the clocks of agents; what was checked comes before the error that it led to.
    all.sort_by_key(|told| (told.attempt.unwrap_or(0), told.kind == FeedbackKind::Error));
    let mut room = limits::FEEDBACK_TEXT;
    let mut kept: Vec<Feedback> = Vec::new();
    for mut told in all.into_iter().rev().take(limits::FEEDBACK) {
        // Less than that is no text any more.
        const LEAST: usize = 256;
        if told.message.len() > room {
            if room < LEAST {
                break;
            }
            told.message = without_middle(&told.message, room);
        }
        room -= told.message.len();
        kept.push(told);
    }
    kept.reverse();
    kept
}

fn of_check(check: &Evidence) -> Feedback {
    Feedback {
        kind: FeedbackKind::Check,
        message: format!(
            "$ {}\nexit code {}\n{}",
            check.command, check.exit_code, check.output_tail
        ),
        attempt: Some(check.attempt),
        at: check.at,
        reason: None,
        name: Some(check.name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::transition::tests::{any_record, at, fresh};
    use super::*;
    use loom_protocol::work::{Reason, WorkErrorInfo};
    use proptest::prelude::*;

    fn error(attempt: u32, message: String) -> WorkErrorInfo {
        WorkErrorInfo {
            message,
            code: None,
            recoverable: true,
            occurred_at: at(1),
            reason: Reason::Checks,
            attempt: Some(attempt),
            agent_guid: None,
        }
    }

    fn check(attempt: u32, exit_code: i32, output_tail: String) -> Evidence {
        Evidence {
            name: format!("check-{exit_code}"),
            command: "cargo test".into(),
            exit_code,
            duration_ms: 1,
            output_tail,
            at: at(2),
            attempt,
            commit: None,
            dirty: None,
        }
    }

    #[test]
    fn errors_and_failed_checks_are_told_by_attempt_the_oldest_first() {
        let mut record = fresh(9);
        record.errors = vec![error(1, "one".into()), error(2, "two".into())];
        record.evidence = vec![check(2, 0, "fine".into()), check(2, 101, "boom".into())];
        let told: Vec<(FeedbackKind, String)> = feedback(&record)
            .into_iter()
            .map(|told| (told.kind, told.message))
            .collect();
        assert_eq!(
            told,
            [
                (FeedbackKind::Error, "one".into()),
                (
                    FeedbackKind::Check,
                    "$ cargo test\nexit code 101\nboom".into()
                ),
                (FeedbackKind::Error, "two".into()),
            ]
        );
        assert_eq!(feedback(&fresh(3)), []);
    }

    proptest! {
        #[test]
        fn it_stays_bounded_and_keeps_the_newest(
            record in any_record(), errors in 0..12_usize, length in 0..6_000_usize,
        ) {
            let mut record = record;
            record.errors = (0..errors)
                .map(|n| error(u32::try_from(n).unwrap(), format!("{n} {}", "x".repeat(length))))
                .collect();
            record.evidence = (1..=16).map(|n| check(3, n, "o".repeat(length))).collect();
            let told = feedback(&record);
            prop_assert!(told.len() <= limits::FEEDBACK);
            let text: usize = told.iter().map(|told| told.message.len()).sum();
            prop_assert!(text <= limits::FEEDBACK_TEXT, "{}", text);
            prop_assert!(!told.is_empty());
            if errors > 4 {
                let newest = format!("{} ", errors - 1);
                prop_assert!(told.last().unwrap().message.starts_with(&newest));
            }
        }
    }
}
