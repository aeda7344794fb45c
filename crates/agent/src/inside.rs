//! `loom work progress`, `complete` and `fail`: for the program that `loom agent run` runs.
//!
//! They know from the environment who they speak for. What they report ends the attempt; the agent
//! around the program then reports nothing more.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use loom_client::{Client, ClientError, ClientOptions, Credentials, ErrorKind};
use loom_protocol::text::{without_end, without_middle};
use loom_protocol::work::{
    CompleteRequest, FailRequest, Lease, ProgressRequest, ReportedError, ReportedResult, WorkItem,
    limits,
};
use loom_protocol::{AgentGuid, Body, ProjectId, WorkId};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::report_dir::{self, Outcome};
use super::secrets::{self, Secrets};
use super::{UNREACHABLE, USAGE, WORK_FAILED};

/// Tells how far the work is. For a program that `loom agent run` runs.
#[derive(Debug, Clone, Args)]
pub struct ProgressArgs {
    /// How far it is, 0 to 100
    #[arg(value_name = "PERCENT", allow_negative_numbers = true)]
    pub percent: f64,
    /// What it is at
    #[arg(value_name = "MESSAGE")]
    pub message: Vec<OsString>,
}

/// Reports that the work is done. For a program that `loom agent run` runs.
#[derive(Debug, Clone, Args)]
pub struct CompleteArgs {
    /// What it came to, in a sentence
    #[arg(long, value_name = "TEXT")]
    pub summary: Option<OsString>,
    /// What there is to give: JSON, or any text; `-` reads it from the standard input
    #[arg(long, value_name = "JSON")]
    pub output: Option<OsString>,
    /// The same, from a file
    #[arg(long, value_name = "FILE", conflicts_with = "output")]
    pub output_file: Option<PathBuf>,
    /// A thing that was made (repeatable): JSON, or any text, like a path
    #[arg(long = "artifact", value_name = "JSON")]
    pub artifacts: Vec<OsString>,
}

/// Reports that the work failed. For a program that `loom agent run` runs.
#[derive(Debug, Clone, Args)]
pub struct FailArgs {
    /// What went wrong
    #[arg(value_name = "MESSAGE", required = true)]
    pub message: Vec<OsString>,
    /// No other attempt will help
    #[arg(long)]
    pub permanent: bool,
    /// The program's own code for it
    #[arg(long, value_name = "CODE")]
    pub code: Option<String>,
    /// No other attempt before this much time has passed
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "permanent")]
    pub retry_after: Option<Duration>,
}

/// For whom the program speaks.
#[derive(Debug)]
struct Inside {
    id: WorkId,
    attempt: u32,
    guid: AgentGuid,
    instance_id: Option<String>,
    options: ClientOptions,
    secrets: Secrets,
}

/// Sends `work.progress`.
///
/// # Errors
/// Only what nobody can foresee; the rest is told on standard error and by the exit code.
pub async fn progress(args: ProgressArgs) -> anyhow::Result<ExitCode> {
    Ok(exit(report_progress(args).await))
}

/// Sends `work.complete`.
///
/// # Errors
/// As [`progress`].
pub async fn complete(args: CompleteArgs) -> anyhow::Result<ExitCode> {
    Ok(exit(report_completion(args).await))
}

/// Sends `work.fail`.
///
/// # Errors
/// As [`progress`].
pub async fn fail(args: FailArgs) -> anyhow::Result<ExitCode> {
    Ok(exit(report_failure(args).await))
}

async fn report_progress(args: ProgressArgs) -> Result<(), Problem> {
    if !(0.0..=100.0).contains(&args.percent) {
        let problem = format!(
            "{} is no percentage; write a number from 0 to 100",
            args.percent
        );
        return Err(Problem::Usage(problem));
    }
    let inside = Inside::from_environment()?;
    let request = ProgressRequest {
        id: inside.id,
        guid: inside.guid,
        instance_id: inside.instance_id.clone(),
        attempt: inside.attempt,
        progress: Some(args.percent),
        message: Some(inside.sentence(&args.message))
            .filter(|message| !message.is_empty())
            .map(|message| without_end(&message, limits::ERROR)),
        usage: None,
        session: None,
    };
    inside.send::<Lease>("work.progress", &request).await?;
    report_dir::leave_progress();
    Ok(())
}

async fn report_completion(args: CompleteArgs) -> Result<(), Problem> {
    let inside = Inside::from_environment()?;
    let artifacts = args.artifacts.iter();
    let artifacts: Vec<_> = artifacts
        .map(|text| json_or_text(&inside.text(text.as_encoded_bytes())))
        .collect();
    let summary = args.summary.as_ref();
    let output = output_of(&args)?.map(|output| inside.text(&output));
    let result = ReportedResult {
        summary: summary.map(|summary| inside.text(summary.as_encoded_bytes())),
        output: output.as_deref().map(json_or_text_body).transpose()?,
        artifacts: if artifacts.is_empty() {
            None
        } else {
            Some(body(&artifacts)?)
        },
        completed_at: None,
    };
    let request = CompleteRequest {
        guid: inside.guid,
        instance_id: inside.instance_id.clone(),
        id: Some(inside.id),
        attempt: Some(inside.attempt),
        result: Some(result),
        usage: None,
        session: None,
        evidence: None,
        items: None,
        then_claim: None,
    };
    inside.send::<IgnoredAny>("work.complete", &request).await?;
    report_dir::leave_settled(Outcome::Completed);
    Ok(())
}

async fn report_failure(args: FailArgs) -> Result<(), Problem> {
    let inside = Inside::from_environment()?;
    let millis = |pause: Duration| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
    let request = FailRequest {
        id: inside.id,
        guid: inside.guid,
        instance_id: inside.instance_id.clone(),
        attempt: inside.attempt,
        error: ReportedError {
            message: without_middle(&inside.sentence(&args.message), limits::ERROR),
            code: args.code,
            recoverable: Some(!args.permanent),
            occurred_at: None,
        },
        recoverable: Some(!args.permanent),
        reason: None,
        retry_after_ms: args.retry_after.map(millis),
        spends_attempt: None,
        usage: None,
        session: None,
        evidence: None,
    };
    inside.send::<WorkItem>("work.fail", &request).await?;
    report_dir::leave_settled(Outcome::Failed);
    Ok(())
}

/// The output that was given.
fn output_of(args: &CompleteArgs) -> Result<Option<Vec<u8>>, Problem> {
    let unread = |what: String| move |e| Problem::Usage(format!("{what} can't be read: {e}"));
    match (&args.output, &args.output_file) {
        (None, None) => Ok(None),
        (Some(given), _) if given == "-" => {
            let mut text = Vec::new();
            std::io::stdin()
                .read_to_end(&mut text)
                .map_err(unread("the standard input".into()))?;
            Ok(Some(text))
        }
        (Some(given), _) => Ok(Some(given.as_encoded_bytes().to_vec())),
        (None, Some(file)) => std::fs::read(file)
            .map_err(unread(file.display().to_string()))
            .map(Some),
    }
}

/// JSON as it is, and any other text (what nests too deep is one) as the text that it is.
fn json_or_text_body(text: &str) -> Result<Body, Problem> {
    match Body::from_json(text.to_owned().into_bytes()) {
        Ok(json) => Ok(json),
        Err(_) => body(&text),
    }
}

fn json_or_text(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

fn body(value: &impl Serialize) -> Result<Body, Problem> {
    Body::of(value).map_err(|e| Problem::Usage(format!("this can't be written as JSON: {e}")))
}

impl Inside {
    fn from_environment() -> Result<Self, Problem> {
        let project: ProjectId = variable("LOOM_PROJECT_ID")?;
        let url: String = variable("LOOM_NATS_URL")?;
        let mut options = ClientOptions::new(url, project);
        options.name = "loom work".into();
        let told = report_dir::variable;
        options.credentials = match (told("NATS_CREDS"), told("NATS_USER"), told("NATS_PASS")) {
            (Some(file), _, _) => Credentials::File(file.into()),
            (None, Some(user), Some(password)) => Credentials::UserPassword(user, password),
            _ => Credentials::FromUrl,
        };
        Ok(Self {
            id: variable("LOOM_WORK_ITEM_ID")?,
            attempt: variable("LOOM_WORK_ATTEMPT")?,
            guid: variable("LOOM_AGENT_GUID")?,
            instance_id: told("LOOM_AGENT_INSTANCE_ID"),
            secrets: secrets::of(&options),
            options,
        })
    }

    /// A text as it may be told: without secrets, and with odd bytes replaced.
    fn text(&self, bytes: &[u8]) -> String {
        self.secrets.hide(&String::from_utf8_lossy(bytes))
    }

    fn sentence(&self, words: &[OsString]) -> String {
        let words: Vec<_> = words.iter().map(|word| word.as_encoded_bytes()).collect();
        self.text(&words.join(&b' '))
    }

    async fn send<R: DeserializeOwned>(
        self,
        action: &str,
        request: &impl Serialize,
    ) -> Result<R, Problem> {
        let client = Client::connect(self.options).await?;
        Ok(client.request(action, request).await?)
    }
}

fn variable<T: std::str::FromStr>(name: &str) -> Result<T, Problem>
where
    T::Err: std::fmt::Display,
{
    let value = report_dir::variable(name).ok_or_else(|| {
        Problem::Usage(format!(
            "{name} is not set; this is for programs that `loom agent run` has started"
        ))
    })?;
    value
        .parse()
        .map_err(|e| Problem::Usage(format!("{name} is {value:?}: {e}")))
}

/// Why nothing was reported.
#[derive(Debug)]
enum Problem {
    /// The caller's mistake.
    Usage(String),
    /// It was refused, or could not be sent.
    Client(ClientError),
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

fn exit(done: Result<(), Problem>) -> ExitCode {
    let (code, problem) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Problem::Usage(problem)) => (USAGE, problem),
        Err(Problem::Client(error)) if error.is_lease_gone() => (
            WORK_FAILED,
            format!("{error}; stop working on it, the result is not wanted any more"),
        ),
        Err(Problem::Client(error)) if matches!(error.kind(), ErrorKind::Refused(_)) => {
            (WORK_FAILED, error.to_string())
        }
        Err(Problem::Client(error))
            if matches!(
                error.kind(),
                ErrorKind::TooLarge | ErrorKind::Codec | ErrorKind::Options
            ) =>
        {
            (USAGE, error.to_string())
        }
        Err(Problem::Client(error)) => (UNREACHABLE, error.to_string()),
    };
    super::agent_events::say(&format!("error: {problem}"));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    fn fail(line: &str) -> Result<FailArgs, clap::Error> {
        let command = FailArgs::augment_args(clap::Command::new("fail"));
        let matches = command.try_get_matches_from(line.split_whitespace())?;
        FailArgs::from_arg_matches(&matches)
    }

    #[test]
    fn an_option_after_the_message_is_an_option() {
        let args = fail("fail no disk --permanent --code ENOSPC").unwrap();
        assert_eq!(args.message, ["no", "disk"]);
        assert!(args.permanent);
        assert_eq!(args.code.as_deref(), Some("ENOSPC"));
        assert!(fail("fail no disk --permanently").is_err());
        let args = fail("fail --permanent -- --no disk").unwrap();
        assert_eq!(args.message, ["--no", "disk"]);
    }
}
