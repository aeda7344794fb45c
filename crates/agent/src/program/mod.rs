//! Agent programs that Loom understands: how they are started, what their events say, and how a run ended.
//!
//! | file | what it does |
//! |---|---|
//! | [`claude`], [`codex`], [`gemini`], [`copilot`] | one program each: its command line, its events |
//! | [`facts`] | what the events say, in words that are the same for all |
//! | [`verdict`] | from the facts and the exit to what the run came to |
//! | [`json`], [`listener`] | events of any length as they come |
//! | [`power`] | what a program may do |
//! | [`prompt`] | what it is asked |
//! | [`doing`] | its progress in a line for people |
//! | [`changes`] | whether a run changed its directory |
//! | [`session_place`] | where its conversations lie |
//! | [`run`] | one run for an item |

pub mod changes;
pub mod claude;
pub mod codex;
pub mod copilot;
pub mod doing;
pub mod facts;
pub mod gemini;
pub mod json;
mod judging;
pub mod listener;
pub mod power;
pub mod prompt;
pub mod run;
pub mod session_place;
pub mod verdict;

use std::fmt::Debug;

use clap::ValueEnum;
use serde_json::Value;

use crate::limit_met::Class;
use crate::limit_presets::LimitPreset;
use facts::Facts;
use power::Power;
use verdict::{Ended, Verdict};

/// The agent programs that Loom understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Program {
    /// Claude Code
    Claude,
    /// OpenAI Codex
    Codex,
    /// Gemini CLI
    Gemini,
    /// GitHub Copilot CLI
    Copilot,
}

impl Program {
    /// How to speak with it.
    pub fn adapter(self) -> &'static dyn Adapter {
        match self {
            Self::Claude => &claude::Claude,
            Self::Codex => &codex::Codex,
            Self::Gemini => &gemini::Gemini,
            Self::Copilot => &copilot::Copilot,
        }
    }
}

/// What a command line is made for.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// What the program may do.
    pub power: &'a Power,
    /// The id that the conversation is to have, where the program lets others choose it.
    pub session: &'a str,
    /// Flags of the user's.
    pub extra: &'a [String],
}

/// What an exit code says where no event says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    /// Whose matter it is, where it is no failure.
    pub class: Option<Class>,
    /// A word for it.
    pub code: &'static str,
    /// A sentence about the program.
    pub what: &'static str,
}

impl Meaning {
    /// The run failed.
    pub const fn failed(code: &'static str, what: &'static str) -> Self {
        Self {
            class: None,
            code,
            what,
        }
    }

    /// It is nobody's failure.
    pub const fn unspent(class: Class, what: &'static str) -> Self {
        Self {
            class: Some(class),
            code: "unspent",
            what,
        }
    }
}

/// One agent program. Pure: it starts nothing and waits for nothing.
pub trait Adapter: Debug + Sync {
    /// The name of its executable.
    fn executable(&self) -> &'static str;

    /// The type of an agent that runs it.
    fn agent_type(&self) -> &'static str;

    /// Where it keeps its conversations: the variable that says it, and where that is below the home directory otherwise.
    fn config_directory(&self) -> (Option<&'static str>, &'static str);

    /// How it says that a usage limit is met.
    fn preset(&self) -> LimitPreset;

    /// The flags that are set by its command line, and by nobody else.
    fn own_flags(&self) -> &'static [&'static str];

    /// Its arguments. The prompt comes by its standard input.
    fn command_line(&self, launch: &Launch<'_>) -> Vec<String>;

    /// Whether the id of its conversation is chosen by its command line.
    fn names_session(&self) -> bool {
        false
    }

    /// Whether it refuses to have all power as root.
    fn refuses_all_as_root(&self) -> bool {
        false
    }

    /// Takes what an event says. One that it does not know says nothing.
    fn read(&self, event: &Value, facts: &mut Facts);

    /// What an exit code says where no event says more.
    fn exit_meaning(&self, _code: u8) -> Option<Meaning> {
        None
    }

    /// What a run came to; the table stands at [`verdict::verdict`].
    fn verdict(
        &self,
        facts: &Facts,
        ended: Ended,
        class: Option<Class>,
        has_changed: Option<bool>,
    ) -> Verdict {
        let meaning = match ended {
            Ended::Code(code) if facts.result.is_none() => self.exit_meaning(code),
            _ => None,
        };
        let class = class.or_else(|| meaning.and_then(|meaning| meaning.class));
        verdict::verdict(
            facts.result.as_ref(),
            ended,
            class,
            verdict::is_denied(facts, has_changed),
        )
    }
}

/// A text somewhere in an event.
fn text<'a>(event: &'a Value, at: &str) -> Option<&'a str> {
    event.pointer(at)?.as_str()
}

/// A whole number somewhere in an event.
fn number(event: &Value, at: &str) -> Option<u64> {
    let found = event.pointer(at)?;
    found.as_u64().or_else(|| {
        // Some write whole numbers with a point.
        let number = found
            .as_f64()
            .filter(|number| (0.0..1e18).contains(number))?;
        format!("{number:.0}").parse().ok()
    })
}

/// What stands somewhere in an event; null where nothing does.
fn field<'a>(event: &'a Value, at: &str) -> &'a Value {
    event.pointer(at).unwrap_or(&Value::Null)
}

/// The entries of a list somewhere in an event.
fn list<'a>(event: &'a Value, at: &str) -> impl Iterator<Item = &'a Value> {
    event
        .pointer(at)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Whether the end of a call that failed tells that the program did not allow it. Its word for that counts, and a sentence only
/// where there is none: the output and the error of a tool that has run may speak of permissions as well.
fn says_denied(event: &Value) -> bool {
    const WORDS: [&str; 6] = [
        "denied",
        "not allowed",
        "permission",
        "not permitted",
        "rejected",
        "policy",
    ];
    let of = |places: &[&str]| {
        let said = places.iter().filter_map(|place| text(event, place));
        said.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut said = of(&["/error/type", "/error/code"]);
    if said.is_empty() {
        said = of(&["/status", "/error", "/error/message"]);
    }
    said.iter().any(|said| {
        let lower = said
            .chars()
            .take(500)
            .collect::<String>()
            .to_ascii_lowercase();
        WORDS.iter().any(|word| lower.contains(word))
    })
}

#[cfg(test)]
mod tests;
