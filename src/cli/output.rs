//! Printing: tables for people, JSON for programs, and nothing in either that a terminal would obey.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::exit::{CliError, CliResult};
use super::table::{shortened, terminal_width};

pub use super::table::{Table, table};
pub use super::terminal::beside;
pub use loom_protocol::text::{escaped as escape, escaped_lines as block};

/// Whether it was said that nobody reads the output any more.
static READER_GONE: AtomicBool = AtomicBool::new(false);

/// Where a command prints. Cheap to clone.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    /// What to say beside that the reader has gone, where the command goes on without one.
    goes_on: Option<&'static str>,
}

impl Output {
    /// Prints JSON, or else tables.
    pub const fn new(json: bool) -> Self {
        let goes_on = None;
        Self { json, goes_on }
    }

    /// The same for a command that does something while it prints: where nobody reads that any more, it says so once
    /// (and `hint`) and goes on; how it ends is told by its exit code as ever.
    #[must_use]
    pub const fn doing(self, hint: &'static str) -> Self {
        let goes_on = Some(hint);
        Self { goes_on, ..self }
    }

    /// Whether a program reads it.
    pub const fn is_json(self) -> bool {
        self.json
    }

    /// Prints a text as it is, with a line feed at its end.
    pub fn text(self, text: &str) -> CliResult {
        match (write(text), self.goes_on) {
            (Err(error), Some(hint)) if error.kind() == io::ErrorKind::BrokenPipe => {
                if !READER_GONE.swap(true, Ordering::Relaxed) {
                    let hint = if hint.is_empty() {
                        String::new()
                    } else {
                        format!("; {hint}")
                    };
                    note(&format!(
                        "nobody reads the output any more; all is done without it{hint}"
                    ));
                }
                Ok(())
            }
            (written, _) => Ok(written?),
        }
    }

    /// Prints a value as JSON over several lines.
    pub fn json(self, value: &impl Serialize) -> CliResult {
        self.text(&armour(
            &serde_json::to_string_pretty(value).map_err(|error| own(&error))?,
        ))
    }

    /// Prints a value as JSON on one line.
    pub fn json_line(self, value: &impl Serialize) -> CliResult {
        self.text(&self.json_text(value)?)
    }

    /// A value as JSON on one line, without printing it.
    pub fn json_text(self, value: &impl Serialize) -> CliResult<String> {
        let json = serde_json::to_string(value).map_err(|error| own(&error))?;
        Ok(armour(&json))
    }

    /// Prints a table that fits into the terminal, or `empty` where it has no rows.
    pub fn table(self, table: &Table, empty: &str) -> CliResult {
        self.table_within(table, terminal_width(), empty)
    }

    /// Prints a table with all that is in it, or `empty` where it has no rows.
    pub fn whole_table(self, table: &Table, empty: &str) -> CliResult {
        self.table_within(table, None, empty)
    }

    fn table_within(self, table: &Table, room: Option<usize>, empty: &str) -> CliResult {
        if table.row_count() == 0 {
            return self.text(empty);
        }
        self.text(&table.lines(room).join("\n"))
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        stdout.write_all(b"\n")?;
    }
    stdout.flush()
}

fn own(error: &serde_json::Error) -> CliError {
    CliError::Failed(format!("cannot write the answer as JSON: {error}"))
}

/// Says something beside the output.
pub fn note(text: &str) {
    beside(&format!("loom: {}", escape(text)));
}

/// A text of somebody else for one cell: nothing in it moves the cursor, and it is no longer than `most`.
pub fn cell(text: &str, most: usize) -> String {
    shortened(&escape(text), most)
}

/// JSON leaves some of them as they are; here they become escapes, too. Its line feeds stand between its parts.
fn armour(json: &str) -> String {
    let lines: Vec<String> = json.split('\n').map(escape).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_reads_the_same_without_what_a_terminal_would_obey() {
        let json = serde_json::to_string("\u{9b}\u{7f}é").unwrap();
        assert_eq!(armour(&json), "\"\\u009b\\u007fé\"");
        let back: String = serde_json::from_str(&armour(&json)).unwrap();
        assert_eq!(back, "\u{9b}\u{7f}é");
    }

    #[test]
    fn cells_are_cut() {
        assert_eq!(cell("abc", 3), "abc");
        assert_eq!(cell("abcd", 3), "ab…");
    }
}
