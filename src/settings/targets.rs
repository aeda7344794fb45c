//! Targets as a file defines them: the fields of `targets.register`, in the spelling of the file or of the wire.

mod in_file;

use loom_actors::domain::targets::Definition;
use loom_actors::settings::{Kind, Scalar, Value};
use loom_protocol::ProjectId;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Table;

pub use self::in_file::{TargetInFile, renamed};

/// A target that the configuration file defines.
#[derive(Debug, Clone, PartialEq)]
pub struct DefinedTarget {
    /// In which project; the default one where absent.
    pub project: Option<ProjectId>,
    /// What it is.
    pub definition: Definition,
}

/// All that it defines.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DefinedTargets(pub Vec<DefinedTarget>);

// Nothing in it is unequal to itself.
impl Eq for DefinedTargets {}

impl Scalar for DefinedTargets {
    const KIND: Kind = Kind::Tables;

    fn read(value: Value) -> Result<Self, String> {
        let Value::Array(tables) = value else {
            return Err("write a table [[targets.define]] for each".into());
        };
        let mut defined: Vec<DefinedTarget> = Vec::with_capacity(tables.len());
        for (place, value) in tables.into_iter().enumerate() {
            let Value::Table(table) = value else {
                return Err("write a table [[targets.define]] for each".into());
            };
            let name = table.get("name").and_then(Value::as_str);
            let which = match name {
                Some(name) => format!("{name:?}"),
                None => format!("number {}", place + 1),
            };
            let target = defined_target(table);
            let target = target.map_err(|why| format!("target {which}: {why}"))?;
            let is_same = |other: &&DefinedTarget| {
                let names = [other, &&target].map(|one| one.definition.target.name.as_str());
                other.project == target.project && names[0].eq_ignore_ascii_case(names[1])
            };
            if defined.iter().any(|other| is_same(&other)) {
                return Err(format!("target {which} stands there twice"));
            }
            defined.push(target);
        }
        Ok(Self(defined))
    }
}

/// Shown by their names: the rest may be secret.
impl Serialize for DefinedTargets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = self.0.iter().map(|one| &one.definition.target.name);
        serializer.collect_seq(names)
    }
}

impl<'de> Deserialize<'de> for DefinedTargets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

fn defined_target(mut table: Table) -> Result<DefinedTarget, String> {
    let project = match table.remove("project") {
        None => None,
        Some(Value::String(id)) => {
            Some(ProjectId::new(&id).map_err(|error| format!("project: {error}"))?)
        }
        Some(_) => return Err("project is text".into()),
    };
    let target = TargetInFile::of_toml(table)?;
    let enabled = target.request.enabled;
    let target = target.check()?;
    Ok(DefinedTarget {
        project,
        definition: Definition { target, enabled },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DefinedTargets, String> {
        let mut table: Table = toml::from_str(text).unwrap();
        DefinedTargets::read(table.remove("define").unwrap())
    }

    const ONE: &str = r#"
        [[define]]
        name = "here"
        agent_type = "claude-code"
        capabilities = ["rust"]
        mechanism = "local"
        max_agents = 3
        health_check = { enabled = true, interval_ms = 2000 }
        [define.config]
        command = "run it"
        working_directory = "/tmp"
        env = { A_TOKEN = "hunter2" }
    "#;

    #[test]
    fn a_definition_is_read_in_the_spelling_of_the_file() {
        let defined = read(ONE).unwrap();
        let target = &defined.0[0].definition.target;
        assert_eq!((target.name.as_str(), target.max_agents), ("here", 3));
        assert_eq!(target.health_check.unwrap().interval_ms, 2000);
        let stored = target.config.stored().unwrap().to_string();
        assert!(stored.contains("A_TOKEN") && stored.contains("hunter2"));
        assert!(stored.contains("workingDirectory"), "{stored}");
        let shown = format!("{:?} {:?}", defined, defined.write());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_repeated() {
        for (from, to, named) in [
            ("max_agents = 3", "max_agents = 0", "max_agents is 0"),
            ("max_agents = 3", "maxAgents = 0", "maxAgents is 0"),
            (
                "max_agents = 3",
                "max_agnets = 3",
                "did you mean max_agents?",
            ),
            (
                "mechanism = \"local\"",
                "mechanism = \"carrier\"",
                "mechanism",
            ),
            ("name = \"here\"", "name = \"h e\"", "name"),
            ("command = \"run it\"", "", "command"),
            (
                "env = { A_TOKEN = \"hunter2\" }",
                "env = \"hunter2\"",
                "env",
            ),
        ] {
            let error = read(&ONE.replace(from, to)).unwrap_err();
            assert!(
                error.contains(named) && !error.contains("hunter2"),
                "{to}: {error}"
            );
        }
        let twice = format!("{ONE}{}", ONE.replace("here", "HERE"));
        assert!(read(&twice).unwrap_err().contains("twice"));
        let elsewhere = ONE.replace("name = \"here\"", "name = \"here\"\nproject = \"shop\"");
        assert_eq!(read(&format!("{ONE}{elsewhere}")).unwrap().0.len(), 2);
    }
}
