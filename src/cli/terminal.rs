//! Texts of others on a terminal, which is to obey nothing in them.

use std::fmt::Write as _;
use std::io::{self, Write as _};

/// Writes lines to stderr as they are. Where nobody reads that any more, there is nobody to tell.
pub fn beside(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A text of somebody else over several lines: only its line feeds keep their meaning.
pub fn block(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(escape).collect();
    lines.join("\n")
}

/// Writes what a terminal would obey, or what would turn the text around, as escapes: those of JSON, so that a text
/// reads the same wherever it stands.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        push_escaped(&mut escaped, c);
    }
    escaped
}

fn push_escaped(to: &mut String, c: char) {
    match c {
        '\t' => to.push_str("\\t"),
        '\n' => to.push_str("\\n"),
        '\r' => to.push_str("\\r"),
        c if c.is_control() || is_bidi_control(c) => {
            let _ = write!(to, "\\u{:04x}", u32::from(c));
        }
        c => to.push(c),
    }
}

const fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_from_others() {
        assert_eq!(escape("a\u{1b}[2Jb\tc\nd"), "a\\u001b[2Jb\\tc\\nd");
        assert_eq!(escape("\u{9b}31m\u{202e}"), "\\u009b31m\\u202e");
        assert_eq!(escape("schön 日本"), "schön 日本");
        assert_eq!(block("a\r\n\u{7}b"), "a\n\\u0007b");
    }
}
