//! What can go wrong: a kind for programs, and a sentence that says what happened, to which thing, and what to do.

use loom_protocol::target::Mechanism;

/// A mechanism that this version does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this program starts no agents by {0}: {advice}", advice = self.advice())]
pub struct Unsupported(pub Mechanism);

impl Unsupported {
    const fn advice(self) -> &'static str {
        match self.0 {
            Mechanism::Kubernetes => {
                "it was built without the cargo feature k8s, which is on by default; build it with that, or take a target of another mechanism"
            }
            _ => "take a target of another mechanism, or a later version",
        }
    }
}

/// What is left of a start that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StartErrorKind {
    /// Nothing was started, and the same order would fail again: the target is to be mended.
    Refused,
    /// Nothing was started; it may work later.
    Unavailable,
    /// It was cancelled before anything was started.
    Cancelled,
    /// An agent may have been started. [`Launcher::find`](crate::Launcher::find) tells, and so does its birth.
    InDoubt,
}

/// A start that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    kind: StartErrorKind,
    message: String,
    output: Option<String>,
}

impl StartError {
    pub(crate) fn new(kind: StartErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            output: None,
        }
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(StartErrorKind::Refused, message)
    }

    pub(crate) fn cancelled(what: &str) -> Self {
        Self::new(
            StartErrorKind::Cancelled,
            format!("the start {what} was cancelled before anything was started"),
        )
    }

    #[must_use]
    pub(crate) fn with_output(mut self, output: String) -> Self {
        self.output = Some(output).filter(|output| !output.is_empty());
        self
    }

    /// What is left of it.
    pub const fn kind(&self) -> StartErrorKind {
        self.kind
    }

    /// The end of what the mechanism said, without secrets; at most 4 KiB.
    pub fn output(&self) -> Option<&str> {
        self.output.as_deref()
    }
}

/// A question about a target or an agent that could not be answered, or was answered with no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProbeError(pub(crate) String);

/// An agent that could not be ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StopError(pub(crate) String);

impl From<ProbeError> for StopError {
    fn from(error: ProbeError) -> Self {
        Self(error.0)
    }
}

impl From<StartError> for ProbeError {
    fn from(error: StartError) -> Self {
        Self(error.message)
    }
}
