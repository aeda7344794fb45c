//! One item: its directory, its environment, the commands before and after, the program between.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::tz::TimeZone;
use loom_actors::clock::Clock;
use loom_client::{AgentStopper, Job, JobEnd, JobError};
use loom_protocol::work::Reason;

use super::args::Stdin;
use super::execute::{Bounds, Ended, Execution, Finished};
use super::exit_rule::{Exit, ExitRules, Verdict};
use super::limit::{LimitMet, Limits};
use super::report_dir::{Outcome, ReportDir};
use super::result::{error_of, failure, result_of};
use super::template::{self, Values};
use super::warden::Warden;
use super::{environment, probe};

/// How long an item is held back before it is returned because of a trouble of this agent's, so that
/// the trouble does not run through the whole queue.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);
/// How long `--after` may take when the item was stopped.
const AFTER_STOP: Duration = Duration::from_secs(20);
/// How long beyond `--grace` a job may take to stop, all in all.
pub const STOP_MARGIN: Duration = Duration::from_secs(30);

/// What is done with each item.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program and its arguments, with placeholders.
    pub command: Vec<String>,
    /// What it reads.
    pub stdin: Stdin,
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
    pub limits: Limits,
}

/// Runs items by a plan.
pub struct Runner {
    plan: Plan,
    handle: String,
    /// The variables that are the same for all items.
    environment: Vec<(String, String)>,
    stopper: OnceLock<AgentStopper>,
    program_gone: OnceLock<String>,
    completed_inside: AtomicU64,
    warden: Option<Warden>,
}

/// An item on its way, and what was made for it.
struct Work<'a> {
    job: &'a Job,
    workdir: Option<PathBuf>,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    reports: &'a ReportDir,
}

impl Work<'_> {
    /// A program of this item, with its environment and in its directory.
    fn command_of(&self, program: &[String]) -> Command {
        let mut command = Command::new(&program[0]);
        command.args(&program[1..]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        for withheld in environment::WITHHELD {
            command.env_remove(withheld);
        }
        if let Some(dir) = &self.workdir {
            command.current_dir(dir);
        }
        command
    }
}

impl Runner {
    /// A runner for an agent called `handle`; `environment` is given to every program.
    pub const fn new(plan: Plan, handle: String, environment: Vec<(String, String)>) -> Self {
        Self {
            plan,
            handle,
            environment,
            stopper: OnceLock::new(),
            program_gone: OnceLock::new(),
            completed_inside: AtomicU64::new(0),
            warden: None,
        }
    }

    /// By whom its programs are ended if this process is killed.
    #[must_use]
    pub fn guarded_by(mut self, warden: Option<Warden>) -> Self {
        self.warden = warden;
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
        let reports = ReportDir::create();
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

    async fn prepared<'a>(&self, job: &'a Job, reports: &'a ReportDir) -> Result<Work<'a>, JobEnd> {
        let mut values = Values {
            item: job.item(),
            attempt: job.attempt(),
            agent: job.agent_guid().to_string(),
            handle: &self.handle,
            workdir: String::new(),
        };
        let template = self.plan.workdir.as_ref();
        let workdir = template.map(|dir| PathBuf::from(template::fill_path(dir, &values)));
        if let Some(dir) = &workdir {
            if let Err(error) = tokio::fs::create_dir_all(dir).await {
                let trouble = format!("the directory {} can't be made: {error}", dir.display());
                return Err(trouble_of_ours(job, &trouble).await);
            }
            values.workdir = dir.to_string_lossy().into_owned();
        }
        let arguments = self.plan.command.iter();
        let command: Vec<String> = arguments.map(|a| template::fill(a, &values)).collect();
        if command.iter().any(|argument| argument.contains('\0')) {
            let message = "a NUL byte can't stand in an argument; pass such text by --stdin";
            return Err(JobEnd::Failed(failure(false, "nul-byte", message)));
        }
        let mut variables = self.environment.clone();
        variables.extend(environment::of_item(job, workdir.as_deref(), reports));
        Ok(Work {
            job,
            workdir,
            command,
            environment: variables,
            reports,
        })
    }

    async fn before(&self, work: &Work<'_>) -> Result<(), JobEnd> {
        let Some(hook) = &self.plan.before else {
            return Ok(());
        };
        let command = work.command_of(&shell(hook));
        let finished = match self.execution(work).run(command, None).await {
            Ok(finished) => finished,
            Err(error) => return Err(self.not_started(work, "sh", &error).await),
        };
        match finished.ended {
            Ended::Exited(exit) if self.plan.rules.verdict(exit) == Verdict::Complete => Ok(()),
            _ => Err(self.judge(&finished, "the --before command: ")),
        }
    }

    async fn program(&self, work: &Work<'_>) -> JobEnd {
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
            Ok(finished) => self.judge(&finished, ""),
            Err(error) => self.not_started(work, &work.command[0], &error).await,
        }
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

    const fn execution<'a>(&'a self, work: &Work<'a>) -> Execution<'a> {
        Execution {
            job: work.job,
            bounds: self.plan.bounds,
            reports: work.reports,
            stoppable: true,
            warden: self.warden.as_ref(),
        }
    }

    /// What the end of a program means for the item.
    fn judge(&self, finished: &Finished, who: &str) -> JobEnd {
        let verdict = match finished.ended {
            Ended::Exited(exit) => self.plan.rules.verdict(exit),
            _ => Verdict::Retry(None),
        };
        if let Some(met) = self.limit_met(finished, verdict) {
            tracing::warn!(
                said = met.said,
                until = met.until.map(tracing::field::display),
                "a usage limit is met"
            );
            return JobEnd::LimitReached(met.until);
        }
        match verdict {
            Verdict::Complete => JobEnd::Completed(result_of(&finished.stdout)),
            Verdict::Release => JobEnd::Released,
            Verdict::Retry(_) | Verdict::Permanent => {
                JobEnd::Failed(self.judge_failure(finished, who))
            }
        }
    }

    /// Whether the program has ended because of a usage limit.
    fn limit_met(&self, finished: &Finished, verdict: Verdict) -> Option<LimitMet> {
        let Ended::Exited(_) = finished.ended else {
            return None;
        };
        let (limits, zone) = (&self.plan.limits, TimeZone::system());
        let now = Clock::system().now();
        match verdict {
            Verdict::Complete => limits.of_success(&finished.stdout, now, &zone),
            Verdict::Release => None,
            Verdict::Retry(_) | Verdict::Permanent => {
                limits.of_failure(&finished.stdout, &finished.stderr, now, &zone)
            }
        }
    }

    fn judge_failure(&self, finished: &Finished, who: &str) -> JobError {
        let (code, what) = match finished.ended {
            Ended::Exited(exit @ Exit::Code(code)) => (format!("exit-{code}"), exit.to_string()),
            Ended::Exited(exit @ Exit::Signal(signal)) => {
                (format!("signal-{signal}"), exit.to_string())
            }
            Ended::Silent(limit) => {
                let limit = humantime::format_duration(limit);
                (
                    "silent".into(),
                    format!("wrote nothing for {limit} and was ended (--silent-timeout)"),
                )
            }
            Ended::TooLong(limit) => {
                let limit = humantime::format_duration(limit);
                (
                    "max-runtime".into(),
                    format!("ran for {limit} and was ended (--max-runtime)"),
                )
            }
            Ended::Cancelled => (
                "stopped".into(),
                "stopped because the job was cancelled".into(),
            ),
        };
        let message = error_of(&format!("{who}{what}"), &finished.stdout, &finished.stderr);
        let verdict = match finished.ended {
            Ended::Exited(exit) => self.plan.rules.verdict(exit),
            _ => Verdict::Retry(None),
        };
        let error = failure(verdict != Verdict::Permanent, code, message);
        match (verdict, finished.ended) {
            (Verdict::Retry(Some(pause)), _) => error.retry_after(pause),
            (_, Ended::Silent(_) | Ended::TooLong(_)) => error.reason(Reason::Timeout),
            _ => error,
        }
    }

    /// The program could not be started: the item's fault, the agent's, or the program is gone.
    async fn not_started(&self, work: &Work<'_>, program: &str, error: &io::Error) -> JobEnd {
        if error.kind() == io::ErrorKind::ArgumentListTooLong {
            let message =
                format!("{program}: its arguments are too long ({error}); pass them by --stdin");
            return JobEnd::Failed(failure(false, "arguments-too-long", message));
        }
        if let Err(problem) = probe::program(program) {
            tracing::error!(problem, "the program is gone; the agent ends");
            if let Some(stopper) = self.stopper.get() {
                stopper.shut_down("its program is gone", Duration::ZERO);
            }
            let _ = self.program_gone.set(problem);
            return JobEnd::Released;
        }
        trouble_of_ours(work.job, &format!("{program} can't be started: {error}")).await
    }
}

/// Gives an item back because of a trouble that is not its own, after a pause.
async fn trouble_of_ours(job: &Job, trouble: &str) -> JobEnd {
    tracing::error!(?job, trouble, "the item is given back");
    tokio::select! {
        () = tokio::time::sleep(TROUBLE_PAUSE) => {}
        () = job.cancelled().cancelled() => {}
    }
    JobEnd::Released
}

fn shell(hook: &str) -> Vec<String> {
    ["sh", "-c", hook].map(str::to_owned).into()
}
