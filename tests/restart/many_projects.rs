//! A coordinator with many projects starts, and one of them cannot: side by side, and nothing is said to be absent that is
//! only not there yet.

use std::time::Duration;

use async_nats::jetstream;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::world::{Rest, World, until};

const MANY: usize = 40;

/// A request over REST in a project: the status, and the body.
async fn get(rest: &Rest, path: &str) -> (u16, Value) {
    let answer = rest.http.get(format!("{}{path}", rest.url));
    let answer = answer.send().await.unwrap();
    (
        answer.status().as_u16(),
        answer.json().await.unwrap_or_default(),
    )
}

async fn submit_in(rest: &Rest, project: &str) -> u16 {
    let body = json!({"capability": "rust", "description": "one"});
    let request = rest.http.post(format!("{}/api/work", rest.url)).json(&body);
    let answer = request.header("Loom-Project", project).send().await;
    answer.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_first_answers_after_a_restart_know_every_item_of_every_project() {
    let mut world = World::new().await;
    let rest = Rest::of(&world.loom);
    let projects: Vec<String> = (0..MANY).map(|n| format!("project-{n:02}")).collect();
    let submitted = projects.iter().map(|project| submit_in(&rest, project));
    assert_eq!(join_all(submitted).await, vec![201; MANY]);

    let nats = async_nats::connect(world.nats().url()).await.unwrap();
    let agent =
        json!({"handle": "one", "agentType": "fake", "capabilities": ["other"]}).to_string();
    let registered = projects.iter().map(|project| {
        let subject = format!("coord.{project}.agents.register");
        nats.request(subject, agent.clone().into())
    });
    for answer in join_all(registered).await {
        let answer: Value = serde_json::from_slice(&answer.unwrap().payload).unwrap();
        assert!(answer["guid"].is_string(), "{answer}");
    }

    world.crash().await;

    let rest = Rest::of(&world.loom);
    let agents = projects.iter().map(|project| {
        let path = format!("/api/agents?projectId={project}");
        let rest = &rest;
        async move { get(rest, &path).await }
    });
    let agents = join_all(agents);
    let first = projects.iter().map(|project| {
        let path = format!("/api/work?projectId={project}");
        let rest = &rest;
        async move { get(rest, &path).await }
    });
    let (first, agents) = tokio::join!(join_all(first), agents);
    for ((status, body), project) in first.iter().chain(&agents).zip(projects.iter().cycle()) {
        // Who asks while it starts may be refused, and is never told that there is nothing.
        match status {
            200 => assert_eq!(body["count"], 1, "{project}: {body}"),
            503 => assert_eq!(body["code"], "unavailable", "{body}"),
            _ => panic!("{project}: {status} {body}"),
        }
    }
    let sums = async || get(&rest, "/api/stats").await.1;
    let all = until("all are up", sums, |sums| sums["starting"].is_null()).await;
    assert_eq!(all["pending"], MANY, "{all}");
    assert_eq!(all["totalProjects"], MANY, "{all}");
    assert_eq!(all["agents"]["total"], MANY, "{all}");
}

/// A restart, and meanwhile somebody else takes the subjects of a project: it cannot start.
async fn restart_without_stream_of(world: &mut World, project: &str) -> jetstream::Context {
    world.loom.kill_9().await;
    let nats = async_nats::connect(world.nats().url()).await.unwrap();
    let jetstream = jetstream::new(nats);
    let stream = format!("LOOM_WORK_{}", project.to_uppercase());
    jetstream.delete_stream(stream).await.unwrap();
    let of_somebody_else = jetstream::stream::Config {
        name: "MINE".into(),
        subjects: vec![format!("loom.{project}.work.queue.*")],
        ..jetstream::stream::Config::default()
    };
    jetstream.create_stream(of_somebody_else).await.unwrap();
    world.loom.restart().await.unwrap();
    jetstream
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_name_is_not_looked_for_elsewhere_while_the_project_that_is_meant_cannot_be_read() {
    let mut world = World::new().await;
    let rest = Rest::of(&world.loom);
    for project in ["default", "other"] {
        let body = json!({"capability": "rust", "description": "one", "taskId": "build-1"});
        let request = rest.http.post(format!("{}/api/work", rest.url)).json(&body);
        let answer = request.header("Loom-Project", project).send().await;
        assert_eq!(answer.unwrap().status().as_u16(), 201);
    }
    restart_without_stream_of(&mut world, "default").await;

    let rest = Rest::of(&world.loom);
    let cancel = rest
        .http
        .post(format!("{}/api/work/build-1/cancel", rest.url));
    let answer = cancel.json(&json!({})).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 503);
    let (status, body) = get(&rest, "/api/work?projectId=other").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["workItems"][0]["status"], "pending", "{body}");
    // A whole id is of one item only: the project that cannot be read keeps nobody from it.
    let id = body["workItems"][0]["id"].as_str().unwrap();
    let (status, body) = get(&rest, &format!("/api/work/{id}")).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_project_that_cannot_start_delays_nobody_says_why_and_comes_back() {
    let mut world = World::new().await;
    let rest = Rest::of(&world.loom);
    for project in ["sound", "broken"] {
        assert_eq!(submit_in(&rest, project).await, 201);
    }
    let jetstream = restart_without_stream_of(&mut world, "broken").await;

    let rest = Rest::of(&world.loom);
    let (status, body) = get(&rest, "/api/work?projectId=sound").await;
    assert_eq!((status, &body["count"]), (200, &json!(1)), "{body}");
    // What the default project has is found by its name, whatever another one may have of it.
    let body = json!({"capability": "rust", "description": "one", "taskId": "build-1"});
    let request = rest.http.post(format!("{}/api/work", rest.url)).json(&body);
    assert_eq!(request.send().await.unwrap().status().as_u16(), 201);
    let (status, body) = get(&rest, "/api/work/build-1").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(get(&rest, "/api/work/unknown").await.0, 503);
    let (status, body) = get(&rest, "/api/work?projectId=broken").await;
    assert_eq!(status, 503, "{body}");
    let why = body["message"].as_str().unwrap();
    assert!(why.contains("MINE"), "it does not say why: {why}");
    let sums = get(&rest, "/api/stats").await.1;
    assert_eq!(sums["pending"], 2, "{sums}");
    let named = sums["starting"]["broken"].as_str().unwrap();
    assert!(named.contains("MINE"), "{named}");
    let agents = get(&rest, "/api/agents").await.1;
    let named = agents["starting"]["broken"].as_str().unwrap();
    assert!(named.contains("MINE"), "{named}");
    let (_, of_one) = get(&rest, "/api/agents?projectId=sound").await;
    assert!(of_one["starting"].is_null(), "{of_one}");
    let readiness = rest.readiness().await;
    assert!(readiness.starting.contains_key("broken"), "{readiness:?}");

    jetstream.delete_stream("MINE").await.unwrap();
    // A write tries again by itself.
    let taken = async || submit_in(&rest, "broken").await;
    until("it takes work", taken, |status| *status == 201).await;
    let (status, body) = get(&rest, "/api/work?projectId=broken").await;
    assert_eq!((status, &body["count"]), (200, &json!(2)), "{body}");
    assert_eq!(rest.readiness().await.starting.len(), 0);
}

/// A project whose ledger may have one reader, which it has: its coordinator cannot load it.
async fn with_an_unreadable_ledger(world: &mut World, project: &str) -> jetstream::stream::Stream {
    let rest = Rest::of(&world.loom);
    assert_eq!(submit_in(&rest, project).await, 201);
    world.loom.kill_9().await;
    let nats = async_nats::connect(world.nats().url()).await.unwrap();
    let jetstream = jetstream::new(nats);
    let ledger = format!("KV_loom-work-{project}");
    let mut config = jetstream.get_stream(&ledger).await.unwrap();
    let mut config = config.info().await.unwrap().config.clone();
    jetstream.delete_stream(&ledger).await.unwrap();
    config.max_consumers = 1;
    jetstream.create_stream(config).await.unwrap();
    let stream = jetstream.get_stream(&ledger).await.unwrap();
    let reader = jetstream::consumer::pull::Config {
        durable_name: Some("somebody".into()),
        ..Default::default()
    };
    stream.create_consumer(reader).await.unwrap();
    world.loom.restart().await.unwrap();
    stream
}

/// What `loom …` says, on both streams.
fn command_line(rest: &Rest, command: &str) -> String {
    let mut loom = std::process::Command::new(env!("CARGO_BIN_EXE_loom"));
    let said = loom.args(["--url", &rest.url, command]).output().unwrap();
    let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).replace('\n', " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn why_a_ledger_cannot_be_loaded_is_said_wherever_it_is_said_that_its_project_is_not_up() {
    const WHY: &str = "maximum consumers";
    let mut world = World::new().await;
    let ledger = with_an_unreadable_ledger(&mut world, "stuck").await;
    let rest = Rest::of(&world.loom);
    let starting = async || rest.readiness().await.starting;
    let said = until("it is told", starting, |starting| {
        starting.get("stuck").is_some_and(|why| why.contains(WHY))
    })
    .await;
    assert_eq!(said.len(), 1, "{said:?}");
    let (status, of_it) = get(&rest, "/ready?project=stuck").await;
    assert_eq!(status, 503, "{of_it}");
    assert!(of_it["problems"].to_string().contains(WHY), "{of_it}");
    let (status, list) = get(&rest, "/api/work?projectId=stuck").await;
    assert_eq!(status, 503, "{list}");
    assert!(list["message"].as_str().unwrap().contains(WHY), "{list}");
    for command in ["status", "doctor"] {
        let said = command_line(&rest, command);
        assert!(said.contains("stuck") && said.contains(WHY), "{said}");
    }

    ledger.delete_consumer("somebody").await.unwrap();
    until("it is up", starting, std::collections::BTreeMap::is_empty).await;
    assert_eq!(get(&rest, "/api/work?projectId=stuck").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn large_bodies_for_a_project_that_does_not_start_keep_no_turn_from_others() {
    // Each waits for longer than a turn is waited for, where they take theirs one after the other.
    const STUCK: usize = 4;
    let mut world = World::new().await;
    let _ledger = with_an_unreadable_ledger(&mut world, "stuck").await;
    let rest = Rest::of(&world.loom);
    let large = "x".repeat(70_000);
    let submit = async |project: &str| {
        let body = json!({"capability": "rust", "description": large});
        let request = rest.http.post(format!("{}/api/work", rest.url)).json(&body);
        let answer = request.header("Loom-Project", project).send().await;
        answer.unwrap().status().as_u16()
    };
    let stuck = join_all((0..STUCK).map(|_| submit("stuck")));
    let others = async {
        loop {
            assert_eq!(submit("sound").await, 201, "it waits for others");
            // deliberate sleep: few items are enough
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        answers = stuck => assert_eq!(answers, vec![503; STUCK]),
        () = others => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn requests_over_all_projects_go_on_beside_one_whose_store_is_another_one_and_name_it() {
    let world = World::new().await;
    let rest = Rest::of(&world.loom);
    for project in ["sound", "replaced"] {
        assert_eq!(submit_in(&rest, project).await, 201);
    }
    let nats = async_nats::connect(world.nats().url()).await.unwrap();
    let jetstream = jetstream::new(nats);
    let ledger = "KV_loom-work-replaced";
    let mut stream = jetstream.get_stream(ledger).await.unwrap();
    let mut config = stream.info().await.unwrap().config.clone();
    config.metadata.clear();
    jetstream.delete_stream(ledger).await.unwrap();
    jetstream.create_stream(config).await.unwrap();

    // What is written there is not known to be in the right one.
    assert_eq!(submit_in(&rest, "replaced").await, 503);
    let sums = async || get(&rest, "/api/stats").await.1;
    let sums = until("it is left out", sums, |sums| sums["starting"].is_object()).await;
    let why = sums["starting"]["replaced"].as_str().unwrap();
    assert!(why.contains("is not the one"), "{why}");
    assert_eq!(sums["pending"], 1, "{sums}");
    let (status, agents) = get(&rest, "/api/agents").await;
    assert_eq!(status, 200, "{agents}");
    assert!(agents["starting"]["replaced"].is_string(), "{agents}");
    let (status, projects) = get(&rest, "/api/stats/projects").await;
    assert_eq!(status, 200, "{projects}");
    assert_eq!(
        projects["projects"],
        json!(["default", "sound"]),
        "{projects}"
    );
    // What is of the sound one is found by its id; a name that is found nowhere may be of the other one.
    let (_, list) = get(&rest, "/api/work?projectId=sound").await;
    let id = list["workItems"][0]["id"].as_str().unwrap();
    assert_eq!(get(&rest, &format!("/api/work/{id}")).await.0, 200);
    let (status, unknown) = get(&rest, "/api/work/unknown").await;
    assert_eq!(status, 503, "{unknown}");
    assert!(
        unknown["message"].as_str().unwrap().contains("replaced"),
        "{unknown}"
    );
    assert_eq!(submit_in(&rest, "sound").await, 201);
    assert_eq!(submit_in(&rest, "replaced").await, 503);
}
