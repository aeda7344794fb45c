//! What an agent has checked, and what it found.

use serde::{Deserialize, Serialize};

use super::limits;
use crate::time::Timestamp;

/// A check of an agent, as it reports it with the end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportedEvidence {
    /// What it is called: 1 to 128 bytes, no control characters.
    pub name: String,
    /// What was run; cut at its end where it has more than 1 KiB.
    #[serde(default)]
    pub command: String,
    /// How it ended: 0 is good.
    pub exit_code: i32,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub duration_ms: u64,
    /// How its output ended; cut at its beginning where it has more than 4 KiB.
    #[serde(default)]
    pub output_tail: String,
    /// When it ended, by the agent's clock; where absent, when the report came.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at: Option<Timestamp>,
    /// The commit that it was run on: 1 to 64 letters and digits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commit: Option<String>,
    /// Whether there was more than that commit in the directory.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dirty: Option<bool>,
}

impl ReportedEvidence {
    /// Looks whether a report may say this.
    ///
    /// # Errors
    /// A sentence that begins with the field.
    pub fn check(&self) -> Result<(), String> {
        let (name, most) = (&self.name, limits::CHECK_NAME);
        if name.is_empty() || name.len() > most || name.chars().any(char::is_control) {
            return Err(format!(
                "name is to have 1 to {most} bytes and no control characters"
            ));
        }
        let is_commit = |commit: &String| {
            (1..=64).contains(&commit.len()) && commit.chars().all(|c| c.is_ascii_alphanumeric())
        };
        if self
            .commit
            .as_ref()
            .is_some_and(|commit| !is_commit(commit))
        {
            return Err("commit is to have 1 to 64 letters and digits".into());
        }
        Ok(())
    }
}

/// A check of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// What it is called.
    pub name: String,
    /// What was run.
    pub command: String,
    /// How it ended: 0 is good.
    pub exit_code: i32,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// How its output ended.
    pub output_tail: String,
    /// When it ended.
    pub at: Timestamp,
    /// The attempt that it belongs to.
    pub attempt: u32,
    /// The commit that it was run on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commit: Option<String>,
    /// Whether there was more than that commit in the directory.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dirty: Option<bool>,
}

impl Evidence {
    /// Whether the check found what it should.
    pub const fn is_good(&self) -> bool {
        self.exit_code == 0
    }
}
