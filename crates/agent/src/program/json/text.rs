//! A string of JSON as it comes: its beginning and its end. Pure.

use std::collections::VecDeque;

/// How much of the beginning and of the end of a string is kept, in bytes: of any, of one for which there is little room,
/// of a key.
const KEPT: (usize, usize) = (64 * 1024, 192 * 1024);
const IN_SHORT: (usize, usize) = (64, 192);
const OF_KEY: (usize, usize) = (128, 0);

#[derive(Debug)]
pub(super) struct Text {
    room: (usize, usize),
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: u64,
    escape: Escape,
    /// The first half of a character that is written as two.
    high: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    /// Behind a backslash.
    Begun,
    /// Behind `\u` and so many digits.
    Unicode(u8, u16),
}

impl Default for Text {
    fn default() -> Self {
        Self::within(KEPT)
    }
}

impl Text {
    const fn within(room: (usize, usize)) -> Self {
        Self {
            room,
            head: Vec::new(),
            tail: VecDeque::new(),
            left_out: 0,
            escape: Escape::None,
            high: None,
        }
    }

    pub(super) const fn in_short() -> Self {
        Self::within(IN_SHORT)
    }

    pub(super) const fn of_nothing() -> Self {
        Self::within((0, 0))
    }

    pub(super) const fn of_key() -> Self {
        Self::within(OF_KEY)
    }

    /// Takes what belongs to the string, and gives what does not, and whether it has ended.
    pub(super) fn feed<'a>(&mut self, mut bytes: &'a [u8]) -> (&'a [u8], bool) {
        while let Some(first) = bytes.first() {
            match self.escape {
                Escape::None => {
                    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\');
                    let end = bytes.iter().position(is_special);
                    let (plain, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
                    if !plain.is_empty() {
                        self.push_lone_half();
                        self.push(plain);
                    }
                    bytes = rest.get(1..).unwrap_or_default();
                    match rest.first() {
                        Some(b'"') => {
                            self.push_lone_half();
                            return (bytes, true);
                        }
                        Some(_) => self.escape = Escape::Begun,
                        None => {}
                    }
                }
                Escape::Begun => {
                    self.escape = Escape::None;
                    let meant = match first {
                        b'u' => {
                            self.escape = Escape::Unicode(0, 0);
                            None
                        }
                        b'b' => Some(8),
                        b'f' => Some(12),
                        b'n' => Some(b'\n'),
                        b'r' => Some(b'\r'),
                        b't' => Some(b'\t'),
                        other => Some(*other),
                    };
                    if let Some(meant) = meant {
                        self.push_lone_half();
                        self.push(&[meant]);
                    }
                    bytes = &bytes[1..];
                }
                Escape::Unicode(count, code) => {
                    let digit = char::from(*first).to_digit(16);
                    let Some(digit) = digit.and_then(|digit| u16::try_from(digit).ok()) else {
                        // No such character; what stands here is text again.
                        self.escape = Escape::None;
                        self.push_lone_half();
                        self.push_char(char::REPLACEMENT_CHARACTER);
                        continue;
                    };
                    let code = code << 4 | digit;
                    if count == 3 {
                        self.escape = Escape::None;
                        self.push_unit(code);
                    } else {
                        self.escape = Escape::Unicode(count + 1, code);
                    }
                    bytes = &bytes[1..];
                }
            }
        }
        (bytes, false)
    }

    pub(super) fn into_string(mut self) -> String {
        let head = String::from_utf8_lossy(&self.head);
        if self.left_out == 0 && self.tail.is_empty() {
            return head.into_owned();
        }
        let tail = self.tail.make_contiguous();
        if self.left_out == 0 {
            let all = [&self.head[..], tail].concat();
            return String::from_utf8_lossy(&all).into_owned();
        }
        let mark = format!("\n[… {} bytes left out …]\n", self.left_out);
        head.into_owned() + &mark + &String::from_utf8_lossy(tail)
    }

    /// A unit of UTF-16.
    fn push_unit(&mut self, unit: u16) {
        let high = self.high.take();
        for decoded in char::decode_utf16(high.into_iter().chain([unit])) {
            match decoded {
                Ok(c) => self.push_char(c),
                // The other half may follow.
                Err(lone)
                    if lone.unpaired_surrogate() == unit && (0xd800..0xdc00).contains(&unit) =>
                {
                    self.high = Some(unit);
                }
                Err(_) => self.push_char(char::REPLACEMENT_CHARACTER),
            }
        }
    }

    fn push_lone_half(&mut self) {
        if self.high.take().is_some() {
            self.push_char(char::REPLACEMENT_CHARACTER);
        }
    }

    fn push_char(&mut self, c: char) {
        self.push(c.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = self.room.0 - self.head.len();
        let (head, rest) = bytes.split_at(bytes.len().min(room));
        self.head.extend_from_slice(head);
        let kept = &rest[rest.len().saturating_sub(self.room.1)..];
        self.tail.extend(kept);
        let over = self.tail.len().saturating_sub(self.room.1);
        self.tail.drain(..over);
        self.left_out += (rest.len() - kept.len() + over) as u64;
    }
}
