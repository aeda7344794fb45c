//! The unknown fields of a submission: noted as they come, however many a sender makes up.

use std::collections::BTreeMap;

use loom_protocol::work::RESERVED_FIELDS;

/// How many of one item's unknown fields are named.
const NAMED: usize = 16;
/// How much of a name is shown, in bytes.
const SHOWN: usize = 64;

/// The unknown fields of a request, by the item that they stand in.
#[derive(Debug, Clone, Default)]
pub struct Ignored {
    own: Fields,
    of_items: BTreeMap<usize, Fields>,
}

/// The unknown fields of one item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// The first of them.
    pub named: Vec<String>,
    /// How many more there are.
    pub more: usize,
    /// The first that is reserved.
    pub reserved: Option<&'static str>,
}

impl Ignored {
    /// Notes a path as the codec gives it: `colour`, or `items.3.colour`.
    pub fn note(&mut self, path: &str) {
        let in_item = path.strip_prefix("items.").and_then(|rest| {
            let (place, field) = rest.split_once('.')?;
            Some((place.parse().ok()?, field))
        });
        match in_item {
            Some((place, field)) => self.of_items.entry(place).or_default().note(field),
            None => self.own.note(path),
        }
    }

    /// Those that stand in no item of a list.
    pub const fn own(&self) -> &Fields {
        &self.own
    }

    pub(super) fn into_own(self) -> Fields {
        self.own
    }

    pub(super) fn take_of_item(&mut self, place: usize) -> Fields {
        self.of_items.remove(&place).unwrap_or_default()
    }
}

impl Fields {
    fn note(&mut self, field: &str) {
        let reserved = RESERVED_FIELDS.into_iter().find(|name| *name == field);
        self.reserved = self.reserved.or(reserved);
        if self.named.len() < NAMED {
            self.named.push(shown(field));
        } else {
            self.more += 1;
        }
    }

    /// As a clause: `a, b and 3 more`.
    pub(super) fn listed(&self) -> String {
        let named = self.named.join(", ");
        match self.more {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    }
}

fn shown(field: &str) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    let cut = field.floor_char_boundary(SHOWN);
    let mut shown: String = field[..cut].chars().map(plain).collect();
    if cut < field.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_fields_is_counted_and_its_first_are_named() {
        let mut ignored = Ignored::default();
        for n in 0..1_000 {
            ignored.note(&format!("items.3.field{n}"));
        }
        ignored.note("items.3.group");
        ignored.note(&"é".repeat(1_000));
        let fields = ignored.take_of_item(3);
        assert_eq!((fields.named.len(), fields.more), (NAMED, 1_001 - NAMED));
        assert_eq!(fields.named[0], "field0");
        assert_eq!(fields.reserved, Some("group"));
        assert!(fields.listed().ends_with("field15 and 985 more"));
        assert_eq!(ignored.take_of_item(2), Fields::default());
        let own = ignored.into_own();
        assert_eq!(own.named, [format!("{}…", "é".repeat(SHOWN / 2))]);
    }
}
