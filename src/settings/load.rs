//! The four layers, laid over each other: defaults, file, environment, flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use loom_actors::settings::{Setting as _, Shape};
use loom_protocol::target::Mechanism;
use toml::{Table, Value};

use super::check;
use super::error::{Origin, Problem, SettingsError};
use super::keys::{self, join};
use super::types::Settings;
use super::value;

/// The file that is read where nobody names one, if it is there.
pub const DEFAULT_FILE: &str = "loom.toml";

/// Variables with names of their own; every other key goes by `LOOM__SECTION__KEY`.
const VARIABLES: [(&str, &str); 10] = [
    ("NATS_URL", "nats.url"),
    ("NATS_USER", "nats.user"),
    ("NATS_PASS", "nats.password"),
    ("NATS_CREDS", "nats.credentials"),
    // The old name of the next one, which wins where both are set.
    ("LOOMINAL_PROJECT_ID", "projects.default"),
    ("LOOM_PROJECT_ID", "projects.default"),
    ("API_HOST", "api.host"),
    ("API_PORT", "api.port"),
    ("API_TOKENS", "api.tokens"),
    (IDLE_TIMEOUT_MS, "agents.idle_timeout"),
];
const IDLE_TIMEOUT_MS: &str = "IDLE_TIMEOUT_MS";
const PREFIX: &str = "LOOM__";

/// A value that a flag sets.
#[derive(Debug, Clone)]
pub struct Override {
    /// The flag, as it is written.
    pub flag: String,
    /// The key that it sets.
    pub key: String,
    /// The value, as it was written.
    pub value: String,
}

impl Override {
    /// A flag that sets a key, where it was given.
    pub fn given(flag: &str, key: &str, value: Option<impl ToString>) -> Option<Self> {
        value.map(|value| Self {
            flag: flag.into(),
            key: key.into(),
            value: value.to_string(),
        })
    }
}

/// Where settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file; none: `loom.toml` in the working directory, if it is there.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// What flags say.
    pub flags: Vec<Override>,
}

impl Sources {
    /// The environment of this process, the file that was named, and flags.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Override>) -> Self {
        let environment = std::env::vars_os()
            .map(|(name, value)| {
                let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
                (text(name), text(value))
            })
            .filter(|(name, _)| is_ours(name))
            .collect();
        Self {
            file,
            environment,
            flags,
        }
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX) || VARIABLES.iter().any(|(known, _)| *known == name)
}

/// Settings, and where each of them comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The origin of every key that is not at its default.
    pub origins: BTreeMap<String, Origin>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

impl Loaded {
    /// What is set and has no effect any more.
    pub fn warnings(&self) -> Vec<Problem> {
        check::warnings(&self.origins, &self.settings)
    }
}

/// Reads all layers and checks the whole.
///
/// # Errors
/// Every problem that was found, each with its place and its remedy.
pub fn load(sources: &Sources) -> Result<Loaded, SettingsError> {
    let mut layers = Layers::default();
    let file = match &sources.file {
        Some(path) => Some(path.clone()),
        None => Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.is_file()),
    };
    if let Some(path) = &file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let origin = Origin::File {
                path: path.clone(),
                line: None,
            };
            let message =
                format!("cannot be read ({error}); name another file by --config or LOOM_CONFIG");
            Problem::new(origin, "", message)
        })?;
        layers.add_file(path, &text)?;
    }
    layers.add_environment(&sources.environment);
    for flag in &sources.flags {
        layers.set_text(&flag.key, &flag.value, Origin::Flag(flag.flag.clone()));
    }
    layers.finish(file)
}

#[derive(Default)]
struct Layers {
    settings: Settings,
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
}

impl Layers {
    fn add_file(&mut self, path: &Path, text: &str) -> Result<(), SettingsError> {
        let at = |line| Origin::File {
            path: path.to_path_buf(),
            line,
        };
        let document = toml::de::DeTable::parse(text).map_err(|error| {
            let line = error.span().map(|span| line_of(text, span.start));
            Problem::new(at(line), "", format!("is not TOML: {}", error.message()))
        })?;
        let table: Table = toml::from_str(text)
            .map_err(|error| Problem::new(at(None), "", format!("is not TOML: {error}")))?;
        let mut lines = BTreeMap::new();
        note_lines(document.get_ref(), "", text, &mut lines);
        self.add_section("", &table, &|key| at(lines.get(key).copied()));
        Ok(())
    }

    fn add_section(&mut self, section: &str, table: &Table, at: &dyn Fn(&str) -> Origin) {
        for (name, value) in table {
            let path = join(section, name);
            match keys::at(&path) {
                Some(Shape::Key(kind)) => {
                    let value = value::from_toml(kind, value);
                    let place = self.place_of_refused(&path, &value);
                    let origin = place.map_or_else(|| at(&path), |place| at(&entry(&path, place)));
                    self.set(&path, value, origin);
                }
                Some(Shape::Section(_)) => {
                    if let Value::Table(inner) = value {
                        self.add_section(&path, inner, at);
                    } else {
                        let message = format!("is a section; write [{path}] and its keys below");
                        self.problems.push(Problem::new(at(&path), path, message));
                    }
                }
                None => {
                    let message = unknown(section, name);
                    self.problems.push(Problem::new(at(&path), "", message));
                }
            }
        }
    }

    fn add_environment(&mut self, environment: &BTreeMap<String, String>) {
        for (name, path) in VARIABLES {
            // An empty one counts as not set, as in a compose file that passes variables through.
            let Some(text) = environment.get(name).filter(|text| !text.trim().is_empty()) else {
                continue;
            };
            let origin = Origin::Environment(name.into());
            if name != IDLE_TIMEOUT_MS {
                self.set_text(path, text, origin);
            } else if text.trim().parse::<u64>().is_ok() {
                self.set_text(path, &format!("{}ms", text.trim()), origin);
            } else {
                let message = format!("= {text:?} is no whole number of milliseconds");
                self.problems.push(Problem::new(origin, path, message));
            }
        }
        for (name, text) in environment {
            if let Some(rest) = name.strip_prefix(PREFIX) {
                let path = path_of_variable(rest);
                self.set_text(&path, text, Origin::Environment(name.clone()));
            }
        }
    }

    fn set_text(&mut self, path: &str, text: &str, origin: Origin) {
        if let Some(Shape::Key(kind)) = keys::at(path) {
            self.set(path, value::from_text(kind, text), origin);
        } else {
            let message = no_key(path);
            self.problems.push(Problem::new(origin, "", message));
        }
    }

    fn set(&mut self, path: &str, value: Result<Value, String>, origin: Origin) {
        let taken = value.and_then(|value| {
            let taken = self.settings.set(path, value);
            taken.map_err(|error| format!("cannot be taken: {error}"))
        });
        match taken {
            Ok(()) => {
                self.origins.insert(path.into(), origin);
            }
            Err(message) => self.problems.push(Problem::new(origin, path, message)),
        }
    }

    /// Which table of several is the first that is not taken, so that its line can be said.
    fn place_of_refused(&self, path: &str, value: &Result<Value, String>) -> Option<usize> {
        let Ok(Value::Array(tables)) = value else {
            return None;
        };
        let is_taken = |tables: &[Value]| {
            let tables = Value::Array(tables.to_vec());
            self.settings.clone().set(path, tables).is_ok()
        };
        if !tables.iter().all(Value::is_table) || is_taken(tables) {
            return None;
        }
        (0..tables.len()).find(|place| !is_taken(&tables[..=*place]))
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Loaded, SettingsError> {
        if !self.problems.is_empty() {
            return Err(SettingsError {
                problems: self.problems,
            });
        }
        if check::is_open_door(&self.settings.api)
            && !self.origins.contains_key("targets.api_mechanisms")
        {
            let is_elsewhere = |mechanism: &Mechanism| !mechanism.executes_at_will();
            self.settings.targets.api_mechanisms.retain(is_elsewhere);
        }
        self.problems = check::check(&self.settings, &self.origins);
        if self.problems.is_empty() {
            Ok(Loaded {
                settings: self.settings,
                origins: self.origins,
                file,
            })
        } else {
            Err(SettingsError {
                problems: self.problems,
            })
        }
    }
}

/// The path that the rest of a variable's name means. A name of a shell has no `-`: where no key has `_` at the end of
/// its path, the one with `-` is meant.
fn path_of_variable(rest: &str) -> String {
    let path = rest.to_ascii_lowercase().replace("__", ".");
    let (section, name) = path.rsplit_once('.').unwrap_or(("", &path));
    let dashed = join(section, &name.replace('_', "-"));
    if keys::at(&path).is_none() && keys::at(&dashed).is_some() {
        dashed
    } else {
        path
    }
}

/// Why a path leads to no key: where it leaves what there is.
fn no_key(path: &str) -> String {
    let mut section = String::new();
    for name in path.split('.') {
        let below = join(&section, name);
        match keys::at(&below) {
            Some(Shape::Section(_)) => section = below,
            Some(Shape::Key(_)) => return format!("{below} is a key and no section"),
            None => return unknown(&section, name),
        }
    }
    let names = keys::names_in(&section).join(", ");
    format!("{section} is a section; name one of its keys: {names}")
}

fn unknown(section: &str, name: &str) -> String {
    let names = keys::names_in(section);
    let what = if section.is_empty() {
        format!("there is no section [{name}]")
    } else {
        format!("{section}.{name} is no key of [{section}]")
    };
    match keys::did_you_mean(name, &names) {
        Some(near) if section.is_empty() => format!("{what}; did you mean [{near}]?"),
        Some(near) => format!("{what}; did you mean {near}?"),
        None => format!("{what}; there are {}", names.join(", ")),
    }
}

fn note_lines(
    table: &toml::de::DeTable<'_>,
    section: &str,
    text: &str,
    lines: &mut BTreeMap<String, usize>,
) {
    for (name, value) in table {
        let path = join(section, name.get_ref());
        lines.insert(path.clone(), line_of(text, name.span().start));
        match value.get_ref() {
            toml::de::DeValue::Table(inner) => note_lines(inner, &path, text, lines),
            toml::de::DeValue::Array(entries) => {
                for (place, value) in entries.iter().enumerate() {
                    let line = line_of(text, value.span().start);
                    lines.insert(entry(&path, place), line);
                }
            }
            _ => {}
        }
    }
}

/// The path of one entry of a list.
fn entry(path: &str, place: usize) -> String {
    format!("{path}[{place}]")
}

/// The line, counted from 1, in which a byte of a text stands.
pub fn line_of(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    1 + before.matches('\n').count()
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
