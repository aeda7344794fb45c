//! Takes secrets out of what a program says. Pure.
//!
//! Each character of a secret may stand as it is, percent-encoded (in a form with `+` for a space), or escaped as in JSON
//! (`\u00e4`, `\"`), in JSON within JSON too; so the strings of JSON that is read later hold none either. All of it may be
//! in Base64. Secrets shorter than `SHORTEST` are replaced only as part of `user:password`: anything
//! else would spoil ordinary words.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use regex::bytes::{NoExpand, Regex, RegexBuilder};

/// What stands in the place of a secret.
const HIDDEN: &str = "***";
/// The shortest text that is replaced wherever it stands, in bytes.
const SHORTEST: usize = 6;
/// A longer one is looked for as it is only, in bytes: nobody encodes a whole certificate.
const ENCODED: usize = 256;
/// How many backslashes may stand before an escaped character: each level of JSON within JSON doubles them.
const BACKSLASHES: usize = 7;
/// What is shorter in Base64 may stand anywhere, in bytes.
const SHORTEST_BASE64: usize = 8;
/// How large the compiled pattern may be, in bytes.
const PATTERN_SIZE: usize = 64 << 20;

/// Texts that nobody may see; none by default. Cheap to clone.
#[derive(Clone, Default)]
pub struct Secrets {
    pattern: Option<Regex>,
    /// The most bytes that one of them may take.
    longest: usize,
}

impl Secrets {
    /// These texts.
    pub fn new(texts: impl IntoIterator<Item = String>) -> Self {
        let texts: BTreeSet<String> = texts
            .into_iter()
            .map(|text| text.trim().to_owned())
            .filter(|text| text.len() >= SHORTEST && !text.contains(['\n', '\r']))
            .collect();
        if texts.is_empty() {
            return Self::default();
        }
        let encoded: BTreeSet<String> = texts
            .iter()
            .filter(|text| text.len() <= ENCODED)
            .flat_map(|text| in_base64(text))
            .collect();
        let longest = texts.iter().map(|text| longest_form(text));
        let longest_encoded = encoded.iter().map(|text| text.len() * (BACKSLASHES + 5));
        let longest = longest.chain(longest_encoded).max().unwrap_or(0);
        let plain = texts.iter().map(|text| (text.len(), pattern_of(text)));
        let encoded = encoded
            .iter()
            .map(|text| (text.len(), pattern_of_base64(text)));
        let mut patterns: Vec<(usize, String)> = plain.chain(encoded).collect();
        // Of two that begin at the same place the longer one counts.
        patterns.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
        let patterns: Vec<String> = patterns.into_iter().map(|(_, pattern)| pattern).collect();
        let pattern = RegexBuilder::new(&patterns.join("|"))
            .unicode(false)
            .size_limit(PATTERN_SIZE)
            .build();
        Self {
            longest,
            pattern: pattern
                .inspect_err(|error| tracing::error!(%error, "secrets can't be looked for"))
                .ok(),
        }
    }

    /// A text without them.
    pub fn hide(&self, text: &str) -> String {
        let Some(pattern) = &self.pattern else {
            return text.to_owned();
        };
        let hidden = pattern.replace_all(text.as_bytes(), NoExpand(HIDDEN.as_bytes()));
        String::from_utf8_lossy(&hidden).into_owned()
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(***)")
    }
}

/// A pattern that finds a text in each form that it may have.
fn pattern_of(text: &str) -> String {
    if text.len() > ENCODED {
        return joined(text.bytes().map(|byte| format!(r"\x{byte:02x}")));
    }
    text.chars().map(forms_of).collect()
}

/// The same for a text in Base64, of which nobody escapes the letters and digits.
fn pattern_of_base64(text: &str) -> String {
    let form_of = |c: char| match c {
        '+' | '/' | '-' | '_' => forms_of(c),
        _ => c.to_string(),
    };
    text.chars().map(form_of).collect()
}

/// A pattern for one character: as it is; percent-encoded; escaped as JSON and others do it, within text that is
/// escaped itself too.
fn forms_of(c: char) -> String {
    let slashes = format!(r"\\{{1,{BACKSLASHES}}}");
    if let Ok(byte) = u8::try_from(u32::from(c))
        && byte.is_ascii()
    {
        let special = match c {
            '\t' => "|t".into(),
            '"' | '\'' | '\\' | '/' => format!(r"|\x{byte:02x}"),
            _ => String::new(),
        };
        let in_form = if c == ' ' { r"|\+" } else { "" };
        return format!(
            r"(?:\x{byte:02x}|%(?i:{byte:02x})|{slashes}(?:u00(?i:{byte:02x})|x(?i:{byte:02x}){special}){in_form})"
        );
    }
    let (mut bytes, mut units) = ([0; 4], [0; 2]);
    let of_byte = |byte: u8| format!(r"(?:\x{byte:02x}|(?:%|{slashes}x)(?i:{byte:02x}))");
    let of_unit = |unit: &u16| format!("{slashes}u(?i:{unit:04x})");
    let by_byte = joined(c.encode_utf8(&mut bytes).bytes().map(of_byte));
    let by_unit = joined(c.encode_utf16(&mut units).iter().map(of_unit));
    format!("(?:{by_byte}|{by_unit})")
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect()
}

/// The most bytes that a text takes in any of its forms.
fn longest_form(text: &str) -> usize {
    let of_char = |c: char| {
        let by_byte = c.len_utf8() * (BACKSLASHES + 3);
        by_byte.max(c.len_utf16() * (BACKSLASHES + 5))
    };
    if text.len() > ENCODED {
        text.len()
    } else {
        text.chars().map(of_char).sum()
    }
}

/// What a text begins with in Base64: all of it, and what is the same whatever follows it.
fn in_base64(text: &str) -> Vec<String> {
    let whole_groups = &text.as_bytes()[..text.len() / 3 * 3];
    let forms = [text.as_bytes(), whole_groups].into_iter();
    forms
        .flat_map(|bytes| [STANDARD_NO_PAD.encode(bytes), URL_SAFE_NO_PAD.encode(bytes)])
        .filter(|form| form.len() >= SHORTEST_BASE64)
        .collect()
}

/// Takes the secrets out of a stream that comes in pieces: one that is cut in two by the pieces too.
#[derive(Debug, Default)]
pub struct Scrubber {
    secrets: Secrets,
    /// What may be the beginning of a secret.
    pending: Vec<u8>,
}

impl Scrubber {
    /// For one stream.
    pub const fn new(secrets: Secrets) -> Self {
        Self {
            secrets,
            pending: Vec::new(),
        }
    }

    /// Takes what has come, and hands on what can hold no secret any more.
    pub fn feed(&mut self, bytes: &[u8], mut on: impl FnMut(&[u8])) {
        if self.secrets.pattern.is_none() {
            on(bytes);
            return;
        }
        self.pending.extend_from_slice(bytes);
        let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        // No secret goes over the end of a line.
        let of_line = self
            .pending
            .iter()
            .rev()
            .take(self.secrets.longest)
            .position(is_end);
        let held = of_line.unwrap_or(self.secrets.longest.saturating_sub(1));
        self.hand_on(self.pending.len().saturating_sub(held), &mut on);
    }

    /// The stream has ended.
    pub fn finish(&mut self, mut on: impl FnMut(&[u8])) {
        self.hand_on(self.pending.len(), &mut on);
    }

    /// Hands on what begins before `until`.
    fn hand_on(&mut self, until: usize, on: &mut impl FnMut(&[u8])) {
        let mut done = 0;
        if let Some(pattern) = &self.secrets.pattern {
            let begin_before = |found: &regex::bytes::Match<'_>| found.start() < until;
            for found in pattern.find_iter(&self.pending).take_while(begin_before) {
                on(&self.pending[done..found.start()]);
                on(HIDDEN.as_bytes());
                done = found.end();
            }
        }
        if done < until {
            on(&self.pending[done..until]);
            done = until;
        }
        self.pending.drain(..done);
    }
}
