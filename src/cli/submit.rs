//! `loom submit`: one item from flags, or many from a file, and the wait for what they come to.
//!
//! | module | what it does |
//! |---|---|
//! | `description` | what is to be done, from the command line, a file or a pipe |
//! | `file` | checks a file, sends it in arrays, waits |
//! | `ids` | ids that follow from the file |
//! | `send` | sends again what got no answer |
//! | `answers` | what is printed, counted and put aside |

mod answers;
mod description;
mod file;
mod ids;
mod send;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use loom_protocol::work::{SubmitAnswer, WorkItem, WorkStatus};
use loom_protocol::{Body, Timestamp, WorkId};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use super::exit::{CliError, CliResult};
use super::output::note;
use super::show::show_item;
use super::tasks_file::{Fields, merged};
use super::times::to_come;
use super::watch;
use crate::api_client::ApiClient;
use send::patiently;

/// Submit work: one item, or many from a file of JSON lines.
#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// What is to be done; `-`, or nothing where something is piped in: standard input.
    #[arg(conflicts_with = "file")]
    description: Option<String>,
    /// Read what is to be done from a file; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "description"])]
    description_file: Option<PathBuf>,
    /// Read items from a file, one JSON object per line; `-` is stdin. Flags fill in what a line lacks.
    /// All lines are checked before the first is sent; ids are printed as they are answered. The same
    /// file again changes nothing.
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// The name that the ids of the file's items follow from, beside what each line says; without it,
    /// a digest of the file. With the same name an edited file keeps the items of its unchanged lines.
    #[arg(long, value_name = "NAME", requires = "file", value_parser = NonEmptyStringValueParser::new())]
    batch: Option<String>,
    /// Go on without the lines that are refused, and write them here, each with the reason above it.
    #[arg(long, value_name = "FILE", requires = "file")]
    rejects: Option<PathBuf>,
    /// What an agent must be able to do.
    #[arg(short, long, required_unless_present = "file")]
    capability: Option<String>,
    /// The isolation boundary that an agent must be in; `default` where absent.
    #[arg(short, long)]
    boundary: Option<String>,
    /// 1 to 10, higher first; 5 where absent.
    #[arg(short, long)]
    priority: Option<u8>,
    /// A mark of your own; may be repeated.
    #[arg(short, long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// The item's id; the same one again changes nothing.
    #[arg(long, conflicts_with = "file")]
    id: Option<WorkId>,
    /// Your name for the task.
    #[arg(long)]
    task_id: Option<String>,
    /// When it is too late to begin: a time like 2026-01-31T12:00:00Z, or from now like `2h`.
    #[arg(long, value_name = "TIME", value_parser = to_come)]
    deadline: Option<Timestamp>,
    /// Do not offer it before: a time, or from now like `10m`.
    #[arg(long, value_name = "TIME", value_parser = to_come)]
    not_before: Option<Timestamp>,
    /// How long it may be without progress, like `30m`.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// How many attempts may be spent on it.
    #[arg(long, value_name = "NUMBER")]
    max_attempts: Option<u32>,
    /// The agent type that is served first.
    #[arg(long, value_name = "TYPE")]
    preferred_agent_type: Option<String>,
    /// The only agent type that may take it.
    #[arg(long, value_name = "TYPE")]
    required_agent_type: Option<String>,
    /// What the agent needs to know: JSON, or `@FILE` with JSON in it.
    #[arg(long, value_name = "JSON", value_parser = context_data)]
    context: Option<Body>,
    /// Who submits it.
    #[arg(long, value_name = "NAME")]
    offered_by: Option<String>,
    /// Refuse fields that nobody reads, instead of naming them.
    #[arg(long)]
    strict: bool,
    /// Wait until all of it has ended; exit 1 if any of it failed or was cancelled. Says on stderr why nobody takes it.
    #[arg(short, long)]
    wait: bool,
}

/// `name=value`
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("write a label as name=value".into()),
    }
}

fn context_data(text: &str) -> Result<Body, String> {
    let json = match text.strip_prefix('@') {
        Some(path) => {
            std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?
        }
        None => text.as_bytes().to_vec(),
    };
    Body::from_json(json).map_err(|error| format!("this is no JSON: {error}"))
}

/// The fields of an item that flags set.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Flags<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capability: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boundary: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<WorkId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_agent_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    required_agent_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_data: Option<&'a Body>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offered_by: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    strict: bool,
}

impl SubmitArgs {
    fn fields(&self) -> Result<Fields, serde_json::Error> {
        let millis = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let flags = Flags {
            description: self.description.as_deref(),
            capability: self.capability.as_deref(),
            boundary: self.boundary.as_deref(),
            priority: self.priority,
            labels: self
                .labels
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
            id: self.id,
            task_id: self.task_id.as_deref(),
            deadline: self.deadline,
            not_before: self.not_before,
            timeout_ms: self.timeout.map(millis),
            max_attempts: self.max_attempts,
            preferred_agent_type: self.preferred_agent_type.as_deref(),
            required_agent_type: self.required_agent_type.as_deref(),
            context_data: self.context.as_ref(),
            offered_by: self.offered_by.as_deref(),
            strict: self.strict,
        };
        serde_json::from_str(&serde_json::to_string(&flags)?)
    }
}

/// Submits, and waits where that was asked for.
pub async fn run(context: &Context, args: SubmitArgs) -> CliResult {
    let mut args = args;
    if args.file.is_none() {
        // clap asks for no --file where a description is there, which excludes one.
        for (flag, given) in [
            ("--batch", args.batch.is_some()),
            ("--rejects", args.rejects.is_some()),
        ] {
            if given {
                return Err(CliError::Usage(format!(
                    "{flag} is for the items of a file; add --file FILE, or leave it out (one item is kept from being doubled by --id)"
                )));
            }
        }
        let given = (args.description.take(), args.description_file.as_deref());
        args.description = Some(description::of(given)?);
    }
    let flags = args
        .fields()
        .map_err(|error| CliError::Failed(error.to_string()))?;
    if let Some(path) = &args.file {
        let args = file::FileArgs {
            path,
            flags,
            batch: args.batch.as_deref(),
            rejects: args.rejects.as_ref(),
            wait: args.wait,
        };
        return file::submit(context, &args).await;
    }
    let fields = merged(flags, &Fields::new()).map_err(CliError::Usage)?;
    let id = args.id.unwrap_or_else(WorkId::generate);
    submit_one(context, &context.api()?, id, fields, args.wait).await
}

/// The id is made here, so that a submit without an answer is sent again under it.
pub(super) async fn submit_one(
    context: &Context,
    api: &ApiClient,
    id: WorkId,
    mut fields: Fields,
    wait: bool,
) -> CliResult {
    let raw = serde_json::value::to_raw_value(&id);
    fields.insert(
        "id".into(),
        raw.map_err(|error| CliError::Failed(error.to_string()))?,
    );
    let sent = patiently(false, || api.post::<SubmitAnswer>(&["work"], &fields)).await;
    let sent = sent.map_err(|given_up| {
        if given_up.in_doubt {
            note(&format!(
                "whether item {id} was taken is not known; the same command with --id {id} doubles nothing"
            ));
        }
        CliError::from(given_up.error)
    })?;
    let answer = sent.answer;
    tell_ignored(&answer);
    if answer.existing && !sent.was_in_doubt {
        note(&format!("item {id} was there already; nothing was changed"));
    }
    let out = context.out.doing("");
    if !wait {
        return if out.is_json() {
            out.json(&answer)
        } else {
            out.text(&answer.id.to_string())
        };
    }
    // Before the id is told: whoever reads it may interrupt at once, and is to hear that the item goes on.
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|error| CliError::Failed(format!("Ctrl-C cannot be heard: {error}")))?;
    note(&format!("item {id} is submitted; waiting for its end"));
    let ended = tokio::select! {
        biased;
        _ = interrupt.recv() => {
            note(&format!(
                "item {id} goes on; `loom work watch {id}` watches it, `loom work cancel {id}` calls it off"
            ));
            return Err(CliError::Interrupted);
        }
        ended = watch::wait_for(api, answer.id) => ended?,
    };
    if out.is_json() {
        out.json(&ended)?;
    } else {
        show_item(out, &ended)?;
    }
    all_well(&ended)
}

fn tell_ignored(answer: &SubmitAnswer) {
    for field in &answer.ignored {
        note(&format!("nobody reads the field {field:?}"));
    }
}

fn all_well(item: &WorkItem) -> CliResult {
    match item.status {
        WorkStatus::Completed => Ok(()),
        _ => Err(CliError::WorkFailed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_flags() {
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(label("a").is_err() && label("=b").is_err());
        assert!(context_data("{").is_err());
        assert!(context_data("@/no/such/file").is_err());
        assert_eq!(context_data("{\"a\": 1}").unwrap().len(), 8);
    }
}
