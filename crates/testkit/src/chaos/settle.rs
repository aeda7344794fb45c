//! After the storm: waits until nothing moves, and reads how everything stands.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use loom_protocol::work::{WorkItem, WorkStatus};
use loom_protocol::{WireError, WorkId, names};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::house::SETTLE_WITHIN;
use super::world::World;
use super::{processes, targets};
use crate::history::{FinalItem, FinalState};

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How many items are explained that have not ended.
const EXPLAINED: usize = 3;
const UNFINISHED: [&str; 3] = ["pending", "assigned", "in-progress"];

/// How everything stands at the end.
pub(super) struct Settled {
    /// What the recorded agents have to do with.
    pub state: FinalState,
    /// The items of the agent processes, whole.
    pub of_processes: Vec<WorkItem>,
    /// The items of the agents of targets, whole.
    pub of_targets: Vec<WorkItem>,
}

/// Waits until every item has ended, as long as there is patience: what has not ended by then is the checker's to say.
pub(super) async fn until_quiet(world: &World) -> Result<Settled> {
    let deadline = Instant::now() + SETTLE_WITHIN;
    let items = loop {
        let is_late = Instant::now() > deadline;
        if is_late || is_quiet(world).await {
            match world.project.all_work().await {
                // Items move while one list after the other is asked for: it counts what all together say.
                Ok(items) if is_late || items.iter().all(|item| item.status.is_terminal()) => {
                    break items;
                }
                Err(error) if Instant::now() > deadline + SETTLE_WITHIN => {
                    return Err(error).context("read all items at the end");
                }
                Ok(_) | Err(_) => {}
            }
        }
        sleep(LOOK_EVERY).await;
    };
    let unfinished = items.iter().filter(|item| !item.status.is_terminal());
    for item in unfinished.take(EXPLAINED) {
        explain(world, item).await;
        let trouble = world.last_trouble();
        world.tell(&format!(
            "the last trouble: {}",
            trouble.unwrap_or_default()
        ));
    }
    let failed = items
        .iter()
        .filter(|item| item.status == WorkStatus::Failed);
    let failed = failed.count();
    let letters = loop {
        let letters = dead_letters(world).await;
        let as_many = letters
            .as_ref()
            .is_ok_and(|letters| letters.len() == failed);
        if as_many || Instant::now() > deadline + SETTLE_WITHIN {
            break letters?;
        }
        sleep(LOOK_EVERY).await;
    };
    let (of_processes, others): (Vec<_>, Vec<_>) = items
        .into_iter()
        .partition(|item| item.capability == processes::CAPABILITY);
    let (of_targets, recorded): (Vec<_>, Vec<_>) = others
        .into_iter()
        .partition(|item| item.capability == targets::CAPABILITY);
    Ok(Settled {
        state: FinalState {
            items: recorded.iter().map(FinalItem::from).collect(),
            dead_letters: Some(letters),
        },
        of_processes: whole(world, of_processes).await?,
        of_targets: whole(world, of_targets).await?,
    })
}

/// The items with their results, which a listing does not show.
async fn whole(world: &World, items: Vec<WorkItem>) -> Result<Vec<WorkItem>> {
    let mut whole = Vec::with_capacity(items.len());
    for item in items {
        let read = world.project.work(item.id).await;
        whole.push(read.with_context(|| format!("read item {}", item.id))?);
    }
    Ok(whole)
}

/// The items of all dead letters, as they stand in the stream.
async fn dead_letters(world: &World) -> Result<Vec<WorkId>> {
    let project = world.project.id();
    let stream = names::dead_letter_stream(project);
    // It is made with its first letter.
    let Ok(stream) = world.project.jetstream().get_stream(stream).await else {
        return Ok(Vec::new());
    };
    let all = names::all_dead_letters(project);
    let mut counts = stream.info_with_subjects(&all).await?;
    let mut letters = Vec::new();
    while let Some((subject, count)) = counts.try_next().await? {
        let id: WorkId = subject.rsplit('.').next().unwrap_or_default().parse()?;
        letters.extend(std::iter::repeat_n(id, count));
    }
    Ok(letters)
}

/// Whether no item is unfinished, and nothing published waits to be taken.
async fn is_quiet(world: &World) -> bool {
    for status in UNFINISHED {
        let request = json!({ "status": status, "limit": 1 });
        let page = world.project.request("work.list", request).await;
        if !page.is_ok_and(|page| page.as_array().is_some_and(Vec::is_empty)) {
            return false;
        }
    }
    let stream = names::work_stream(world.project.id());
    let Ok(stream) = world.project.jetstream().get_stream(stream).await else {
        return false;
    };
    let info = stream.get_info().await;
    info.is_ok_and(|info| info.state.messages == 0)
}

async fn explain(world: &World, item: &WorkItem) {
    let why: Result<Value, WireError> = world
        .project
        .request("work.explain", json!({ "id": item.id }))
        .await;
    let id: WorkId = item.id;
    let text = serde_json::to_string(item).unwrap_or_default();
    world.tell(&format!("{id} has not ended: {text}; explained: {why:?}"));
}
