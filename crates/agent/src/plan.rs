//! What is done with each item.

use super::args::Stdin;
use super::execute::Bounds;
use super::exit_rule::ExitRules;
use super::limit::LimitPatterns;
use super::program::run::Launcher;
use super::result::ResultForm;

/// What is done with each item.
#[derive(Debug, Clone)]
pub struct Plan {
    /// A program that Loom understands; in the place of `command`, `stdin`, `result` and `rules`.
    pub known: Option<Launcher>,
    /// The program and its arguments, with placeholders.
    pub command: Vec<String>,
    /// What it reads.
    pub stdin: Stdin,
    /// What counts as its result.
    pub result: ResultForm,
    /// The directory of an item, with placeholders.
    pub workdir: Option<String>,
    /// Run before.
    pub before: Option<String>,
    /// Run after.
    pub after: Option<String>,
    /// The clocks.
    pub bounds: Bounds,
    /// What an exit code means.
    pub rules: ExitRules,
    /// What tells a usage limit.
    pub limits: LimitPatterns,
}
