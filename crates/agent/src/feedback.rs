//! What a program is told of the attempts before: errors and failed checks, the oldest first. Pure.

use loom_protocol::text::without_middle;
use loom_protocol::work::{Feedback, FeedbackKind, WorkItem};

/// What stands between two of them.
const BETWEEN: &str = "\n---\n";

/// All of it in a text; empty at the first attempt.
pub fn text(item: &WorkItem) -> String {
    bounded(item, usize::MAX, usize::MAX)
}

/// The newest of it: so many, each of at most so many bytes. Of a coordinator that tells no feedback, the errors.
pub fn bounded(item: &WorkItem, most: usize, longest: usize) -> String {
    let told: Vec<String> = if item.feedback.is_empty() {
        let errors = item
            .errors
            .iter()
            .map(|error| (error.attempt, &error.message));
        let errors = errors.map(|(attempt, message)| headed(attempt, None, message, longest));
        errors.collect()
    } else {
        let told = item.feedback.iter();
        told.map(|told| of(told, longest)).collect()
    };
    let skipped = told.len().saturating_sub(most);
    // No variable and no argument has such a character.
    told[skipped..].join(BETWEEN).replace('\0', " ")
}

fn of(told: &Feedback, longest: usize) -> String {
    let check = match told.kind {
        FeedbackKind::Check => Some(told.name.as_deref().unwrap_or("a check")),
        FeedbackKind::Error | FeedbackKind::Other => None,
    };
    headed(told.attempt, check, &told.message, longest)
}

fn headed(attempt: Option<u32>, check: Option<&str>, message: &str, longest: usize) -> String {
    let message = without_middle(message, longest);
    let attempt = attempt.map(|attempt| format!("attempt {attempt}"));
    let check = check.map(|name| format!("the check {name} failed"));
    let head: Vec<String> = attempt.into_iter().chain(check).collect();
    if head.is_empty() {
        return message;
    }
    format!("{}: {message}", head.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::item;
    use serde_json::json;

    #[test]
    fn errors_and_checks_are_told_with_their_attempt_and_the_newest_stay() {
        let mut item = item();
        assert_eq!(text(&item), "");
        item.feedback = serde_json::from_value(json!([
            {"kind": "error", "message": "no disk\u{0}", "attempt": 1, "at": "2026-01-01T00:00:00Z"},
            {"kind": "check", "name": "tests", "message": "boom", "attempt": 2, "at": "2026-01-01T00:00:00Z"},
            {"kind": "review", "message": "not so", "at": "2026-01-01T00:00:00Z"},
        ]))
        .unwrap();
        let all = "attempt 1: no disk \n---\nattempt 2, the check tests failed: boom\n---\nnot so";
        assert_eq!(text(&item), all);
        assert_eq!(bounded(&item, 1, 100), "not so");
    }
}
