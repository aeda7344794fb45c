//! The beginning of an id, as a person types it, as a range of ids.

use std::str::FromStr;

/// The least and the greatest UUID, as text.
const LEAST: &str = "00000000-0000-0000-0000-000000000000";
const GREATEST: &str = "ffffffff-ffff-ffff-ffff-ffffffffffff";

/// The first and the last id that begin with `prefix` (8-4-4-4-12 hex digits, either case);
/// `None` where no id can begin like that.
pub fn bounds<Id: FromStr>(prefix: &str) -> Option<(Id, Id)> {
    let fits = prefix.len() <= LEAST.len()
        && prefix.chars().zip(LEAST.chars()).all(|(c, model)| {
            if model == '-' {
                c == '-'
            } else {
                c.is_ascii_hexdigit()
            }
        });
    if prefix.is_empty() || !fits {
        return None;
    }
    let filled = |with: &str| format!("{prefix}{}", &with[prefix.len()..]).parse().ok();
    Some((filled(LEAST)?, filled(GREATEST)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom_protocol::AgentGuid;

    #[test]
    fn every_beginning_of_an_id_holds_it() {
        let guid = AgentGuid::generate();
        let text = guid.to_string();
        for length in 1..=text.len() {
            let (first, last) = bounds::<AgentGuid>(&text[..length].to_uppercase()).unwrap();
            assert!(first <= guid && guid <= last, "{length}");
        }
        assert_eq!(bounds(&text), Some((guid, guid)));
    }

    #[test]
    fn what_no_id_begins_with_is_refused() {
        for bad in [
            "",
            "x",
            "0123456789",
            "-",
            "ü",
            "01234567-é",
            &"0".repeat(40),
        ] {
            assert_eq!(bounds::<AgentGuid>(bad), None, "{bad}");
        }
    }
}
