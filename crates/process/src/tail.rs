//! The end of a program's output as text, in bounded memory. Pure.

use std::borrow::Cow;

/// How much of the end of a stream is kept at least, in bytes; at the most twice as much.
pub const KEPT: usize = 64 * 1024;
/// The room for the words that tell of a cut, in bytes.
const MARK: usize = 48;

/// The end of a stream of bytes, and how many came in all.
#[derive(Debug, Default, Clone)]
pub struct Tail {
    bytes: Vec<u8>,
    total: u64,
}

impl Tail {
    /// Takes more; forgets the beginning where it is too much.
    pub fn push(&mut self, more: &[u8]) {
        self.total += more.len() as u64;
        let keep = &more[more.len().saturating_sub(KEPT)..];
        self.bytes.extend_from_slice(keep);
        if self.bytes.len() > 2 * KEPT {
            self.bytes.drain(..self.bytes.len() - KEPT);
        }
    }

    /// The whole of it as text, without the space around it; `None` where something is forgotten.
    pub fn whole(&self) -> Option<Cow<'_, str>> {
        (self.forgotten() == 0).then(|| String::from_utf8_lossy(self.bytes.trim_ascii()))
    }

    /// The end as text of at most `max` bytes, without the space around it. What is left out is told
    /// before it; the text then begins with a line where that costs no more than a quarter of the room,
    /// and else in the middle of one.
    pub fn text(&self, max: usize) -> String {
        let bytes = self.bytes.trim_ascii_end();
        let leading = match self.forgotten() {
            0 => bytes.len() - bytes.trim_ascii_start().len(),
            _ => 0,
        };
        let window = bytes.len().saturating_sub(max).max(leading);
        let start = char_start(bytes, window, leading);
        let text = String::from_utf8_lossy(&bytes[start..]);
        if self.forgotten() == 0 && start == leading && text.len() <= max {
            return text.into_owned();
        }
        let room = max.saturating_sub(MARK);
        let mut cut = text.ceil_char_boundary(text.len().saturating_sub(room));
        let reach = text.floor_char_boundary(cut + room / 4);
        if let Some(end) = text[cut..reach].find('\n') {
            cut += end + 1;
        }
        let left_out = self.forgotten() + (start + original(&bytes[start..], cut)) as u64;
        let mark = format!("[… {left_out} bytes left out]\n");
        let kept = text[cut..].trim_start_matches('\n');
        mark + kept
    }

    /// The last `least` bytes as text, or all of the last line where that is longer, up to `most`.
    pub fn last_words(&self, least: usize, most: usize) -> String {
        let bytes = self.bytes.trim_ascii_end();
        let line = bytes.iter().rposition(|byte| *byte == b'\n');
        let line = line.map_or(0, |end| end + 1);
        let from = bytes.len().saturating_sub(least).min(line);
        let from = from.max(bytes.len().saturating_sub(most));
        let from = char_start(bytes, from, 0);
        String::from_utf8_lossy(&bytes[from..]).trim().to_owned()
    }

    /// How many bytes of the beginning are not kept.
    fn forgotten(&self) -> u64 {
        self.total - self.bytes.len() as u64
    }
}

/// The beginning of the first character at or behind a position, where that is not the very start.
fn char_start(bytes: &[u8], at: usize, start: usize) -> usize {
    if at <= start {
        return at;
    }
    let is_inside = |byte: &u8| byte & 0b1100_0000 == 0b1000_0000;
    let inside = bytes[at..]
        .iter()
        .take(3)
        .take_while(|byte| is_inside(byte));
    at + inside.count()
}

/// How many bytes the first `len` bytes of their lossy text were made of.
fn original(bytes: &[u8], len: usize) -> usize {
    let (mut of_text, mut of_bytes) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid().len();
        if of_text + valid >= len {
            return of_bytes + (len - of_text);
        }
        of_text += valid;
        of_bytes += valid + chunk.invalid().len();
        if !chunk.invalid().is_empty() {
            of_text += char::REPLACEMENT_CHARACTER.len_utf8();
        }
        if of_text >= len {
            break;
        }
    }
    of_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tail(chunks: &[&[u8]]) -> Tail {
        let mut tail = Tail::default();
        for chunk in chunks {
            tail.push(chunk);
        }
        tail
    }

    #[test]
    fn what_fits_is_told_as_it_is() {
        assert_eq!(tail(&[b"\n one\ntwo \n"]).text(100), "one\ntwo");
        assert_eq!(tail(&[b"12345"]).text(5), "12345");
        assert_eq!(tail(&[]).text(100), "");
    }

    #[test]
    fn a_line_longer_than_the_room_keeps_its_end_and_tells_how_much_is_left_out() {
        let long = format!("first\n{}the end\n", "x".repeat(40 * 1024));
        let text = tail(&[long.as_bytes()]).text(1_000);
        let (mark, kept) = text.split_once('\n').unwrap();
        let left_out = long.trim().len() - kept.len();
        assert_eq!(mark, format!("[… {left_out} bytes left out]"));
        assert!(kept.ends_with("xxthe end") && text.len() <= 1_000);
        assert!(kept.len() > 900, "{}", kept.len());
    }

    #[test]
    fn a_cut_falls_between_lines_where_there_are_some() {
        let mut tail = Tail::default();
        for n in 0..200_000 {
            tail.push(format!("line {n}\n").as_bytes());
        }
        assert!(tail.bytes.len() <= 2 * KEPT);
        let text = tail.text(1_000);
        let (mark, kept) = text.split_once('\n').unwrap();
        assert!(mark.ends_with("bytes left out]"), "{mark}");
        assert!(kept.starts_with("line ") && kept.ends_with("line 199999"));
        assert!(tail.whole().is_none());
    }

    #[test]
    fn the_last_words_reach_back_to_the_beginning_of_the_last_line() {
        let line = "y".repeat(5_000);
        let tail = tail(&[b"before\n", line.as_bytes(), b"\n"]);
        assert_eq!(tail.last_words(2_048, 32_768), line);
        assert_eq!(tail.last_words(2_048, 3_000).len(), 3_000);
        assert_eq!(tail.last_words(5_004, 32_768), format!("ore\n{line}"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Any bytes, in any pieces, for any room: the text fits, ends as the stream does, and the
        /// count of what is left out is right.
        #[test]
        fn the_end_is_kept_and_the_cut_is_told(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'a'), Just(0xc3)], 0..3_000),
            size in 1_usize..500,
            max in 64_usize..2_000,
        ) {
            let mut tail = Tail::default();
            bytes.chunks(size).for_each(|chunk| tail.push(chunk));
            let text = tail.text(max);
            prop_assert!(text.len() <= max);
            let all = String::from_utf8_lossy(bytes.trim_ascii_end());
            match text.strip_prefix("[… ").filter(|_| all.trim_start() != text) {
                None => prop_assert_eq!(text, String::from_utf8_lossy(bytes.trim_ascii())),
                Some(rest) => {
                    let (count, kept) = rest.split_once(" bytes left out]\n").unwrap();
                    prop_assert!(all.ends_with(kept));
                    let count: usize = count.parse().unwrap();
                    let end = &bytes.trim_ascii_end()[count..];
                    let end = String::from_utf8_lossy(end).into_owned();
                    prop_assert_eq!(kept, end.trim_start_matches('\n'));
                }
            }
        }
    }
}
