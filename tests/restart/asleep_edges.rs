//! What keeps a project awake, what wakes it again, and what is remembered of one that sleeps on.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::{self, kv};
use futures_util::future::join_all;
use loom_protocol::{AgentGuid, names};
use serde_json::{Value, json};

use crate::sleepers::{Coordinators, get, one_finished, post, sleeping, sleepy, until_inactive};
use crate::world::{Rest, until};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_alone_keeps_its_project_awake_until_it_goes() {
    let (nats, loom) = sleepy().await;
    let rest = Rest::of(&loom);
    let client = nats.connect().await.unwrap();
    one_finished(&rest, "kept").await;
    let body = json!({"handle": "ada", "agentType": "fake", "capabilities": ["rust"]});
    let answer = client.request("coord.kept.agents.register", body.to_string().into());
    let answer: Value = serde_json::from_slice(&answer.await.unwrap().payload).unwrap();
    let agent = json!({"guid": answer["guid"]}).to_string();
    // Others that were used later have slept twice meanwhile.
    for _ in 0..2 {
        one_finished(&rest, "other").await;
        until_inactive(&rest, &["other"]).await;
        assert!(!sleeping(&rest).await["kept"], "it has an agent");
    }
    let goodbye = client.request("coord.kept.agents.deregister", agent.into());
    goodbye.await.unwrap();
    until_inactive(&rest, &["kept"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_mark_that_was_made_under_other_settings_does_not_hold() {
    const LONG: (&str, &str) = ("projects.sleep_after", "1h");
    let mut coordinators = Coordinators::new().await;
    let rest = coordinators.next(&[]).await;
    one_finished(&rest, "slept").await;
    coordinators.until_its_mark_is_kept("slept").await;

    let known = async |rest: &Rest| sleeping(rest).await.get("slept").copied();
    // When one sleeps is no setting of what is in it.
    let rest = coordinators.next(&[LONG]).await;
    let asleep = until("it is known", || known(&rest), Option::is_some).await;
    assert_eq!(asleep, Some(true), "nothing has happened to it");
    // How long its items are kept is one.
    let rest = coordinators.next(&[LONG, ("work.retention", "1d")]).await;
    let asleep = until("it is known", || known(&rest), Option::is_some).await;
    assert_eq!(asleep, Some(false), "its totals may be others");
    let (_, stats) = get(&rest, "/api/stats").await;
    assert_eq!(stats["cancelled"], 1, "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_of_the_bucket_of_all_projects_is_there_though_its_project_sleeps_just_then() {
    const PROJECTS: u32 = 16;
    let (nats, loom) = sleepy().await;
    let rest = Rest::of(&loom);
    let jetstream = jetstream::new(nats.connect().await.unwrap());
    let config = kv::Config {
        bucket: names::SHARED_AGENTS_BUCKET.to_owned(),
        ..kv::Config::default()
    };
    let bucket = jetstream.create_key_value(config).await.unwrap();
    let arrivals = (0..PROJECTS).map(|number| {
        let (rest, bucket) = (&rest, &bucket);
        async move {
            let project = format!("entered-{number}");
            one_finished(rest, &project).await;
            // deliberate sleep: the entries are spread over the moments about which the projects fall asleep
            tokio::time::sleep(Duration::from_millis(u64::from(950 + number * 25))).await;
            let guid = AgentGuid::generate();
            let entry = json!({
                "guid": guid, "handle": "old client", "agentType": "fake", "projectId": project,
                "capabilities": ["rust"], "status": "online",
            });
            let entry = entry.to_string();
            bucket.put(guid.to_string(), entry.into()).await.unwrap();
        }
    });
    join_all(arrivals).await;
    let agents = async || get(&rest, "/api/agents").await.1["total"].clone();
    until("all agents are there", agents, |count| *count == PROJECTS).await;
    // And they keep their projects awake.
    one_finished(&rest, "other").await;
    until_inactive(&rest, &["other"]).await;
    assert_eq!(agents().await, PROJECTS);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_data_directory_remembers_a_project_that_sleeps_on_through_a_start() {
    let (_nats, mut loom) = sleepy().await;
    let rest = Rest::of(&loom);
    one_finished(&rest, "still").await;
    until_inactive(&rest, &["still"]).await;
    loom.until_it_logs("the project sleeps project=still")
        .await
        .unwrap();
    // In a folder of its own for each NATS.
    let folders = std::fs::read_dir(loom.data_dir()).unwrap();
    let mut folders = folders.map(|folder| folder.unwrap().path());
    let of_nats = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("at-")
    };
    let memory = folders.find(of_nats).unwrap().join("store-memory.json");
    let remembered = || {
        let memory: Value = serde_json::from_slice(&std::fs::read(&memory).unwrap()).unwrap();
        memory["projects"]["still"].clone()
    };
    assert!(loom.terminate().await.unwrap().success());
    let before = remembered();
    assert!(before["stamp"].is_string(), "{before}");
    // It is not opened: what is known of it is what was remembered.
    loom.restart().await.unwrap();
    assert!(sleeping(&Rest::of(&loom)).await["still"]);
    assert!(loom.terminate().await.unwrap().success());
    assert_eq!(remembered(), before);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_default_project_that_is_not_there_yet_is_not_said_to_be_awake() {
    let (_nats, loom) = sleepy().await;
    let rest = Rest::of(&loom);
    let default = async || {
        let (_, answer) = get(&rest, "/api/stats/projects").await;
        let details = answer["details"].as_array().unwrap().iter();
        let mut default = details.filter(|project| project["projectId"] == "default");
        default.next().unwrap().clone()
    };
    let listed = || {
        let mut list = std::process::Command::new(env!("CARGO_BIN_EXE_loom"));
        let list = list.args(["--url", &rest.url, "projects"]).output();
        String::from_utf8(list.unwrap().stdout).unwrap()
    };
    assert_eq!(default().await["unused"], true);
    assert!(listed().contains("not used yet"), "{}", listed());
    let body = json!({"capability": "rust", "description": "one"});
    assert_eq!(post(&rest, "default", "/api/work", body).await.0, 201);
    assert!(default().await["unused"].is_null());
    assert!(listed().contains("awake"), "{}", listed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn those_that_sleep_hear_while_much_is_published_by_others_and_after_it() {
    let (nats, loom) = sleepy().await;
    let rest = Rest::of(&loom);
    for project in ["meanwhile", "after", "entered"] {
        one_finished(&rest, project).await;
    }
    until_inactive(&rest, &["meanwhile", "after", "entered"]).await;
    let client = nats.connect().await.unwrap();
    let jetstream = jetstream::new(client.clone());
    let publish = async |project: &str| {
        let item = json!({"capability": "rust", "description": "published"}).to_string();
        let subject = format!("loom.{project}.work.queue.rust");
        let stored = jetstream.publish(subject, item.into()).await.unwrap();
        stored.await.unwrap();
    };
    let flood = tokio::spawn(async move {
        loop {
            for _ in 0..100 {
                let sent = client.publish("$KV.somebody.key", "".into());
                sent.await.unwrap();
            }
            client.flush().await.unwrap();
            // deliberate sleep: more than a few hundred messages a second, and not all that the machine can do
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    // Before, while and after what listens to it changes.
    publish("meanwhile").await;
    let pending = async || get(&rest, "/api/stats").await.1["pending"].clone();
    until("what came meanwhile is there", pending, |count| *count == 1).await;
    loom.until_it_logs("is heard alone").await.unwrap();
    publish("after").await;
    until("what came after it is there", pending, |count| *count == 2).await;
    // One that falls asleep now is heard alone too.
    one_finished(&rest, "late").await;
    until_inactive(&rest, &["late"]).await;
    publish("late").await;
    until("it hears", pending, |count| *count == 3).await;
    let bucket = jetstream.get_key_value("loom-agents-entered").await;
    let guid = AgentGuid::generate();
    let entry = json!({
        "guid": guid, "handle": "ada", "agentType": "fake", "capabilities": ["rust"], "status": "online",
    });
    let put = bucket.unwrap();
    put.put(guid.to_string(), entry.to_string().into())
        .await
        .unwrap();
    let agents = async || get(&rest, "/api/agents").await.1["total"].clone();
    until("its agent is there", agents, |count| *count == 1).await;
    flood.abort();
}
