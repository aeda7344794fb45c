//! Runs, as GitHub tells them and as whoever runs them has them.

use std::collections::BTreeMap;

use loom_protocol::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Hub, TestGithub};

/// A run.
pub(super) struct Run {
    pub(super) id: u64,
    pub(super) number: usize,
    pub(super) title: String,
    pub(super) reference: String,
    pub(super) inputs: BTreeMap<String, String>,
    /// How often runs are listed without it from now on.
    pub(super) appears_after: usize,
    pub(super) is_dispatched: bool,
    pub(super) status: String,
    pub(super) conclusion: Option<String>,
    /// How often it has changed.
    pub(super) changes: usize,
    pub(super) created_at: Timestamp,
    pub(super) cancelled: watch::Sender<bool>,
}

impl Run {
    pub(super) fn etag(&self) -> String {
        format!("W/\"{:x}-{}\"", self.id, self.changes)
    }

    pub(super) fn json(&self, api: &str) -> Value {
        let repo = TestGithub::REPO;
        let url = format!("{api}/repos/{repo}/actions/runs/{}", self.id);
        let (_, name) = repo.split_once('/').unwrap_or_default();
        json!({
            "id": self.id,
            "node_id": format!("WFR_{}", self.id),
            "name": "Agent",
            "display_title": self.title,
            "path": format!(".github/workflows/{}", TestGithub::WORKFLOW),
            "event": "workflow_dispatch",
            "status": self.status,
            "conclusion": self.conclusion,
            "head_branch": self.reference,
            "head_sha": "7638417db6d59f3c431d3e1f261cc637155684cd",
            "run_number": self.number,
            "run_attempt": 1,
            "workflow_id": 30_433_642,
            "check_suite_id": 42,
            "created_at": seconds(self.created_at),
            "updated_at": seconds(self.created_at),
            "run_started_at": seconds(self.created_at),
            "actor": {"login": "octocat", "id": 1, "type": "User"},
            "pull_requests": [],
            "url": url,
            "html_url": self.page(),
            "jobs_url": format!("{url}/jobs"),
            "logs_url": format!("{url}/logs"),
            "cancel_url": format!("{url}/cancel"),
            "repository": {"id": 1_296_269, "name": name, "full_name": repo, "private": true},
        })
    }

    /// The only job, with its steps.
    pub(super) fn jobs(&self) -> Value {
        let state = |status: &str| json!({"status": status, "conclusion": self.conclusion});
        let mut job = state(&self.status);
        job["id"] = json!(self.id + 1);
        job["run_id"] = json!(self.id);
        job["name"] = json!("agent");
        job["html_url"] = json!(format!("{}/job/1", self.page()));
        let mut step = state(&self.status);
        step["name"] = json!("Run the agent");
        step["number"] = json!(1);
        job["steps"] = json!([step]);
        json!({"total_count": 1, "jobs": [job]})
    }

    pub(super) fn page(&self) -> String {
        format!(
            "https://github.example/{}/actions/runs/{}",
            TestGithub::REPO,
            self.id
        )
    }
}

/// A time in whole seconds, as GitHub writes it.
pub(super) fn seconds(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{}Z", text.split('.').next().unwrap_or_default())
}

/// A run that was dispatched, for whoever runs it.
#[derive(Debug)]
pub struct DispatchedRun {
    /// Its id.
    pub id: u64,
    /// The branch or tag.
    pub reference: String,
    /// Its inputs.
    pub inputs: BTreeMap<String, String>,
    pub(super) hub: Hub,
    pub(super) cancel: watch::Receiver<bool>,
}

impl DispatchedRun {
    /// It begins.
    pub fn begin(&self) {
        self.hub.change(self.id, "in_progress", None);
    }

    /// It has ended, with this conclusion.
    pub fn finish(&self, conclusion: &str) {
        self.hub.change(self.id, "completed", Some(conclusion));
    }

    /// Waits until it is to end: it was cancelled, or the server is gone.
    pub async fn cancelled(&self) {
        let mut cancel = self.cancel.clone();
        let _ = cancel.wait_for(|is_cancelled| *is_cancelled).await;
    }
}
