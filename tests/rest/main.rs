//! The REST door over a whole coordinator: each path answers as the contract says.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod events;
mod filters;
mod naming;
mod parked;

use loom_coordinator::coordinator::{Coordinator, UpOptions};
use loom_coordinator::settings::{ServerUrl, Settings};
use loom_protocol::agent::RegisterRequest;
use loom_protocol::{ProjectId, VerbName, names};
use loom_testkit::fleet::everybody;
use loom_testkit::nats::TestNats;
use reqwest::{Client, Method};
use serde_json::{Value, json};

struct House {
    coordinator: Coordinator,
    http: Client,
    project: ProjectId,
    // Dropped last: nobody is left without its server.
    nats: TestNats,
    _dir: tempfile::TempDir,
}

/// Status and body.
type Answer = (u16, Value);

impl House {
    async fn open() -> Self {
        Self::open_with(|_| ()).await
    }

    async fn open_with(change: impl FnOnce(&mut Settings)) -> Self {
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let nats = TestNats::start().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let project = TestNats::unique_project();
        let mut settings = Settings::default();
        settings.nats.url = Some(ServerUrl::new(nats.url()));
        settings.nats.data_dir = Some(dir.path().into());
        settings.api.port = 0;
        settings.projects.default = project.clone();
        change(&mut settings);
        let coordinator = Coordinator::start(&settings, UpOptions::default())
            .await
            .unwrap();
        Self {
            coordinator,
            http: Client::builder().no_proxy().build().unwrap(),
            project,
            nats,
            _dir: dir,
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let url = format!("http://{}{path}", self.coordinator.api_address());
        let request = self.http.request(method, url);
        let request = match body {
            Some(body) => request.json(&body),
            None => request.header("Content-Type", "application/json"),
        };
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// A request over NATS.
    async fn request(&self, action: &str, body: Value) -> Value {
        let client = self.nats.connect().await.unwrap();
        let subject = names::request(&self.project, action);
        let answer = client.request(subject, body.to_string().into()).await;
        serde_json::from_slice(&answer.unwrap().payload).unwrap()
    }

    async fn submit(&self, description: &str) -> String {
        let item = json!({"description": description, "capability": "c"});
        let (status, answer) = self.post("/api/work", item).await;
        assert_eq!(status, 201, "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    }

    async fn register(&self, handle: &str) -> String {
        let request = RegisterRequest {
            handle: handle.into(),
            agent_type: "test".into(),
            capabilities: vec!["c".into()],
            ..RegisterRequest::default()
        };
        let service = self.coordinator.service();
        let caller = everybody(VerbName::AgentsRegister, Some(&self.project)).unwrap();
        let answer = service.register(&caller, request).await.unwrap();
        answer.agent.guid.to_string()
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_life_of_an_item_over_rest() {
    let house = House::open().await;
    let id = house.submit("first").await;
    let item = house.get(&format!("/api/work/{id}")).await;
    assert_eq!(
        (&item["status"], &item["priority"]),
        (&json!("pending"), &json!(5))
    );
    assert_eq!(item["projectId"], house.project.as_str());

    let explained = house.get(&format!("/api/work/{id}/explain")).await;
    assert_eq!(explained["agents"], json!([]));

    // With an empty body, as a client with a fixed Content-Type sends it.
    let cancel = format!("/api/work/{id}/cancel");
    let (status, answer) = house.ask(Method::POST, &cancel, None).await;
    assert_eq!((status, &answer["success"]), (200, &json!(true)));
    let (status, answer) = house.ask(Method::POST, &cancel, None).await;
    assert_eq!((status, &answer["code"]), (409, &json!("terminal-state")));
    let item = house.get(&format!("/api/work/{id}")).await;
    assert_eq!(
        (&item["status"], &item["terminal"]),
        (&json!("cancelled"), &json!(true))
    );
    house.coordinator.shut_down().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn listings_have_pages_and_filters() {
    let house = House::open().await;
    for number in 0..5 {
        house.submit(&format!("item {number}")).await;
    }
    let first = house.get("/api/work?limit=2").await;
    assert_eq!(
        (&first["count"], &first["hasMore"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(first["workItems"][0]["description"], "item 0");
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = house
        .get(&format!("/api/work?limit=2&cursor={cursor}"))
        .await;
    assert_eq!(second["workItems"][0]["description"], "item 2");
    assert_eq!(house.get("/api/work?capability=other").await["count"], 0);
    assert_eq!(house.get("/api/work?status=completed").await["count"], 0);
    let (status, error) = house.ask(Method::GET, "/api/work?status=odd", None).await;
    assert_eq!((status, &error["code"]), (400, &json!("invalid-request")));
    house.coordinator.shut_down().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn arrays_are_answered_item_by_item() {
    let house = House::open().await;
    let good = json!({"description": "good", "capability": "c", "classification": "core"});
    let bad = [
        json!({"description": "bad", "capability": "c", "priority": 11}),
        json!({"description": "bad", "capability": " c d"}),
        json!({"description": "bad", "capability": "c", "dependsOn": []}),
        json!({"description": "bad", "capability": "c", "strict": true, "colour": 1}),
    ];
    let items = [&[good][..], &bad].concat();
    let (status, answer) = house.post("/api/work", json!({"items": items})).await;
    assert_eq!(status, 201);
    let answers = answer["items"].as_array().unwrap();
    let id = answers[0]["id"].as_str().unwrap();
    let item = house.get(&format!("/api/work/{id}")).await;
    assert_eq!(item["boundary"], "core");
    let codes: Vec<&Value> = answers[1..].iter().map(|answer| &answer["code"]).collect();
    assert_eq!(
        codes,
        [
            "invalid-request",
            "invalid-token",
            "invalid-request",
            "invalid-request"
        ]
    );
    house.coordinator.shut_down().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn batches_say_how_each_went() {
    let house = House::open().await;
    let ids = [house.submit("a").await, house.submit("b").await];
    let nobody = "00000000-0000-4000-8000-000000000000";
    let asked = json!({"workItemIds": [&ids[0], nobody, &ids[1]]});
    let (status, result) = house.post("/api/work/cancel-batch", asked).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&result["success"], &result["failed"]),
        (&json!(ids), &json!([nobody]))
    );
    assert_eq!(
        (&result["count"], &result["totalProcessed"]),
        (&json!(2), &json!(3))
    );
    assert!(result["errors"][nobody].is_string() && result["completedAt"].is_string());

    let (_, purged) = house.post("/api/queue/purge", json!({"all": true})).await;
    assert_eq!(purged["purged"], 0);
    house.submit("c").await;
    assert_eq!(house.get("/api/queue").await["pending"], json!({"c": 1}));
    let (_, purged) = house
        .post("/api/queue/purge", json!({"capability": "c"}))
        .await;
    assert_eq!(purged["purged"], 1);
    house.coordinator.shut_down().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_batch_is_named_by_its_filter() {
    let house = House::open().await;
    let urgent = json!({"description": "d", "capability": "c", "priority": 9});
    let (_, urgent) = house.post("/api/work", urgent).await;
    let usual = house.submit("usual").await;
    let asked = json!({"filter": {"capability": "c", "minPriority": 8}});
    let (status, result) = house.post("/api/work/cancel-batch", asked).await;
    assert_eq!(status, 200, "{result}");
    assert_eq!(result["cancelledItems"], json!([urgent["id"]]));
    assert_eq!(result["hasMore"], false);
    let item = house.get(&format!("/api/work/{usual}")).await;
    assert_eq!(item["status"], "pending");

    // One that has ended cannot be cancelled, and is named as such.
    let asked = json!({"workItemIds": [urgent["id"], usual]});
    let (_, result) = house.post("/api/work/cancel-batch", asked).await;
    assert_eq!(result["notCancellable"], json!([urgent["id"]]));
    assert_eq!(result["failed"], json!([urgent["id"]]));
    assert_eq!(result["cancelledItems"], json!([usual]));

    let (idle, busy) = (house.register("idle").await, house.register("busy").await);
    let held = house.submit("held").await;
    house
        .request("work.claim", json!({"guid": busy, "start": true}))
        .await;
    let asked = json!({"filter": {"agentType": "test", "idleTimeMs": 0}, "reason": "manual"});
    let (_, result) = house.post("/api/agents/shutdown-batch", asked).await;
    assert_eq!(result["shutdownAgents"], json!([idle]), "{result}");
    assert_eq!(result["graceful"], true);

    // What an agent holds is put back for another one.
    let asked = json!({"filter": {"assignedTo": busy}, "reassign": true});
    let (_, result) = house.post("/api/work/cancel-batch", asked).await;
    assert_eq!(result["reassignedItems"], json!([held]), "{result}");
    assert_eq!(result["cancelledItems"], json!([]));
    let item = house.get(&format!("/api/work/{held}")).await;
    assert_eq!(
        (&item["status"], &item["attempts"]),
        (&json!("pending"), &json!(0))
    );
    let beaten = house
        .request("agents.heartbeat", json!({"guid": busy}))
        .await;
    assert_eq!(beaten["directives"][0]["kind"], "cancel", "{beaten}");
    assert_eq!(beaten["directives"][0]["workItemId"], held);

    for wrong in [
        json!({}),
        json!({"ids": [held], "filter": {}}),
        json!({"filter": {"capabilities": "c"}}),
    ] {
        let (status, error) = house.post("/api/work/cancel-batch", wrong).await;
        assert_eq!((status, &error["code"]), (400, &json!("invalid-request")));
    }
    house.coordinator.shut_down().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn existing_clients_read_what_they_expect() {
    let house = House::open().await;
    let unused = house.get("/api/stats/projects").await;
    assert_eq!(unused["projects"], json!([house.project]));
    let item = json!({"description": "d", "capability": "code review"});
    let (_, answer) = house.post("/api/work", item).await;
    assert_eq!(answer["targetAgentType"], "claude-code");
    assert_eq!(answer["estimatedWaitSeconds"], 30);
    let id = &answer["id"];
    let asked = json!({"handle": "a", "agentType": "copilot-cli", "capabilities": ["code review"]});
    let agent = house.request("agents.register", asked).await;
    let item = json!({"description": "d", "capability": "code review"});
    let (_, answer) = house.post("/api/work", item).await;
    assert_eq!(answer["targetAgentType"], "copilot-cli");

    let guid = &agent["guid"];
    let claimed = house
        .request("work.claim", json!({"guid": guid, "start": true}))
        .await;
    let attempt = &claimed["items"][0]["lease"]["attempt"];
    let lease = json!({"id": id, "guid": guid, "attempt": attempt, "progress": 40});
    house.request("work.progress", lease.clone()).await;
    let status = format!("work.status.{}", id.as_str().unwrap());
    let item = house.request(&status, Value::Null).await;
    // Not 40.0: some clients read whole numbers only.
    assert_eq!(item["progress"].to_string(), "40", "{item}");
    house.request("work.complete", lease).await;
    let item = house.request(&status, Value::Null).await;
    assert_eq!(item["progress"].to_string(), "100", "{item}");
    let (_, answer) = house
        .post("/api/work", json!({"description": "d", "capability": "c"}))
        .await;
    assert_ne!(
        answer["estimatedWaitSeconds"], 30,
        "an item was claimed meanwhile"
    );

    let cancelled = house
        .request("work.cancel", json!({"id": answer["id"]}))
        .await;
    assert_eq!(
        (&cancelled["success"], &cancelled["status"]),
        (&json!(true), &json!("cancelled"))
    );
    let ended = house
        .request("agents.shutdown", json!({"guid": guid}))
        .await;
    assert_eq!((&ended["success"], &ended["guid"]), (&json!(true), guid));
    house.coordinator.shut_down().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn agents_are_listed_shown_and_sent_home() {
    let house = House::open().await;
    let guids = [house.register("ada").await, house.register("ben").await];
    let page = house.get("/api/agents?type=test&capability=c").await;
    assert_eq!((&page["count"], &page["total"]), (&json!(2), &json!(2)));
    let agent = house.get(&format!("/api/agents/{}", guids[0])).await;
    assert_eq!(
        (&agent["handle"], &agent["status"]),
        (&json!("ada"), &json!("online"))
    );
    let shutdown = format!("/api/agents/{}/shutdown", guids[0]);
    let (status, answer) = house.post(&shutdown, json!({"graceful": false})).await;
    assert_eq!((status, &answer["graceful"]), (200, &json!(false)));
    let asked = json!({"guids": [&guids[1]]});
    let (_, result) = house.post("/api/agents/shutdown-batch", asked).await;
    assert_eq!(result["success"], json!([guids[1]]));
    let (status, error) = house.ask(Method::GET, "/api/agents/0000", None).await;
    assert_eq!((status, &error["code"]), (404, &json!("not-found")));
    house.coordinator.shut_down().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_coordinator_tells_how_it_is() {
    let house = House::open().await;
    house.submit("one").await;
    assert_eq!(house.get("/health").await["status"], "ok");
    assert_eq!(house.get("/ready").await["ready"], true);
    let info = house.get("/api/info").await;
    assert_eq!(
        (&info["name"], &info["protocol"]),
        (&json!("loom"), &json!(1))
    );
    let stats = house.get("/api/stats").await;
    assert_eq!((&stats["pending"], &stats["total"]), (&json!(1), &json!(1)));
    assert_eq!(stats["byProject"][house.project.as_str()]["pendingWork"], 1);
    let projects = house.get("/api/stats/projects").await;
    assert_eq!(
        (
            &projects["count"],
            projects["projects"].as_array().unwrap().len()
        ),
        (&json!(1), 1)
    );
    let other = house.get("/p/nobody/api/stats").await;
    assert_eq!(other["total"], 0);
    house.coordinator.shut_down().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_body_over_the_limit_is_answered_although_its_sender_still_sends() {
    let house = House::open().await;
    let huge = json!({"description": "x".repeat(2 * 1024 * 1024), "capability": "c"});
    let (status, error) = house.post("/api/work", huge).await;
    assert_eq!((status, &error["code"]), (413, &json!("too-large")));
    let long = json!({"description": "x".repeat(129 * 1024), "capability": "c"});
    let (status, error) = house.post("/api/work", long).await;
    assert_eq!((status, &error["code"]), (413, &json!("too-large")));
    house.coordinator.shut_down().await;
}
