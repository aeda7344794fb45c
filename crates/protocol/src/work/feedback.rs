//! What an attempt is told of those before it.

use serde::{Deserialize, Serialize};

use super::reason::Reason;
use crate::time::Timestamp;

/// What kind of thing an attempt is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FeedbackKind {
    /// An attempt failed.
    Error,
    /// A check found something.
    Check,
    /// Of a later version.
    #[serde(other)]
    Other,
}

/// Something that happened in an attempt before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Feedback {
    /// What it is.
    pub kind: FeedbackKind,
    /// What is to be known of it; cut in its middle where it is long.
    pub message: String,
    /// In which attempt.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<u32>,
    /// When.
    pub at: Timestamp,
    /// Of an error: which kind of end it was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    /// Of a check: its name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
}
