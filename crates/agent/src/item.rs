//! One item: its directory, its environment, the commands before and after, the program between.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use loom_client::clock;
use loom_client::{Job, JobEnd, JobError};

use super::args::Stdin;
use super::execute::{Ended, Execution};
use super::exit_rule::{Exit, ExitVerdict};
use super::host::{HOLD_BACK, Host, is_of_host};
use super::private_dir::PrivateDir;
use super::program::run::{self, Launcher, Run};
use super::result::failure;
use super::runner::Runner;
use super::socket;
use super::socket::broker::Broker;
use super::socket::server::Server;
use super::template::{self, Values};
use super::workdir::Workdir;
use super::{directory_name, environment, probe};

/// The longest argument that the system takes, in bytes.
const LONGEST_ARGUMENT: usize = 128 * 1024 - 1;
/// How long `--after` may take when the item was stopped.
const AFTER_STOP: Duration = Duration::from_secs(20);
/// How long beyond `--grace` a job may take to stop, all in all.
pub const STOP_MARGIN: Duration = Duration::from_secs(30);

/// An item on its way, and what was made for it.
struct Work<'a> {
    job: &'a Job,
    workdir: Option<Workdir>,
    /// What belongs to this run of a known program.
    run: Run,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    withheld: &'a [String],
    broker: &'a Broker,
}

impl Work<'_> {
    /// A program of this item, with its environment and in its directory.
    fn command_of(&self, program: &[String]) -> Command {
        let mut command = Command::new(&program[0]);
        command.args(&program[1..]);
        // The agent may be the program of another agent's attempt, and is not to lend its socket.
        command.env_remove(socket::VARIABLE);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let withheld = self.withheld.iter().map(String::as_str);
        for withheld in environment::WITHHELD.into_iter().chain(withheld) {
            command.env_remove(withheld);
        }
        if let Some(dir) = &self.workdir {
            command.current_dir(&dir.path);
        }
        command
    }
}

impl Runner {
    /// Does one item.
    pub async fn work(&self, job: Job) -> JobEnd {
        let _slot = self.slots.take();
        let broker = Arc::new(Broker::new(&job, self.terms()));
        let files = PrivateDir::with_description(&job.item().description);
        let server = Server::open(broker.clone());
        let error = files.as_ref().err().or_else(|| server.as_ref().err());
        if let Some(error) = error {
            if self.host.as_ref().is_some_and(|host| host.needs_temp()) {
                let dir = std::env::temp_dir();
                let why = format!("no file can be made in {} (TMPDIR): {error}", dir.display());
                return self.give_back(&job, &why);
            }
            tracing::debug!(%error, "no file of the description, or no socket");
        }
        let (files, server) = (files.ok(), server.ok());
        match self
            .prepared(&job, &broker, files.as_ref(), server.as_ref())
            .await
        {
            Ok(work) => self.run(&work).await,
            Err(end) => end,
        }
    }

    async fn run(&self, work: &Work<'_>) -> JobEnd {
        let end = match self.before(work).await {
            Ok(()) => self.program(work).await,
            Err(end) => end,
        };
        let end = self.decided(work, end, self.plan.after.is_none());
        self.after(work, end).await
    }

    /// The end as the program has told it by itself, where it has.
    fn decided(&self, work: &Work<'_>, end: JobEnd, is_last: bool) -> JobEnd {
        let (end, is_told) = work.broker.over(end, is_last);
        match (end, &self.plan.known) {
            (JobEnd::Failed(error), Some(known)) if is_told => {
                JobEnd::Failed(known.at_last(work.job, error))
            }
            (end, _) => end,
        }
    }

    async fn prepared<'a>(
        &'a self,
        job: &'a Job,
        broker: &'a Broker,
        files: Option<&PrivateDir>,
        server: Option<&Server>,
    ) -> Result<Work<'a>, JobEnd> {
        let description_file = files.map(PrivateDir::description);
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
        let mut variables = self.environment.clone();
        let path = workdir.as_ref().map(|dir| dir.path.as_path());
        let socket = server.map(Server::path);
        let files = [path, socket, description_file.as_deref()];
        variables.extend(environment::of_item(job, files));
        Ok(Work {
            job,
            workdir,
            run,
            command,
            environment: variables,
            withheld,
            broker,
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
            Ok(finished) if finished.ended == Ended::Exited(Exit::Code(0)) => {
                // It may have told an end as well.
                return self.decided(work, end, true);
            }
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
            broker: work.broker,
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
