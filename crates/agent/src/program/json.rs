//! Reads one JSON value of any length as it comes, and keeps of it what fits. Pure.
//!
//! Nothing behind a part that does not fit is lost: long strings keep their beginning and their end, of what is too
//! much the first is kept, and the fields behind it are read as any other. A lone surrogate and bytes that are no UTF-8
//! become U+FFFD; a control character within a string is taken as it is.

use serde_json::{Map, Value};

mod text;

use text::Text;

/// How many entries of one array or object are kept.
const ENTRIES: usize = 256;
/// How deep values are kept, and how deep they may nest at all.
const DEPTH: (usize, usize) = (24, 1_000);
/// How much is kept of one value altogether, in bytes; what comes behind it is kept in short.
const ROOM: usize = 1024 * 1024;
/// How many values are kept in short: of those that nest no deeper than [`OUTER`], and of the others.
const IN_SHORT: usize = 4_096;
/// The fields of the value, and the fields of these.
const OUTER: usize = 2;
/// What a value counts for beside its text, in bytes.
const VALUE: usize = 64;
/// The longest number or word, in bytes.
const LONGEST_WORD: usize = 64;

/// Reads values one after the other, each up to [`Reader::end`].
#[derive(Debug)]
pub struct Reader {
    state: State,
    /// The arrays and objects that are open.
    open: Vec<Open>,
    done: Option<Value>,
    text: Text,
    word: Vec<u8>,
    spent: usize,
    in_short: [usize; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A value comes; or, where the flag is set, the end of an array that has none.
    Value {
        may_end: bool,
    },
    /// A key comes; or, where the flag is set, the end of an object that has none.
    Key {
        may_end: bool,
    },
    Colon,
    InString {
        is_key: bool,
    },
    InWord,
    /// Something has ended.
    Behind,
    Broken,
}

#[derive(Debug)]
enum Open {
    Array(Option<Vec<Value>>),
    Object(Option<Map<String, Value>>, String),
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            state: State::Value { may_end: false },
            open: Vec::new(),
            done: None,
            text: Text::default(),
            word: Vec::new(),
            spent: 0,
            in_short: [0; 2],
        }
    }
}

impl Reader {
    /// Takes what has come.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            bytes = match self.state {
                State::Broken => return,
                State::InString { is_key } => {
                    let (rest, is_ended) = self.text.feed(bytes);
                    if is_ended {
                        self.end_string(is_key);
                    }
                    rest
                }
                State::InWord if is_of_word(*first) => {
                    let end = bytes.iter().position(|byte| !is_of_word(*byte));
                    let (word, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
                    let room = LONGEST_WORD.saturating_sub(self.word.len());
                    self.word.extend_from_slice(&word[..word.len().min(room)]);
                    if word.len() > room {
                        self.state = State::Broken;
                    }
                    rest
                }
                State::InWord => {
                    self.end_word();
                    bytes
                }
                _ => {
                    if !first.is_ascii_whitespace() {
                        self.mark(*first);
                    }
                    &bytes[1..]
                }
            };
        }
    }

    /// The value, if there was exactly one whole; begins anew.
    pub fn end(&mut self) -> Option<Value> {
        if self.state == State::InWord {
            self.end_word();
        }
        let read = std::mem::take(self);
        (read.state == State::Behind && read.open.is_empty()).then_some(read.done)?
    }

    /// A character between strings and words.
    fn mark(&mut self, mark: u8) {
        let next = match (self.state, mark) {
            (State::Value { .. }, b'{' | b'[') => self.begin(mark),
            (State::Value { may_end: true }, b']') | (State::Key { may_end: true }, b'}') => {
                self.end_open()
            }
            (State::Value { .. }, b'"') => self.begin_string(false),
            (State::Key { .. }, b'"') => self.begin_string(true),
            (State::Value { .. }, byte) if is_of_word(byte) => {
                self.word.clear();
                self.word.push(byte);
                State::InWord
            }
            (State::Colon, b':') => State::Value { may_end: false },
            (State::Behind, _) => match (self.open.last(), mark) {
                (Some(Open::Array(_)), b',') => State::Value { may_end: false },
                (Some(Open::Object(..)), b',') => State::Key { may_end: false },
                (Some(Open::Array(_)), b']') | (Some(Open::Object(..)), b'}') => self.end_open(),
                _ => State::Broken,
            },
            _ => State::Broken,
        };
        self.state = next;
    }

    fn begin(&mut self, mark: u8) -> State {
        if self.open.len() >= DEPTH.1 {
            return State::Broken;
        }
        let is_kept = self.open.len() < DEPTH.0 && self.is_wanted();
        let (open, next) = if mark == b'[' {
            let list = is_kept.then(Vec::new);
            (Open::Array(list), State::Value { may_end: true })
        } else {
            let fields = is_kept.then(Map::new);
            let open = Open::Object(fields, String::new());
            (open, State::Key { may_end: true })
        };
        self.open.push(open);
        next
    }

    fn begin_string(&mut self, is_key: bool) -> State {
        self.text = if is_key {
            Text::of_key()
        } else if !self.is_wanted() {
            Text::of_nothing()
        } else if self.spent < ROOM {
            Text::default()
        } else {
            Text::in_short()
        };
        State::InString { is_key }
    }

    fn end_string(&mut self, is_key: bool) {
        let text = std::mem::take(&mut self.text).into_string();
        if !is_key {
            return self.put(Value::String(text));
        }
        if let Some(Open::Object(_, key)) = self.open.last_mut() {
            *key = text;
        }
        self.state = State::Colon;
    }

    fn end_word(&mut self) {
        match serde_json::from_slice(&self.word) {
            Ok(value) => self.put(value),
            Err(_) => self.state = State::Broken,
        }
    }

    fn end_open(&mut self) -> State {
        let value = match self.open.pop() {
            Some(Open::Array(list)) => list.map(Value::Array),
            Some(Open::Object(fields, _)) => fields.map(Value::Object),
            None => return State::Broken,
        };
        if let Some(value) = value {
            self.put(value);
        }
        State::Behind
    }

    /// Whether the value that comes is kept: there is room for it, in what it belongs to and altogether.
    fn is_wanted(&self) -> bool {
        let has_place = match self.open.last() {
            None => return true,
            Some(Open::Array(list)) => list.as_ref().is_some_and(|list| list.len() < ENTRIES),
            Some(Open::Object(fields, key)) => fields
                .as_ref()
                .is_some_and(|fields| fields.len() < ENTRIES || fields.contains_key(key)),
        };
        has_place && (self.spent < ROOM || self.in_short[self.reach()] < IN_SHORT)
    }

    /// Which room in short the value that comes would take.
    fn reach(&self) -> usize {
        usize::from(self.open.len() > OUTER)
    }

    /// A value has ended. An array or object was wanted when it began, and is kept whatever came in it.
    fn put(&mut self, value: Value) {
        self.state = State::Behind;
        let has_begun_wanted = value.is_array() || value.is_object();
        if !has_begun_wanted && !self.is_wanted() {
            return;
        }
        if self.spent < ROOM {
            self.spent += VALUE + value.as_str().map_or(0, str::len);
        } else {
            let reach = self.reach();
            self.in_short[reach] += 1;
        }
        match self.open.last_mut() {
            None => self.done = Some(value),
            Some(Open::Array(Some(list))) => list.push(value),
            Some(Open::Object(Some(fields), key)) => {
                fields.insert(std::mem::take(key), value);
            }
            Some(_) => {}
        }
    }
}

const fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

#[cfg(test)]
mod tests;
