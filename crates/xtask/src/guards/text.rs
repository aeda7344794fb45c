//! Rules that can be read off the text of the files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{names, rooms};
use crate::shell::root;

/// The longest that a source file may be. One that grows past 400 lines is two things.
const MAX_LINES: usize = 450;

/// Files that may be longer, and why.
const LONG_FILES: &[(&str, &str)] = &[];

/// Marks, in the same line or the one above, a sleep in a test that is not there to wait for something.
const DELIBERATE_SLEEP: &str = "deliberate sleep:";

/// What a rule sees of a file.
struct Source<'a> {
    /// From the root of the workspace, with `/`.
    path: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn is_rust(&self) -> bool {
        Path::new(self.path)
            .extension()
            .is_some_and(|extension| extension == "rs")
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/")
    }

    /// A line with its number, as a finding.
    fn finding(&self, index: usize, says: &str) -> String {
        format!("{}:{}: {says}", self.path, index + 1)
    }

    /// A finding for each line that matches.
    fn lines(&self, says: &str, matches: impl Fn(&str) -> bool) -> Vec<String> {
        self.text
            .lines()
            .enumerate()
            .filter(|(_, line)| matches(line))
            .map(|(index, _)| self.finding(index, says))
            .collect()
    }
}

const RULES: &[fn(&Source) -> Vec<String>] = &[
    signals_not_sleeps,
    panics_unwind,
    files_are_short,
    queues_are_bounded,
    verdicts_are_pure,
    nothing_is_unfinished,
    rooms_keep_to_their_floor,
    names_are_in_use,
];

/// Checks every rule on every file.
pub fn text() -> Result<()> {
    let mut files = Vec::new();
    collect(&root(), &mut files)?;
    files.sort();
    let mut findings = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let path = file.strip_prefix(root()).unwrap_or(&file);
        let path = path.to_string_lossy().replace('\\', "/");
        let source = Source {
            path: &path,
            text: &text,
        };
        findings.extend(RULES.iter().flat_map(|rule| rule(&source)));
    }
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{}", findings.join("\n"));
}

/// Every Rust and TOML file, outside of what is built. This folder's own files name what they look for.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            let is_own = path.ends_with("xtask/src/guards");
            if !is_own && !matches!(&*name, "target" | ".git") {
                collect(&path, files)?;
            }
        } else if matches!(
            path.extension().and_then(|e| e.to_str()),
            Some("rs" | "toml")
        ) {
            files.push(path);
        }
    }
    Ok(())
}

/// A test that sleeps is slow where the machine is fast, and fails where it is slow.
fn signals_not_sleeps(source: &Source) -> Vec<String> {
    if !source.is_rust() || !source.is_test() {
        return Vec::new();
    }
    let mut above = "";
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let sleeps = calls(line, "sleep(") || calls(line, "sleep_until(");
        if sleeps && !line.contains(DELIBERATE_SLEEP) && !above.contains(DELIBERATE_SLEEP) {
            findings.push(source.finding(
                index,
                "a test waits for a signal or a state with a deadline, it does not sleep (where time itself is \
                 what the test needs: a comment `deliberate sleep: why`)",
            ));
        }
        above = line;
    }
    findings
}

/// Whether a line calls a function of exactly this name: `is_asleep(` is no `sleep(`.
fn calls(line: &str, function: &str) -> bool {
    let is_whole = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    line.match_indices(function).any(|(at, _)| is_whole(at))
}

/// Supervision rests on panics that can be caught.
fn panics_unwind(source: &Source) -> Vec<String> {
    let is_abort = |line: &str| line.replace(' ', "").starts_with("panic=\"abort\"");
    source.lines("panic = \"abort\" would defeat supervision", is_abort)
}

/// Long files are several things.
fn files_are_short(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let excused = LONG_FILES.iter().any(|(path, _)| *path == source.path);
    if !source.is_rust() || lines <= MAX_LINES || excused {
        return Vec::new();
    }
    vec![format!(
        "{}: {lines} lines, more than {MAX_LINES}: split it into the two things that it is",
        source.path
    )]
}

/// A queue without a bound grows until the memory is gone. A test ends before that, and must not
/// drop what it has to judge.
fn queues_are_bounded(source: &Source) -> Vec<String> {
    if !source.is_rust() || source.is_test() {
        return Vec::new();
    }
    source.lines("a queue has a bound, and says `overloaded` at it", |line| {
        line.contains("unbounded_channel") || line.contains("mpsc::unbounded")
    })
}

/// What decides gets values and gives a verdict.
fn verdicts_are_pure(source: &Source) -> Vec<String> {
    const PURE: [&str; 2] = ["actors/src/domain", "crates/nats/src/verdicts"];
    if !PURE.iter().any(|room| source.path.starts_with(room)) {
        return Vec::new();
    }
    source.lines(
        "a verdict knows no clock, no network and no actor: take the value as an argument",
        |line| {
            let line = line.trim_start();
            let impure = [
                "tokio::",
                "async_nats",
                "ractor",
                "Instant::now",
                "crate::nats",
            ];
            !line.starts_with("//") && impure.iter().any(|word| line.contains(word))
        },
    )
}

/// What is not done does not go in.
fn nothing_is_unfinished(source: &Source) -> Vec<String> {
    if !source.is_rust() {
        return Vec::new();
    }
    source.lines("finish it, or take it out", |line| {
        ["todo!(", "unimplemented!(", "dbg!(", "TODO", "FIXME"]
            .iter()
            .any(|word| line.contains(word))
    })
}

/// The floors inside `actors/`.
fn rooms_keep_to_their_floor(source: &Source) -> Vec<String> {
    let lines = source.text.lines().enumerate();
    let found = lines.filter_map(|(index, line)| {
        let says = rooms::forbidden(source.path, line)?;
        Some(source.finding(index, &says))
    });
    found.collect()
}

/// One thing has one name.
fn names_are_in_use(source: &Source) -> Vec<String> {
    if !source.is_rust() {
        return Vec::new();
    }
    let lines = source.text.lines().enumerate();
    let found = lines.filter_map(|(index, line)| {
        let (old, new) = names::out_of_use(line)?;
        Some(source.finding(index, &format!("{old} went out of use: the name is {new}")))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source<'a>(path: &'a str, text: &'a str) -> Source<'a> {
        Source { path, text }
    }

    #[test]
    fn a_sleep_is_found_in_a_test_and_nowhere_else() {
        let text = "fn a() {\n    tokio::time::sleep(second).await;\n}\n";
        let findings = signals_not_sleeps(&source("tests/work_queue.rs", text));
        assert_eq!(findings.len(), 1);
        assert!(findings[0].starts_with("tests/work_queue.rs:2:"));
        assert!(signals_not_sleeps(&source("client/src/agent.rs", text)).is_empty());
    }

    #[test]
    fn a_question_about_sleep_is_no_sleep() {
        let ask = "let is = Projects::is_asleep(&projects, id);\n";
        assert!(signals_not_sleeps(&source("tests/work_queue.rs", ask)).is_empty());
        let both = "if is_asleep(id) { sleep(second).await }\n";
        assert_eq!(
            signals_not_sleeps(&source("tests/work_queue.rs", both)).len(),
            1
        );
    }

    #[test]
    fn a_sleep_with_a_reason_passes() {
        let text = "// deliberate sleep: the fake agent is slow\nsleep(second).await;\n";
        assert!(signals_not_sleeps(&source("tests/work_queue.rs", text)).is_empty());
    }

    #[test]
    fn an_aborting_profile_is_found() {
        let findings = panics_unwind(&source(
            "Cargo.toml",
            "[profile.release]\npanic = \"abort\"\n",
        ));
        assert_eq!(findings.len(), 1);
        assert!(panics_unwind(&source("Cargo.toml", "panic = \"unwind\"")).is_empty());
    }

    #[test]
    fn a_long_file_is_found() {
        let long = "\n".repeat(MAX_LINES + 1);
        assert_eq!(files_are_short(&source("src/main.rs", &long)).len(), 1);
        assert!(files_are_short(&source("src/main.rs", "\n")).is_empty());
    }

    #[test]
    fn an_unbounded_queue_is_found() {
        let text = "let (a, b) = tokio::sync::mpsc::unbounded_channel();";
        assert_eq!(queues_are_bounded(&source("src/main.rs", text)).len(), 1);
    }

    #[test]
    fn a_clock_in_a_verdict_is_found() {
        let text = "//! No tokio:: here.\nlet now = Instant::now();\n";
        let findings = verdicts_are_pure(&source("actors/src/domain/leases.rs", text));
        assert_eq!(findings.len(), 1);
        assert!(findings[0].contains(":2:"));
        let findings = verdicts_are_pure(&source("crates/nats/src/verdicts/store.rs", text));
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn unfinished_code_is_found() {
        assert_eq!(
            nothing_is_unfinished(&source("src/a.rs", "todo!()")).len(),
            1
        );
    }
}
