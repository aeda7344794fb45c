//! From a program's output to a result or an error. Pure.

use loom_client::{JobError, JobResult};
use loom_protocol::Body;
use loom_protocol::work::{ReportedResult, Usage, limits};
use serde::Deserialize;
use serde_json::Value;

use super::capture::Capture;

/// The longest summary that is made of the output, in characters.
const SUMMARY: usize = 300;
/// How much text stands in for a result without JSON, in bytes.
const TEXT: usize = 32 * 1024;
/// How much of each stream goes into an error, in bytes.
const ERROR_TAIL: usize = limits::ERROR * 2 / 5;

/// A line of JSON in the words of `work.complete`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct InOurWords {
    summary: Option<String>,
    output: Option<Value>,
    artifacts: Option<Vec<Value>>,
    usage: Option<Usage>,
}

/// The result of a program that is done: its last line of JSON, else all of its output if that is
/// JSON, else the end of its text.
///
/// An object of nothing but `summary`, `output`, `artifacts` and `usage` is taken for these; any
/// other JSON is the output, with its own `summary` or `result` (if that is text) as the summary.
pub fn result_of(stdout: &Capture) -> JobResult {
    if let Some(json) = &stdout.last_json
        && let Ok(value) = serde_json::from_slice(json)
    {
        return from_json(&value, json);
    }
    let text = stdout.tail.text(TEXT);
    if !stdout.tail.is_cut()
        && text.starts_with(['{', '['])
        && let Ok(value) = serde_json::from_str(&text)
    {
        return from_json(&value, text.as_bytes());
    }
    if text.is_empty() {
        return JobResult::summary("done, without output");
    }
    let last_line = text.lines().next_back().unwrap_or_default();
    let summary = if stdout.overlong {
        format!("a line of the output was too long for a result; its end: {last_line}")
    } else {
        last_line.to_owned()
    };
    ReportedResult {
        summary: Some(shown(&summary)),
        output: Body::of(&text).ok(),
        ..ReportedResult::default()
    }
    .into()
}

fn from_json(value: &Value, json: &[u8]) -> JobResult {
    if let Value::Object(fields) = value
        && !fields.is_empty()
        && let Ok(ours) = InOurWords::deserialize(value)
    {
        let result = JobResult::from(ReportedResult {
            summary: ours.summary,
            output: ours.output.and_then(|output| Body::of(&output).ok()),
            artifacts: ours.artifacts.and_then(|list| Body::of(&list).ok()),
            completed_at: None,
        });
        return match ours.usage {
            Some(usage) => result.usage(usage),
            None => result,
        };
    }
    let text_of = |name: &str| value.get(name).and_then(Value::as_str);
    ReportedResult {
        summary: text_of("summary").or_else(|| text_of("result")).map(shown),
        output: Body::from_json(json.to_vec()).ok(),
        ..ReportedResult::default()
    }
    .into()
}

/// A text for one line of a table: without control characters, and not too long.
fn shown(text: &str) -> String {
    let mut shown: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(SUMMARY)
        .collect();
    if text.trim().chars().count() > SUMMARY {
        shown.push('…');
    }
    shown
}

/// The error of a program that failed: what happened, and how both streams ended.
pub fn error_of(what: &str, stdout: &Capture, stderr: &Capture) -> String {
    let mut message = what.to_owned();
    for (name, capture) in [("stderr", stderr), ("stdout", stdout)] {
        let text = capture.tail.text(ERROR_TAIL);
        if !text.is_empty() {
            message.extend(["\n--- end of ", name, " ---\n", &text]);
        }
    }
    message
}

/// A failure with its code, from a sentence.
pub fn failure(recoverable: bool, code: impl Into<String>, message: impl Into<String>) -> JobError {
    if recoverable {
        JobError::recoverable(message).code(code)
    } else {
        JobError::permanent(message).code(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent_run::testing::job;

    fn captured(output: &str) -> Capture {
        let mut capture = Capture::default();
        capture.feed(output.as_bytes(), &job());
        capture.finish(&job());
        capture
    }

    fn read(output: &str) -> (Option<String>, Option<Value>) {
        let done = result_of(&captured(output));
        let result = done.reported();
        let output = result.output.as_ref().map(|body| body.parse().unwrap());
        (result.summary.clone(), output)
    }

    #[test]
    fn our_words_are_taken_as_such() {
        let (summary, output) = read("noise\n{\"summary\":\"done\",\"output\":{\"n\":1}}\nbye");
        assert_eq!(summary.as_deref(), Some("done"));
        assert_eq!(output, Some(serde_json::json!({"n": 1})));
    }

    #[test]
    fn other_json_is_the_output() {
        let (summary, output) = read("{\"result\":\"all\\ngood\",\"usage\":{\"x\":1}}\n");
        assert_eq!(summary.as_deref(), Some("all good"));
        assert_eq!(
            output,
            Some(serde_json::json!({"result": "all\ngood", "usage": {"x": 1}}))
        );
        assert_eq!(read("[1, 2]\n"), (None, Some(serde_json::json!([1, 2]))));
        assert_eq!(read("{}\n"), (None, Some(serde_json::json!({}))));
    }

    #[test]
    fn json_over_several_lines_is_json() {
        assert_eq!(
            read("{\n \"n\": 1\n}\n").1,
            Some(serde_json::json!({"n": 1}))
        );
    }

    #[test]
    fn text_stands_for_itself() {
        let (summary, output) = read("first\n\x1b[31mlast line\x1b[0m\n\n");
        assert_eq!(summary.as_deref(), Some(" [31mlast line [0m"));
        assert_eq!(output, Some("first\n\u{1b}[31mlast line\u{1b}[0m".into()));
        assert_eq!(read("").0.as_deref(), Some("done, without output"));
    }

    #[test]
    fn an_error_has_both_ends_and_fits() {
        let long = "x\n".repeat(5000);
        let error = error_of("exit code 3", &captured(&long), &captured("no disk\n"));
        assert!(error.starts_with("exit code 3\n--- end of stderr ---\nno disk\n"));
        assert!(error.contains("--- end of stdout ---\nx") && error.len() <= limits::ERROR);
    }
}
