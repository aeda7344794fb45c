//! Projects that nobody needs sleep, and whoever needs one again does not notice.

use std::time::Duration;

use async_nats::jetstream;
use futures_util::future::join_all;
use loom_protocol::{AgentGuid, WorkId};
use serde_json::{Value, json};

use crate::sleepers::{
    Coordinators, get, one_finished, post, sleeping, sleepy, sleepy_with, until_inactive,
};
use crate::world::{Rest, until};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_project_with_nothing_to_do_sleeps_is_counted_and_wakes_for_the_first_request() {
    let (_nats, loom) = sleepy().await;
    let rest = Rest::of(&loom);
    let id = one_finished(&rest, "done").await;
    let body = json!({"capability": "rust", "description": "one"});
    assert_eq!(post(&rest, "busy", "/api/work", body).await.0, 201);
    until_inactive(&rest, &["done"]).await;

    // Sums and lists over all tell of it, and wake nothing.
    let (_, stats) = get(&rest, "/api/stats").await;
    assert_eq!(stats["cancelled"], 1, "{stats}");
    assert_eq!(stats["pending"], 1, "{stats}");
    assert_eq!(stats["asleep"], 1, "{stats}");
    assert!(stats["byProject"]["done"].is_object(), "{stats}");
    let (_, of_one) = get(&rest, "/api/stats?projectId=done").await;
    assert_eq!(
        (&of_one["cancelled"], &of_one["asleep"]),
        (&json!(1), &json!(1)),
        "{of_one}"
    );
    assert_eq!(get(&rest, "/api/agents").await.0, 200);
    let metrics = rest.http.get(format!("{}/metrics", rest.url)).send().await;
    let metrics = metrics.unwrap().text().await.unwrap();
    let counted = r#"loom_work_items{project="done",status="cancelled"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    assert!(
        metrics.contains(r#"loom_projects{state="asleep"} 1"#),
        "{metrics}"
    );
    let known = sleeping(&rest).await;
    assert_eq!((known["done"], known["busy"]), (true, false), "{known:?}");

    let (status, list) = get(&rest, "/api/work?projectId=done").await;
    assert_eq!((status, &list["count"]), (200, &json!(1)), "{list}");
    assert_eq!(list["workItems"][0]["id"], json!(id), "{list}");
    assert!(!sleeping(&rest).await["done"], "it was asked for");

    // And by its whole id alone, wherever it is.
    until_inactive(&rest, &["done"]).await;
    let (status, item) = get(&rest, &format!("/api/work/{id}")).await;
    assert_eq!(
        (status, &item["status"]),
        (200, &json!("cancelled")),
        "{item}"
    );
    let unknown = WorkId::generate();
    assert_eq!(get(&rest, &format!("/api/work/{unknown}")).await.0, 404);
    assert!(!sleeping(&rest).await["busy"], "it has something to do");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_client_that_knows_nothing_but_nats_wakes_a_project() {
    let (nats, loom) = sleepy().await;
    let rest = Rest::of(&loom);
    for project in ["published", "entered", "asked"] {
        one_finished(&rest, project).await;
    }
    until_inactive(&rest, &["published", "entered", "asked"]).await;
    let client = nats.connect().await.unwrap();
    let jetstream = jetstream::new(client.clone());

    let item = json!({"capability": "rust", "description": "published"}).to_string();
    let subject = "loom.published.work.queue.rust";
    let stored = jetstream.publish(subject, item.into()).await.unwrap();
    stored.await.unwrap();
    let pending = async || get(&rest, "/api/stats").await.1["pending"].clone();
    until("the published item is there", pending, |count| *count == 1).await;

    let bucket = jetstream
        .get_key_value("loom-agents-entered")
        .await
        .unwrap();
    let guid = AgentGuid::generate();
    let entry = json!({
        "guid": guid, "handle": "ada", "agentType": "fake", "capabilities": ["rust"], "status": "online",
    });
    let entry = entry.to_string();
    bucket.put(guid.to_string(), entry.into()).await.unwrap();
    let agents = async || get(&rest, "/api/agents").await.1["total"].clone();
    until("its agent is there", agents, |count| *count == 1).await;

    let body = json!({"handle": "bo", "agentType": "fake", "capabilities": ["rust"]});
    let answer = client.request("coord.asked.agents.register", body.to_string().into());
    let answer: Value = serde_json::from_slice(&answer.await.unwrap().payload).unwrap();
    assert!(answer["guid"].is_string(), "{answer}");
    let known = sleeping(&rest).await;
    for project in ["published", "entered", "asked"] {
        assert!(!known[project], "{project}: {known:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn after_a_death_those_sleep_on_to_which_nothing_has_happened() {
    let (nats, mut loom) = sleepy().await;
    let rest = Rest::of(&loom);
    for project in ["still", "moved", "removed"] {
        one_finished(&rest, project).await;
    }
    for project in ["still", "moved", "removed"] {
        let kept = format!("the project sleeps project={project}");
        loom.until_it_logs(&kept).await.unwrap();
    }
    loom.kill_9().await;
    let jetstream = jetstream::new(nats.connect().await.unwrap());
    let item = json!({"capability": "rust", "description": "published"}).to_string();
    let stored = jetstream.publish("loom.moved.work.queue.rust", item.into());
    stored.await.unwrap().await.unwrap();
    for stream in [
        "KV_loom-work-removed",
        "KV_loom-agents-removed",
        "LOOM_WORK_REMOVED",
    ] {
        jetstream.delete_stream(stream).await.unwrap();
    }
    loom.restart().await.unwrap();

    let rest = Rest::of(&loom);
    let pending = async || get(&rest, "/api/stats").await.1["pending"].clone();
    until("what was published meanwhile is there", pending, |count| {
        *count == 1
    })
    .await;
    let known = sleeping(&rest).await;
    assert_eq!((known["still"], known["moved"]), (true, false), "{known:?}");
    assert!(!known.contains_key("removed"), "{known:?}");
    let (_, stats) = get(&rest, "/api/stats").await;
    assert_eq!(stats["cancelled"], 2, "{stats}");
    // What the data directory remembers of the others is there.
    let (_, info) = get(&rest, "/api/info").await;
    let warnings = info["warnings"].as_array().cloned().unwrap_or_default();
    assert!(
        warnings
            .iter()
            .all(|warning| warning.to_string().contains("removed")),
        "{info}"
    );
    let (status, list) = get(&rest, "/api/work?projectId=still").await;
    assert_eq!((status, &list["count"]), (200, &json!(1)), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_project_sleeps_on_over_a_restart_of_nats_and_still_hears() {
    let (nats, loom) = sleepy().await;
    let rest = Rest::of(&loom);
    one_finished(&rest, "still").await;
    until_inactive(&rest, &["still"]).await;
    nats.kill().await.unwrap();
    nats.restart().await.unwrap();
    until(
        "it is ready again",
        || rest.ready(),
        |status| *status == 200,
    )
    .await;
    let asleep = async || sleeping(&rest).await.get("still").copied();
    until("it sleeps", asleep, |asleep| *asleep == Some(true)).await;
    let jetstream = jetstream::new(nats.connect().await.unwrap());
    let item = json!({"capability": "rust", "description": "published"}).to_string();
    let stored = jetstream.publish("loom.still.work.queue.rust", item.into());
    stored.await.unwrap().await.unwrap();
    let pending = async || get(&rest, "/api/stats").await.1["pending"].clone();
    until("the published item is there", pending, |count| *count == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn whoever_comes_while_a_project_falls_asleep_is_answered_as_ever() {
    const PROJECTS: u32 = 8;
    const VISITS: u32 = 12;
    let (_nats, loom) = sleepy().await;
    let rest = Rest::of(&loom);
    let visits = (0..PROJECTS).map(|number| {
        let rest = &rest;
        async move {
            let project = format!("visited-{number}");
            one_finished(rest, &project).await;
            for visit in 0..VISITS {
                // deliberate sleep: the visits are spread over the moments about which the project falls asleep
                tokio::time::sleep(Duration::from_millis(u64::from(
                    900 + (visit * 7 + number * 5) % 60 * 10,
                )))
                .await;
                let (status, list) = get(rest, &format!("/api/work?projectId={project}")).await;
                assert_eq!((status, &list["total"]), (200, &json!(1 + visit)), "{list}");
                one_finished(rest, &project).await;
            }
        }
    });
    join_all(visits).await;
    let log = loom.stderr();
    assert!(
        log.contains("the project sleeps"),
        "none fell asleep: {log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn no_more_projects_are_made_than_may_be_known_asleep_or_awake() {
    let (_nats, loom) = sleepy_with(&[("projects.max", "2"), ("projects.max_known", "3")]).await;
    let rest = Rest::of(&loom);
    one_finished(&rest, "one").await;
    one_finished(&rest, "two").await;
    until_inactive(&rest, &["one", "two"]).await;
    // Two may be awake, and two sleep.
    one_finished(&rest, "three").await;
    let body = json!({"capability": "rust", "description": "one too many"});
    let (status, answer) = post(&rest, "four", "/api/work", body).await;
    assert_eq!(
        (status, &answer["code"]),
        (429, &json!("overloaded")),
        "{answer}"
    );
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("projects.max_known"), "{message}");
    assert_eq!(
        get(&rest, "/api/work?projectId=one").await.0,
        200,
        "a known one wakes"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn idle_projects_make_room_for_one_that_is_needed() {
    let (_nats, loom) = sleepy_with(&[("projects.sleep_after", "1h"), ("projects.max", "2")]).await;
    let rest = Rest::of(&loom);
    one_finished(&rest, "one").await;
    let body = json!({"capability": "rust", "description": "one"});
    assert_eq!(post(&rest, "busy", "/api/work", body.clone()).await.0, 201);
    // The one that is idle makes room, not the one that has something to do, and not at once.
    let needed = async || post(&rest, "needed", "/api/work", body.clone()).await.0;
    until("it takes work", needed, |status| *status == 201).await;
    let known = sleeping(&rest).await;
    assert_eq!(
        (known["one"], known["busy"], known["needed"]),
        (true, false, false),
        "{known:?}"
    );
    // None of the others may sleep: it is said why this one is not woken.
    let (status, answer) = get(&rest, "/api/work?projectId=one").await;
    assert_eq!(
        (status, &answer["code"]),
        (429, &json!("overloaded")),
        "{answer}"
    );
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("projects.max"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_item_is_found_by_its_whole_id_while_its_project_wakes_for_somebody_else() {
    const ROUNDS: usize = 3;
    let (_nats, loom) = sleepy().await;
    let rest = Rest::of(&loom);
    let projects = ["a", "b", "c", "d", "e", "f"];
    let ids = join_all(projects.map(|project| one_finished(&rest, project))).await;
    for _ in 0..ROUNDS {
        until_inactive(&rest, &projects).await;
        let paths = ids.iter().flat_map(|id| [id; 4]);
        let asked = paths.map(|id| {
            let path = format!("/api/work/{id}");
            let rest = &rest;
            async move { get(rest, &path).await }
        });
        for (status, item) in join_all(asked).await {
            assert_eq!(status, 200, "{item}");
        }
    }
    until_inactive(&rest, &projects).await;
    let (status, answer) = get(&rest, "/api/work/build").await;
    assert_eq!(status, 404, "a name is not looked for in those that sleep");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("6 projects sleep"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn more_projects_than_may_be_awake_are_all_to_be_had_after_a_start() {
    let mut coordinators = Coordinators::new().await;
    let projects = ["a", "b", "c", "d", "e", "f"];
    let rest = coordinators.next(&[("projects.max", "10")]).await;
    join_all(projects.map(|project| one_finished(&rest, project))).await;
    // No mark says of any of them that nothing has happened.
    let rest = coordinators.next(&[("projects.max", "2")]).await;
    for project in projects.iter().rev() {
        let path = format!("/api/work?projectId={project}");
        let read = async || get(&rest, &path).await;
        let (_, list) = until("it can be read", read, |(status, _)| *status == 200).await;
        assert_eq!(list["count"], 1, "{list}");
    }
    until_inactive(&rest, &projects).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_project_that_wakes_on_another_ledger_than_it_had_says_so_and_takes_nothing_in() {
    let (nats, loom) = sleepy().await;
    let rest = Rest::of(&loom);
    let id = one_finished(&rest, "replaced").await;
    until_inactive(&rest, &["replaced"]).await;
    loom.until_it_logs("the project sleeps project=replaced")
        .await
        .unwrap();
    let jetstream = jetstream::new(nats.connect().await.unwrap());
    let ledger = "KV_loom-work-replaced";
    let mut config = jetstream
        .get_stream(ledger)
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    config.metadata.clear();
    jetstream.delete_stream(ledger).await.unwrap();
    jetstream.create_stream(config).await.unwrap();
    let again = json!({"id": id, "capability": "rust", "description": "one"});
    let (status, answer) = post(&rest, "replaced", "/api/work", again).await;
    assert_eq!(status, 503, "{answer}");
    let problems = async || rest.readiness().await.problems;
    let is_told = |problems: &Vec<String>| problems.iter().any(|said| said.contains("replaced"));
    until("it is told", problems, is_told).await;
}
