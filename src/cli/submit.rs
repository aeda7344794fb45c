//! `loom submit`: one item from flags, or many from a file, and the wait for what they come to.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use loom_actors::clock::Clock;
use loom_protocol::work::{BatchAnswer, ItemAnswer, SubmitAnswer, WorkItem, WorkStatus, limits};
use loom_protocol::{Body, Timestamp, WorkId};
use serde::Serialize;
use serde_json::value::to_raw_value;

use super::Context;
use super::exit::{CliError, CliResult};
use super::output::{cell, note, table};
use super::show::{outcome, show_item};
use super::tasks_file::{self, Fields, Task};
use super::watch;
use crate::api_client::{ApiClient, ApiError};

/// How many bytes of items go into one request: well under what the door takes.
const BATCH_BYTES: usize = 768 * 1024;
/// How often a request is sent again that was refused for the moment only.
const TRIES: usize = 10;

/// Submit work: one item, or many from a file of JSON lines.
#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// What is to be done.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    description: Option<String>,
    /// Read items from a file, one JSON object per line; `-` is stdin. Flags fill in what a line lacks.
    #[arg(short, long)]
    file: Option<PathBuf>,
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
    #[arg(long, value_name = "TIME", value_parser = time)]
    deadline: Option<Timestamp>,
    /// Do not offer it before: a time, or from now like `10m`.
    #[arg(long, value_name = "TIME", value_parser = time)]
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

fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(from_now) = humantime::parse_duration(text) {
        return Ok(Clock::system().now().after(from_now));
    }
    text.parse()
        .map_err(|error| format!("{error}, or from now like 2h"))
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

    fn file_name(&self) -> String {
        match self.file.as_deref() {
            Some(path) if path != Path::new("-") => path.display().to_string(),
            _ => "stdin".into(),
        }
    }

    fn tasks(&self) -> CliResult<Vec<Task>> {
        let flags = self
            .fields()
            .map_err(|error| CliError::Failed(error.to_string()))?;
        let Some(path) = &self.file else {
            let task = Task::new(None, flags, &Fields::new()).map_err(CliError::Usage)?;
            return Ok(vec![task]);
        };
        let name = self.file_name();
        let unreadable = |error| CliError::Usage(format!("cannot read {name}: {error}"));
        let text = if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(unreadable)?;
            text
        } else {
            std::fs::read_to_string(path).map_err(unreadable)?
        };
        tasks_file::read(&name, &text, &flags).map_err(CliError::Usage)
    }
}

/// Submits, and waits where that was asked for.
pub async fn run(context: &Context, args: SubmitArgs) -> CliResult {
    let tasks = args.tasks()?;
    let api = context.api()?;
    if args.file.is_none() {
        return submit_one(context, &api, &tasks[0], args.wait).await;
    }
    let mut answers = Vec::with_capacity(tasks.len());
    for batch in batches(&tasks) {
        answers.extend(send_batch(&api, batch).await.inspect_err(|_| {
            if !answers.is_empty() {
                note(&format!(
                    "{} items were submitted before this",
                    answers.len()
                ));
            }
        })?);
    }
    report(context, &args, &tasks, &answers).await
}

async fn submit_one(context: &Context, api: &ApiClient, task: &Task, wait: bool) -> CliResult {
    let answer: SubmitAnswer = patiently(|| api.post(&["work"], &task.fields)).await?;
    tell_ignored("", &answer);
    if !wait {
        return if context.out.is_json() {
            context.out.json(&answer)
        } else {
            context.out.text(&answer.id.to_string())
        };
    }
    let ended = watch::wait_for(api, answer.id).await?;
    if context.out.is_json() {
        context.out.json(&ended)?;
    } else {
        show_item(context.out, &ended)?;
    }
    all_well([&ended])
}

fn tell_ignored(place: &str, answer: &SubmitAnswer) {
    for field in &answer.ignored {
        note(&format!("{place}nobody reads the field {field:?}"));
    }
}

fn all_well<'a>(items: impl IntoIterator<Item = &'a WorkItem>) -> CliResult {
    let well = |item: &WorkItem| item.status == WorkStatus::Completed;
    if items.into_iter().all(well) {
        Ok(())
    } else {
        Err(CliError::WorkFailed)
    }
}

/// Cuts the items into requests that the door takes.
fn batches(tasks: &[Task]) -> Vec<&[Task]> {
    let size = |task: &Task| -> usize {
        let fields = task.fields.iter();
        fields
            .map(|(name, value)| name.len() + value.get().len() + 4)
            .sum()
    };
    let (mut batches, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (index, task) in tasks.iter().enumerate() {
        let more = size(task);
        if index > start && (index - start == limits::ITEMS || bytes + more > BATCH_BYTES) {
            batches.push(&tasks[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += more;
    }
    batches.push(&tasks[start..]);
    batches
}

async fn send_batch(api: &ApiClient, batch: &[Task]) -> CliResult<Vec<ItemAnswer<SubmitAnswer>>> {
    let items: Vec<&Fields> = batch.iter().map(|task| &task.fields).collect();
    let items = to_raw_value(&items).map_err(|error| CliError::Failed(error.to_string()))?;
    let body = BTreeMap::from([("items", items)]);
    let answer: BatchAnswer<SubmitAnswer> = patiently(|| api.post(&["work"], &body)).await?;
    if answer.items.len() != batch.len() {
        return Err(CliError::Failed(format!(
            "the coordinator answered to {} of {} items; look with `loom work`",
            answer.items.len(),
            batch.len()
        )));
    }
    Ok(answer.items)
}

/// Sends again what was refused for the moment only; every item has its id, so nothing is doubled.
async fn patiently<T, F>(send: impl Fn() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let mut tries = 1;
    loop {
        match send().await {
            Err(error) if error.code().is_some() && error.is_transient() && tries < TRIES => {
                tokio::time::sleep(error.pause()).await;
                tries += 1;
            }
            done => return done,
        }
    }
}

async fn report(
    context: &Context,
    args: &SubmitArgs,
    tasks: &[Task],
    answers: &[ItemAnswer<SubmitAnswer>],
) -> CliResult {
    let file = args.file_name();
    let mut submitted = Vec::new();
    let mut refused = None;
    for (task, answer) in tasks.iter().zip(answers) {
        match answer {
            ItemAnswer::Done(answer) => {
                tell_ignored(&task.place(&file), answer);
                submitted.push((task, answer));
            }
            ItemAnswer::Refused(error) => {
                note(&format!("{}{}", task.place(&file), error.message));
                refused.get_or_insert(error.code);
            }
        }
    }
    let mut ended = Vec::new();
    if args.wait {
        let api = context.api()?;
        for (_, answer) in &submitted {
            ended.push(watch::wait_for(&api, answer.id).await?);
        }
    }
    match (context.out.is_json(), args.wait) {
        (true, true) => context.out.json(&BTreeMap::from([("items", &ended)]))?,
        (true, false) => context.out.json(&BTreeMap::from([("items", answers)]))?,
        (false, true) => {
            let mut rows = table(&["ID", "STATUS", "ATTEMPTS", "RESULT"]);
            for item in &ended {
                let outcome = cell(&outcome(item), 60);
                let (id, status) = (item.id.to_string(), item.status.to_string());
                rows.add_row([id, status, item.attempts.to_string(), outcome]);
            }
            context.out.table(&rows, "nothing was submitted")?;
        }
        (false, false) => {
            let mut rows = table(&["LINE", "ID", "TASK"]);
            for (task, answer) in &submitted {
                let line = task.line.map(|line| line.to_string()).unwrap_or_default();
                rows.add_row([line, answer.id.to_string(), cell(&answer.task_id, 60)]);
            }
            context.out.table(&rows, "nothing was submitted")?;
        }
    }
    if let Some(code) = refused {
        let message = format!(
            "{} of {} items were refused",
            tasks.len() - submitted.len(),
            tasks.len()
        );
        return Err(CliError::Refused(code, message));
    }
    all_well(&ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(count: usize, bytes: usize) -> Vec<Task> {
        let line = format!(
            "{{\"description\":\"{}\",\"capability\":\"c\"}}\n",
            "x".repeat(bytes)
        );
        tasks_file::read("t", &line.repeat(count), &Fields::new()).unwrap()
    }

    #[test]
    fn requests_stay_within_the_limits_of_the_door() {
        let sizes = |tasks: &[Task]| -> Vec<usize> {
            batches(tasks).iter().map(|batch| batch.len()).collect()
        };
        assert_eq!(sizes(&tasks(1, 1)), [1]);
        assert_eq!(sizes(&tasks(600, 1)), [256, 256, 88]);
        assert_eq!(sizes(&tasks(5, 300 * 1024)), [2, 2, 1]);
    }

    #[test]
    fn values_of_flags() {
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(label("a").is_err() && label("=b").is_err());
        assert!(time("2h").unwrap() > time("1h").unwrap());
        assert_eq!(
            time("1970-01-01T00:00:01Z"),
            Ok(Timestamp::from_millis(1000))
        );
        assert!(time("soon").unwrap_err().contains("2h"));
        assert!(context_data("{").is_err());
        assert!(context_data("@/no/such/file").is_err());
        assert_eq!(context_data("{\"a\": 1}").unwrap().len(), 8);
    }
}
