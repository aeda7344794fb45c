//! What a data directory remembers of the store: a small file, written as a whole.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::nats::verdicts::ledger_stamp::Known;

const FILE: &str = "store-memory.json";

/// What was known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Memory {
    /// The id of the store as a whole.
    pub store_id: Option<String>,
    /// Each project's ledger.
    pub projects: BTreeMap<String, Known>,
}

/// Where it is kept.
pub(super) fn file_in(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

impl Memory {
    /// What the file says; nothing where there is none, or none that can be read.
    pub fn read(file: &Path) -> Self {
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                tracing::warn!("{} cannot be read: {error}", file.display());
                return Self::default();
            }
        };
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(
                "{} is no memory of a store and is replaced: {error}",
                file.display()
            );
            Self::default()
        })
    }

    /// Replaces the file, unless it says the same. Whoever reads it meanwhile reads one or the other.
    pub fn write(&self, file: &Path) -> std::io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self)?;
        if std::fs::read(file).is_ok_and(|now| now == bytes) {
            return Ok(());
        }
        let beside = file.with_extension("json.new");
        let mut new = std::fs::File::create(&beside)?;
        new.write_all(&bytes)?;
        new.sync_all()?;
        std::fs::rename(&beside, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = file_in(directory.path());
        assert_eq!(Memory::read(&file), Memory::default());
        let known = Known {
            stamp: "a".into(),
            last: 7,
        };
        let memory = Memory {
            store_id: Some("id".into()),
            projects: [("p".to_owned(), known)].into(),
        };
        memory.write(&file).unwrap();
        assert_eq!(Memory::read(&file), memory);
        std::fs::write(&file, "gibberish").unwrap();
        assert_eq!(Memory::read(&file), Memory::default());
        memory.write(&file).unwrap();
        assert_eq!(Memory::read(&file), memory);
    }
}
