//! What the API server refuses, in words: which cluster and namespace, what, and what to do. Pure.

use std::error::Error;
use std::time::Duration;

use serde::Deserialize;

use crate::{ProbeError, StartError, StartErrorKind, StopError};

use super::call::Call;

/// How much of the server's words is told, in characters.
const WORDS: usize = 600;

/// What kind of refusal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusalKind {
    /// There are no credentials, or the cluster does not know them.
    Credentials,
    /// It may not be done.
    Forbidden,
    /// There is no room for it in the namespace.
    Quota,
    /// There is no such thing.
    NotFound,
    /// There is one already.
    AlreadyExists,
    /// It is not as it was thought to be.
    Conflict,
    /// What was sent makes no sense.
    Invalid,
    /// What is asked for is too old to be told.
    Gone,
    /// The server has too much to do, or fails.
    Busy,
    /// No answer came.
    NoAnswer,
}

/// A request that was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) kind: RefusalKind,
    pub(super) message: String,
    /// Whether it may have been done all the same.
    pub(super) may_be_done: bool,
}

/// The server's own account, an object `Status`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    message: String,
    reason: String,
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    kind: String,
    retry_after_seconds: u64,
}

impl Refusal {
    pub(super) const fn new(kind: RefusalKind, message: String) -> Self {
        Self {
            kind,
            message,
            may_be_done: false,
        }
    }

    pub(super) fn is(&self, kind: RefusalKind) -> bool {
        self.kind == kind
    }

    /// What an answer says that is no success. `place`: the cluster and the namespace, in words.
    pub(super) fn of(status: u16, body: &[u8], place: &str, call: &Call<'_>) -> Self {
        let said = said(status, body);
        let words = &said.message;
        let (verb, what) = (call.verb.word(), call.resource.words());
        let (kind, account) = match status {
            401 => (
                RefusalKind::Credentials,
                format!(
                    "the cluster does not know who asks ({words}); renew the credentials of the kubeconfig or of the service account"
                ),
            ),
            403 if words.contains("exceeded quota") => (
                RefusalKind::Quota,
                format!(
                    "the namespace has no room for it ({words}); raise its quota, or wait until something ends"
                ),
            ),
            403 if words.contains("cannot ") => (
                RefusalKind::Forbidden,
                format!(
                    "the permission to {verb} {what} is missing ({words}); grant it by a Role and a RoleBinding, as docs/targets.md shows"
                ),
            ),
            403 => (
                RefusalKind::Forbidden,
                format!(
                    "to {verb} {what} was refused ({words}); look at the namespace and its admission rules"
                ),
            ),
            404 if said.details.kind == "namespaces" => (
                RefusalKind::Forbidden,
                "the namespace does not exist; create it, or write another one into the target"
                    .to_owned(),
            ),
            404 => (RefusalKind::NotFound, format!("not found: {words}")),
            409 if said.reason == "AlreadyExists" => (
                RefusalKind::AlreadyExists,
                format!("it exists already ({words})"),
            ),
            409 => (
                RefusalKind::Conflict,
                format!("it changed meanwhile ({words}); try again"),
            ),
            410 => (RefusalKind::Gone, format!("too old to be told ({words})")),
            408 | 429 | 500.. => (
                RefusalKind::Busy,
                format!(
                    "the API server has too much to do or fails (status {status}: {words}); try again later"
                ),
            ),
            _ => (
                RefusalKind::Invalid,
                format!(
                    "what was to be written is refused (status {status}: {words}); mend the target"
                ),
            ),
        };
        Self {
            kind,
            message: format!("{place}: {account}"),
            may_be_done: matches!(status, 408 | 500 | 502 | 504),
        }
    }

    /// No answer came.
    pub(super) fn unanswered(place: &str, why: &str) -> Self {
        Self {
            kind: RefusalKind::NoAnswer,
            message: format!(
                "{place}: the API server does not answer ({why}); look whether it runs and is reached from here"
            ),
            may_be_done: true,
        }
    }

    /// What is left of a start that was refused before anything could run.
    pub(super) fn into_start_error(self) -> StartError {
        let kind = match self.kind {
            RefusalKind::Quota
            | RefusalKind::Busy
            | RefusalKind::NoAnswer
            | RefusalKind::Conflict
            | RefusalKind::Gone => StartErrorKind::Unavailable,
            RefusalKind::Credentials
            | RefusalKind::Forbidden
            | RefusalKind::NotFound
            | RefusalKind::AlreadyExists
            | RefusalKind::Invalid => StartErrorKind::Refused,
        };
        StartError::new(kind, self.message)
    }
}

impl From<Refusal> for ProbeError {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.message)
    }
}

impl From<Refusal> for StopError {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.message)
    }
}

/// Whether an answer says that the same request may be sent again.
pub(super) const fn may_be_repeated(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// How long an answer asks to wait: its header counts, then what its body says.
pub(super) fn wait_asked(header: Option<&str>, body: &[u8]) -> Option<Duration> {
    let of_header = header.and_then(|text| text.trim().parse::<u64>().ok());
    let of_body = || {
        let status: Status = serde_json::from_slice(body).ok()?;
        Some(status.details.retry_after_seconds).filter(|seconds| *seconds > 0)
    };
    of_header.or_else(of_body).map(Duration::from_secs)
}

/// What an answer says: an object of Kubernetes, or the text of something on the way.
fn said(status: u16, body: &[u8]) -> Status {
    let mut said: Status = serde_json::from_slice(body).unwrap_or_default();
    if said.message.is_empty() {
        String::from_utf8_lossy(body)
            .trim()
            .clone_into(&mut said.message);
    }
    if said.message.is_empty() {
        said.message = format!("status {status}");
    }
    if let Some((cut, _)) = said.message.char_indices().nth(WORDS) {
        said.message.truncate(cut);
        said.message.push('…');
    }
    said
}

/// All that an error says, its causes too.
pub(super) fn causes(error: &(dyn Error + 'static)) -> String {
    use kube::client::AuthError;
    let mut words: Vec<String> = Vec::new();
    let mut cause = Some(error);
    while let Some(one) = cause {
        let text = match one.downcast_ref::<AuthError>() {
            // What it printed may be credentials.
            Some(AuthError::AuthExecRun { cmd, out, .. }) => {
                format!(
                    "the program {cmd:?} for the credentials ended with {}",
                    out.status
                )
            }
            _ => one.to_string(),
        };
        if !words.iter().any(|said| said.contains(&text)) {
            words.push(text);
        }
        cause = one.source();
    }
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use super::super::call::{Resource, Verb};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn refusal(status: u16, body: &[u8]) -> Refusal {
        let call = Call::new(Verb::Create, Resource::Jobs);
        Refusal::of(status, body, "context \"c\", namespace \"n\"", &call)
    }

    #[test]
    fn a_refusal_says_what_where_and_what_to_do() {
        let status = |reason: &str, message: &str, kind: &str| {
            json!({"kind": "Status", "reason": reason, "message": message, "details": {"kind": kind}})
                .to_string()
        };
        let rbac = "jobs.batch is forbidden: User \"u\" cannot create resource \"jobs\" in API group \"batch\" in the namespace \"n\"";
        let quota =
            "jobs.batch \"a\" is forbidden: exceeded quota: q, requested: count/jobs.batch=1";
        for (code, body, kind, words) in [
            (
                401,
                status("Unauthorized", "Unauthorized", ""),
                RefusalKind::Credentials,
                "renew the credentials",
            ),
            (
                403,
                status("Forbidden", rbac, "jobs"),
                RefusalKind::Forbidden,
                "the permission to create jobs (of the group batch)",
            ),
            (
                403,
                status("Forbidden", quota, "jobs"),
                RefusalKind::Quota,
                "raise its quota",
            ),
            (
                404,
                status("NotFound", "namespaces \"n\" not found", "namespaces"),
                RefusalKind::Forbidden,
                "create it",
            ),
            (
                409,
                status("AlreadyExists", "jobs.batch \"a\" already exists", "jobs"),
                RefusalKind::AlreadyExists,
                "exists",
            ),
            (
                409,
                status("Conflict", "x", "jobs"),
                RefusalKind::Conflict,
                "changed",
            ),
            (
                410,
                status("Expired", "x", ""),
                RefusalKind::Gone,
                "too old",
            ),
            (
                422,
                status("Invalid", "spec.x: Required value", "jobs"),
                RefusalKind::Invalid,
                "mend the target",
            ),
            (429, String::new(), RefusalKind::Busy, "try again later"),
            (503, "<html>".to_owned(), RefusalKind::Busy, "<html>"),
        ] {
            let refusal = refusal(code, body.as_bytes());
            assert_eq!(refusal.kind, kind, "{refusal:?}");
            assert!(refusal.message.contains(words), "{refusal:?}");
            assert!(
                refusal
                    .message
                    .starts_with("context \"c\", namespace \"n\": ")
            );
        }
    }

    #[test]
    fn the_wait_is_that_of_the_header_or_of_the_body() {
        let body = json!({"details": {"retryAfterSeconds": 7}}).to_string();
        assert_eq!(
            wait_asked(Some("3"), body.as_bytes()),
            Some(Duration::from_secs(3))
        );
        assert_eq!(
            wait_asked(None, body.as_bytes()),
            Some(Duration::from_secs(7))
        );
        assert_eq!(wait_asked(Some("soon"), b""), None);
    }

    proptest! {
        #[test]
        fn whatever_answers_the_words_are_bounded(status in 300_u16..600, body in prop::collection::vec(any::<u8>(), 0..3000)) {
            let refusal = refusal(status, &body);
            prop_assert!(refusal.message.chars().count() < WORDS + 300);
        }
    }
}
