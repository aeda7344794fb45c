//! Waiting for items, and printing their transitions as they happen, by asking again and again.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use loom_protocol::WorkId;
use loom_protocol::rest::WorkPage;
use loom_protocol::work::{WorkItem, WorkStatus};

use super::exit::{CliError, CliResult};
use super::naming::name;
use super::output::{Output, cell, note};
use super::show::outcome;
use super::waiting::Waiting;
use super::work::ListArgs;
use crate::api_client::{ApiClient, ApiError};

/// The first pause between two looks at an item that is waited for, and the longest.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// The pause between two looks at everything.
const PERIOD: Duration = Duration::from_secs(1);
const UNFINISHED: &str = "pending,assigned,in-progress";

/// Print the transitions of items as they happen, by asking once a second: what comes and goes
/// between two looks is not seen.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The items (ids, beginnings of them, or taskIds); ends with the last of them, exit 1 if one failed. Without any: all unfinished ones, until interrupted.
    #[arg(value_parser = name)]
    ids: Vec<String>,
    /// Only of this capability.
    #[arg(long, conflicts_with = "ids")]
    capability: Option<String>,
    /// Only of this boundary.
    #[arg(long, conflicts_with = "ids")]
    boundary: Option<String>,
    /// Only with this label.
    #[arg(long, value_name = "NAME[=VALUE]", conflicts_with = "ids")]
    label: Option<String>,
}

/// What one look tells about an item that the last one did not.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    status: WorkStatus,
    attempt: u32,
    progress: Option<f64>,
    message: Option<String>,
}

impl From<&WorkItem> for Seen {
    fn from(item: &WorkItem) -> Self {
        Self {
            status: item.status,
            attempt: item.attempt,
            progress: item.progress,
            message: item.progress_message.clone(),
        }
    }
}

/// Looks until the item has ended, and says why nobody takes it; a coordinator that is away for a while
/// does not end it.
pub async fn wait_for(api: &ApiClient, id: WorkId) -> CliResult<WorkItem> {
    let (mut pause, longest) = LOOKS;
    let (mut away, mut waiting) = (Away::default(), Waiting::new());
    loop {
        let looked = api.get::<WorkItem>(&["work", &id.to_string()], &[]).await;
        match away.bridge(looked)? {
            Some(item) if item.terminal => return Ok(item),
            Some(item) => waiting.look(api, &item).await,
            None => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(longest);
    }
}

/// Tells once that the coordinator is away, and goes on.
#[derive(Debug, Default)]
struct Away(bool);

impl Away {
    fn bridge<T>(&mut self, answer: Result<T, ApiError>) -> CliResult<Option<T>> {
        match answer {
            Ok(answer) => {
                if std::mem::take(&mut self.0) {
                    note("the coordinator is back");
                }
                Ok(Some(answer))
            }
            Err(error) if error.is_transient() => {
                if !std::mem::replace(&mut self.0, true) {
                    note(&format!("{error}; waiting for it"));
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Watches what the arguments say.
pub async fn run(out: Output, api: &ApiClient, args: &WatchArgs) -> CliResult {
    if args.ids.is_empty() {
        watch_all(out, api, args).await
    } else {
        watch_some(out, api, &args.ids).await
    }
}

async fn watch_some(out: Output, api: &ApiClient, ids: &[String]) -> CliResult {
    let mut seen = HashMap::new();
    let mut open = ids.to_vec();
    let mut failed = false;
    let mut away = Away::default();
    // The first look finds out whether the ids mean anything.
    for id in &mut open {
        let item: WorkItem = api.get(&["work", id], &[]).await?;
        *id = item.id.to_string();
    }
    loop {
        let mut left = Vec::new();
        for id in open {
            let looked = api.get::<WorkItem>(&["work", &id], &[]).await;
            let Some(item) = away.bridge(looked)? else {
                left.push(id);
                continue;
            };
            tell_change(out, &mut seen, &item)?;
            if item.terminal {
                failed |= item.status != WorkStatus::Completed;
            } else {
                left.push(id);
            }
        }
        if left.is_empty() {
            break;
        }
        open = left;
        tokio::time::sleep(PERIOD).await;
    }
    if failed {
        Err(CliError::WorkFailed)
    } else {
        Ok(())
    }
}

async fn watch_all(out: Output, api: &ApiClient, args: &WatchArgs) -> CliResult {
    let filter = ListArgs {
        status: Some(UNFINISHED.into()),
        capability: args.capability.clone(),
        boundary: args.boundary.clone(),
        label: args.label.clone(),
        all: true,
        ..ListArgs::default()
    };
    let mut seen: HashMap<WorkId, Seen> = HashMap::new();
    let mut away = Away::default();
    // Whoever watches wants to hear of a wrong filter at once.
    let mut page = Some(filter.fetch(api).await?);
    loop {
        if let Some(page) = page {
            for item in &page.work_items {
                tell_change(out, &mut seen, item)?;
            }
            tell_ended(out, api, &mut seen, &page).await?;
        }
        tokio::time::sleep(PERIOD).await;
        page = match filter.fetch(api).await {
            Ok(found) => away.bridge(Ok(found))?,
            Err(CliError::Unreachable(text)) => away.bridge(Err(ApiError::Unreachable(text)))?,
            Err(CliError::Refused(code, _)) if code.is_transient() => None,
            Err(error) => return Err(error),
        };
    }
}

/// What was unfinished and is not on the list any more has ended.
async fn tell_ended(
    out: Output,
    api: &ApiClient,
    seen: &mut HashMap<WorkId, Seen>,
    page: &WorkPage,
) -> CliResult {
    let open: std::collections::HashSet<WorkId> =
        page.work_items.iter().map(|item| item.id).collect();
    let gone: Vec<WorkId> = seen
        .keys()
        .filter(|id| !open.contains(id))
        .copied()
        .collect();
    for id in gone {
        match api.get::<WorkItem>(&["work", &id.to_string()], &[]).await {
            Ok(item) => {
                tell_change(out, seen, &item)?;
                if item.terminal {
                    seen.remove(&id);
                }
            }
            Err(error) if error.is_transient() => {}
            Err(_) => {
                seen.remove(&id);
            }
        }
    }
    Ok(())
}

fn tell_change(out: Output, seen: &mut HashMap<WorkId, Seen>, item: &WorkItem) -> CliResult {
    let now = Seen::from(item);
    if seen.get(&item.id) == Some(&now) {
        return Ok(());
    }
    let before = seen.insert(item.id, now);
    if out.is_json() {
        out.json_line(item)
    } else {
        out.text(&line(before.map(|before| before.status), item))
    }
}

fn line(before: Option<WorkStatus>, item: &WorkItem) -> String {
    let from = before
        .filter(|before| *before != item.status)
        .map(|before| format!("{before} -> "))
        .unwrap_or_default();
    let agent = item
        .assigned_to_agent
        .as_ref()
        .map(|agent| format!(" by {}", cell(&agent.handle, 24)))
        .unwrap_or_default();
    let progress = match item.progress {
        Some(progress) if !item.terminal => format!(" {progress:.0}%"),
        _ => String::new(),
    };
    let said = if item.terminal {
        outcome(item)
    } else {
        item.progress_message
            .clone()
            .unwrap_or_else(|| item.description.clone())
    };
    format!(
        "{} {} {from}{}{progress}{agent}  {}",
        item.updated_at,
        item.id,
        item.status,
        cell(&said, 60)
    )
}
