//! The ids of the items of a file: they follow from the name of the batch and from the line, so
//! that the same file again changes nothing.
//!
//! Of the line its text counts, not its number: where lines were added, removed or mended between
//! two runs of one batch, the others keep their ids. Lines that say the same are told apart by
//! which of them comes first. The default name is a digest of the file, so that an edited file is
//! another batch unless it is submitted with the name of the first one. Flags do not count.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use loom_protocol::WorkId;
use sha2::{Digest as _, Sha256};

use crate::cli::tasks_file::Fields;

/// Notes the lines of a file, to know which of them are there more than once. 8 bytes each.
#[derive(Debug, Default)]
pub(super) struct SeenLines(Vec<u64>);

impl SeenLines {
    pub fn note(&mut self, text: &str) {
        self.0.push(key(text));
    }

    /// Ids for the lines of this file, in a batch of this name.
    pub fn ids(mut self, batch: &str) -> LineIds {
        self.0.sort_unstable();
        let pairs = self.0.windows(2).filter(|pair| pair[0] == pair[1]);
        LineIds {
            batch: batch.to_owned(),
            repeated: pairs.map(|pair| (pair[0], 0)).collect(),
        }
    }
}

/// Gives each line its id, from the first on.
#[derive(Debug)]
pub(super) struct LineIds {
    batch: String,
    /// How often a line that is there more than once has come so far.
    repeated: HashMap<u64, u64>,
}

impl LineIds {
    pub fn next(&mut self, text: &str) -> WorkId {
        let occurrence = self.repeated.get_mut(&key(text)).map_or(0, |count| {
            *count += 1;
            *count - 1
        });
        derived(&self.batch, text, occurrence)
    }
}

fn key(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    let mut key = [0; 8];
    key.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(key)
}

/// A digest with the bits of a random UUID (version 4).
fn derived(batch: &str, text: &str, occurrence: u64) -> WorkId {
    let mut digest = Sha256::new();
    // The length keeps a name and a line apart from another name and another line.
    digest.update((batch.len() as u64).to_le_bytes());
    digest.update(batch);
    digest.update(occurrence.to_le_bytes());
    digest.update(text);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.finalize()[..16]);
    WorkId::new(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// The ids that lines name themselves: the same one again is the same item, and must say the same.
#[derive(Debug, Default)]
pub(super) struct NamedIds(HashMap<WorkId, (usize, u64)>);

impl NamedIds {
    /// Notes the id of a line.
    ///
    /// # Errors
    /// A line before it has named that id for something else, which would be all that is submitted.
    pub fn note(&mut self, number: usize, fields: &Fields) -> Result<(), String> {
        let named = fields.get("id").map(|raw| serde_json::from_str(raw.get()));
        let Some(Ok(id)) = named else { return Ok(()) };
        let content = serde_json::to_string(fields).map_err(|error| error.to_string())?;
        let content = key(&content);
        match self.0.entry(id) {
            Entry::Vacant(place) => {
                place.insert((number, content));
                Ok(())
            }
            Entry::Occupied(first) if first.get().1 == content => Ok(()),
            Entry::Occupied(first) => Err(format!(
                "has the id of line {} ({id}) and says something else; an id is one item: give it another one, or none",
                first.get().0
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn ids(batch: &str, lines: &[String]) -> Vec<WorkId> {
        let mut seen = SeenLines::default();
        for line in lines {
            seen.note(line);
        }
        let mut ids = seen.ids(batch);
        lines.iter().map(|line| ids.next(line)).collect()
    }

    #[test]
    fn an_id_that_is_named_twice_says_the_same_twice() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let fields = |text: &str| -> Fields { serde_json::from_str(text).unwrap() };
        let mut named = NamedIds::default();
        let first = format!(r#"{{"id": "{id}", "description": "one"}}"#);
        assert_eq!(named.note(1, &fields(&first)), Ok(()));
        let turned = format!(r#"{{"description":   "one", "id": "{id}"}}"#);
        assert_eq!(named.note(2, &fields(&turned)), Ok(()));
        let other = fields(&first.replace("one", "two"));
        let why = named.note(3, &other).unwrap_err();
        assert!(why.contains("line 1") && why.contains(id), "{why}");
        assert_eq!(named.note(4, &fields(r#"{"description": "two"}"#)), Ok(()));
    }

    proptest! {
        #[test]
        fn every_line_has_an_id_of_its_own_and_the_same_again(
            lines in prop::collection::vec("[ab]{0,3}", 0..40),
            batch in "\\PC{0,8}",
        ) {
            let first = ids(&batch, &lines);
            prop_assert_eq!(&first, &ids(&batch, &lines));
            let different: BTreeSet<_> = first.iter().collect();
            prop_assert_eq!(different.len(), lines.len());
            let other: BTreeSet<_> = ids(&format!("{batch}x"), &lines).into_iter().collect();
            prop_assert!(first.iter().all(|id| !other.contains(id)));
            for id in first {
                let uuid = id.uuid();
                prop_assert_eq!(uuid.get_version_num(), 4);
                prop_assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
            }
        }

        #[test]
        fn an_edited_file_keeps_the_ids_of_the_lines_that_stay(
            lines in prop::collection::vec("[abc]{1,2}", 0..30),
            added in prop::collection::vec("[xyz]{1,2}", 0..5),
            at in any::<prop::sample::Index>(),
        ) {
            let mut edited = lines.clone();
            let place = at.index(lines.len() + 1);
            edited.splice(place..place, added.iter().cloned());
            let by_line = |lines: &[String]| {
                let mut by_line: BTreeMap<String, BTreeSet<WorkId>> = BTreeMap::new();
                for (line, id) in lines.iter().zip(ids("b", lines)) {
                    by_line.entry(line.clone()).or_default().insert(id);
                }
                by_line
            };
            let after = by_line(&edited);
            for (line, ids) in by_line(&lines) {
                prop_assert_eq!(&after[&line], &ids);
            }
        }
    }
}
