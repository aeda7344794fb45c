//! Waiting for items, and printing their transitions as they happen.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use loom_protocol::WorkId;
use loom_protocol::event::{Event, WorkEvent};
use loom_protocol::work::{WorkItem, WorkStatus};

use super::Context;
use super::events;
use super::exit::{CliError, CliResult};
use super::following::{Follower, Step};
use super::naming::name;
use super::output::{Output, cell, note};
use super::show::outcome;
use super::waiting::Waiting;
use crate::api_client::{ApiClient, ApiError};

/// The first pause between two looks at an item that is waited for, and the longest.
pub(super) const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Of how many items it is remembered whether they have the label that is asked for.
const LABELS_KNOWN: usize = 10_000;

/// Print the transitions of items as they happen, each of them: with --json an event on each line, or the whole item
/// where it was looked at, at the beginning and after an interruption.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The items (ids, beginnings of them, or taskIds); ends with the last of them, exit 1 if one failed. Without any: whatever happens from now on, until interrupted.
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
pub(super) struct Away(bool);

impl Away {
    /// What was answered; `None`: nothing yet.
    pub fn bridge<T>(&mut self, answer: Result<T, ApiError>) -> CliResult<Option<T>> {
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
pub async fn run(context: &Context, args: &WatchArgs) -> CliResult {
    if args.ids.is_empty() {
        watch_all(context, args).await
    } else {
        watch_some(context.out, &context.api()?, &args.ids).await
    }
}

/// Prints what happens to some items until all of them have ended.
async fn watch_some(out: Output, api: &ApiClient, names: &[String]) -> CliResult {
    let mut open = HashMap::new();
    for name in names {
        let item: WorkItem = api.get(&["work", name], &[]).await?;
        open.insert(item.id, 0);
    }
    let ids: Vec<String> = open.keys().map(WorkId::to_string).collect();
    // Ids mean items of any project.
    let mut query = vec![("topic", "work".into()), ("workId", ids.join(","))];
    if !api.names_a_project() {
        query.push(("allProjects", "true".into()));
    }
    let mut follower = Follower::begin(api, query).await?;
    let mut failed = false;
    let mut away = Away::default();
    // From here on every event is heard: a look now, and again after every gap, leaves nothing out.
    let mut look = true;
    loop {
        if std::mem::take(&mut look) {
            for id in open.keys().copied().collect::<Vec<_>>() {
                let Some(item) = look_at(api, &mut away, id).await? else {
                    look = true;
                    continue;
                };
                let told_up_to = open.insert(id, item.revision);
                if told_up_to.is_none_or(|revision| revision < item.revision) {
                    tell_item(out, &item)?;
                }
                if item.terminal {
                    failed |= item.status != WorkStatus::Completed;
                    open.remove(&id);
                }
            }
        }
        if open.is_empty() {
            break;
        }
        if look {
            tokio::time::sleep(LOOKS.0).await;
            continue;
        }
        match follower.next().await? {
            Step::Gap => look = true,
            Step::Event(event) => {
                let Event::Work(work) = &*event else { continue };
                let Some(told_up_to) = open.get_mut(&work.work_id) else {
                    continue;
                };
                // Progress changes nothing that is written: it may have the revision of what was seen.
                let is_news = work.revision > *told_up_to
                    || work.revision == *told_up_to && work.progress.is_some();
                if !is_news {
                    continue;
                }
                *told_up_to = work.revision;
                events::tell(out, &event, false)?;
                if work.status.is_terminal() {
                    failed |= work.status != WorkStatus::Completed;
                    open.remove(&work.work_id);
                }
            }
        }
    }
    if failed {
        Err(CliError::WorkFailed)
    } else {
        Ok(())
    }
}

/// The item; nothing while the coordinator is away.
async fn look_at(api: &ApiClient, away: &mut Away, id: WorkId) -> CliResult<Option<WorkItem>> {
    let looked = api.get::<WorkItem>(&["work", &id.to_string()], &[]).await;
    away.bridge(looked)
}

/// Prints whatever happens to items that match.
async fn watch_all(context: &Context, args: &WatchArgs) -> CliResult {
    let (api, everywhere) = (context.api_of_listing().await?, context.is_everywhere());
    let mut query = vec![("topic", "work".into())];
    if everywhere {
        query.push(("allProjects", "true".into()));
    }
    let mut follower = Follower::begin(&api, query).await?;
    let mut labels = Labels::new(args.label.as_deref());
    loop {
        let Step::Event(event) = follower.next().await? else {
            continue;
        };
        let Event::Work(work) = &*event else { continue };
        let same = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|w| w == has);
        if same(&args.capability, &work.capability)
            && same(&args.boundary, &work.boundary)
            && labels.match_of(&api, work).await
        {
            events::tell(context.out, &event, everywhere)?;
        }
    }
}

/// Which items have the label that is asked for: events do not carry labels.
struct Labels<'a> {
    wanted: Option<(&'a str, Option<&'a str>)>,
    known: HashMap<WorkId, bool>,
}

impl<'a> Labels<'a> {
    fn new(wanted: Option<&'a str>) -> Self {
        let wanted = wanted.map(|text| match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        });
        Self {
            wanted,
            known: HashMap::new(),
        }
    }

    /// Whether the item has it. Where the item cannot be looked at now, it is asked for again next time.
    async fn match_of(&mut self, api: &ApiClient, work: &WorkEvent) -> bool {
        let Some((name, value)) = self.wanted else {
            return true;
        };
        if let Some(has) = self.known.get(&work.work_id) {
            return *has;
        }
        let looked = api
            .get::<WorkItem>(&["work", &work.work_id.to_string()], &[])
            .await;
        let Ok(item) = looked else { return false };
        let has = item
            .labels
            .get(name)
            .is_some_and(|has| value.is_none_or(|value| value == has));
        if self.known.len() >= LABELS_KNOWN {
            self.known.clear();
        }
        self.known.insert(work.work_id, has);
        has
    }
}

/// Prints how an item stands.
fn tell_item(out: Output, item: &WorkItem) -> CliResult {
    if out.is_json() {
        return out.json_line(item);
    }
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
    out.text(&format!(
        "{} {} is {}{progress}{agent}  {}",
        item.updated_at,
        item.id,
        item.status,
        cell(&said, 60)
    ))
}
