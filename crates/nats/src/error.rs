//! The one error of the store: what was asked of which resource, how that ended, and what to do about it.
//!
//! Whatever asks a stream of ours for something ends with it: writes, reads, the making and the keeping of buckets, the
//! ledger, letters, graves and the owner's entry. Programs match on [`StoreError::kind`]; the text is for people.

mod kind;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use loom_protocol::{ErrorCode, WireError};

pub use self::kind::{Cause, StoreErrorKind};
use self::kind::{cause_of, is_wrong_sequence};
use super::said::{Failed, words};

/// When a caller may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Why nothing is written any more.
const NOT_OWNER: &str = "another coordinator may own the projects by now";

/// What of the store an error is about, as it stands in a sentence. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    what: &'static str,
    name: Arc<str>,
}

impl Resource {
    /// Such as `the ledger` of the name `loom-work-p`.
    pub fn new(what: &'static str, name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        Self { what, name }
    }

    /// A stream of which nothing else is known.
    pub fn stream(name: impl Into<Arc<str>>) -> Self {
        Self::new("the stream", name)
    }

    /// A key-value bucket.
    pub fn bucket(name: impl Into<Arc<str>>) -> Self {
        Self::new("the bucket", name)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.name)
    }
}

/// Why something that was asked of the store is not done, or not known to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    kind: StoreErrorKind,
    doing: &'static str,
    resource: Resource,
    key: Option<String>,
    /// The number that the server gives its refusal.
    code: Option<u64>,
    why: Cow<'static, str>,
}

impl StoreError {
    fn new(
        kind: StoreErrorKind,
        doing: &'static str,
        resource: &Resource,
        why: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Inner {
            kind,
            doing,
            resource: resource.clone(),
            key: None,
            code: None,
            why: why.into(),
        }))
    }

    /// What came of it is not known. `doing` is what was tried, as in "reading the bucket b": `reading`.
    pub fn unknown(doing: &'static str, resource: &Resource, why: impl fmt::Display) -> Self {
        Self::new(StoreErrorKind::Unknown, doing, resource, why.to_string())
    }

    /// It was not done, for this cause and reason.
    pub fn refused(
        cause: Cause,
        doing: &'static str,
        resource: &Resource,
        why: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(StoreErrorKind::Refused(cause), doing, resource, why)
    }

    /// Another write came first.
    pub fn conflict(resource: &Resource) -> Self {
        let why = "somebody else wrote in between";
        Self::new(StoreErrorKind::Conflict, "writing", resource, why)
    }

    /// Nothing came back in time.
    pub(crate) fn unanswered(doing: &'static str, resource: &Resource, within: Duration) -> Self {
        Self::unknown(doing, resource, format_args!("no answer within {within:?}"))
    }

    /// Nothing was sent: whoever owns now has the say.
    pub(crate) fn not_owner(doing: &'static str, resource: &Resource) -> Self {
        Self::refused(Cause::NotOwner, doing, resource, NOT_OWNER)
    }

    /// Nothing was sent, or the answer is not believed: the store is not known to be the right one.
    pub(crate) fn denied(doing: &'static str, resource: &Resource, denied: &StoreDenied) -> Self {
        let cause = match denied {
            StoreDenied::InDoubt(_) => Cause::StoreInDoubt,
            StoreDenied::Foreign(_) => Cause::OtherStore,
        };
        Self::refused(cause, doing, resource, denied.to_string())
    }

    /// The server said no, by this number and in these words.
    pub(crate) fn by_server(
        doing: &'static str,
        resource: &Resource,
        code: u64,
        said: String,
    ) -> Self {
        if is_wrong_sequence(code) {
            return Self::conflict(resource);
        }
        let cause = cause_of(code, &said);
        let mut error = Self::refused(cause, doing, resource, said);
        error.0.code = Some(code);
        error
    }

    /// A request of the client's has failed, with or without a word of the server.
    pub(crate) fn of(doing: &'static str, resource: &Resource, failed: &impl Failed) -> Self {
        match failed.said() {
            Some(said) => Self::by_server(doing, resource, said.error_code().0, words(&said)),
            None => Self::unknown(doing, resource, failed),
        }
    }

    /// The same, about one key of the resource.
    #[must_use]
    pub(crate) fn at(mut self, key: impl fmt::Display) -> Self {
        self.0.key = Some(key.to_string());
        self
    }

    /// The same for whom it leaves open what became of a write.
    #[must_use]
    pub fn in_doubt(mut self) -> Self {
        self.0.kind = StoreErrorKind::Unknown;
        self
    }

    /// The same, in these words.
    #[must_use]
    pub(crate) fn saying(&self, why: String) -> Self {
        let mut said = self.clone();
        said.0.why = why.into();
        said
    }

    /// The same, for this cause and reason.
    #[must_use]
    pub(crate) fn because(mut self, cause: Cause, why: String) -> Self {
        self.0.kind = StoreErrorKind::Refused(cause);
        self.0.why = why.into();
        self
    }

    /// How it ended.
    pub fn kind(&self) -> StoreErrorKind {
        self.0.kind
    }

    /// Whether it is known not to be done, or not where it should be.
    pub fn is_refused(&self) -> bool {
        matches!(self.0.kind, StoreErrorKind::Refused(_))
    }

    /// Whether the stream itself is in the way, until somebody changes it: a store that is full, or a server that cannot just
    /// now, is told by itself.
    pub fn is_of_the_stream(&self) -> bool {
        let kind = self.0.kind;
        matches!(
            kind,
            StoreErrorKind::Refused(Cause::OtherStream | Cause::Unsuited)
        )
    }

    /// Whether there is no stream.
    pub fn is_missing(&self) -> bool {
        self.0.kind == StoreErrorKind::Refused(Cause::NoStream)
    }

    /// The number that the server gives its refusal, where it is the server's.
    pub fn code(&self) -> Option<u64> {
        self.0.code
    }

    /// What the server says, or a sentence of ours: without what was tried, and on what.
    pub fn why(&self) -> &str {
        &self.0.why
    }

    /// As [`why`](Self::why), after who says so.
    pub fn reason(&self) -> String {
        let Inner {
            kind, code, why, ..
        } = &*self.0;
        let code = code.map_or_else(String::new, |code| format!(" (error {code})"));
        match kind {
            StoreErrorKind::Refused(Cause::Server | Cause::Full(_) | Cause::NotNow) => {
                format!("NATS refuses it{code}: {why}")
            }
            StoreErrorKind::Refused(Cause::TooLarge) => {
                format!("it is too large for NATS{code}: {why}")
            }
            _ => why.to_string(),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            doing,
            resource,
            key,
            ..
        } = &*self.0;
        write!(f, "{doing} {resource}")?;
        if let Some(key) = key {
            write!(f, ", key {key}")?;
        }
        write!(f, ": {}", self.reason())
    }
}

impl std::error::Error for StoreError {}

impl From<StoreError> for WireError {
    fn from(error: StoreError) -> Self {
        let text = match error.kind().remedy() {
            Some(remedy) => format!("{error}; {remedy}"),
            None => error.to_string(),
        };
        match error.kind() {
            StoreErrorKind::Refused(Cause::TooLarge) => Self::new(ErrorCode::TooLarge, text),
            _ => Self::unavailable(text, RETRY_AFTER),
        }
    }
}

/// Why nobody may write just now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreDenied {
    /// It is not known yet whether the store is the right one.
    #[error("whether the store of {0} is still the same is being looked at; try again")]
    InDoubt(String),
    /// It is another one.
    #[error("{0}")]
    Foreign(Arc<str>),
}

impl From<StoreDenied> for WireError {
    fn from(denied: StoreDenied) -> Self {
        Self::unavailable(denied.to_string(), RETRY_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Resource {
        Resource::new("the ledger", "loom-work-p")
    }

    #[test]
    fn an_error_says_what_was_tried_on_what_and_who_says_no() {
        let full = "insufficient resources".to_owned();
        let full = StoreError::by_server("writing", &ledger(), 10_023, full).at("k");
        assert_eq!(
            full.to_string(),
            "writing the ledger loom-work-p, key k: NATS refuses it (error 10023): insufficient resources"
        );
        assert_eq!(full.why(), "insufficient resources");
        let late = StoreError::unanswered("reading", &ledger(), Duration::from_secs(2));
        assert_eq!(
            late.to_string(),
            "reading the ledger loom-work-p: no answer within 2s"
        );
    }

    #[test]
    fn whoever_asked_is_told_what_to_do_and_when() {
        let full = "insufficient resources".to_owned();
        let full = StoreError::by_server("writing", &ledger(), 10_023, full);
        let foreign = StoreDenied::Foreign("it is another one; accept it".into());
        let foreign = StoreError::denied("opening", &ledger(), &foreign);
        for (error, end) in [
            (full, "resources; give JetStream room, and try again"),
            (
                StoreError::unknown("reading", &ledger(), "timed out"),
                "timed out; try again in a moment",
            ),
            (foreign, "it is another one; accept it"),
        ] {
            let wire = WireError::from(error);
            assert_eq!(wire.code, ErrorCode::Unavailable, "{wire}");
            assert_eq!(wire.retry_after_ms, Some(1_000), "{wire}");
            assert!(wire.message.ends_with(end), "{wire}");
        }
        let large = StoreError::by_server("writing", &ledger(), 10_054, "no".into());
        assert_eq!(WireError::from(large).code, ErrorCode::TooLarge);
    }

    #[test]
    fn a_refusal_that_leaves_a_write_open_keeps_its_words() {
        let missing = StoreError::refused(Cause::NoStream, "writing", &ledger(), "no responders");
        assert!(missing.is_missing() && missing.is_refused());
        let open = missing.in_doubt();
        assert_eq!(open.kind(), StoreErrorKind::Unknown);
        assert!(open.to_string().ends_with(": no responders"), "{open}");
    }
}
