//! Takes what Loom handed out in confidence out of what a program says: the password or the token of
//! NATS, credentials in its URL, the token of the API, a ticket. Pure, but for reading the file of
//! credentials.
//!
//! Each character of a secret may stand as it is, percent-encoded (in a form with `+` for a space), or escaped as in JSON
//! (`\u00e4`, `\"`), in JSON within JSON too; so the strings of JSON that is read later hold none either. All of it may be
//! in Base64. Secrets shorter than `SHORTEST` are replaced only as part of `user:password`: anything
//! else would spoil ordinary words.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use loom_client::{ClientOptions, Credentials};
use loom_protocol::url::{percent_decoded, split};
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
/// The variables that hold a secret for this process.
const VARIABLES: [&str; 3] = ["LOOM_TICKET", "LOOM_API_TOKEN", "NATS_PASS"];
/// How large the compiled pattern may be, in bytes.
const PATTERN_SIZE: usize = 64 << 20;

/// The secrets of this agent; none by default. Cheap to clone.
#[derive(Clone, Default)]
pub struct Secrets {
    pattern: Option<Regex>,
    /// The most bytes that one of them may take.
    longest: usize,
}

impl Secrets {
    /// What is known by these options, and by the environment of this process.
    pub fn of(options: &ClientOptions) -> Self {
        let mut texts: Vec<String> = VARIABLES
            .iter()
            .filter_map(|name| std::env::var(name).ok())
            .collect();
        texts.extend(split(&options.url).flat_map(of_address));
        match &options.credentials {
            Credentials::UserPassword(user, password) => {
                texts.extend([password.clone(), format!("{user}:{password}")]);
            }
            Credentials::Token(token) => texts.push(token.clone()),
            Credentials::File(path) => texts.extend(of_file(path)),
            _ => {}
        }
        Self::new(texts)
    }

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

/// What is secret in one address: the password or the token, as written and as meant.
fn of_address(address: &str) -> Vec<String> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let Some((credentials, _)) = rest.rsplit_once('@') else {
        return Vec::new();
    };
    let secret = credentials
        .split_once(':')
        .map_or(credentials, |(_, password)| password);
    [secret, credentials]
        .into_iter()
        .flat_map(|text| [text.to_owned(), percent_decoded(text)])
        .collect()
}

/// The key and the token of a `.creds` file: its long lines that are no headings.
fn of_file(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(str::trim);
    let is_secret = |line: &&str| line.len() >= 32 && !line.contains(['-', ' ', '*']);
    // A JWT has dashes in it, a heading begins with them.
    let is_token = |line: &&str| line.starts_with("eyJ");
    lines
        .filter(|line| is_secret(line) || is_token(line))
        .map(str::to_owned)
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use loom_protocol::ProjectId;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    fn secrets_of(url: &str) -> Secrets {
        Secrets::of(&ClientOptions::new(url, ProjectId::new("p").unwrap()))
    }

    fn scrubbed(secrets: &Secrets, chunks: &[&[u8]]) -> String {
        let mut scrubber = Scrubber::new(secrets.clone());
        let mut out = Vec::new();
        for chunk in chunks {
            scrubber.feed(chunk, |bytes| out.extend_from_slice(bytes));
        }
        scrubber.finish(|bytes| out.extend_from_slice(bytes));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_stands_in_the_url_is_hidden_however_it_is_written() {
        let secrets = secrets_of("nats://ann:p%40ss%2Fw0rd@a:4222,tls://tok3n-x@b");
        for (said, shown) in [
            ("nats://ann:p%40ss%2Fw0rd@a:4222", "nats://***@a:4222"),
            ("nats://ann:p%40ss%2fw0rd@a:4222", "nats://***@a:4222"),
            ("PASS=p@ss/w0rd.", "PASS=***."),
            (r#"{"pass":"p@ss\/w0rd"}"#, r#"{"pass":"***"}"#),
            ("%70%40%73%73%2F%77%30%72%64", "***"),
            ("tls://tok3n-x@b and tok3n-x", "tls://***@b and ***"),
            ("ann is a user", "ann is a user"),
        ] {
            assert_eq!(secrets.hide(said), shown);
            assert_eq!(scrubbed(&secrets, &[said.as_bytes()]), shown);
        }
    }

    #[test]
    fn what_is_escaped_or_encoded_is_hidden() {
        let secrets = Secrets::new(
            ["p\u{e4}ss\"w1ord1", "sekret pass/1", "ann:\u{1f511}key"].map(String::from),
        );
        for (said, shown) in [
            (r#"{"pw": "p\u00e4ss\"w1ord1"}"#, r#"{"pw": "***"}"#),
            (r#"{"p\u00E4ss\u0022w1ord1": 1}"#, r#"{"***": 1}"#),
            (r#"{"output":"\u0073ekret pass/1"}"#, r#"{"output":"***"}"#),
            (
                r#""{\"a\": \"\\u0073ekret pass\\/1\"}""#,
                r#""{\"a\": \"***\"}""#,
            ),
            (
                r#""{\"a\": \"p\\u00e4ss\\\"w1ord1\"}""#,
                r#""{\"a\": \"***\"}""#,
            ),
            ("a=sekret+pass%2F1&b=2", "a=***&b=2"),
            ("a=sekret%20pass%2f1&b=2", "a=***&b=2"),
            (r"b'p\xc3\xa4ss\x22w1ord1'", "b'***'"),
            (r#""ann:\ud83d\udd11key""#, r#""***""#),
            // `sekret pass/1` and `ann:…key`, alone and with more behind it.
            ("Basic c2VrcmV0IHBhc3MvMQ==", "Basic ***=="),
            ("x c2VrcmV0IHBhc3MvMQo=", "x ***o="),
            ("Basic YW5uOvCflJFrZXk=", "Basic ***="),
            (r#""\u0073ecret pass/1""#, r#""\u0073ecret pass/1""#),
        ] {
            assert_eq!(secrets.hide(said), shown);
            let chunks: Vec<&[u8]> = said.as_bytes().chunks(3).collect();
            assert_eq!(scrubbed(&secrets, &chunks), shown);
        }
    }

    #[test]
    fn a_short_password_is_hidden_beside_its_user_only() {
        let secrets = secrets_of("nats://loomuser:loom@a");
        assert_eq!(secrets.hide("nats://loomuser:loom@a"), "nats://***@a");
        assert_eq!(secrets.hide("loom agent run"), "loom agent run");
    }

    #[test]
    fn what_is_given_beside_the_url_and_in_a_file_is_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.creds");
        let jwt = format!("eyJ0{}-x_y", "abc".repeat(200));
        let seed = format!("SUA{}", "X7".repeat(27));
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        std::fs::write(&file, &text).unwrap();
        let mut options = ClientOptions::new("nats://a", ProjectId::new("p").unwrap());
        options.credentials = Credentials::File(file);
        let hidden = Secrets::of(&options).hide(&text);
        assert!(
            !hidden.contains(&jwt) && !hidden.contains(&seed),
            "{hidden}"
        );
        assert!(hidden.contains("-----BEGIN NATS USER JWT-----"));
        options.credentials = Credentials::UserPassword("ann".into(), "s3cret!".into());
        assert_eq!(Secrets::of(&options).hide("s3cret!"), "***");
        options.credentials = Credentials::Token("t0ken-t0ken".into());
        assert_eq!(Secrets::of(&options).hide("t0ken-t0ken"), "***");
    }

    #[test]
    fn debug_shows_none() {
        let secrets = secrets_of("nats://ann:s3cret!@a");
        assert!(!format!("{:?}", Scrubber::new(secrets)).contains("s3cret"));
    }

    /// A text as JSON writes it, with what else is to be escaped.
    fn as_json(text: &str, is_escaped: impl Fn(usize, char) -> bool) -> String {
        let mut json = String::from('"');
        for (at, c) in text.chars().enumerate() {
            if is_escaped(at, c) {
                let mut units = [0; 2];
                let units = c.encode_utf16(&mut units).iter();
                json.extend(units.map(|unit| format!("\\u{unit:04x}")));
            } else {
                let plain = serde_json::to_string(&c).unwrap();
                json.push_str(&plain[1..plain.len() - 1]);
            }
        }
        json + "\""
    }

    /// One for all: to make one takes longer than to use it.
    static HIDING: LazyLock<Secrets> = LazyLock::new(|| Secrets::new(["s3cret!pass".to_owned()]));

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// However a secret is written within JSON within JSON: what is read of it has none in it, and is
        /// still JSON.
        #[test]
        fn what_is_read_of_json_holds_no_secret(
            secret in "[a-z\"/ \u{e4}\u{1f511}]{2}[a-z\"\\\\/ \u{e4}\u{1f511}]{6,20}[a-z]",
            mask in any::<u64>(),
            is_ascii in prop::collection::vec(any::<bool>(), 0..3),
            before in "[a-z ]{0,5}",
            after in "[a-z ]{0,5}",
        ) {
            let secret = secret.trim().to_owned();
            prop_assume!(secret.len() >= SHORTEST);
            let secrets = Secrets::new([secret.clone()]);
            let mut text = as_json(&format!("{before}{secret}{after}"), |at, _| mask >> (at % 64) & 1 == 1);
            for is_ascii in &is_ascii {
                text = as_json(&text, |_, c| *is_ascii && !c.is_ascii());
            }
            let mut read = secrets.hide(&text);
            for _ in 0..=is_ascii.len() {
                prop_assert!(!read.contains(&secret), "{}", read);
                read = serde_json::from_str(&read).unwrap();
            }
            prop_assert!(!read.contains(&secret) && read.contains("***"), "{} of {}", read, text);
        }

    }

    proptest! {
        /// In whatever pieces a stream comes: no secret is left, nothing else is lost, and it is the
        /// same as in one piece.
        #[test]
        fn a_secret_that_is_cut_in_two_is_hidden(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("s3cret!pass".to_owned()), Just("s3cret%21pass".to_owned()),
                    Just("s3cret".to_owned()), Just("s3c\n".to_owned()), "[a-z\r\n%]{0,9}",
                ],
                0..12,
            ),
            sizes in prop::collection::vec(1_usize..9, 1..60),
        ) {
            let secrets = &*HIDING;
            let text = parts.concat();
            let mut chunks = Vec::new();
            let mut rest = text.as_bytes();
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*size).min(rest.len()));
                chunks.push(now);
                rest = later;
            }
            let out = scrubbed(secrets, &chunks);
            prop_assert_eq!(&out, &text.replace("s3cret!pass", "***").replace("s3cret%21pass", "***"));
        }
    }
}
