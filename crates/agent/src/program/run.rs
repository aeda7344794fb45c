//! One run of a known program for an item: its command, its prompt, and what it came to.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::OnceLock;

use bytes::Bytes;
use loom_client::{Job, JobError};
use loom_protocol::work::WorkItem;
use uuid::Uuid;

use super::listener::Listener;
use super::power::{Allow, Power};
use super::session_place::SessionPlace;
use super::{Adapter, Launch, Program, changes, prompt};
use crate::environment;
use crate::probe;
use crate::template;

/// How a known program is run for each item.
#[derive(Debug, Clone)]
pub struct Launcher {
    pub(super) adapter: &'static dyn Adapter,
    withheld: Vec<String>,
    power: Power,
    extra: Vec<String>,
    give_up_after: u32,
    place: OnceLock<SessionPlace>,
}

/// What belongs to one run.
#[derive(Debug)]
pub struct Run {
    /// The id that its conversation is to have.
    pub session: String,
    /// The boundary of what others wrote, in the prompt.
    mark: String,
}

impl Run {
    /// Another run: nobody knows its ids.
    pub fn new() -> Self {
        Self {
            session: Uuid::new_v4().to_string(),
            mark: Uuid::new_v4().simple().to_string(),
        }
    }
}

impl Default for Run {
    fn default() -> Self {
        Self::new()
    }
}

impl Launcher {
    /// Runs this program, with so much power and these flags; the attempt that makes `give_up_after` spent ones is the last.
    /// Of the variables that are withheld from it those of `passed` are passed on.
    ///
    /// # Errors
    /// A sentence: the program can't be run like that.
    pub fn new(
        program: Program,
        power: Power,
        extra: Vec<String>,
        give_up_after: u32,
        passed: &[String],
    ) -> Result<Self, String> {
        let adapter = program.adapter();
        for flag in &extra {
            let name = flag.split('=').next().unwrap_or_default();
            let is_filled_word = !flag.starts_with('-') && template::has_placeholder(flag);
            if is_filled_word || template::has_placeholder(name) {
                return Err(format!(
                    "{flag}: what an item says could be a flag; bind it to one, like --model={{label.model}}"
                ));
            }
            if adapter.own_flags().contains(&name) {
                return Err(format!(
                    "{name} is set by `loom agent run --program {}` itself: what the program may do is said by --allow, and its prompt and its form are Loom's",
                    adapter.executable()
                ));
            }
        }
        if power.allow == Allow::All
            && adapter.refuses_all_as_root()
            && rustix::process::geteuid().is_root()
        {
            return Err(format!(
                "{} refuses to have all power as root; run the agent as another user, or leave --allow all out",
                adapter.executable()
            ));
        }
        if let Some(odd) = passed
            .iter()
            .find(|name| name.is_empty() || name.contains('='))
        {
            return Err(format!(
                "--env {odd:?} is no name of a variable; write its name alone, its value is what the agent has"
            ));
        }
        Ok(Self {
            withheld: environment::withheld(passed),
            adapter,
            power,
            extra,
            give_up_after,
            place: OnceLock::new(),
        })
    }

    /// The variables that neither the program nor a hook beside it finds.
    pub fn withheld(&self) -> &[String] {
        &self.withheld
    }

    /// Looks whether the program is there.
    ///
    /// # Errors
    /// A sentence: it is not.
    pub fn look(&self) -> Result<(), String> {
        let name = self.adapter.executable();
        probe::in_path(name).map(drop).ok_or_else(|| {
            format!("{name:?} is not found in PATH; install it and sign in, then start this again")
        })
    }

    /// The command of a run; the flags of the user may have placeholders.
    pub fn command(&self, run: &Run) -> Vec<String> {
        let launch = Launch {
            power: &self.power,
            session: &run.session,
            extra: &self.extra,
        };
        let mut command = vec![self.adapter.executable().to_owned()];
        command.extend(self.adapter.command_line(&launch));
        command
    }

    /// What the program reads from its standard input.
    pub fn stdin(&self, item: &WorkItem, run: &Run) -> Bytes {
        prompt::prompt(item, &self.power, &run.mark).into()
    }

    /// Who hears what the program says, that works in this directory.
    pub fn listener(&self, run: &Run, directory: Option<PathBuf>) -> Listener {
        let place = self.place.get_or_init(|| SessionPlace::of(self.adapter));
        let mut listener = Listener::new(self.adapter, place.clone());
        let directory = directory.or_else(|| std::env::current_dir().ok());
        listener.facts.directory = directory.map(|path| path.to_string_lossy().into_owned());
        if self.adapter.names_session() {
            listener.facts.session = Some(run.session.clone());
        }
        listener
    }

    /// The error of an attempt; for good where enough of them are spent by it.
    pub(crate) fn at_last(&self, job: &Job, error: JobError) -> JobError {
        let spent = job.item().attempts.saturating_add(1);
        if spent >= self.give_up_after {
            error.for_good()
        } else {
            error
        }
    }

    /// What would be run, for people: the command line, and the prompt with placeholders in it.
    pub fn preview(&self) -> String {
        let run = Run::new();
        let words = self.command(&run);
        let words: Vec<String> = words.iter().map(|word| shown_in_shell(word)).collect();
        let prompt = prompt::preview(&self.power, &run.mark);
        format!(
            "{}\n\n# and on its standard input:\n\n{prompt}",
            words.join(" ")
        )
    }
}

/// A word as it is written for a shell.
pub fn shown_in_shell(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:@%+{}".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    shlex::try_quote(word).map_or_else(|_| word.to_owned(), Cow::into_owned)
}

/// What a directory looks like, found out beside other work.
pub async fn fingerprint(directory: Option<PathBuf>) -> Option<u64> {
    let look = move || {
        let directory = directory.or_else(|| std::env::current_dir().ok())?;
        changes::fingerprint(&directory)
    };
    tokio::task::spawn_blocking(look).await.ok()?
}
