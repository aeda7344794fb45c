//! Printing: tables for people, JSON for programs, and nothing in either that a terminal would obey.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use loom_actors::clock::Clock;
use loom_protocol::Timestamp;
use serde::Serialize;

use super::exit::{CliError, CliResult};

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
        self.text(&armour(
            &serde_json::to_string(value).map_err(|error| own(&error))?,
        ))
    }

    /// Prints a table, or `empty` where it has no rows.
    pub fn table(self, table: &Table, empty: &str) -> CliResult {
        if table.row_count() == 0 {
            return self.text(empty);
        }
        let lines: Vec<String> = table
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        self.text(&lines.join("\n"))
    }
}

fn own(error: &serde_json::Error) -> CliError {
    CliError::Failed(format!("cannot write the answer as JSON: {error}"))
}

/// Says something beside the output.
pub fn note(text: &str) {
    eprintln!("loom: {}", escape(text));
}

/// An empty table: fitted to the terminal, or as wide as it likes where there is none.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.to_vec());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.set_content_arrangement(if io::stdout().is_terminal() {
        ContentArrangement::Dynamic
    } else {
        ContentArrangement::Disabled
    });
    table
}

/// A text of somebody else for one cell: nothing in it moves the cursor, and it is no longer than `most`.
pub fn cell(text: &str, most: usize) -> String {
    let escaped = escape(text);
    if escaped.chars().count() <= most {
        return escaped;
    }
    let mut short: String = escaped.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
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

/// How long ago something was, in one unit: `12s`, `5m`, `3h`, `9d`.
pub fn ago(at: Timestamp) -> String {
    short(Clock::system().now().since(at))
}

/// A length of time in one unit.
pub fn short(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
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

    #[test]
    fn lengths_have_one_unit() {
        for (seconds, text) in [(0, "0s"), (61, "1m"), (7200, "2h"), (200_000, "2d")] {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
    }
}
