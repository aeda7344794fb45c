//! Agents as real processes (`loom agent run`), stopped by SIGSTOP past their leases, continued, and killed.
//!
//! They see no recorder, so what they did is judged by what their programs left behind: each run of an attempt writes
//! to a file of its item when it begins and when it has finished, and gives its attempt as the result.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use loom_process::{OwnChild, ParentDeath};
use loom_protocol::WorkId;
use loom_protocol::work::{WorkItem, WorkStatus};
use parking_lot::Mutex;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{interval, sleep};

use super::schedule::Nature;
use super::world::{PROCESSES, World};

/// What only they can do.
pub(super) const CAPABILITY: &str = "shell";
const SUBMIT_EVERY: Duration = Duration::from_millis(400);
/// Shorter than the progress clock of a run, longer than a stop that goes unnoticed.
const PROGRAM: &str = r#"
echo "$LOOM_WORK_ATTEMPT begun" >> "$1/$LOOM_WORK_ITEM_ID"
sleep 0.4
echo "$LOOM_WORK_ATTEMPT finished" >> "$1/$LOOM_WORK_ITEM_ID"
echo "{\"summary\":\"$LOOM_WORK_ATTEMPT\"}"
"#;

/// The processes, and where their programs write.
pub(super) struct Processes {
    world: World,
    program: PathBuf,
    nats_url: String,
    folder: TempDir,
    agents: Vec<Arc<OwnChild>>,
}

impl Processes {
    pub async fn start(world: &World, program: &Path, nats_url: &str) -> Result<Self> {
        let mut processes = Self {
            world: world.clone(),
            program: program.into(),
            nats_url: nats_url.into(),
            folder: tempfile::tempdir()?,
            agents: Vec::new(),
        };
        for _ in 0..PROCESSES {
            let agent = processes.agent().await?;
            processes.agents.push(agent);
        }
        Ok(processes)
    }

    async fn agent(&self) -> Result<Arc<OwnChild>> {
        let mut command = Command::new(&self.program);
        command
            .args(["agent", "run", "--slots", "2", "--grace", "1s"])
            .args(["--capability", CAPABILITY, "--nats-url", &self.nats_url])
            .args(["--project", self.world.project.id().as_str()])
            .args(["--", "sh", "-c", PROGRAM, "sh"])
            .arg(self.folder.path())
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let agent = OwnChild::spawn(command, ParentDeath::Kill).await;
        Ok(Arc::new(agent.context("start an agent process")?))
    }

    /// Stops one by a signal and continues it later, or kills it and starts another one.
    pub async fn inflict(&mut self, which: usize, nature: Nature, away: Duration) -> Result<()> {
        let agent = &self.agents[which];
        if nature == Nature::Pause {
            agent.pause();
            let agent = agent.clone();
            tokio::spawn(async move {
                sleep(away).await;
                agent.signal(Signal::CONT);
            });
            return Ok(());
        }
        agent.signal(Signal::KILL);
        agent.ended().await;
        self.agents[which] = self.agent().await?;
        Ok(())
    }

    /// What is wrong with how the items of the processes ended.
    pub fn judge(&self, submitted: &[WorkId], ended: &[WorkItem]) -> Vec<String> {
        let mut wrong = self.world.refused(CAPABILITY);
        wrong.extend(judge_items(self.folder.path(), submitted, ended));
        wrong
    }
}

/// Holds what programs left behind of each item against how it ended.
pub(super) fn judge_items(folder: &Path, submitted: &[WorkId], ended: &[WorkItem]) -> Vec<String> {
    let mut items: HashMap<WorkId, Vec<&WorkItem>> = HashMap::new();
    for item in ended {
        items.entry(item.id).or_default().push(item);
    }
    let mut wrong = Vec::new();
    if submitted.is_empty() {
        wrong.push("no item was accepted: nothing of them is proved".to_owned());
    }
    for id in submitted {
        let judged = match items.get(id).map(Vec::as_slice) {
            Some([item]) => judge_item(folder, item),
            other => Err(format!("is listed {} times", other.map_or(0, <[_]>::len))),
        };
        wrong.extend(judged.err().map(|why| format!("work item {id} {why}")));
    }
    wrong
}

fn judge_item(folder: &Path, item: &WorkItem) -> Result<(), String> {
    if item.status != WorkStatus::Completed {
        return Err(format!("is {} and not completed", item.status));
    }
    let attempt = item.attempt.to_string();
    let result = item.result.as_ref().and_then(|r| r.summary.as_deref());
    if result != Some(&attempt) {
        let text = format!("was completed as attempt {attempt} with the result of {result:?}");
        return Err(text);
    }
    let lines = std::fs::read_to_string(folder.join(item.id.to_string()));
    let lines = lines.map_err(|error| format!("left nothing behind: {error}"))?;
    let finished = format!("{attempt} finished");
    if !lines.lines().any(|line| line == finished) {
        return Err(format!("was completed, and nobody finished it: {lines:?}"));
    }
    let mut begun: Vec<&str> = lines.lines().filter(|l| l.ends_with(" begun")).collect();
    begun.sort_unstable();
    match begun.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(format!("was run twice as one attempt: {}", twice[0])),
        None => Ok(()),
    }
}

/// Submits for the processes until it is told to stop, and gives what was accepted.
pub(super) async fn submit(
    world: World,
    stop: watch::Receiver<bool>,
    submitted: Arc<Mutex<Vec<WorkId>>>,
) {
    let mut times = interval(SUBMIT_EVERY);
    while !*stop.borrow() {
        times.tick().await;
        let accepted = world.submit_unseen(CAPABILITY).await;
        submitted.lock().extend(accepted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::world::MAX_ATTEMPTS;
    use serde_json::json;

    fn completed(id: WorkId, attempt: u32, result: &str) -> WorkItem {
        let at = "2026-01-01T00:00:00Z";
        let item = json!({
            "id": id, "taskId": "", "description": "", "capability": CAPABILITY, "boundary": "default",
            "priority": 5, "status": "completed", "attempt": attempt, "attempts": attempt,
            "maxAttempts": MAX_ATTEMPTS, "projectId": "p", "terminal": true, "offeredBy": "t",
            "offeredAt": at, "updatedAt": at, "revision": 1,
            "result": { "summary": result, "completedAt": at },
        });
        serde_json::from_value(item).unwrap()
    }

    #[test]
    fn what_a_completed_item_left_behind_tells_a_sound_run_from_every_unsound_one() {
        let folder = tempfile::tempdir().unwrap();
        let judged = |attempt, result: &str, lines: Option<&str>| {
            let id = WorkId::generate();
            if let Some(lines) = lines {
                std::fs::write(folder.path().join(id.to_string()), lines).unwrap();
            }
            judge_items(folder.path(), &[id], &[completed(id, attempt, result)]).pop()
        };
        let overtaken = "1 begun\n2 begun\n1 finished\n2 finished\n";
        assert_eq!(judged(2, "2", Some(overtaken)), None);
        for (attempt, result, lines, why) in [
            (2, "1", Some(overtaken), "with the result of"),
            (1, "1", None, "left nothing behind"),
            (1, "1", Some("1 begun\n"), "nobody finished it"),
            (1, "1", Some("1 begun\n1 begun\n1 finished\n"), "run twice"),
        ] {
            let said = judged(attempt, result, lines).unwrap();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn an_item_that_is_gone_or_there_twice_is_wrong() {
        let (folder, id) = (tempfile::tempdir().unwrap(), WorkId::generate());
        let twice = [completed(id, 1, "1"), completed(id, 1, "1")];
        assert!(judge_items(folder.path(), &[], &[])[0].contains("no item was accepted"));
        assert!(judge_items(folder.path(), &[id], &[])[0].contains("listed 0 times"));
        assert!(judge_items(folder.path(), &[id], &twice)[0].contains("listed 2 times"));
    }
}
