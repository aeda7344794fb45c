//! Printing: tables for people, JSON for programs, and nothing in either that a terminal would obey.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;

use super::exit::{CliError, CliResult};
use super::table::{shortened, terminal_width};

pub use super::table::{Table, table};

/// Where a command prints. Cheap to clone.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Prints JSON, or else tables.
    pub const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether a program reads it.
    pub const fn is_json(self) -> bool {
        self.json
    }

    /// Prints a text as it is, with a line feed at its end.
    pub fn text(self, text: &str) -> CliResult {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            stdout.write_all(b"\n")?;
        }
        Ok(stdout.flush()?)
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

fn own(error: &serde_json::Error) -> CliError {
    CliError::Failed(format!("cannot write the answer as JSON: {error}"))
}

/// Says something beside the output.
pub fn note(text: &str) {
    eprintln!("loom: {}", escape(text));
}

/// A text of somebody else for one cell: nothing in it moves the cursor, and it is no longer than `most`.
pub fn cell(text: &str, most: usize) -> String {
    shortened(&escape(text), most)
}

/// A text of somebody else over several lines: only its line feeds keep their meaning.
pub fn block(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(escape).collect();
    lines.join("\n")
}

/// Writes what a terminal would obey, or what would turn the text around, as escapes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_bidi_control(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

const fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON leaves some control characters as they are; here they become escapes of JSON.
fn armour(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && c.is_control() {
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_from_others() {
        assert_eq!(escape("a\u{1b}[2Jb\tc\nd"), "a\\u{1b}[2Jb\\tc\\nd");
        assert_eq!(escape("\u{9b}31m\u{202e}"), "\\u{9b}31m\\u{202e}");
        assert_eq!(escape("schön 日本"), "schön 日本");
        assert_eq!(block("a\r\n\u{7}b"), "a\n\\u{7}b");
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
