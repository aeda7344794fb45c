//! `config/loom.toml`: every key with its default and its comment, written from the types.

use std::fmt::Write as _;

use loom_actors::actor_name::ActorName;
use loom_actors::settings::{Kind, Setting as _, Shape, Value};

use super::keys::{self, SECTIONS};
use super::types::Settings;

const HEAD: &str = "\
# Every key of Loom with its default. `loom config show` prints what is in force and where it
# comes from. Order: defaults < this file < environment < flags; any key can be set in the
# environment as LOOM__SECTION__KEY (LOOM__WORK__RETRY__BACKOFF_FIRST=2s).
# Written by `loom config sample`.
";

const EXAMPLE_OF_ONE_ACTOR: &str = "\
# [supervision.work_dispatcher]
# max_restarts = 20
";

const EXAMPLE_OF_A_TARGET: &str = "\
# [[targets.define]]
# name = \"here\"
# agent_type = \"claude-code\"
# capabilities = [\"rust\"]
# mechanism = \"local\"
# config = { command = \"loom agent claude\" }";

/// The sample as a file.
pub fn sample() -> String {
    let defaults = Settings::default();
    let mut text = HEAD.to_owned();
    for section in SECTIONS.iter() {
        let _ = write!(text, "\n# {}\n[{}]\n", section.sentence, section.path);
        for key in &section.keys {
            let _ = writeln!(text, "# {}", key.sentence);
            if matches!(keys::at(&key.path), Some(Shape::Key(Kind::Tables))) {
                let _ = writeln!(text, "{EXAMPLE_OF_A_TARGET}");
                continue;
            }
            let _ = match defaults.get(&key.path) {
                Some(value) => writeln!(text, "{} = {value}", key.name),
                None => writeln!(text, "# {} = {}", key.name, Value::from(key.example)),
            };
        }
    }
    let actors = ActorName::ALL.map(ActorName::key).join(", ");
    let _ = write!(
        text,
        "\n# The same keys for one actor: {actors}, or project (its whole tree).\n{EXAMPLE_OF_ONE_ACTOR}"
    );
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

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
    fn the_example_of_one_actor_can_be_taken() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = EXAMPLE_OF_ONE_ACTOR.replace("# ", "");
        file.write_all(text.as_bytes()).unwrap();
        let sources = Sources {
            file: Some(file.path().into()),
            ..Sources::default()
        };
        let supervision = load(&sources).unwrap().settings.supervision;
        let policy = supervision.policy(ActorName::WorkDispatcher);
        assert_eq!(policy.max_restarts, 20);
    }

    #[test]
    fn every_default_and_every_example_is_of_the_kind_of_its_key() {
        let defaults = Settings::default();
        for key in keys::all() {
            let Some(Shape::Key(kind)) = keys::at(&key.path) else {
                panic!("{} is no key", key.path);
            };
            let default = defaults.get(&key.path);
            let value = default.unwrap_or_else(|| key.example.into());
            let value = value::from_toml(kind, &value).unwrap();
            let mut settings = Settings::default();
            settings.set(&key.path, value.clone()).unwrap();
            let is_shown = settings.get(&key.path) == Some(value);
            let is_hidden = kind == Kind::Secret;
            assert!(is_shown || is_hidden, "{}", key.path);
        }
    }
}
