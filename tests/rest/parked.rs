//! A project that crashed too often: seen by whoever asks, no trouble for the others, and it comes back.

use std::time::Duration;

use loom_actors::supervision::{TreeState, TreeStatus};
use loom_coordinator::settings::Secret;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use tokio::process::Command;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN: &str = "of-the-operator";

impl House {
    /// One crash of a project parks it, at first for half of this to the whole.
    async fn that_parks_for(pause: Duration) -> Self {
        let mut house = Self::open_with(|settings| {
            settings.api.tokens = vec![Secret::new(TOKEN)];
            settings.supervision.project.max_restarts = Some(0);
            settings.supervision.project.backoff_max = Some(pause);
        })
        .await;
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {TOKEN}").parse().unwrap());
        let client = Client::builder().no_proxy().default_headers(headers);
        house.http = client.build().unwrap();
        house
    }

    async fn wait_for(&self, what: &str, is_so: impl Fn(&TreeState) -> bool) {
        let is_so = |tree: &TreeStatus| *tree.name == *self.project.as_str() && is_so(&tree.state);
        let projects = self.coordinator.projects();
        let reached = projects
            .root()
            .wait_until(PATIENCE, |trees| trees.iter().any(&is_so));
        let reached = reached.await;
        assert!(reached.is_ok(), "it is not {what}: {reached:?}");
    }

    async fn park(&self) {
        let projects = self.coordinator.projects();
        assert!(projects.root().kill_tree(self.project.as_str()).await);
        let parked = |state: &TreeState| matches!(state, TreeState::Parked { .. });
        self.wait_for("parked", parked).await;
    }

    /// `loom …` against this coordinator: the code it ends with, and what it wrote.
    async fn loom(&self, command: &str) -> (Option<i32>, String) {
        let url = format!("http://{}", self.coordinator.api_address());
        let mut loom = Command::new(env!("CARGO_BIN_EXE_loom"));
        loom.args(["--url", &url, command])
            .env("LOOM_API_TOKEN", TOKEN);
        loom.env_remove("LOOM_PROJECT_ID");
        let output = loom.output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (output.status.code(), text)
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_parked_project_is_named_hinders_nobody_and_comes_back_at_its_next_request() {
    let house = House::that_parks_for(Duration::from_mins(1)).await;
    let name = house.project.as_str();
    let of_it = format!("/ready?project={name}");
    let unknown = TestNats::unique_project();
    house.submit("before").await;
    assert_eq!(house.get(&of_it).await["ready"], true);
    house.park().await;

    let ready = house.get("/ready").await;
    assert_eq!(ready["problems"], json!([]));
    let reason = ready["parked"][name].as_str().unwrap();
    assert!(
        reason.starts_with("it was killed; it is tried again"),
        "{reason}"
    );
    let (status, ready) = house.ask(Method::GET, &of_it, None).await;
    assert_eq!((status, &ready["kinds"]), (503, &json!(["project-parked"])));
    let said = ready["problems"][0].as_str().unwrap();
    assert!(
        said.contains(name) && said.contains("it was killed"),
        "{said}"
    );

    // Somebody elsewhere without a token learns that something is wrong, and no name and no reason.
    let url = format!("http://{}{of_it}", house.coordinator.api_address());
    let stranger = Client::builder().no_proxy().build().unwrap();
    let asked = stranger.get(url).header("X-Forwarded-For", "192.0.2.7");
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let said = answer.text().await.unwrap();
    assert!(said.contains("project-parked"), "{said}");
    assert!(!said.contains(name) && !said.contains("killed"), "{said}");

    // Asking starts nothing, and what nobody has used yet would be started by its first request.
    let ready = house.get(&format!("/ready?project={unknown}")).await;
    assert_eq!(ready["ready"], true);
    let projects = house.get("/api/stats/projects").await;
    assert_eq!(projects["projects"], json!([name]));
    let (status, _) = house
        .ask(Method::GET, "/ready?project=not.a.name", None)
        .await;
    assert_eq!(status, 400);

    let other = TestNats::unique_project();
    let item = json!({"description": "d", "capability": "c"});
    let path = format!("/p/{other}/api/work");
    assert_eq!(house.post(&path, item.clone()).await.0, 201);
    assert_eq!(
        house.get(&format!("/ready?project={other}")).await["ready"],
        true
    );

    let (code, said) = house.loom("status").await;
    assert_eq!(code, Some(0), "the whole serves: {said}");
    assert!(
        said.contains(&format!("project {name} is parked")),
        "{said}"
    );
    let (code, said) = house.loom("doctor").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&format!("WRONG   project: project {name}")),
        "{said}"
    );

    // The request that finds it parked is refused with the reason, and has it tried.
    let (status, refused) = house.post("/api/work", item.clone()).await;
    assert_eq!((status, &refused["code"]), (503, &json!("unavailable")));
    assert!(refused.to_string().contains("it was killed"), "{refused}");
    house
        .wait_for("up", |state| *state == TreeState::Running)
        .await;
    assert_eq!(house.post("/api/work", item).await.0, 201);
    assert_eq!(house.get(&of_it).await["parked"], json!({}));
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_parked_project_comes_back_by_itself() {
    let house = House::that_parks_for(Duration::from_secs(1)).await;
    let id = house.submit("before").await;
    for _ in 0..2 {
        house.park().await;
        house
            .wait_for("up", |state| *state == TreeState::Running)
            .await;
    }
    let item = house.get(&format!("/api/work/{id}")).await;
    assert_eq!(item["status"], "pending");
    let guid = house.register("a").await;
    let claimed = house.request("work.claim", json!({"guid": guid})).await;
    assert_eq!(
        claimed["items"][0]["workItem"]["id"],
        id.as_str(),
        "{claimed}"
    );
}
