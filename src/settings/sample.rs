//! `config/loom.toml`: every key with its default and its comment, written from the table of keys.

use std::fmt::Write as _;

use toml::{Table, Value};

use super::keys::{KEYS, Key, SECTIONS};
use super::types::Settings;

const HEAD: &str = "\
# Every key of Loom with its default. `loom config show` prints what is in force and where it
# comes from. Order: defaults < this file < environment < flags; any key can be set in the
# environment as LOOM__SECTION__KEY (LOOM__WORK__RETRY__BACKOFF_FIRST=2s).
# Written by `loom config sample`.
";

/// The sample as a file.
pub fn sample() -> String {
    let defaults = as_table(&Settings::default());
    let mut text = HEAD.to_owned();
    for (section, comment) in SECTIONS {
        let _ = write!(text, "\n# {comment}\n[{section}]\n");
        for key in KEYS.iter().filter(|key| key.section() == section) {
            let _ = writeln!(text, "# {}", key.comment);
            let _ = match lookup(&defaults, key.path) {
                Some(value) => writeln!(text, "{} = {value}", key.name()),
                None => writeln!(text, "# {} = {}", key.name(), key.example),
            };
        }
    }
    for key in KEYS.iter().filter(|key| !in_a_section(key)) {
        let _ = write!(
            text,
            "\n# {}\n# [{}]\n# {} = {}\n",
            key.comment,
            key.section(),
            key.name(),
            key.example
        );
    }
    text
}

fn in_a_section(key: &Key) -> bool {
    SECTIONS
        .iter()
        .any(|(section, _)| *section == key.section())
}

/// Settings as TOML; secrets are hidden.
pub fn as_table(settings: &Settings) -> Table {
    // Serializing into a table fails only for maps whose keys are not text; settings have none.
    Table::try_from(settings).unwrap_or_default()
}

/// The value of a key, where it has one.
pub fn lookup<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        None => table.get(path),
        Some((section, rest)) => lookup(table.get(section)?.as_table()?, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Sources, load, value};

    #[test]
    fn the_file_in_the_repository_is_the_sample() {
        let file = include_str!("../../config/loom.toml");
        assert_eq!(
            file,
            sample(),
            "write it anew: cargo run -- config sample > config/loom.toml"
        );
    }

    #[test]
    fn the_sample_changes_nothing() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/loom.toml");
        let sources = Sources {
            file: Some(path.into()),
            ..Sources::default()
        };
        assert_eq!(load(&sources).unwrap().settings, Settings::default());
    }

    #[test]
    fn every_key_of_the_types_is_in_the_table_and_the_other_way_round() {
        fn walk(table: &Table, section: &str, found: &mut Vec<String>) {
            for (name, value) in table {
                let path = format!("{section}{name}");
                match value {
                    Value::Table(inner) => walk(inner, &format!("{path}."), found),
                    _ => found.push(path),
                }
            }
        }
        let mut found = Vec::new();
        walk(&as_table(&Settings::default()), "", &mut found);
        for path in found {
            assert!(super::super::keys::find(&path).is_some(), "{path}");
        }
        for key in KEYS.iter().filter(|key| !key.example.is_empty()) {
            let example: Table = format!("x = {}", key.example).parse().unwrap();
            let example = value::from_toml(key.kind, &example["x"]).unwrap();
            let (section, name) = (key.section(), key.name());
            let text = format!("[{section}]\n{name} = {example}\n");
            toml::from_str::<Settings>(&text).unwrap();
        }
    }
}
