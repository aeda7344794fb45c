//! `loom work progress`, `complete`, `fail`, `show` and `submit`: for the program that `loom agent run` runs.
//!
//! They ask the agent around the program by the [`socket`](super::socket) of its attempt. A completion and a failure
//! are reported by the agent once the program has exited.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use loom_protocol::work::{SubmitAnswer, WorkItem};
use loom_protocol::{Body, ErrorCode, WireError, WorkId};
use serde::Serialize;

use super::socket::client::{Problem, ask, here};
use super::socket::message::{Await, Complete, Fail, Progress, Submit, Verb};
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

/// Submits work in the course of the item. For a program that `loom agent run --may-submit` runs.
#[derive(Debug, Clone, Args)]
pub struct SubmitArgs {
    /// What is to be done; `-` reads it from the standard input
    #[arg(value_name = "DESCRIPTION")]
    pub description: OsString,
    /// What an agent must be able to do: one of those that the agent allows
    #[arg(long, short, value_name = "NAME")]
    pub capability: String,
    /// 1 to 10, higher first; 5 where absent
    #[arg(long, short, value_name = "NUMBER")]
    pub priority: Option<u8>,
    /// A mark of its own (repeatable)
    #[arg(long = "label", short, value_name = "NAME=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// What the agent needs to know
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub context: Option<Body>,
    /// Wait until it has ended; exit 1 if it failed or was cancelled. Refused where the agent has no other free slot
    #[arg(long, short)]
    pub wait: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("write a label as name=value".into()),
    }
}

fn json(text: &str) -> Result<Body, String> {
    Body::from_json(text.to_owned().into_bytes())
        .map_err(|error| format!("this is no JSON: {error}"))
}

/// Tells of progress.
///
/// # Errors
/// Only what nobody can foresee; the rest is told on standard error and by the exit code.
pub async fn progress(args: ProgressArgs) -> anyhow::Result<ExitCode> {
    Ok(exit(tell_progress(args).await))
}

/// Tells that the work is done.
///
/// # Errors
/// As [`progress`].
pub async fn complete(args: CompleteArgs) -> anyhow::Result<ExitCode> {
    Ok(exit(tell_completion(args).await))
}

/// Tells that the work failed.
///
/// # Errors
/// As [`progress`].
pub async fn fail(args: FailArgs) -> anyhow::Result<ExitCode> {
    let request = Fail {
        message: sentence(&args.message),
        code: args.code,
        permanent: args.permanent,
        retry_after_ms: args.retry_after.map(millis),
    };
    Ok(exit(tell(Verb::Fail, &request).await))
}

/// The item that this program works on.
///
/// # Errors
/// It is not known, or nobody answers.
pub async fn show() -> Result<WorkItem, Problem> {
    ask(&here()?, Verb::Show, &serde_json::json!({})).await
}

/// Submits work in the course of the item.
///
/// # Errors
/// It is refused, or nobody answers.
pub async fn submit(args: &SubmitArgs) -> Result<SubmitAnswer, Problem> {
    let description = match args.description.as_encoded_bytes() {
        b"-" => read_stdin()?,
        given => given.to_vec(),
    };
    let request = Submit {
        description: text(&description),
        capability: args.capability.clone(),
        priority: args.priority,
        labels: args.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        context_data: args.context.clone(),
        wait: args.wait,
    };
    ask(&here()?, Verb::Submit, &request).await
}

/// Waits until an item that was submitted in the course of this one has ended.
///
/// # Errors
/// As [`submit`].
pub async fn wait(id: WorkId) -> Result<WorkItem, Problem> {
    let socket = here()?;
    loop {
        match ask(&socket, Verb::Await, &Await { id }).await {
            Ok(Some(item)) => return Ok(item),
            // Each request waits a while for the end.
            Ok(None) => {}
            Err(Problem::Refused(refusal)) if refusal.code.is_transient() => {
                let pause = Duration::from_millis(refusal.retry_after_ms.unwrap_or(1_000));
                tokio::time::sleep(pause.min(Duration::from_secs(10))).await;
            }
            Err(problem) => return Err(problem),
        }
    }
}

async fn tell_progress(args: ProgressArgs) -> Result<(), Problem> {
    if !(0.0..=100.0).contains(&args.percent) {
        let problem = format!(
            "{} is no percentage; write a number from 0 to 100",
            args.percent
        );
        return Err(Problem::Usage(problem));
    }
    let request = Progress {
        progress: Some(args.percent),
        message: Some(sentence(&args.message)).filter(|message| !message.is_empty()),
    };
    tell(Verb::Progress, &request).await
}

async fn tell_completion(args: CompleteArgs) -> Result<(), Problem> {
    // Before anything is read that nobody would hear.
    here()?;
    let artifacts = args.artifacts.iter();
    let artifacts: Vec<_> = artifacts
        .map(|given| json_or_text(&text(given.as_encoded_bytes())))
        .collect();
    let output = output_of(&args)?.map(|output| text(&output));
    let request = Complete {
        summary: args
            .summary
            .as_ref()
            .map(|summary| text(summary.as_encoded_bytes())),
        output: output.as_deref().map(json_or_text_body).transpose()?,
        artifacts: if artifacts.is_empty() {
            None
        } else {
            Some(body(&artifacts)?)
        },
    };
    tell(Verb::Complete, &request).await
}

async fn tell(verb: Verb, request: &impl Serialize) -> Result<(), Problem> {
    ask(&here()?, verb, request).await
}

fn read_stdin() -> Result<Vec<u8>, Problem> {
    let mut text = Vec::new();
    std::io::stdin()
        .read_to_end(&mut text)
        .map_err(unread("the standard input".into()))?;
    Ok(text)
}

fn unread(what: String) -> impl FnOnce(std::io::Error) -> Problem {
    move |error| Problem::Usage(format!("{what} can't be read: {error}"))
}

/// The output that was given.
fn output_of(args: &CompleteArgs) -> Result<Option<Vec<u8>>, Problem> {
    match (&args.output, &args.output_file) {
        (None, None) => Ok(None),
        (Some(given), _) if given == "-" => read_stdin().map(Some),
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

/// A text with odd bytes replaced. Secrets are taken out by the agent, which knows them.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn sentence(words: &[OsString]) -> String {
    let words: Vec<_> = words.iter().map(|word| word.as_encoded_bytes()).collect();
    text(&words.join(&b' '))
}

fn millis(pause: Duration) -> u64 {
    u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the attempt is not (or no longer) this program's.
fn is_lease_gone(refusal: &WireError) -> bool {
    let details = refusal.details.as_ref();
    match refusal.code {
        ErrorCode::StaleLease | ErrorCode::TerminalState | ErrorCode::NotFound => true,
        ErrorCode::NotRegistered => details.is_some_and(|details| details["replaced"] == true),
        _ => false,
    }
}

fn exit(done: Result<(), Problem>) -> ExitCode {
    let (code, problem) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Problem::Usage(problem)) => (USAGE, problem),
        Err(Problem::Gone(problem)) => (UNREACHABLE, problem),
        Err(Problem::Refused(refusal)) if is_lease_gone(&refusal) => (
            WORK_FAILED,
            format!("{refusal}; stop working on it, the result is not wanted any more"),
        ),
        Err(Problem::Refused(refusal)) => {
            let code = match refusal.code {
                code if code.is_transient() => UNREACHABLE,
                ErrorCode::TooLarge | ErrorCode::InvalidRequest => USAGE,
                _ => WORK_FAILED,
            };
            (code, refusal.to_string())
        }
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
