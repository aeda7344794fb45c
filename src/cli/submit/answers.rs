//! What is said of the answers: ids on stdout as they come, sums and refusals beside them.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use loom_protocol::ErrorCode;
use loom_protocol::work::SubmitAnswer;
use serde::Serialize;
use serde_json::json;

use crate::cli::exit::{CliError, CliResult};
use crate::cli::output::{Output, note};

/// How many refused lines, and lines with fields that nobody reads, are named on stderr.
const NAMED: usize = 20;

/// How many items were answered, and how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sums {
    /// Taken by this run.
    pub taken: usize,
    /// There before this run.
    pub existing: usize,
    /// There when a request was sent again that had got no answer: by this run or before it.
    pub in_doubt: usize,
    /// Refused for good.
    pub refused: usize,
}

impl Sums {
    pub const fn answered(&self) -> usize {
        self.taken + self.existing + self.in_doubt + self.refused
    }

    /// As a clause.
    pub fn sentence(&self) -> String {
        let mut parts = vec![format!("{} taken now", self.taken)];
        for (count, what) in [
            (self.existing, "were there already"),
            (
                self.in_doubt,
                "there since a request without an answer, or before",
            ),
            (self.refused, "refused"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        parts.join(", ")
    }
}

/// Writes answers as they come.
#[derive(Debug)]
pub(super) struct Answers {
    out: Output,
    bar: ProgressBar,
    rejects: Option<Rejects>,
    pub sums: Sums,
    /// The code of the first refusal.
    pub first_refusal: Option<ErrorCode>,
    with_ignored: usize,
    printed: usize,
}

impl Answers {
    /// For so many items. The bar is there at a terminal only.
    pub fn new(out: Output, total: usize, rejects: Option<Rejects>) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let bar = if io::stderr().is_terminal() && !is_dumb {
            let bar = ProgressBar::new(total as u64);
            let style = "{bar:30} {pos}/{len} items, {eta} to go";
            bar.set_style(
                ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar()),
            );
            bar
        } else {
            ProgressBar::hidden()
        };
        Self {
            out,
            bar,
            rejects,
            sums: Sums::default(),
            first_refusal: None,
            with_ignored: 0,
            printed: 0,
        }
    }

    /// Whether a program reads it.
    pub const fn is_json(&self) -> bool {
        self.out.is_json()
    }

    /// Says something beside the output.
    pub fn say(&self, text: &str) {
        self.bar.suspend(|| note(text));
    }

    /// An item was taken, or was there.
    pub fn taken(&mut self, place: &str, answer: &SubmitAnswer, was_in_doubt: bool) {
        match (answer.existing, was_in_doubt) {
            (false, _) => self.sums.taken += 1,
            (true, true) => self.sums.in_doubt += 1,
            (true, false) => self.sums.existing += 1,
        }
        if !answer.ignored.is_empty() {
            self.with_ignored += 1;
            if self.with_ignored <= NAMED {
                for field in &answer.ignored {
                    self.say(&format!("{place}nobody reads the field {field:?}"));
                }
            }
        }
    }

    /// A line was refused, here or by the coordinator. `line` writes it.
    pub fn refused(
        &mut self,
        place: &str,
        code: ErrorCode,
        why: &str,
        line: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> CliResult {
        self.sums.refused += 1;
        self.first_refusal.get_or_insert(code);
        if self.sums.refused <= NAMED {
            self.say(&format!("{place}{why}"));
        }
        match &mut self.rejects {
            Some(rejects) => rejects.write(&format!("{place}{why}"), line),
            None => Ok(()),
        }
    }

    /// Prints what was answered together: an id per line, or the answers within one JSON object.
    pub fn print<T: Serialize>(&mut self, ids: &[String], answers: &[T]) -> CliResult {
        let out = self.out;
        let lines = if out.is_json() {
            let mut lines = Vec::with_capacity(answers.len());
            for answer in answers {
                let before = if self.printed == 0 {
                    "{\"items\":["
                } else {
                    ","
                };
                lines.push(format!("{before}{}", out.json_text(answer)?));
                self.printed += 1;
            }
            lines
        } else {
            ids.to_vec()
        };
        if let Some(rejects) = &mut self.rejects {
            rejects.flush()?;
        }
        self.bar.set_position(self.sums.answered() as u64);
        if lines.is_empty() {
            return Ok(());
        }
        self.bar.suspend(|| out.text(&lines.join("\n")))
    }

    /// Says what it came to, and ends the JSON object.
    pub fn finish(&mut self, batch: &str, total: usize) -> CliResult {
        self.bar.finish_and_clear();
        if let Some(more) = self.with_ignored.checked_sub(NAMED + 1) {
            note(&format!(
                "{} more items have fields that nobody reads",
                more + 1
            ));
        }
        if let Some(more) = self.sums.refused.checked_sub(NAMED + 1) {
            note(&format!("{} more items were refused", more + 1));
        }
        let rejects = self.rejects.as_ref().filter(|_| self.sums.refused > 0);
        if let Some(rejects) = rejects {
            let path = rejects.path.display();
            note(&format!(
                "the refused lines are in {path}; mend them and submit that file (--batch {batch} keeps them from being doubled)"
            ));
        }
        if self.out.is_json() {
            let before = if self.printed == 0 {
                "{\"items\":["
            } else {
                ""
            };
            let sums = json!({"batch": batch, "total": total, "sums": self.sums});
            let sums = self.out.json_text(&sums)?;
            self.out
                .text(&format!("{before}],{}", sums.trim_start_matches('{')))?;
        }
        Ok(())
    }
}

/// The file of the refused lines: each below a comment that says why, so that it can be submitted.
#[derive(Debug)]
pub(super) struct Rejects {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Rejects {
    /// Begins the file anew.
    pub fn create(path: &Path) -> CliResult<Self> {
        if path == Path::new("-") {
            let message = "--rejects -: standard output is for the ids; name a file";
            return Err(CliError::Usage(message.into()));
        }
        let file = File::create(path)
            .map_err(|error| CliError::Usage(format!("--rejects {}: {error}", path.display())))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
        })
    }

    fn write(
        &mut self,
        why: &str,
        line: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> CliResult {
        let why = why.replace(['\n', '\r'], " ");
        let written = writeln!(self.file, "# {why}").and_then(|()| line(&mut self.file));
        written.map_err(|error| self.broken(&error))
    }

    fn flush(&mut self) -> CliResult {
        self.file.flush().map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &io::Error) -> CliError {
        CliError::Failed(format!("--rejects {}: {error}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_say_what_was_there_already() {
        let mut sums = Sums {
            taken: 37,
            existing: 963,
            ..Sums::default()
        };
        assert_eq!(sums.sentence(), "37 taken now, 963 were there already");
        (sums.refused, sums.in_doubt) = (2, 5);
        assert!(sums.sentence().ends_with("2 refused"));
        assert_eq!(sums.answered(), 1007);
    }
}
