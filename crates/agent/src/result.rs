//! From a program's output to a result or an error. Pure.

use clap::ValueEnum;
use loom_client::{JobError, JobResult};
use loom_protocol::Body;
use loom_protocol::work::{ReportedResult, Usage, limits};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::capture::Capture;
use loom_process::tail::Tail;

/// The longest summary that is made of the last line, in characters.
const SUMMARY: usize = 300;
/// How much text is kept, beside JSON or in its place, in bytes.
const TEXT: usize = 32 * 1024;
/// Less room than this, in bytes, is no room for text.
const LEAST_TEXT: usize = 128;
/// The room for what goes into an error beside the ends of the streams, in bytes.
const AROUND: usize = 64;

/// What counts as the result of a program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ResultForm {
    /// JSON where the last line that is not empty, or all of the output, is a JSON object or array; else
    /// the text
    #[default]
    Auto,
    /// The last line that is a JSON object or array, wherever it stands; without one the item fails
    Json,
    /// The text, whatever it looks like
    Text,
}

/// A line of JSON in the words of `work.complete`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct InOurWords {
    summary: Option<String>,
    output: Option<Box<RawValue>>,
    artifacts: Option<Vec<Box<RawValue>>>,
    usage: Option<Usage>,
}

/// What a program says of itself beside its result, where it says it by a field of that name.
#[derive(Deserialize)]
struct Sentence<'a> {
    #[serde(borrow, default)]
    summary: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
}

/// The result of a program that is done. With JSON, its text is kept beside it: as the output where the
/// JSON has none, else below the summary.
///
/// An object of nothing but `summary`, `output`, `artifacts` and `usage` is taken for these; any
/// other JSON is the output, with its own `summary` or `result` (if that is text) as the summary.
///
/// # Errors
/// There is no JSON although that was asked for; with the reason.
pub fn result_of(stdout: &Capture, form: ResultForm) -> Result<JobResult, String> {
    if form != ResultForm::Text {
        if let Some((json, before)) = stdout.last_line_of_json() {
            return Ok(from_json(json, before));
        }
        if let Some(json) = all_json(stdout) {
            return Ok(from_json(&json, &Tail::default()));
        }
    }
    if form == ResultForm::Json {
        if let Some(json) = stdout.earlier_json() {
            return Ok(from_json(json, &stdout.tail()));
        }
        let why = stdout.problem().map(|why| format!(": {why}"));
        return Err(format!(
            "no line of its standard output is a JSON object or array (--result json){}",
            why.unwrap_or_default()
        ));
    }
    Ok(from_text(&stdout.tail()))
}

/// What a program said that was stopped before it was done, in whatever form.
pub fn said_by(stdout: &Capture) -> JobResult {
    result_of(stdout, ResultForm::Auto).unwrap_or_else(|_| from_text(&stdout.tail()))
}

/// All of the output as one JSON object or array over several lines.
fn all_json(stdout: &Capture) -> Option<Body> {
    let tail = stdout.tail();
    let text = tail.whole()?;
    if !text.starts_with(['{', '[']) {
        return None;
    }
    Body::from_json(text.into_owned().into_bytes()).ok()
}

fn from_text(tail: &Tail) -> JobResult {
    let text = tail.text(TEXT);
    if text.is_empty() {
        return JobResult::summary("done, without output");
    }
    let last_line = text.lines().next_back().unwrap_or_default();
    let is_all = tail.whole().is_some_and(|whole| whole.len() <= TEXT);
    let is_begun = is_all || text.lines().count() > 2;
    ReportedResult {
        summary: Some(if is_begun {
            beginning_of(last_line)
        } else {
            end_of(last_line)
        }),
        output: Body::of(&text).ok(),
        ..ReportedResult::default()
    }
    .into()
}

fn from_json(json: &Body, text: &Tail) -> JobResult {
    let ours = serde_json::from_slice::<InOurWords>(json.as_bytes()).ok();
    let (mut result, usage) = match ours.filter(InOurWords::says_something) {
        Some(ours) => {
            let usage = ours.usage.clone();
            (ours.into(), usage)
        }
        None => (foreign(json), None),
    };
    keep_beside(&mut result, text);
    let result = JobResult::from(result);
    match usage {
        Some(usage) => result.usage(usage),
        None => result,
    }
}

/// JSON in words that are not ours.
fn foreign(json: &Body) -> ReportedResult {
    let sentence = json.parse::<Sentence<'_>>().ok();
    let text_of = |value: Option<&RawValue>| serde_json::from_str::<String>(value?.get()).ok();
    let said = sentence.and_then(|said| text_of(said.summary).or_else(|| text_of(said.result)));
    ReportedResult {
        summary: said.map(|said| beginning_of(&said)),
        output: Some(json.clone()),
        ..ReportedResult::default()
    }
}

impl InOurWords {
    const fn says_something(&self) -> bool {
        self.summary.is_some()
            || self.output.is_some()
            || self.artifacts.is_some()
            || self.usage.is_some()
    }
}

impl From<InOurWords> for ReportedResult {
    fn from(ours: InOurWords) -> Self {
        Self {
            summary: ours.summary,
            output: ours.output.and_then(|output| Body::of(&output).ok()),
            artifacts: ours.artifacts.and_then(|list| Body::of(&list).ok()),
            completed_at: None,
        }
    }
}

/// Keeps text with a result that came as JSON, as far as there is room for it.
fn keep_beside(result: &mut ReportedResult, text: &Tail) {
    let len = |body: &Option<Body>| body.as_ref().map_or(0, Body::len);
    let taken = result.summary.as_ref().map_or(0, String::len)
        + len(&result.output)
        + len(&result.artifacts);
    let room = limits::RESULT.saturating_sub(taken + LEAST_TEXT);
    if result.output.is_none() {
        let mut max = TEXT.min(room);
        while max >= LEAST_TEXT {
            let text = text.text(max);
            // Odd characters take up to six bytes in JSON.
            if let Ok(body) = Body::of(&text)
                && body.len() <= room
            {
                result.output = (!text.is_empty()).then_some(body);
                return;
            }
            max /= 2;
        }
        return;
    }
    if room < LEAST_TEXT {
        return;
    }
    let text = text.text(TEXT.min(room));
    if text.is_empty() {
        return;
    }
    result.summary = Some(match result.summary.take() {
        Some(summary) => format!("{summary}\n\n{text}"),
        None => text,
    });
}

/// The beginning of a text for one line of a table: without control characters, and not too long.
pub fn beginning_of(text: &str) -> String {
    let text = text.trim();
    let mut shown: String = text.chars().map(printable).take(SUMMARY).collect();
    if text.chars().count() > SUMMARY {
        shown.push('…');
    }
    shown
}

/// The same of the end of a line whose beginning is not there.
fn end_of(text: &str) -> String {
    let text = text.trim();
    let skipped = text.chars().count().saturating_sub(SUMMARY);
    let shown: String = text.chars().skip(skipped).map(printable).collect();
    format!("…{shown}")
}

fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// The error of a program that failed: what happened, and how both streams ended. What one of them does
/// not need of its half, the other one gets.
pub fn error_of(what: &str, stdout: &Capture, stderr: &Capture) -> String {
    let room = limits::ERROR.saturating_sub(what.len() + AROUND);
    let (out, err) = (stdout.tail(), stderr.tail());
    let least = |tail: &Tail| tail.text(room / 2).len();
    let shares = [
        ("stderr", &err, room - least(&out)),
        ("stdout", &out, room - least(&err)),
    ];
    let mut message = what.to_owned();
    let mut left = room;
    for (name, tail, share) in shares {
        let text = tail.text(share.min(left));
        if !text.is_empty() {
            left -= text.len().min(left);
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
    use crate::testing::job;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn captured(output: &[u8]) -> Capture {
        let mut capture = Capture::default();
        capture.feed(output, &job());
        capture.finish(&job());
        capture
    }

    fn read_as(form: ResultForm, output: &str) -> (Option<String>, Option<Value>) {
        let done = result_of(&captured(output.as_bytes()), form).unwrap();
        let result = done.reported();
        let output = result.output.as_ref().map(|body| body.parse().unwrap());
        (result.summary.clone(), output)
    }

    fn read(output: &str) -> (Option<String>, Option<Value>) {
        read_as(ResultForm::Auto, output)
    }

    #[test]
    fn our_words_are_taken_as_such_and_the_text_is_kept_beside_them() {
        let line = r#"{"summary":"done","output":{"n":1}}"#;
        let read_line = read(&format!("{line}\n\n"));
        assert_eq!(read_line, (Some("done".into()), Some(json!({"n": 1}))));
        let (summary, output) = read(&format!("first\nsecond\n{line}"));
        assert_eq!(summary.as_deref(), Some("done\n\nfirst\nsecond"));
        assert_eq!(output, Some(json!({"n": 1})));
        let (summary, output) = read("all of it\n{\"summary\":\"done\"}\n");
        assert_eq!(summary.as_deref(), Some("done"));
        assert_eq!(output, Some(json!("all of it")));
        let (summary, output) = read("prose\n{\"output\":[1]}");
        assert_eq!(
            (summary.as_deref(), output),
            (Some("prose"), Some(json!([1])))
        );
    }

    #[test]
    fn json_in_the_middle_of_prose_is_prose() {
        let text = "I found this:\n{\"summary\":\"no\"}\nand mended it";
        let (summary, output) = read(text);
        assert_eq!(summary.as_deref(), Some("and mended it"));
        assert_eq!(output, Some(text.into()));
    }

    #[test]
    fn other_json_is_the_output() {
        let (summary, output) = read("{\"result\":\"all\\ngood\",\"usage\":{\"x\":1}}\n");
        assert_eq!(summary.as_deref(), Some("all good"));
        assert_eq!(
            output,
            Some(json!({"result": "all\ngood", "usage": {"x": 1}}))
        );
        assert_eq!(read("[1, 2]\n"), (None, Some(json!([1, 2]))));
        assert_eq!(read("{}\n"), (None, Some(json!({}))));
        assert_eq!(
            read("prose\n[1]\n"),
            (Some("prose".into()), Some(json!([1])))
        );
    }

    #[test]
    fn numbers_that_only_json_can_hold_are_kept_as_they_are() {
        let line = r#"{"summary":"s","output":123456789012345678901234567890.5}"#;
        let done = result_of(&captured(line.as_bytes()), ResultForm::Auto).unwrap();
        let output = done.reported().output.as_ref().unwrap();
        assert_eq!(output.as_bytes(), "123456789012345678901234567890.5");
    }

    #[test]
    fn json_over_several_lines_is_json_where_it_is_all() {
        assert_eq!(read("{\n \"n\": 1\n}\n").1, Some(json!({"n": 1})));
        assert!(read("so:\n{\n \"n\": 1\n}\n").1.unwrap().is_string());
    }

    #[test]
    fn json_can_be_asked_for_and_ruled_out() {
        let line = "{\"n\":1}";
        let (summary, output) = read_as(ResultForm::Json, &format!("a\n{line}\nb\n"));
        assert_eq!(output, Some(json!({"n": 1})));
        assert_eq!(summary.as_deref(), Some("a\n{\"n\":1}\nb"));
        let (_, output) = read_as(ResultForm::Text, &format!("{line}\n"));
        assert_eq!(output, Some(json!(line)));
        for (text, why) in [
            ("just text\n", "--result json"),
            ("", "--result json"),
            ("{\"n\":1\n}x\n", "--result json"),
            ("{broken}\n", "key must be a string"),
        ] {
            let refused = result_of(&captured(text.as_bytes()), ResultForm::Json);
            let error = refused.unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn json_that_nests_too_deep_is_kept_as_text() {
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        let (summary, output) = read(&format!("before\n{deep}\n"));
        assert_eq!(output, Some(json!(format!("before\n{deep}"))));
        assert!(summary.unwrap().starts_with("[[["));
        let refused = result_of(&captured(deep.as_bytes()), ResultForm::Json);
        assert!(refused.unwrap_err().contains("levels deep"));
    }

    #[test]
    fn text_stands_for_itself() {
        let (summary, output) = read("first\n\x1b[31mlast line\x1b[0m\n\n");
        assert_eq!(summary.as_deref(), Some(" [31mlast line [0m"));
        assert_eq!(output, Some("first\n\u{1b}[31mlast line\u{1b}[0m".into()));
        assert_eq!(read("").0.as_deref(), Some("done, without output"));
    }

    #[test]
    fn a_line_over_the_room_keeps_its_end_and_the_cut_is_told() {
        for length in [33 * 1024, 400 * 1024, 3_000_000] {
            let line = format!("earlier\n{}the end", "x".repeat(length));
            let (summary, output) = read(&line);
            let summary = summary.unwrap();
            assert!(
                summary.starts_with('…') && summary.ends_with("the end"),
                "{summary}"
            );
            let output = output.unwrap();
            let output = output.as_str().unwrap();
            assert!(output.starts_with("[… ") && output.ends_with("the end"));
            assert!(output.len() <= TEXT);
        }
    }

    #[test]
    fn an_error_has_both_ends_and_fits() {
        let long = "x\n".repeat(5000);
        let error = error_of(
            "exit code 3",
            &captured(long.as_bytes()),
            &captured(b"no disk\n"),
        );
        assert!(error.starts_with("exit code 3\n--- end of stderr ---\nno disk\n"));
        assert!(error.contains("--- end of stdout ---\n[… ") && error.ends_with("x\nx"));
        assert!(
            error.len() > limits::ERROR - 200,
            "the room is used: {}",
            error.len()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// However long the last lines are and whatever they hold, an error fits and has the ends of both
        /// streams; so does a result.
        #[test]
        fn ends_are_kept_and_everything_fits(
            out in prop::collection::vec(any::<u8>(), 0..4_000),
            err in prop::collection::vec(any::<u8>(), 0..4_000),
        ) {
            let stdout = captured(&[&out[..], b"END OUT\n"].concat());
            let stderr = captured(&[&err[..], b"END ERR\n"].concat());
            let error = error_of("exit code 3", &stdout, &stderr);
            prop_assert!(error.len() <= limits::ERROR, "{}", error.len());
            prop_assert!(error.contains("END ERR") && error.ends_with("END OUT"), "{}", error);
            let done = result_of(&stdout, ResultForm::Auto).unwrap();
            prop_assert!(done.reported().output.as_ref().unwrap().len() <= limits::RESULT);
        }

        /// Text beside JSON never makes a result too large that fits without it.
        #[test]
        fn text_beside_json_takes_no_room_that_is_not_there(
            filler in 0_usize..3_000, control in any::<bool>(), has_output in any::<bool>(),
        ) {
            let text = if control { "\u{1}" } else { "t" }.repeat(40_000);
            let long = "s".repeat(limits::RESULT - 30 - filler);
            let json = if has_output { json!({"output": long}) } else { json!({"summary": long}) };
            let done = result_of(&captured(format!("{text}\n{json}\n").as_bytes()), ResultForm::Auto);
            let result = done.unwrap().reported().clone();
            let size = result.summary.map_or(0, |text| text.len())
                + result.output.map_or(0, |body| body.len());
            prop_assert!(size <= limits::RESULT, "{}", size);
        }
    }
}
