//! One item: its directory, its environment, the commands before and after, the program between.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use loom_client::clock;
use loom_client::{AgentStopper, Job, JobEnd, JobError};
use parking_lot::Mutex;

use super::args::Stdin;
use super::execute::{Bounds, Ended, Execution};
use super::exit_rule::{Exit, ExitRules, ExitVerdict};
use super::host::{HOLD_BACK, Host, is_of_host};
use super::limit::LimitPatterns;
use super::program::run::{self, Launcher, Run};
use super::report_dir::{Outcome, ReportDir};
use super::rest::Rests;
use super::result::{ResultForm, failure};
use super::secrets::Secrets;
use super::template::{self, Values};
use super::workdir::Workdir;
use super::{directory_name, environment, probe};
use loom_process::warden::Warden;

/// The longest argument that the system takes, in bytes.
const LONGEST_ARGUMENT: usize = 128 * 1024 - 1;
/// How long `--after` may take when the item was stopped.
const AFTER_STOP: Duration = Duration::from_secs(20);
/// How long beyond `--grace` a job may take to stop, all in all.
pub const STOP_MARGIN: Duration = Duration::from_secs(30);

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

/// Runs items by a plan.
pub struct Runner {
    pub(super) plan: Plan,
    pub(super) rests: Mutex<Rests>,
    secrets: Secrets,
    handle: String,
    /// The variables that are the same for all items.
    environment: Vec<(String, String)>,
    stopper: OnceLock<AgentStopper>,
    program_gone: OnceLock<String>,
    completed_inside: AtomicU64,
    warden: Option<Warden>,
    host: Option<Arc<Host>>,
}

/// An item on its way, and what was made for it.
struct Work<'a> {
    job: &'a Job,
    workdir: Option<Workdir>,
    /// What belongs to this run of a known program.
    run: Run,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    withheld: &'a [&'static str],
    reports: &'a ReportDir,
}

impl Work<'_> {
    /// A program of this item, with its environment and in its directory.
    fn command_of(&self, program: &[String]) -> Command {
        let mut command = Command::new(&program[0]);
        command.args(&program[1..]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        for withheld in environment::WITHHELD.iter().chain(self.withheld) {
            command.env_remove(withheld);
        }
        if let Some(dir) = &self.workdir {
            command.current_dir(&dir.path);
        }
        command
    }
}

impl Runner {
    /// A runner for an agent called `handle`; `environment` is given to every program.
    pub fn new(plan: Plan, handle: String, environment: Vec<(String, String)>) -> Self {
        Self {
            plan,
            rests: Mutex::default(),
            secrets: Secrets::default(),
            handle,
            environment,
            stopper: OnceLock::new(),
            program_gone: OnceLock::new(),
            completed_inside: AtomicU64::new(0),
            warden: None,
            host: None,
        }
    }

    /// By whom its programs are ended if this process is killed.
    #[must_use]
    pub fn guarded_by(mut self, warden: Option<Warden>) -> Self {
        self.warden = warden;
        self
    }

    /// What it runs on. Without, every trouble is taken for the host's, and nothing is known of its end.
    #[must_use]
    pub fn on_host(mut self, host: Arc<Host>) -> Self {
        self.host = Some(host);
        self
    }

    /// What is taken out of all that its programs say.
    #[must_use]
    pub fn hiding(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    /// By what the agent is ended if its program disappears.
    pub fn set_stopper(&self, stopper: AgentStopper) {
        let _ = self.stopper.set(stopper);
    }

    /// Why the agent can't go on, if it can't.
    pub fn program_gone(&self) -> Option<&str> {
        self.program_gone.get().map(String::as_str)
    }

    /// How many items were completed by the programs themselves.
    pub fn completed_inside(&self) -> u64 {
        self.completed_inside.load(Ordering::Relaxed)
    }

    /// Does one item.
    pub async fn work(&self, job: Job) -> JobEnd {
        let reports = match ReportDir::create(&job.item().description) {
            Ok(reports) => reports,
            Err(error) if self.host.as_ref().is_some_and(|host| host.needs_temp()) => {
                let dir = std::env::temp_dir();
                let why = format!("no file can be made in {} (TMPDIR): {error}", dir.display());
                return self.give_back(&job, &why);
            }
            Err(error) => {
                tracing::debug!(%error, "no directory for reports");
                ReportDir::none()
            }
        };
        let end = match self.prepared(&job, &reports).await {
            Ok(work) => self.run(&work).await,
            Err(end) => end,
        };
        let Some(outcome) = reports.settled() else {
            return end;
        };
        job.settle();
        if outcome == Outcome::Completed {
            self.completed_inside.fetch_add(1, Ordering::Relaxed);
        }
        JobEnd::Settled
    }

    async fn run(&self, work: &Work<'_>) -> JobEnd {
        let end = match self.before(work).await {
            Ok(()) => self.program(work).await,
            Err(end) => end,
        };
        self.after(work, end).await
    }

    async fn prepared<'a>(
        &'a self,
        job: &'a Job,
        reports: &'a ReportDir,
    ) -> Result<Work<'a>, JobEnd> {
        let description_file = reports.description();
        let text_of = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let mut values = Values {
            item: job.item(),
            attempt: job.attempt(),
            agent: job.agent_guid().to_string(),
            handle: &self.handle,
            workdir: String::new(),
            description_file: description_file.as_deref().map(text_of).unwrap_or_default(),
        };
        let workdir = match &self.plan.workdir {
            Some(template) => {
                let path = PathBuf::from(directory_name::directory(template, &values));
                Some(self.workdir(job, path).await?)
            }
            None => None,
        };
        if let Some(dir) = &workdir {
            values.workdir = text_of(&dir.path);
        }
        let run = Run::new();
        let known = self.plan.known.as_ref().map(|known| known.command(&run));
        let templates = known.as_ref().unwrap_or(&self.plan.command);
        let arguments = templates.iter();
        let command: Vec<String> = arguments.map(|a| template::fill(a, &values)).collect();
        check_arguments(templates, &command).map_err(JobEnd::Failed)?;
        let withheld = self.plan.known.as_ref().map_or(&[][..], Launcher::withheld);
        reports.tell(&self.environment, withheld);
        let mut variables = self.environment.clone();
        let path = workdir.as_ref().map(|dir| dir.path.as_path());
        let files = [path, reports.path(), description_file.as_deref()];
        variables.extend(environment::of_item(job, files));
        Ok(Work {
            job,
            workdir,
            run,
            command,
            environment: variables,
            withheld,
            reports,
        })
    }

    /// Makes the directory of an item, and waits until no other item runs there.
    async fn workdir(&self, job: &Job, path: PathBuf) -> Result<Workdir, JobEnd> {
        let waits = || {
            let dir = path.display();
            tracing::warn!(?job, %dir, "another item runs in the directory; this one waits");
            job.message(format!("waits until no other item runs in {dir}"));
        };
        let taken = tokio::select! {
            taken = Workdir::take(&path, waits) => taken,
            () = job.cancelled().cancelled() => return Err(JobEnd::Released),
        };
        match taken {
            Ok(workdir) => Ok(workdir),
            Err(error) => {
                let why = format!("the directory {} can't be made: {error}", path.display());
                let is_of_host = |host: &Arc<Host>| host.is_to_blame(&error);
                if self.host.as_ref().is_none_or(is_of_host) {
                    return Err(self.give_back(job, &why));
                }
                Err(JobEnd::Failed(failure(true, "workdir", why)))
            }
        }
    }

    async fn before(&self, work: &Work<'_>) -> Result<(), JobEnd> {
        let Some(hook) = &self.plan.before else {
            return Ok(());
        };
        let command = work.command_of(&shell(hook));
        let finished = match self.execution(work).run(command, None).await {
            Ok(finished) => finished,
            Err(error) => return Err(self.not_started(work, "sh", &error)),
        };
        match finished.ended {
            Ended::Exited(exit) if self.plan.rules.verdict(exit) == ExitVerdict::Complete => Ok(()),
            _ => Err(self.judge(&finished, "the --before command: ")),
        }
    }

    async fn program(&self, work: &Work<'_>) -> JobEnd {
        if let Some(launcher) = &self.plan.known {
            return self.known_program(work, launcher).await;
        }
        let stdin = match self.plan.stdin {
            Stdin::None => None,
            Stdin::Description => Some(work.job.item().description.clone().into_bytes()),
            Stdin::Json => serde_json::to_vec(work.job.item()).ok().map(|mut line| {
                line.push(b'\n');
                line
            }),
        };
        let command = work.command_of(&work.command);
        let stdin = stdin.map(Bytes::from);
        match self.execution(work).run(command, stdin).await {
            Ok(finished) => {
                if let Some(host) = &self.host {
                    host.works();
                }
                self.judge(&finished, "")
            }
            Err(error) => self.not_started(work, &work.command[0], &error),
        }
    }

    async fn known_program(&self, work: &Work<'_>, launcher: &Launcher) -> JobEnd {
        let directory = || work.workdir.as_ref().map(|dir| dir.path.clone());
        let before = run::fingerprint(directory()).await;
        let stdin = launcher.stdin(work.job.item(), &work.run);
        let mut listener = launcher.listener(&work.run, directory());
        listener.tell_session(work.job);
        let command = work.command_of(&work.command);
        let running = self.execution(work);
        let running = running.run_heard(command, Some(stdin), Some(listener));
        let finished = match running.await {
            Ok(finished) => finished,
            Err(error) => return self.not_started(work, &work.command[0], &error),
        };
        if let Some(host) = &self.host {
            host.works();
        }
        let is_denied = finished
            .stdout
            .facts()
            .is_some_and(|facts| !facts.denied.is_empty());
        let has_changed = match before {
            Some(before) if is_denied => {
                let after = run::fingerprint(directory()).await;
                after.map(|after| after != before)
            }
            _ => None,
        };
        self.judge_known(launcher, work.job, &finished, has_changed)
    }

    /// Runs `--after`, whatever came of the item. A completion counts only if this succeeds too.
    async fn after(&self, work: &Work<'_>, end: JobEnd) -> JobEnd {
        let Some(hook) = &self.plan.after else {
            return end;
        };
        let stopped = work.job.cancelled().is_cancelled();
        let outcome = match &end {
            _ if stopped => "stopped",
            JobEnd::Completed(_) => "completed",
            _ => "failed",
        };
        let mut command = work.command_of(&shell(hook));
        command.env("LOOM_WORK_OUTCOME", outcome);
        let mut execution = self.execution(work);
        execution.stoppable = false;
        if stopped {
            let limit = execution.bounds.max_runtime.unwrap_or(AFTER_STOP);
            execution.bounds.max_runtime = Some(limit.min(AFTER_STOP));
        }
        let failed = match execution.run(command, None).await {
            Ok(finished) if finished.ended == Ended::Exited(Exit::Code(0)) => return end,
            Ok(finished) => self.judge_failure(&finished, "the --after command: "),
            Err(error) => failure(true, "after", format!("the --after command: {error}")),
        };
        tracing::warn!(job = ?work.job, error = failed.message(), "--after failed");
        match end {
            JobEnd::Completed(_) => JobEnd::Failed(failed),
            other => other,
        }
    }

    const fn execution<'a>(&'a self, work: &'a Work<'a>) -> Execution<'a> {
        Execution {
            job: work.job,
            bounds: self.plan.bounds,
            reports: work.reports,
            workdir: work.workdir.as_ref(),
            secrets: &self.secrets,
            stoppable: true,
            warden: self.warden.as_ref(),
        }
    }

    /// The program could not be started: the item's fault, the host's, or the program is gone.
    fn not_started(&self, work: &Work<'_>, program: &str, error: &io::Error) -> JobEnd {
        if error.kind() == io::ErrorKind::ArgumentListTooLong {
            let message = format!(
                "{program}: its arguments and variables are too long together ({error}); pass the text by --stdin, or name {{descriptionFile}} instead of {{description}}"
            );
            return JobEnd::Failed(failure(false, "arguments-too-long", message));
        }
        let name = self
            .plan
            .command
            .first()
            .filter(|_| self.plan.known.is_none());
        let is_named_by_item = program == work.command[0]
            && name.is_some_and(|name| template::has_placeholder(name))
            && !is_of_host(error);
        if is_named_by_item {
            let problem = probe::program(program).err();
            let message = problem.unwrap_or_else(|| format!("{program} can't be started: {error}"));
            return JobEnd::Failed(failure(true, "no-program", message));
        }
        let known = self.plan.known.as_ref();
        let known = known.filter(|_| program == work.command[0]);
        let there = known.map_or_else(|| probe::program(program).map(drop), Launcher::look);
        if let Err(problem) = there {
            tracing::error!(problem, "the program is gone; the agent ends");
            if let Some(stopper) = self.stopper.get() {
                stopper.shut_down("its program is gone", Duration::ZERO);
            }
            let _ = self.program_gone.set(problem);
            return JobEnd::Released;
        }
        self.give_back(work.job, &format!("{program} can't be started: {error}"))
    }

    /// Gives an item back because of a trouble that is not its own; nothing more is taken until that is over.
    fn give_back(&self, job: &Job, why: &str) -> JobEnd {
        let why = self.secrets.hide(why);
        tracing::error!(?job, why, "the item is given back");
        if let Some(host) = &self.host {
            host.trouble(&why, self.stopper.get());
        }
        JobEnd::GivenBack {
            because: why,
            not_before: Some(clock::now().after(HOLD_BACK)),
        }
    }
}

/// Whether the system can start a program with these arguments, made of these templates.
fn check_arguments(templates: &[String], arguments: &[String]) -> Result<(), JobError> {
    for (template, argument) in templates.iter().zip(arguments) {
        if argument.contains('\0') {
            let message = "a NUL byte can't stand in an argument; pass such text by --stdin";
            return Err(failure(false, "nul-byte", message));
        }
        if argument.len() > LONGEST_ARGUMENT {
            let message = format!(
                "the argument {template:?} would have {} bytes, and the system takes {LONGEST_ARGUMENT}; pass it by --stdin json, or the description by {{descriptionFile}}",
                argument.len()
            );
            return Err(failure(false, "arguments-too-long", message));
        }
    }
    Ok(())
}

fn shell(hook: &str) -> Vec<String> {
    ["sh", "-c", hook].map(str::to_owned).into()
}
