//! Coordinators whose projects sleep soon, and what is asked of them.

use std::collections::BTreeMap;

use loom_protocol::WorkId;
use loom_testkit::nats::TestNats;
use loom_testkit::process::{LoomProcess, LoomUp};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::{Rest, loom_up, until};

/// After how long without use a project sleeps here.
const SLEEP_AFTER: &str = "1s";

/// A coordinator whose projects sleep soon, and the NATS that it works on.
pub async fn sleepy() -> (TestNats, LoomProcess) {
    sleepy_with(&[]).await
}

/// The same, with these settings.
pub async fn sleepy_with(settings: &[(&str, &str)]) -> (TestNats, LoomProcess) {
    let nats = TestNats::start().await.unwrap();
    let up = loom_up().on_nats(nats.url());
    let loom = set(up, settings).start().await.unwrap();
    (nats, loom)
}

/// What is set later counts.
fn set(up: LoomUp, settings: &[(&str, &str)]) -> LoomUp {
    let up = up.set("projects.sleep_after", SLEEP_AFTER);
    let settings = settings.iter();
    settings.fold(up, |up, (key, value)| up.set(key, value))
}

/// Coordinators one after the other, on one NATS and one data directory, each with settings of its own.
pub struct Coordinators {
    // The order of their ends.
    pub loom: Option<LoomProcess>,
    pub nats: TestNats,
    data: TempDir,
}

impl Coordinators {
    /// None runs yet.
    pub async fn new() -> Self {
        Self {
            loom: None,
            nats: TestNats::start().await.unwrap(),
            data: tempfile::tempdir().unwrap(),
        }
    }

    /// `kill -9` for the one that runs, and the start of the next one, whose projects sleep soon where these settings say
    /// nothing else.
    pub async fn next(&mut self, settings: &[(&str, &str)]) -> Rest {
        if let Some(mut former) = self.loom.take() {
            former.kill_9().await;
        }
        let up = loom_up().on_nats(self.nats.url());
        let up = set(up.data_dir(self.data.path()), settings);
        let next = up.start().await.unwrap();
        let rest = Rest::of(&next);
        self.loom = Some(next);
        rest
    }

    /// Waits until the one that runs has kept the mark of a project that sleeps.
    pub async fn until_its_mark_is_kept(&self, project: &str) {
        let kept = format!("the project sleeps project={project}");
        self.loom
            .as_ref()
            .unwrap()
            .until_it_logs(&kept)
            .await
            .unwrap();
    }
}

pub async fn get(rest: &Rest, path: &str) -> (u16, Value) {
    let answer = rest.http.get(format!("{}{path}", rest.url));
    let answer = answer.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

pub async fn post(rest: &Rest, project: &str, path: &str, body: Value) -> (u16, Value) {
    let request = rest.http.post(format!("{}{path}", rest.url)).json(&body);
    let answer = request.header("Loom-Project", project).send().await;
    let answer = answer.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

/// Submits an item and calls it off: a project with nothing left to do.
pub async fn one_finished(rest: &Rest, project: &str) -> WorkId {
    let body = json!({"capability": "rust", "description": "one", "taskId": "build"});
    let (status, item) = post(rest, project, "/api/work", body).await;
    assert_eq!(status, 201, "{item}");
    let id = item["id"].as_str().or(item["workItemId"].as_str()).unwrap();
    let path = format!("/api/work/{id}/cancel");
    let (status, item) = post(rest, project, &path, json!({})).await;
    assert_eq!(status, 200, "{item}");
    id.parse().unwrap()
}

/// Whether each project that is known sleeps.
pub async fn sleeping(rest: &Rest) -> BTreeMap<String, bool> {
    let (status, answer) = get(rest, "/api/stats/projects").await;
    assert_eq!(status, 200, "{answer}");
    let details = answer["details"].as_array().unwrap().iter();
    details
        .map(|project| {
            let name = project["projectId"].as_str().unwrap().to_owned();
            (name, project["asleep"] == true)
        })
        .collect()
}

pub async fn until_inactive(rest: &Rest, projects: &[&str]) {
    until(
        "they sleep",
        || sleeping(rest),
        |known| {
            projects
                .iter()
                .all(|project| known.get(*project) == Some(&true))
        },
    )
    .await;
}
