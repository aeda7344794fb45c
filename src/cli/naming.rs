//! How things are named on the command line and shown there: ids, the beginnings of them, handles
//! and taskIds; and how much of an id a table shows. What a name means is decided by the coordinator.

use clap::{Args, ValueEnum};

use super::output::Output;

/// How many digits of an id a table shows, where that tells the things in it apart.
const SHORT: usize = 8;
/// The longest name that the coordinator keeps.
const LONGEST: usize = 256;

/// A name as it may stand in the path of a request.
pub fn name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.len() > LONGEST {
        return Err(format!("a name has 1 to {LONGEST} bytes"));
    }
    // A path of a URL swallows them.
    if matches!(text, "." | "..") || text.chars().any(char::is_control) {
        return Err("write an id, the beginning of one, or a name".into());
    }
    Ok(text.to_owned())
}

/// Ids shortened to a length at which they are all different: at least 8 digits.
pub fn short_ids<T: ToString>(ids: impl IntoIterator<Item = T>) -> Vec<String> {
    let ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
    let mut sorted: Vec<&str> = ids.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let in_common = |pair: &[&str]| {
        let same = pair[0].bytes().zip(pair[1].bytes());
        same.take_while(|(one, other)| one == other).count()
    };
    let length = sorted.windows(2).map(in_common).max().unwrap_or(0) + 1;
    let mut length = length.max(SHORT);
    // A hyphen at the end would say nothing.
    if ids
        .iter()
        .any(|id| id.as_bytes().get(length - 1) == Some(&b'-'))
    {
        length += 1;
    }
    ids.iter()
        .map(|id| id.get(..length).unwrap_or(id).to_owned())
        .collect()
}

/// How a listing is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Columns that fit into the terminal.
    #[default]
    Table,
    /// All columns, whole ids, nothing cut.
    Wide,
    /// Whole ids, one per line.
    Id,
    /// JSON, as with --json.
    Json,
}

/// How to write a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct FormArgs {
    /// How to write the list.
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORM")]
    form: Option<Form>,
    /// Only whole ids, one per line: as -o id.
    #[arg(short, long, conflicts_with = "form")]
    quiet: bool,
}

impl FormArgs {
    /// The form that is asked for, here or by --json.
    pub const fn form(self, out: Output) -> Form {
        match (self.form, self.quiet) {
            (_, true) => Form::Id,
            (Some(form), _) => form,
            (None, _) if out.is_json() => Form::Json,
            (None, _) => Form::Table,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn short_ids_are_beginnings_that_tell_things_apart(
            ids in prop::collection::btree_set((0..4_u128, any::<u8>()), 0..40),
        ) {
            // Many of them begin alike, as ids made at one time do.
            let id = |(high, low): &(u128, u8)| {
                uuid::Uuid::from_u128((high << 60) | u128::from(*low)).to_string()
            };
            let ids: BTreeSet<String> = ids.iter().map(id).collect();
            let short = short_ids(&ids);
            let different: BTreeSet<&String> = short.iter().collect();
            prop_assert_eq!(different.len(), ids.len());
            for (id, short) in ids.iter().zip(&short) {
                prop_assert!(id.starts_with(short.as_str()) && short.len() >= SHORT);
                prop_assert!(!short.ends_with('-'), "{short}");
            }
        }
    }

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        for bad in ["", " ", "..", ".", "a\nb", &"a".repeat(257)] {
            assert!(name(bad).is_err(), "{bad}");
        }
        for good in ["0198ABCD-", "Ada", "anna-1", "PROJ-12/3", "ü %2e"] {
            assert_eq!(name(good), Ok(good.into()));
        }
    }
}
