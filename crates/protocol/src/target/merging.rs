//! Changes to a configuration, field by field.

use serde_json::{Value, json};

use super::check;
use super::reading::Fields;
use super::secret::MASK;
use crate::error::WireError;

/// The fields whose entries are merged one by one; any other field is replaced as a whole.
const MERGED: [&str; 4] = ["env", "headers", "inputs", "resources"];
/// The fields whose values are secret.
pub(super) const SECRET: [&str; 2] = ["env", "headers"];
/// The fields whose entries have the same name in whatever case.
const CASELESS: [&str; 1] = ["headers"];
/// Applies one change.
pub(super) fn apply(
    to: &mut Fields,
    name: String,
    value: Value,
    prefix: &str,
) -> Result<(), WireError> {
    match value {
        Value::Null => {
            to.remove(&name);
        }
        Value::Object(entries) if MERGED.contains(&name.as_str()) => {
            let secret = SECRET.contains(&name.as_str());
            let there = to.entry(name.as_str()).or_insert_with(|| json!({}));
            let Some(there) = there.as_object_mut() else {
                return Err(check::refused(prefix, &name, "is not an object"));
            };
            let caseless = CASELESS.contains(&name.as_str());
            if caseless {
                check_named_once(&entries, &name, prefix)?;
            }
            for (entry, value) in entries {
                let masked = secret && value == MASK;
                let is_known = there.contains_key(&entry)
                    || (caseless && there.keys().any(|known| known.eq_ignore_ascii_case(&entry)));
                if masked && !is_known {
                    let problem = "is ***, which stands for a value that is kept, and none is; write the value";
                    return Err(check::refused(prefix, &format!("{name}.{entry}"), problem));
                }
                if masked {
                    continue;
                }
                if caseless {
                    there.retain(|known, _| !known.eq_ignore_ascii_case(&entry));
                }
                if value.is_null() {
                    there.remove(&entry);
                } else {
                    there.insert(entry, value);
                }
            }
        }
        other => {
            to.insert(name, other);
        }
    }
    Ok(())
}

/// Entries that have the same name in whatever case: nobody could say which of two is meant.
fn check_named_once(entries: &Fields, field: &str, prefix: &str) -> Result<(), WireError> {
    let mut names: Vec<&String> = entries.keys().collect();
    names.sort_by_cached_key(|name| name.to_ascii_lowercase());
    let is_twice = |pair: &&[&String]| pair[0].eq_ignore_ascii_case(pair[1]);
    let Some(pair) = names.windows(2).find(is_twice) else {
        return Ok(());
    };
    let problem = format!("stands there twice, as {} too; write it once", pair[1]);
    let field = format!("{field}.{}", pair[0]);
    Err(check::refused(prefix, &field, &problem))
}
