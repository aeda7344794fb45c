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

use super::house::SETTLE_WITHIN;
use super::processes::judge_items;
use super::world::World;

/// What only the agents of targets can do.
pub(super) const CAPABILITY: &str = "errands";
/// Long enough that agents are sent home in between.
const SUBMIT_EVERY: Duration = Duration::from_secs(6);
/// So many come at once.
const AT_ONCE: usize = 4;
const LOOK_EVERY: Duration = Duration::from_millis(300);

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
    watching: JoinHandle<Seen>,
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
        let mut wrong = self.watching.await?.judged();
        let folder = self.folder.path();
        wrong.extend(self.world.refused(CAPABILITY));
        wrong.extend(judge_items(folder, submitted, ended));
        if folder.join(OFF).exists() {
            wrong.push("an agent was started at a target that is disabled".into());
        }
        let births = std::fs::read_to_string(folder.join("births")).unwrap_or_default();
        wrong.extend(judge_births(&births));
        wrong.extend(left_behind(&self.world, folder).await);
        wrong.extend(left_recorded(&self.world).await);
        Ok(wrong)
    }
}

/// What was seen of the targets while everything else broke.
#[derive(Debug, Default)]
struct Seen {
    /// How often all of them were seen.
    looks: usize,
    wrong: BTreeSet<String>,
}

impl Seen {
    /// One look at them. While something is broken there is no answer.
    fn look(&mut self, targets: &Value) {
        let targets = targets.as_array().map_or(&[][..], Vec::as_slice);
        self.looks += usize::from(targets.len() == TARGETS.len());
        self.wrong.extend(targets.iter().filter_map(crowded));
    }

    fn judged(self) -> Vec<String> {
        let unseen = (self.looks == 0)
            .then(|| "the targets were never seen: nothing of their agents is proved".to_owned());
        self.wrong.into_iter().chain(unseen).collect()
    }
}

/// How many agents each target has, now and then: never more than it may.
async fn watch(world: World, stop: watch::Receiver<bool>) -> Seen {
    let mut seen = Seen::default();
    let mut times = interval(LOOK_EVERY);
    while !*stop.borrow() {
        times.tick().await;
        let all = json!({ "includeDisabled": true });
        if let Ok(targets) = world.project.request("targets.list", all).await {
            seen.look(&targets);
        }
    }
    seen
}

fn crowded(target: &Value) -> Option<String> {
    let name = &target["name"];
    let Some(agents) = agents_of(target) else {
        return Some(format!("target {name} does not say which agents it has"));
    };
    let max = target["maxAgents"].as_u64().unwrap_or(1);
    let is_crowded = agents as u64 > max;
    is_crowded.then(|| format!("target {name} has {agents} agents, and may have {max}"))
}

/// How many agents a target has; `None`: it does not say.
fn agents_of(target: &Value) -> Option<usize> {
    target["currentAgentGuids"].as_array().map(Vec::len)
}

/// A line for each program that ran: its start, and its agent. A ticket is for one agent, and an agent has one.
fn judge_births(lines: &str) -> Vec<String> {
    let mut agents: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut starts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut wrong = Vec::new();
    if lines.trim().is_empty() {
        wrong.push("no agent of a target ran anything: nothing of births is proved".to_owned());
    }
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

/// The agents and the starts that the records still have, although nothing is left to be done and nobody lives.
async fn left_recorded(world: &World) -> Vec<String> {
    let deadline = Instant::now() + SETTLE_WITHIN;
    loop {
        let all = json!({ "includeDisabled": true });
        let targets = world.project.request("targets.list", all).await;
        let starts = world
            .project
            .request("spin-up.list", json!({ "limit": 1000 }));
        let left = match (targets, starts.await) {
            (Ok(targets), Ok(starts)) => judge_records(&targets, &starts),
            (targets, starts) => vec![format!(
                "how the targets stand at the end is not known: {:?} {:?}",
                targets.err(),
                starts.err()
            )],
        };
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What records of targets and of starts say that is not so once everything has ended.
fn judge_records(targets: &Value, starts: &Value) -> Vec<String> {
    let of = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let (targets, starts) = (of(targets), of(starts));
    let mut wrong = Vec::new();
    if targets.len() != TARGETS.len() || starts.is_empty() {
        let (targets, starts) = (targets.len(), starts.len());
        wrong.push(format!(
            "{targets} targets and {starts} starts are listed at the end"
        ));
    }
    for target in targets.iter().filter(|target| agents_of(target) != Some(0)) {
        let (name, agents) = (&target["name"], &target["currentAgentGuids"]);
        wrong.push(format!("target {name} has agents at the end: {agents}"));
    }
    let undecided = ["pending", "in-progress"];
    for start in starts {
        let status = start["status"].as_str().unwrap_or_default();
        if undecided.contains(&status) || status.is_empty() {
            wrong.push(format!("a start is not decided at the end: {start}"));
        }
    }
    wrong
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
            let accepted = world.submit_unseen(CAPABILITY).await;
            submitted.lock().extend(accepted);
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
            ("", "no agent of a target ran"),
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
        assert_eq!(crowded(&target_of(&["a"])), None);
        assert!(crowded(&target_of(&["a", "b"])).is_some());
        assert!(crowded(&json!({ "name": "t", "maxAgents": 1 })).is_some());
    }

    #[test]
    fn targets_that_were_never_seen_are_told() {
        let mut seen = Seen::default();
        for not_all in [json!(null), json!([]), json!([target_of(&[])])] {
            seen.look(&not_all);
        }
        assert!(seen.judged()[0].contains("never seen"));
        let mut seen = Seen::default();
        seen.look(&Value::from(vec![target_of(&["a"]); TARGETS.len()]));
        assert_eq!(seen.judged(), Vec::<String>::new());
    }

    fn target_of(agents: &[&str]) -> Value {
        json!({ "name": "t", "maxAgents": 1, "currentAgentGuids": agents })
    }

    #[test]
    fn agents_and_starts_that_are_left_in_the_records_are_told() {
        let target = |agents: Value| json!({ "name": "t", "currentAgentGuids": agents });
        let all = |last: Value| {
            let mut all = vec![target(json!([])); TARGETS.len() - 1];
            all.push(last);
            Value::from(all)
        };
        let start = |status: &str| json!([{ "operationId": "s", "status": status }]);
        let sound = judge_records(&all(target(json!([]))), &start("timeout"));
        assert_eq!(sound, Vec::<String>::new());
        for (targets, starts, says) in [
            (all(target(json!(["a"]))), start("success"), "has agents"),
            (all(json!({ "name": "t" })), start("success"), "has agents"),
            (all(target(json!([]))), start("in-progress"), "not decided"),
            (all(target(json!([]))), json!([{}]), "not decided"),
            (all(target(json!([]))), json!([]), "0 starts"),
            (json!([]), start("success"), "0 targets"),
        ] {
            let wrong = judge_records(&targets, &starts);
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            assert!(wrong[0].contains(says), "{wrong:?}");
        }
    }
}
