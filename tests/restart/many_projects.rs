//! A coordinator with many projects starts, and one of them cannot: side by side, and nothing is said to be absent that is
//! only not there yet.

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
