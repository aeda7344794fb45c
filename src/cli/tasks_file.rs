//! `tasks.jsonl`: one work item per line, as `POST /api/work` takes it.
//!
//! Everything is read before anything is submitted. Values are carried as they were written, so
//! that nothing in a context is rounded on its way.

use std::collections::BTreeMap;

use loom_protocol::WorkId;
use loom_protocol::work::SubmitRequest;
use serde_json::value::{RawValue, to_raw_value};

/// The fields of one item, as JSON text each.
pub type Fields = BTreeMap<String, Box<RawValue>>;

/// How many problems are told at a time.
const MOST_PROBLEMS: usize = 10;

/// One item to submit.
#[derive(Debug)]
pub struct Task {
    /// The line that it stands on, from 1; none where it came from flags.
    pub line: Option<usize>,
    /// Its fields; `id` is always among them, so that it can be submitted again safely.
    pub fields: Fields,
}

impl Task {
    /// An item with the fields of its line, and those of `defaults` that the line does not have.
    ///
    /// # Errors
    /// A sentence about what is missing or wrong.
    pub fn new(line: Option<usize>, own: Fields, defaults: &Fields) -> Result<Self, String> {
        let mut fields = defaults.clone();
        let labels = merged_labels(&own, defaults)?;
        fields.extend(own);
        if let Some(labels) = labels {
            fields.insert("labels".into(), labels);
        }
        for required in ["description", "capability"] {
            if !fields.contains_key(required) {
                return Err(format!("has no {required}; add one, or --{required}"));
            }
        }
        if fields.contains_key("items") {
            return Err("holds items; write each of them on a line of its own".into());
        }
        if !fields.contains_key("id") {
            let id = to_raw_value(&WorkId::generate()).map_err(|error| error.to_string())?;
            fields.insert("id".into(), id);
        }
        Ok(Self { line, fields })
    }

    /// Where it came from, for messages.
    pub fn place(&self, file: &str) -> String {
        self.line
            .map_or_else(String::new, |line| format!("{file}:{line}: "))
    }
}

fn merged_labels(own: &Fields, defaults: &Fields) -> Result<Option<Box<RawValue>>, String> {
    let (Some(own), Some(defaults)) = (own.get("labels"), defaults.get("labels")) else {
        return Ok(None);
    };
    let read = |raw: &RawValue| serde_json::from_str::<BTreeMap<String, String>>(raw.get());
    let merged = read(defaults).and_then(|mut labels| {
        labels.extend(read(own)?);
        to_raw_value(&labels)
    });
    merged
        .map(Some)
        .map_err(|error| format!("has labels that are not all text: {error}"))
}

/// Reads a whole file.
///
/// # Errors
/// A line for each problem, with file, line and what to do.
pub fn read(file: &str, text: &str, defaults: &Fields) -> Result<Vec<Task>, String> {
    let mut tasks = Vec::new();
    let mut problems = Vec::new();
    let lines = text.trim_start_matches('\u{feff}').lines();
    for (index, line) in lines
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let number = index + 1;
        match read_line(line).and_then(|own| Task::new(Some(number), own, defaults)) {
            Ok(task) => tasks.push(task),
            Err(problem) => problems.push(format!("{file}:{number}: {problem}")),
        }
    }
    if problems.len() > MOST_PROBLEMS {
        let more = problems.len() - MOST_PROBLEMS;
        problems.truncate(MOST_PROBLEMS);
        problems.push(format!("and {more} more"));
    }
    if !problems.is_empty() {
        return Err(format!("nothing was submitted\n{}", problems.join("\n")));
    }
    if tasks.is_empty() {
        return Err(format!(
            "{file} holds no items; write one JSON object per line"
        ));
    }
    Ok(tasks)
}

fn read_line(line: &str) -> Result<Fields, String> {
    let fields: Fields = serde_json::from_str(line).map_err(|error| {
        let why = without_line(&error);
        format!(
            "is no JSON object ({why}); write one item per line, like {{\"description\": \"…\", \"capability\": \"…\"}}"
        )
    })?;
    serde_json::from_str::<SubmitRequest>(line)
        .map_err(|error| format!("is no work item: {}", without_line(&error)))?;
    Ok(fields)
}

/// The error with its column only: its line is always the first.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.replace(" at line 1 column 0", "")
        .replace("line 1 column", "column")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(json: &str) -> Fields {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn lines_take_what_they_lack_from_the_flags() {
        let text = "\u{feff}{\"description\":\"a\",\"labels\":{\"x\":\"1\"}}\r\n\n\
                    {\"description\":\"b\",\"capability\":\"rust\",\"contextData\":{\"n\":123456789012345678901234567890}}\n";
        let flags = defaults(r#"{"capability":"go","labels":{"x":"0","y":"2"}}"#);
        let tasks = read("t", text, &flags).unwrap();
        let field = |task: usize, name: &str| tasks[task].fields[name].get().to_owned();
        assert_eq!(field(0, "capability"), "\"go\"");
        assert_eq!(field(0, "labels"), r#"{"x":"1","y":"2"}"#);
        assert_eq!(field(1, "capability"), "\"rust\"");
        assert_eq!(tasks[1].line, Some(3));
        assert!(field(1, "contextData").contains("123456789012345678901234567890"));
        assert_ne!(field(0, "id"), field(1, "id"));
    }

    #[test]
    fn every_problem_names_its_line() {
        let text = "{\"description\":\"a\",\"capability\":\"c\"}\n\
                    {\"description\":\"a\"}\n\
                    {\"description\":\"a\",,}\n\
                    [1]\n\
                    {\"description\":7,\"capability\":\"c\"}\n\
                    {\"items\":[],\"description\":\"a\",\"capability\":\"c\"}\n";
        let error = read("t.jsonl", text, &Fields::new()).unwrap_err();
        for part in [
            "t.jsonl:2: has no capability; add one, or --capability",
            "t.jsonl:3: is no JSON object (key must be a string at column 20)",
            "t.jsonl:4: is no JSON object",
            "t.jsonl:5: is no work item: invalid type: integer `7`",
            "t.jsonl:6: holds items",
        ] {
            assert!(error.contains(part), "{part:?} is not in {error}");
        }
        assert!(!error.contains("t.jsonl:1:"));
    }

    #[test]
    fn many_problems_are_counted_and_none_is_empty() {
        let error = read("t", &"{}\n".repeat(13), &Fields::new()).unwrap_err();
        assert!(error.ends_with("and 3 more"), "{error}");
        assert!(read("t", "\n\n", &Fields::new()).is_err());
    }
}
