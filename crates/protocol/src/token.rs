//! Tokens: the short names that end up in subjects, keys and stream names.
//!
//! A token is checked once, at the door. In a subject or a key every byte outside `A-Za-z0-9_-` is
//! written `=XX` (two upper-case hex digits), so that `node.js` cannot split a subject in two and
//! `c++` survives.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest a token may be, in characters.
pub const MAX_TOKEN: usize = 64;
/// The longest a capability or boundary may be in a subject, in bytes: NATS takes longer ones, and grows slow.
pub const MAX_ENCODED: usize = 512;
/// The longest a `taskId` may be, in bytes.
pub const MAX_TASK_ID: usize = 256;

/// What is wrong with a token; the text names the field, the token and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {shown} {problem}")]
pub struct TokenError {
    kind: &'static str,
    shown: String,
    problem: String,
}

impl TokenError {
    fn new(kind: &'static str, token: &str, problem: impl Into<String>) -> Self {
        let mut shown: String = token.chars().take(MAX_TOKEN).collect();
        if shown.len() < token.len() {
            shown.push('…');
        }
        Self {
            kind,
            shown: format!("{shown:?}"),
            problem: problem.into(),
        }
    }
}

fn check_length(kind: &'static str, token: &str) -> Result<(), TokenError> {
    let length = token.chars().count();
    if length == 0 {
        return Err(TokenError::new(
            kind,
            token,
            "is empty; write 1 to 64 characters",
        ));
    }
    if length > MAX_TOKEN {
        let problem = format!("has {length} characters; at most {MAX_TOKEN} are allowed");
        return Err(TokenError::new(kind, token, problem));
    }
    Ok(())
}

/// Checks a capability or boundary: 1–64 characters, none of them a control character, no space at either end, at
/// most [`MAX_ENCODED`] bytes where it is written into a subject. Compared byte by byte.
///
/// `kind` is the name of the field, as the sender wrote it.
pub fn check_label(kind: &'static str, label: &str) -> Result<(), TokenError> {
    check_length(kind, label)?;
    if let Some(bad) = label.chars().find(|c| c.is_control()) {
        let problem = format!("contains {bad:?}; write no control characters");
        return Err(TokenError::new(kind, label, problem));
    }
    if label.trim() != label {
        let problem = "has a space at one end; write it without";
        return Err(TokenError::new(kind, label, problem));
    }
    let encoded = encoded_length(label);
    if encoded > MAX_ENCODED {
        let problem = format!(
            "takes {encoded} bytes in a subject; at most {MAX_ENCODED} are allowed: shorten it"
        );
        return Err(TokenError::new(kind, label, problem));
    }
    Ok(())
}

/// Checks an agent type, label or `claimId`: 1–64 printable ASCII without space, `*`, `>`.
///
/// `kind` is the name of the field, as the sender wrote it.
pub fn check_token(kind: &'static str, token: &str) -> Result<(), TokenError> {
    check_length(kind, token)?;
    match token
        .chars()
        .find(|c| !c.is_ascii_graphic() || matches!(c, '*' | '>'))
    {
        None => Ok(()),
        Some(bad) => Err(TokenError::new(
            kind,
            token,
            format!("contains {bad:?}; write printable ASCII without space, '*' and '>'"),
        )),
    }
}

/// Checks the name of an agent or target: 1–64 of `A-Z a-z 0-9 _ - .`.
pub fn check_name(kind: &'static str, name: &str) -> Result<(), TokenError> {
    check_length(kind, name)?;
    match name.chars().find(|c| !is_plain(*c) && *c != '.') {
        None => Ok(()),
        Some(bad) => Err(TokenError::new(
            kind,
            name,
            format!("contains {bad:?}; write letters, digits, '_', '-' and '.'"),
        )),
    }
}

/// Reads a list of names from a variable: a JSON array, or names with commas between them.
pub fn list_of(text: &str) -> Vec<String> {
    if let Ok(names) = serde_json::from_str::<Vec<String>>(text) {
        return names;
    }
    let names = text.split(',').map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Writes a list of names so that [`list_of`] reads the same: with commas, or as JSON where a name needs that.
pub fn write_list(names: &[String]) -> String {
    let with_commas = names.join(",");
    if list_of(&with_commas) == names {
        return with_commas;
    }
    serde_json::Value::from(names).to_string()
}

const fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

fn encoded_length(token: &str) -> usize {
    let bytes = token.bytes();
    bytes
        .map(|b| if is_plain(char::from(b)) { 1 } else { 3 })
        .sum()
}

/// Writes a token as one token of a subject or key.
pub fn encode(token: &str) -> String {
    use fmt::Write as _;
    let mut encoded = String::with_capacity(token.len());
    for byte in token.bytes() {
        if is_plain(char::from(byte)) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "={byte:02X}");
        }
    }
    encoded
}

/// Reads a token back from a subject or key; `None` where it was not written by [`encode`].
pub fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'=' => bytes.push(hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?),
            plain if is_plain(char::from(plain)) => bytes.push(plain),
            _ => return None,
        }
    }
    let token = String::from_utf8(bytes).ok()?;
    (encode(&token) == encoded).then_some(token)
}

const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// A project's id: 1–64 of `A-Z a-z 0-9 _ -`, not `global`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectId(Arc<str>);

impl ProjectId {
    /// The id that is reserved for requests about the whole coordinator.
    pub const GLOBAL: &'static str = "global";

    /// Checks and takes a project id.
    pub fn new(id: &str) -> Result<Self, TokenError> {
        const KIND: &str = "projectId";
        check_length(KIND, id)?;
        if let Some(bad) = id.chars().find(|c| !is_plain(*c)) {
            let problem = format!("contains {bad:?}; write letters, digits, '_' and '-'");
            return Err(TokenError::new(KIND, id, problem));
        }
        if id == Self::GLOBAL {
            let problem = "is reserved for the coordinator itself; choose another name";
            return Err(TokenError::new(KIND, id, problem));
        }
        Ok(Self(id.into()))
    }

    /// The id as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as it stands in the name of a stream: upper case, with `-` as `_`.
    pub fn stream_form(&self) -> String {
        self.0.to_ascii_uppercase().replace('-', "_")
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for ProjectId {
    type Err = TokenError;
    fn from_str(id: &str) -> Result<Self, TokenError> {
        Self::new(id)
    }
}

impl TryFrom<String> for ProjectId {
    type Error = TokenError;
    fn try_from(id: String) -> Result<Self, TokenError> {
        Self::new(&id)
    }
}

impl From<ProjectId> for String {
    fn from(id: ProjectId) -> Self {
        id.0.as_ref().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_that_would_break_a_subject_are_refused() {
        for bad in [
            "",
            "a b",
            "*",
            ">",
            "a>b",
            "schön",
            "tab\t",
            &"x".repeat(300),
        ] {
            let error = check_token("capability", bad).unwrap_err().to_string();
            assert!(error.starts_with("capability "), "{error}");
            assert!(error.chars().count() < 200, "{error}");
        }
        for good in ["node.js", "c++", "typescript", "a=b", &"x".repeat(64)] {
            assert_eq!(check_token("capability", good), Ok(()));
        }
    }

    #[test]
    fn capabilities_may_be_any_words() {
        for good in [
            "code review",
            "schön",
            "a,b",
            "*",
            ">",
            "日本語",
            "c++",
            "$SYS",
            "=2E",
            &"x".repeat(64),
            &"ü".repeat(64),
        ] {
            assert_eq!(check_label("capability", good), Ok(()), "{good}");
        }
        for (bad, said) in [
            ("", "is empty"),
            (" a", "at one end"),
            ("a\u{a0}", "at one end"),
            ("tab\there", "control"),
            ("a\u{0}b", "control"),
            (&"x".repeat(65), "at most 64"),
            (&"語".repeat(64), "576 bytes"),
        ] {
            let error = check_label("capability", bad).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
            assert!(error.starts_with("capability "), "{error}");
        }
    }

    #[test]
    fn project_ids_are_plain() {
        for bad in ["", "a.b", "a b", "*", ">", "ü", "global", &"p".repeat(65)] {
            assert!(ProjectId::new(bad).is_err(), "{bad}");
        }
        assert_eq!(
            ProjectId::new("my-app_2").unwrap().stream_form(),
            "MY_APP_2"
        );
    }

    #[test]
    fn names_may_have_dots_and_nothing_else() {
        assert_eq!(check_name("handle", "claude.1"), Ok(()));
        assert!(check_name("handle", "claude 1").is_err());
        assert!(check_name("handle", "a/b").is_err());
    }

    #[test]
    fn documented_encodings() {
        assert_eq!(encode("node.js"), "node=2Ejs");
        assert_eq!(encode("c++"), "c=2B=2B");
        assert_eq!(decode("node.js"), None);
        assert_eq!(decode("a=2"), None);
        assert_eq!(decode("a=61"), None, "a plain character is never escaped");
    }

    proptest! {
        #[test]
        fn a_list_of_names_survives_a_variable(names in prop::collection::vec("[a-z ,\\[\"]{1,4}|\\PC{1,3}", 0..4)) {
            prop_assert_eq!(list_of(&write_list(&names)), names);
        }
    }

    proptest! {
        #[test]
        fn encoding_round_trips(token in "\\PC{1,64}") {
            let encoded = encode(&token);
            prop_assert_eq!(encoded.len(), encoded_length(&token));
            prop_assert!(encoded.chars().all(|c| is_plain(c) || c == '='));
            prop_assert_eq!(decode(&encoded), Some(token));
        }
    }
}
