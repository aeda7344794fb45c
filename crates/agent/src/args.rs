//! The command line of `loom agent run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use loom_protocol::AgentGuid;
use loom_protocol::agent::MAX_CONCURRENT_TASKS;

use super::exit_rule::ExitRule;
use super::limit_presets::LimitPreset;
use super::program::Program;
use super::program::power::Allow;
use super::result::ResultForm;

/// What `loom agent run` takes.
#[derive(Debug, Clone, Args)]
pub struct AgentRunArgs {
    /// Something that it can do (repeatable). Default: LOOM_CAPABILITIES. An agent that a target has started offers no
    /// more than that
    #[arg(long = "capability", short = 'c', value_name = "NAME")]
    pub capabilities: Vec<String>,

    /// An isolation boundary that it is in (repeatable). Default: LOOM_BOUNDARIES, or `default`; likewise
    #[arg(long = "boundary", short = 'b', value_name = "NAME")]
    pub boundaries: Vec<String>,

    /// Its type. Default: LOOM_AGENT_TYPE, or the name of the program
    #[arg(long, value_name = "TYPE")]
    pub agent_type: Option<String>,

    /// Its name. Default: made of its type and a random part
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub handle: Option<String>,

    /// Its id, for an agent that comes back as itself. Of two that run with the same id the one that was
    /// started later goes on; the other stops its programs and ends with exit code 4
    #[arg(long, value_name = "UUID")]
    pub guid: Option<AgentGuid>,

    /// How many items it works on at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = slots)]
    pub slots: usize,

    /// End after one item; the exit code is 1 if that was not completed
    #[arg(long, conflicts_with = "max_items")]
    pub once: bool,

    /// End after this many items
    #[arg(long, value_name = "N")]
    pub max_items: Option<usize>,

    /// May be sent home after being idle for this long (like 5m). Default: never
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub spindown_after_idle: Option<Duration>,

    /// An agent program that Loom understands: it makes the command line and the prompt, reads the events, and knows from
    /// them what a run came to, what it cost and what it does. What stands behind `--` are further flags of the program
    #[arg(long, value_enum, value_name = "PROGRAM")]
    pub program: Option<Program>,

    /// What it may do (with --program). Default: test
    #[arg(long, value_enum, value_name = "POWER")]
    pub allow: Option<Allow>,

    /// A command that it may run beside the usual tests, with any arguments (with --program; repeatable), like `just check`
    #[arg(long, value_name = "COMMAND")]
    pub may_run: Vec<String>,

    /// A variable that it finds as well (with --program; repeatable): what leads to NATS and to the API, and keys like
    /// ANTHROPIC_API_KEY, are else withheld from it and from --before and --after
    #[arg(long, value_name = "NAME")]
    pub env: Vec<String>,

    /// A capability for which it may submit work from inside, by `loom work submit` (repeatable). Default: none
    #[arg(long, value_name = "CAPABILITY")]
    pub may_submit: Vec<String>,

    /// The attempt that makes so many spent ones is the last (with --program; the item's maxAttempts counts as well).
    /// Default: 2
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub give_up_after: Option<u32>,

    /// Show what would be run, and end
    #[arg(long)]
    pub print: bool,

    /// What the program reads from its standard input
    #[arg(long, value_enum, default_value_t = Stdin::None, conflicts_with = "program")]
    pub stdin: Stdin,

    /// What counts as its result
    #[arg(long, value_enum, value_name = "FORM", default_value_t = ResultForm::Auto, conflicts_with = "program")]
    pub result: ResultForm,

    /// Run each item in a directory of its own under DIR, named by its id. With placeholders in DIR:
    /// in exactly that directory. It is made if it is not there, and kept; no two items run in one
    /// directory at the same time, the second waits
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,

    /// Run this by `sh -c` before each item, in its directory. If it fails, so does the item
    #[arg(long, value_name = "COMMAND")]
    pub before: Option<String>,

    /// Run this by `sh -c` after each item, whatever came of it (LOOM_WORK_OUTCOME: completed, failed
    /// or stopped). If it fails, a completed item fails too
    #[arg(long, value_name = "COMMAND")]
    pub after: Option<String>,

    /// End a program that writes nothing for this long. Default: while it lives, it is taken to work; with --program 15m
    /// without an event
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub silent_timeout: Option<Duration>,

    /// End a program that runs for longer than this. Default: none; with --program 90m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub max_runtime: Option<Duration>,

    /// How long a program that is to end may take between TERM and KILL; and, with --program, how long one that has told
    /// its result may take to exit
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub grace: Duration,

    /// How long running items may still take after Ctrl-C or TERM; a second one ends them at once. Default: 30s; with
    /// --program until they have ended
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub drain: Option<Duration>,

    /// What an exit code means (repeatable), as WHICH=WHAT. WHICH: a code, a range like 3-9, several
    /// with commas, `signal`, `other`. WHAT: complete, retry, retry:PAUSE, permanent, release.
    /// Without rules 0 completes and everything else is retried
    #[arg(long = "exit-code", value_name = "RULE", conflicts_with = "program")]
    pub exit_rules: Vec<ExitRule>,

    /// Recognise how these programs say that their usage limit is met (repeatable): the item goes back
    /// unspent, and no more is claimed until the limit ends
    #[arg(
        long = "limit-preset",
        value_enum,
        value_name = "PROGRAM",
        conflicts_with = "program"
    )]
    pub limit_presets: Vec<LimitPreset>,

    /// The same for any other text (repeatable), a regular expression over the end of the output, without
    /// regard to case. What its group `reset` finds is when the limit ends: `(?<reset>.+)`
    #[arg(long = "limit-pattern", value_name = "REGEX")]
    pub limit_patterns: Vec<String>,

    /// The account whose usage limit it shares: all agents of the same name pause together
    #[arg(long, value_name = "NAME")]
    pub limit_group: Option<String>,

    /// The program and its arguments, with placeholders, like `./review.py {description}`; with --program further flags of
    /// that
    ///
    /// Placeholders: {description} {descriptionFile} {id} {taskId} {capability} {boundary} {priority} {attempt} {project}
    /// {agent} {handle} {workdir} {context} {context.FIELD} {label.NAME}. Each stays within its
    /// argument, and no shell sees it; {{id}} is written for a literal {id}. The same stands in the
    /// variables LOOM_WORK_ITEM_ID, LOOM_WORK_DESCRIPTION and so on.
    ///
    /// The result is what it writes to its standard output: JSON where the last line is a JSON object or
    /// array, with the text before it kept beside it; else the end of the text. A line
    /// `::progress 40 message` reports progress; so does `loom work progress` inside the program.
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// What a program reads from its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stdin {
    /// The description
    Description,
    /// The whole item as one line of JSON
    Json,
    /// Nothing
    None,
}

impl AgentRunArgs {
    /// How long a known program may run where nothing else is said.
    const KNOWN_RUNTIME: Duration = Duration::from_mins(90);
    /// How long it may go without an event.
    const KNOWN_SILENT: Duration = Duration::from_mins(15);
    /// What hooks may take beside it.
    const AROUND: Duration = Duration::from_mins(10);

    /// How long a program may run, if there is a limit.
    pub(crate) fn max_runtime(&self) -> Option<Duration> {
        let known = self.program.map(|_| Self::KNOWN_RUNTIME);
        self.max_runtime.or(known)
    }

    /// How long a program may be silent, if there is a limit.
    pub(crate) fn silent_timeout(&self) -> Option<Duration> {
        let known = self.program.map(|_| Self::KNOWN_SILENT);
        self.silent_timeout.or(known)
    }

    /// How long running items may take once the agent is told to end.
    pub(crate) fn drain(&self) -> Duration {
        let default = match (self.program, self.max_runtime()) {
            (Some(_), Some(limit)) => limit + Self::AROUND,
            _ => Duration::from_secs(30),
        };
        self.drain.unwrap_or(default)
    }
}

fn slots(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|slots| (1..=MAX_CONCURRENT_TASKS as usize).contains(slots))
        .ok_or_else(|| format!("write a whole number from 1 to {MAX_CONCURRENT_TASKS}"))
}
