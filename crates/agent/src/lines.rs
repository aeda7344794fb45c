//! Lines of a program's output, in bounded memory. Pure.
//!
//! A carriage return ends a line as a line feed does: each state of a progress bar is a line of its own.

use loom_protocol::text::without_end;
use loom_protocol::work::limits;

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its bytes; any bytes.
    pub bytes: &'a [u8],
    /// False for a piece of a line that is longer than the bound.
    pub whole: bool,
    /// False for such a piece where more of the line follows.
    pub ends: bool,
}

/// Cuts a stream of bytes into lines. A line over the bound comes in pieces.
#[derive(Debug)]
pub struct Splitter {
    buffer: Vec<u8>,
    max: usize,
    in_pieces: bool,
    /// The last byte was a carriage return; a line feed behind it belongs to it.
    returned: bool,
}

impl Splitter {
    /// A splitter that keeps at most `max` bytes.
    pub const fn new(max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            max,
            in_pieces: false,
            returned: false,
        }
    }

    /// Takes what has come, and hands on every line that it ends.
    pub fn feed(&mut self, mut bytes: &[u8], mut on_line: impl FnMut(Line<'_>)) {
        let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.returned) {
                self.end_line(&mut on_line);
                if *first == b'\n' {
                    bytes = &bytes[1..];
                    continue;
                }
            }
            let Some(end) = bytes.iter().position(is_end) else {
                self.fill(bytes, &mut on_line);
                return;
            };
            self.fill(&bytes[..end], &mut on_line);
            if bytes[end] == b'\r' {
                self.returned = true;
            } else {
                self.end_line(&mut on_line);
            }
            bytes = &bytes[end + 1..];
        }
    }

    /// Hands on what is left when the stream has ended.
    pub fn finish(&mut self, mut on_line: impl FnMut(Line<'_>)) {
        if std::mem::take(&mut self.returned) || !self.buffer.is_empty() {
            self.end_line(&mut on_line);
        }
    }

    fn fill(&mut self, mut bytes: &[u8], on_line: &mut impl FnMut(Line<'_>)) {
        while self.buffer.len() + bytes.len() > self.max {
            let (now, later) = bytes.split_at(self.max - self.buffer.len());
            self.buffer.extend_from_slice(now);
            on_line(Line {
                bytes: &self.buffer,
                whole: false,
                ends: false,
            });
            self.buffer.clear();
            self.in_pieces = true;
            bytes = later;
        }
        self.buffer.extend_from_slice(bytes);
    }

    fn end_line(&mut self, on_line: &mut impl FnMut(Line<'_>)) {
        on_line(Line {
            bytes: &self.buffer,
            whole: !self.in_pieces,
            ends: true,
        });
        self.buffer.clear();
        self.in_pieces = false;
    }
}

/// What a line `::progress 40 message` says. The number, its `%` and the message may be left out.
#[derive(Debug, PartialEq)]
pub struct ProgressLine {
    /// 0 to 100.
    pub percent: Option<f64>,
    /// The sentence.
    pub message: Option<String>,
}

/// Reads a progress line; `None` for any other.
pub fn progress(line: &[u8]) -> Option<ProgressLine> {
    let text = line.trim_ascii_start().strip_prefix(b"::progress")?;
    if !text.first().is_none_or(u8::is_ascii_whitespace) {
        return None;
    }
    let text = String::from_utf8_lossy(text.trim_ascii());
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((&text, ""));
    let number = first.strip_suffix('%').unwrap_or(first).parse::<f64>();
    let (percent, message) = match number {
        Ok(percent) if percent.is_finite() => (Some(percent.clamp(0.0, 100.0)), rest.trim()),
        _ => (None, text.as_ref()),
    };
    Some(ProgressLine {
        percent,
        message: (!message.is_empty()).then(|| without_end(message, limits::ERROR)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(max: usize, chunks: &[&[u8]]) -> Vec<(String, bool)> {
        let mut lines = Vec::new();
        let mut splitter = Splitter::new(max);
        let mut take =
            |line: Line<'_>| lines.push((String::from_utf8_lossy(line.bytes).into(), line.whole));
        for chunk in chunks {
            splitter.feed(chunk, &mut take);
        }
        splitter.finish(&mut take);
        lines
    }

    fn whole(lines: &[&str]) -> Vec<(String, bool)> {
        lines.iter().map(|line| ((*line).into(), true)).collect()
    }

    #[test]
    fn lines_come_whole_however_they_arrive() {
        let expected = whole(&["one", "", "two", "three"]);
        assert_eq!(split(99, &[b"one\n\ntwo\r\nthree"]), expected);
        assert_eq!(
            split(99, &[b"o", b"ne\n", b"\ntwo", b"\r\n", b"three"]),
            expected
        );
        assert_eq!(split(99, &[b"end\n"]), whole(&["end"]));
    }

    #[test]
    fn each_state_of_a_progress_bar_is_a_line() {
        let expected = whole(&["", "1%", "50%", "100%", "done"]);
        assert_eq!(split(99, &[b"\r1%\r50%\r100%\r\ndone"]), expected);
        assert_eq!(split(99, &[b"\r1%\r50%\r100%\r", b"\ndone\r"]), expected);
    }

    proptest! {
        /// In whatever pieces a stream comes, its lines are the same, none is longer than the bound,
        /// and nothing is lost.
        #[test]
        fn lines_do_not_depend_on_how_they_arrive(
            bytes in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..300),
            size in 1_usize..20,
            max in 1_usize..40,
        ) {
            let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
            let lines = split(max, &chunks);
            prop_assert_eq!(&lines, &split(max, &[&bytes]));
            let mut together = Vec::new();
            let mut splitter = Splitter::new(max);
            let mut take = |line: Line<'_>| {
                assert!(line.bytes.len() <= max);
                together.extend_from_slice(line.bytes);
            };
            splitter.feed(&bytes, &mut take);
            splitter.finish(&mut take);
            let content = bytes.iter().filter(|byte| !matches!(byte, b'\r' | b'\n'));
            prop_assert_eq!(together, content.copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_line_over_the_bound_comes_in_pieces() {
        let expected = [("abcd", false), ("efgh", false), ("i", false), ("j", true)];
        let expected = expected.map(|(text, whole)| (text.to_owned(), whole));
        assert_eq!(split(4, &[b"abcdefghi\nj"]), expected);
        assert_eq!(split(4, &[b"abc", b"defgh", b"i\nj"]), expected);
        assert_eq!(split(4, &[b"abcd\n"]), whole(&["abcd"]));
    }

    #[test]
    fn progress_lines() {
        let read = |line: &str| {
            progress(line.as_bytes()).map(|read| (read.percent, read.message.unwrap_or_default()))
        };
        assert_eq!(
            read("::progress 40 half way"),
            Some((Some(40.0), "half way".into()))
        );
        assert_eq!(
            read("  ::progress 12.5%"),
            Some((Some(12.5), String::new()))
        );
        assert_eq!(
            read("::progress thinking hard"),
            Some((None, "thinking hard".into()))
        );
        assert_eq!(read("::progress 900 x"), Some((Some(100.0), "x".into())));
        assert_eq!(read("::progress -3"), Some((Some(0.0), String::new())));
        assert_eq!(read("::progress NaN"), Some((None, "NaN".into())));
        assert_eq!(read("::progress"), Some((None, String::new())));
        assert_eq!(read("::progressive rock"), None);
        assert_eq!(read("we made ::progress 40"), None);
        let long = format!("::progress 7 {}", "ü".repeat(100_000));
        let (percent, message) = read(&long).unwrap();
        assert_eq!(percent, Some(7.0));
        assert!(message.len() <= limits::ERROR && message.ends_with("ü…"));
    }
}
