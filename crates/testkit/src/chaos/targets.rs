//! Targets whose agents fail, hang, start twice, die at birth, or do as they should, while everything else breaks.
//!
//! What the coordinator says of them is not believed: the programs leave behind by which start and as which agent they
//! ran, and the processes that are there at the end are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use loom_protocol::WorkId;
use loom_protocol::work::WorkItem;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep};

use super::agent::may_pass;
use super::house::SETTLE_WITHIN;
use super::processes::judge_items;
use super::world::World;

/// What only the agents of targets can do.
pub(super) const CAPABILITY: &str = "errands";
/// So that the storm alone fails no item.
const MAX_ATTEMPTS: u32 = 100;
/// Long enough that agents are sent home in between.
const SUBMIT_EVERY: Duration = Duration::from_secs(6);
/// So many come at once.
const AT_ONCE: usize = 4;
const LOOK_EVERY: Duration = Duration::from_millis(300);
const AFTER_REFUSAL: Duration = Duration::from_millis(100);

/// What the agents run for an item. `$1`: the folder, `$2`: the start of the agent.
const PROGRAM: &str = r#"
echo "$2 $LOOM_AGENT_GUID" >> "$1/births"
echo "$LOOM_WORK_ATTEMPT begun" >> "$1/$LOOM_WORK_ITEM_ID"
sleep 0.4
echo "$LOOM_WORK_ATTEMPT finished" >> "$1/$LOOM_WORK_ITEM_ID"
echo "{\"summary\":\"$LOOM_WORK_ATTEMPT\"}"
"#;

/// The name of a target, how many agents it may have, and its script. `$1`: the `loom`, `$2`: the folder, `$3`: what
/// its agents run.
const TARGETS: [(&str, u32, &str); 6] = [
    (
        "sound",
        2,
        r#"exec "$1" agent run --grace 1s -- sh -c "$3" sh "$2" "$LOOM_SPIN_UP_ID""#,
    ),
    ("failing", 1, "echo 'no such model' >&2; exit 3"),
    ("hanging", 1, "exec sleep 600"),
    (
        "doubled",
        1,
        r#""$1" agent run --grace 1s -- sh -c "$3" sh "$2" "$LOOM_SPIN_UP_ID" & exec "$1" agent run --grace 1s -- sh -c "$3" sh "$2" "$LOOM_SPIN_UP_ID""#,
    ),
    (
        "dying",
        1,
        r#""$1" agent run --grace 1s -- sh -c "$3" sh "$2" "$LOOM_SPIN_UP_ID" & sleep 0.7; kill -9 $!"#,
    ),
    (OFF, 1, r#"echo started >> "$2/off""#),
];
/// The one that is switched off.
const OFF: &str = "off";

/// The targets, and where their programs write.
pub(super) struct Targets {
    world: World,
    folder: TempDir,
    watching: JoinHandle<BTreeSet<String>>,
    stop: watch::Sender<bool>,
}

impl Targets {
    /// Registers them, while nothing is broken yet.
    pub async fn start(world: &World, program: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let program = program.to_str().context("the path of loom is text")?;
        let place = folder.path().to_str().context("a temporary path is text")?;
        for (name, max_agents, script) in TARGETS {
            let target = json!({
                "name": name, "agentType": "errand-boy", "capabilities": [CAPABILITY],
                "mechanism": "local", "maxAgents": max_agents,
                "config": { "command": "sh", "args": ["-c", script, name, program, place, PROGRAM] },
            });
            let registered = world.project.request("targets.register", target).await;
            registered.with_context(|| format!("register target {name}"))?;
        }
        let off = json!({ "target": OFF });
        let disabled = world.project.request("targets.disable", off).await;
        disabled.context("disable a target")?;
        let stop = watch::Sender::new(false);
        let watching = tokio::spawn(watch(world.clone(), stop.subscribe()));
        Ok(Self {
            world: world.clone(),
            folder,
            watching,
            stop,
        })
    }

    /// What is wrong with how the items of the targets ended, who was born, and what is left behind.
    pub async fn judge(self, submitted: &[WorkId], ended: &[WorkItem]) -> Result<Vec<String>> {
        self.stop.send_replace(true);
        let mut wrong: Vec<String> = self.watching.await?.into_iter().collect();
        let folder = self.folder.path();
        wrong.extend(judge_items(folder, submitted, ended));
        if folder.join(OFF).exists() {
            wrong.push("an agent was started at a target that is disabled".into());
        }
        let births = std::fs::read_to_string(folder.join("births")).unwrap_or_default();
        wrong.extend(judge_births(&births));
        wrong.extend(left_behind(&self.world, folder).await);
        Ok(wrong)
    }
}

/// How many agents each target has, now and then: never more than it may.
async fn watch(world: World, stop: watch::Receiver<bool>) -> BTreeSet<String> {
    let mut wrong = BTreeSet::new();
    let mut times = interval(LOOK_EVERY);
    while !*stop.borrow() {
        times.tick().await;
        let all = json!({ "includeDisabled": true });
        if let Ok(targets) = world.project.request("targets.list", all).await {
            wrong.extend(targets.as_array().into_iter().flatten().filter_map(crowded));
        }
    }
    wrong
}

fn crowded(target: &Value) -> Option<String> {
    let agents = target["currentAgentGuids"].as_array().map_or(0, Vec::len);
    let max = target["maxAgents"].as_u64().unwrap_or(1);
    (agents as u64 > max).then(|| {
        format!(
            "target {} has {agents} agents, and may have {max}",
            target["name"]
        )
    })
}

/// A line for each program that ran: its start, and its agent. A ticket is for one agent, and an agent has one.
fn judge_births(lines: &str) -> Vec<String> {
    let mut agents: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut starts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in lines.lines() {
        let Some((start, agent)) = line.split_once(' ').filter(|(start, _)| !start.is_empty())
        else {
            wrong.push(format!(
                "an agent of a target does not know its start: {line:?}"
            ));
            continue;
        };
        agents.entry(start).or_default().insert(agent);
        starts.entry(agent).or_default().insert(start);
    }
    let several = |map: &BTreeMap<&str, BTreeSet<&str>>, what: &str| -> Vec<String> {
        let several = map.iter().filter(|(_, with)| with.len() > 1);
        let told = several.map(|(one, with)| format!("{what} {one} has several: {with:?}"));
        told.collect()
    };
    wrong.extend(several(&agents, "the ticket of start"));
    wrong.extend(several(&starts, "agent"));
    wrong
}

/// The processes that were started by targets of this project and do not end, although all that they could do is done.
async fn left_behind(world: &World, folder: &Path) -> Vec<String> {
    let deadline = Instant::now() + SETTLE_WITHIN;
    loop {
        let left = of_targets(world.project.id().as_str(), folder);
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Those that carry a start of this project in their environment, and what agents run, which names the folder.
fn of_targets(project: &str, folder: &Path) -> Vec<String> {
    let ours = format!("LOOM_PROJECT_ID={project}");
    let is_started = |environment: &[u8]| {
        let has = |is: &dyn Fn(&[u8]) -> bool| environment.split(|byte| *byte == 0).any(is);
        has(&|variable| variable == ours.as_bytes())
            && has(&|variable| variable.starts_with(b"LOOM_SPIN_UP_ID="))
    };
    let folder = folder.to_string_lossy();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut left = Vec::new();
    for process in processes {
        let (environment, line) = (
            std::fs::read(process.path().join("environ")).unwrap_or_default(),
            std::fs::read(process.path().join("cmdline")).unwrap_or_default(),
        );
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if is_started(&environment) || line.contains(folder.as_ref()) {
            let pid = process.file_name();
            left.push(format!("process {} is left behind: {line}", pid.display()));
        }
    }
    left
}

/// Submits for the targets until it is told to stop.
pub(super) async fn submit(
    world: World,
    stop: watch::Receiver<bool>,
    submitted: Arc<Mutex<Vec<WorkId>>>,
) {
    let mut times = interval(SUBMIT_EVERY);
    while !*stop.borrow() {
        times.tick().await;
        for _ in 0..AT_ONCE {
            let id = WorkId::generate();
            let item = json!({
                "id": id, "description": "for whoever is started", "capability": CAPABILITY,
                "maxAttempts": MAX_ATTEMPTS,
            });
            loop {
                match world.project.request("work.submit", item.clone()).await {
                    Ok(_) => submitted.lock().push(id),
                    Err(error) if may_pass(&error) => {
                        sleep(AFTER_REFUSAL).await;
                        continue;
                    }
                    Err(error) => world.tell(&format!("a submit was refused: {error}")),
                }
                break;
            }
            world.count("item for agents of targets");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_of_two_agents_and_an_agent_of_two_tickets_are_told() {
        assert_eq!(judge_births("s1 a1\ns1 a1\ns2 a2\n"), Vec::<String>::new());
        for (lines, says) in [
            ("s1 a1\ns1 a2\n", "start s1"),
            ("s1 a1\ns2 a1\n", "agent a1"),
            (" a1\n", "does not know its start"),
        ] {
            let wrong = judge_births(lines);
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            assert!(wrong[0].contains(says), "{wrong:?}");
        }
    }

    #[test]
    fn a_target_with_more_agents_than_it_may_have_is_told() {
        let target =
            |agents: &[&str]| json!({ "name": "t", "maxAgents": 1, "currentAgentGuids": agents });
        assert_eq!(crowded(&target(&["a"])), None);
        assert!(crowded(&target(&["a", "b"])).is_some());
    }
}
