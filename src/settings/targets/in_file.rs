//! One target as a file has it: the fields of `targets.register`. A key that nobody reads is refused, with the one that
//! was probably meant; what is wrong is named as the file spells it, and no value is repeated that may be secret.

use loom_protocol::WireError;
use loom_protocol::target::{Mechanism, NewTarget, RegisterTarget};
use serde_json::{Map, Value};
use toml::Table;

use crate::settings::keys::did_you_mean;

/// Fields whose entries are names of somebody else's.
const FOREIGN: [&str; 3] = ["env", "headers", "inputs"];
/// The fields of every target, as the wire spells them.
const COMMON: [&str; 13] = [
    "name",
    "agentType",
    "capabilities",
    "mechanism",
    "config",
    "description",
    "boundaries",
    "classifications",
    "healthCheck",
    "tags",
    "maxAgents",
    "limitGroup",
    "enabled",
];
const HEALTH_CHECK: [&str; 3] = ["enabled", "intervalMs", "timeoutMs"];
const RESOURCES: [&str; 2] = ["cpu", "memory"];
/// The old word for `workflow`, in a flat configuration.
const WORKFLOW_FILE: &str = "workflowFile";

/// How a file spells its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// TOML: `agent_type`; `agentType` is read too.
    Snake,
    /// JSON: `agentType`.
    Wire,
}

/// A target that was read from a file.
#[derive(Clone)]
pub struct TargetInFile {
    /// What it is, not checked yet.
    pub request: RegisterTarget,
    /// The file, to say what is wrong in its words.
    written: Map<String, Value>,
    spelling: Spelling,
}

impl TargetInFile {
    /// Reads a table of TOML.
    ///
    /// # Errors
    /// A key is unknown or stands there twice, or a value is of another type than it takes.
    pub fn of_toml(table: Table) -> Result<Self, String> {
        let value = serde_json::to_value(table).map_err(|_| "it is no table of plain values")?;
        Self::of(value, Spelling::Snake)
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// As of [`TargetInFile::of_toml`], or it is no object.
    pub fn of_json(value: Value) -> Result<Self, String> {
        Self::of(value, Spelling::Wire)
    }

    fn of(value: Value, spelling: Spelling) -> Result<Self, String> {
        let Value::Object(written) = value else {
            return Err("it is no object with the fields of a target".into());
        };
        spelling.check_keys(&written)?;
        let json = spelling.to_wire(Value::Object(written.clone()), true)?;
        let request = serde_path_to_error::deserialize(json).map_err(|error| {
            let path = in_words_of(&written, spelling, &error.path().to_string());
            if path == "mechanism" {
                let known = Mechanism::ALL.map(Mechanism::as_str).join(", ");
                return format!("mechanism is none that there is; write one of {known}");
            }
            format!("{path} has a value of another type than it takes")
        })?;
        Ok(Self {
            request,
            written,
            spelling,
        })
    }

    /// Checks it.
    ///
    /// # Errors
    /// A field is missing, wrong or too large; it is named as the file spells it.
    pub fn check(self) -> Result<NewTarget, String> {
        let checked = self.request.clone().check();
        checked.map_err(|error| renamed(&error, |field| self.spelled(field)))
    }

    /// A field of the wire, like `config.ssh.host`, as the file spells it or would.
    pub fn spelled(&self, field: &str) -> String {
        in_words_of(&self.written, self.spelling, field)
    }
}

/// What an error says, with its field by another name.
pub fn renamed(error: &WireError, name: impl FnOnce(&str) -> String) -> String {
    let field = error.details.as_ref().and_then(|of| of["field"].as_str());
    let rest = field.and_then(|field| Some((field, error.message.strip_prefix(field)?)));
    match rest {
        Some((field, rest)) => format!("{}{rest}", name(field)),
        None => error.message.clone(),
    }
}

fn in_words_of(written: &Map<String, Value>, spelling: Spelling, field: &str) -> String {
    // Its fields may stand beside the others, without any table of their own.
    let has_config = written.contains_key("config");
    let field = match field.strip_prefix("config.") {
        Some(beside) if !has_config => beside,
        _ => field,
    };
    let mut at = Some(written);
    let mut is_foreign = false;
    let mut words = Vec::new();
    for part in field.split('.') {
        let known = at.and_then(|table| {
            let mut keys = table.keys();
            keys.find(|key| {
                if is_foreign {
                    *key == part
                } else {
                    spelling.wire(key) == part
                }
            })
        });
        let word = match known {
            Some(key) => key.clone(),
            None if is_foreign => part.to_owned(),
            None => spelling.own(part),
        };
        at = at.and_then(|table| table.get(&word)?.as_object());
        is_foreign |= FOREIGN.contains(&part);
        words.push(word);
    }
    words.join(".")
}

impl Spelling {
    /// A key as the wire has it.
    fn wire(self, key: &str) -> String {
        match self {
            Self::Snake => camel(key),
            Self::Wire => key.to_owned(),
        }
    }

    /// A field of the wire as such a file has it.
    fn own(self, field: &str) -> String {
        if self == Self::Wire {
            return field.to_owned();
        }
        let mut snake = String::with_capacity(field.len() + 4);
        for letter in field.chars() {
            if letter.is_ascii_uppercase() {
                snake.push('_');
            }
            snake.push(letter.to_ascii_lowercase());
        }
        snake
    }

    /// The same with every key in the spelling of the wire, but those that are somebody else's names.
    fn to_wire(self, value: Value, renames: bool) -> Result<Value, String> {
        match value {
            Value::Object(table) => {
                let mut fields = Map::new();
                for (key, value) in table {
                    let field = if renames {
                        self.wire(&key)
                    } else {
                        key.clone()
                    };
                    let inside = renames && !FOREIGN.contains(&field.as_str());
                    let value = self.to_wire(value, inside)?;
                    if fields.insert(field, value).is_some() {
                        return Err(format!("{key} stands there twice, spelled in two ways"));
                    }
                }
                Ok(Value::Object(fields))
            }
            other => Ok(other),
        }
    }

    /// Refuses a key that nobody reads.
    fn check_keys(self, written: &Map<String, Value>) -> Result<(), String> {
        let field = |name: &str| {
            let mut fields = written.iter();
            fields.find_map(|(key, value)| (self.wire(key) == name).then_some((key, value)))
        };
        let named = field("mechanism").and_then(|(_, value)| value.as_str());
        let mechanism = Mechanism::ALL
            .into_iter()
            .find(|of| Some(of.as_str()) == named);
        let config = field("config").and_then(|(key, value)| Some((key, value.as_object()?)));
        let mut known = COMMON.to_vec();
        if config.is_none() {
            known.extend(flat(mechanism));
        }
        self.check_table("", written, &known, |key| {
            let is_of_config =
                config.is_some() && flat(mechanism).contains(&self.wire(key).as_str());
            is_of_config.then(|| format!("{key} stands beside config, and belongs into it"))
        })?;
        if let Some((key, Value::Object(check))) = field("healthCheck") {
            self.check_table(key, check, &HEALTH_CHECK, |_| None)?;
        }
        let Some((key, config)) = config else {
            return self.check_resources("", written);
        };
        let nested = Mechanism::ALL.into_iter().find_map(|of| {
            let mut fields = config.iter();
            let (own, value) = fields.find(|(own, _)| self.wire(own) == of.key())?;
            Some((of, format!("{key}.{own}"), value.as_object()?))
        });
        let Some((of, path, fields)) = nested else {
            self.check_table(key, config, &flat(mechanism), |_| None)?;
            return self.check_resources(key, config);
        };
        // What is for another mechanism is said to be that where it is checked.
        let mut known = Mechanism::ALL.map(Mechanism::key).to_vec();
        known.push("mechanism");
        self.check_table(key, config, &known, |_| None)?;
        self.check_table(&path, fields, of.fields(), |_| None)?;
        self.check_resources(&path, fields)
    }

    fn check_resources(self, path: &str, config: &Map<String, Value>) -> Result<(), String> {
        match config.get("resources") {
            Some(Value::Object(resources)) => {
                self.check_table(&join(path, "resources"), resources, &RESOURCES, |_| None)
            }
            _ => Ok(()),
        }
    }

    fn check_table(
        self,
        path: &str,
        table: &Map<String, Value>,
        known: &[&str],
        why: impl Fn(&str) -> Option<String>,
    ) -> Result<(), String> {
        let is_known = |key: &str| known.contains(&self.wire(key).as_str());
        let Some(key) = table.keys().find(|key| !is_known(key)) else {
            return Ok(());
        };
        if let Some(why) = why(key) {
            return Err(why);
        }
        let names: Vec<String> = known.iter().map(|name| self.own(name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let shown: String = key.chars().take(64).collect();
        let what = format!("{} is no key of a target", join(path, &shown));
        Err(match did_you_mean(key, &names) {
            Some(near) => format!("{what}; did you mean {near}?"),
            None => format!("{what}; there are {}", names.join(", ")),
        })
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// What a flat configuration may hold; of a mechanism that is not named, whatever any may.
fn flat(mechanism: Option<Mechanism>) -> Vec<&'static str> {
    let of = |of: Mechanism| {
        let old = (of == Mechanism::GithubActions).then_some(WORKFLOW_FILE);
        of.fields().iter().copied().chain(old)
    };
    let mut fields: Vec<&str> = match mechanism {
        Some(mechanism) => of(mechanism).collect(),
        None => Mechanism::ALL.into_iter().flat_map(of).collect(),
    };
    fields.push("mechanism");
    fields
}

fn camel(key: &str) -> String {
    let mut parts = key.split('_').filter(|part| !part.is_empty());
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (first, rest) = part.split_at(part.chars().next().map_or(0, char::len_utf8));
        camel.push_str(&first.to_uppercase());
        camel.push_str(rest);
    }
    camel
}

#[cfg(test)]
#[path = "in_file_tests.rs"]
mod tests;
