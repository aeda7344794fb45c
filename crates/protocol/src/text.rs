//! Texts of others for where they go: not too long, and with nothing in them that a terminal would obey. Pure.

use std::fmt::Write as _;

/// The room for the words that tell of a cut, in bytes.
const MARK: usize = 48;

/// At most `max` bytes of a text: its middle is left out, and how much of it stands in its place. What
/// matters is said first or last.
pub fn without_middle(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let half = max.saturating_sub(MARK) / 2;
    let head = text.floor_char_boundary(half);
    let tail = text.ceil_char_boundary(text.len() - half);
    let left_out = tail - head;
    format!(
        "{}\n[… {left_out} bytes left out]\n{}",
        &text[..head],
        &text[tail..]
    )
}

/// At most `max` bytes of a text: its end is left out, with a mark in its place.
pub fn without_end(text: &str, max: usize) -> String {
    const GAP: &str = "…";
    if text.len() <= max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max.saturating_sub(GAP.len()));
    format!("{}{GAP}", &text[..end])
}

/// A text with what a terminal would obey, or what would turn the text around, as escapes: those of JSON, so that a text
/// reads the same wherever it stands.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        push_escaped(&mut escaped, c);
    }
    escaped
}

/// The same of a text over several lines: only its line feeds keep their meaning.
pub fn escaped_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(escaped).collect();
    lines.join("\n")
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
    fn nothing_is_left_that_a_terminal_would_obey() {
        assert_eq!(escaped("a\u{1b}[2Jb\tc\nd"), "a\\u001b[2Jb\\tc\\nd");
        assert_eq!(escaped("\u{9b}31m\u{202e}"), "\\u009b31m\\u202e");
        assert_eq!(escaped("schön 日本"), "schön 日本");
        assert_eq!(escaped_lines("a\u{1b}\nb\r\nc\rd\n"), "a\\u001b\nb\nc\\rd");
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        assert_eq!(without_middle("ünïc", 6), "ünïc");
        assert_eq!(without_end("ünïc", 6), "ünïc");
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters_and_fits() {
        for max in 60..200 {
            let text = format!("first {} last", "ü".repeat(3_000));
            let cut = without_middle(&text, max);
            assert!(cut.len() <= max, "{max}: {cut}");
            assert!(cut.starts_with("first") && cut.ends_with("last"), "{cut}");
            let count: usize = cut
                .split(['…', ' '])
                .find_map(|word| word.parse().ok())
                .unwrap();
            let kept = cut.len() - format!("\n[… {count} bytes left out]\n").len();
            assert_eq!(count + kept, text.len());
            let cut = without_end(&text, max);
            assert!(cut.len() <= max && cut.starts_with("first") && cut.ends_with('…'));
        }
    }
}
