//! A cluster that is busy, forgets, or whose connections break: still there is one agent, and its end is told.

use std::time::Instant;

use loom_protocol::SpinUpId;
use loom_targets::{Found, StartErrorKind};
use loom_testkit::kubernetes::{Failure, Fault, Recorded, TestCluster};
use serde_json::{Value, json};

use super::{config, kubernetes, never, nothing_is_left, running, told_end};
use crate::fixture::{alive, end, file, order};

#[tokio::test]
async fn whatever_request_fails_or_is_lost_there_is_one_agent() {
    for failure in [
        Failure::Status(429, Some(1)),
        Failure::Status(503, None),
        Failure::LostRequest,
        Failure::LostAnswer,
    ] {
        for (verb, resource) in [
            ("list", "jobs"),
            ("create", "jobs"),
            ("create", "secrets"),
            ("patch", "jobs"),
        ] {
            let cluster = TestCluster::start().await.unwrap();
            cluster.fault(Fault::new(verb, resource, failure));
            let launcher = kubernetes(&cluster, &config("exec sleep 600"));
            let (order, begun) = (order(SpinUpId::generate()), Instant::now());
            let started = launcher.start(&order, never()).await.unwrap();
            if let Failure::Status(_, Some(seconds)) = failure {
                assert!(begun.elapsed().as_secs() >= seconds, "{verb} {resource}");
            }
            running(&cluster).await;
            assert_eq!(
                alive(order.spin_up).len(),
                1,
                "{failure:?} {verb} {resource}"
            );
            assert_eq!(cluster.objects("jobs").len(), 1);
            end(&*launcher, order.spin_up, Some(&started.reference)).await;
            nothing_is_left(&cluster).await;
        }
    }
}

#[tokio::test]
async fn what_stays_busy_is_unavailable_and_a_lost_resumption_is_in_doubt() {
    let cluster = TestCluster::start().await.unwrap();
    let launcher = kubernetes(&cluster, &config("exec sleep 600"));
    cluster.fault(Fault::new("create", "jobs", Failure::Status(429, None)).times(4));
    let error = launcher
        .start(&order(SpinUpId::generate()), never())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StartErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("429"), "{error}");
    // Each try to resume it is done, none is answered, and then it can't be looked at.
    cluster.fault(Fault::new("patch", "jobs", Failure::LostAnswer).times(4));
    cluster.fault(Fault::new("get", "jobs", Failure::LostRequest).times(4));
    let order = order(SpinUpId::generate());
    let error = launcher.start(&order, never()).await.unwrap_err();
    assert_eq!(error.kind(), StartErrorKind::InDoubt, "{error}");
    let found = launcher.find(order.spin_up, None).await.unwrap();
    assert!(found.reference().is_some(), "{found:?}");
    end(&*launcher, order.spin_up, found.reference()).await;
    nothing_is_left(&cluster).await;
}

fn lists(cluster: &TestCluster) -> usize {
    let is_list = |one: &&Recorded| {
        one.method == "GET" && one.path.ends_with("/pods") && !one.query.contains("watch=true")
    };
    cluster.requests().iter().filter(is_list).count()
}

fn watches(cluster: &TestCluster) -> usize {
    let is_watch =
        |one: &&Recorded| one.path.ends_with("/pods") && one.query.contains("watch=true");
    cluster.requests().iter().filter(is_watch).count()
}

/// Waits until a pod of nobody, which is new each time, makes the server see another watch.
async fn another_watch(cluster: &TestCluster, before: usize) {
    crate::fixture::until("another watch", || {
        (watches(cluster) > before).then_some(())
    })
    .await;
}

fn stranger(number: usize) -> Value {
    json!({"metadata": {"name": format!("stranger-{number}"), "labels": {}}, "status": {"phase": "Succeeded"}})
}

/// Puts a stranger there, and waits until its node has looked at it and the watch has its bookmark.
async fn told_of_stranger(cluster: &TestCluster, number: usize) {
    let pod = stranger(number);
    cluster.put("pods", pod.clone());
    let is_seen = |pods: &[Value]| {
        let mut pods = pods.iter();
        let there = pods.find(|there| there["metadata"]["name"] == pod["metadata"]["name"]);
        there.is_some_and(|there| there["spec"]["nodeName"].is_string())
    };
    cluster.until("pods", is_seen).await.unwrap();
    crate::fixture::until("the bookmark", || {
        cluster.is_bookmarked("pods").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_watch_goes_on_from_its_bookmark_and_begins_anew_where_history_is_forgotten() {
    let (cluster, folder) = (
        TestCluster::start().await.unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let go = folder.path().join("go");
    let line = format!(
        "while [ ! -e '{}' ]; do sleep 0.05; done; echo done",
        go.display()
    );
    let launcher = kubernetes(&cluster, &config(&line));
    let order = order(SpinUpId::generate());
    let mut started = launcher.start(&order, never()).await.unwrap();
    running(&cluster).await;
    another_watch(&cluster, 0).await;

    // It is told of the stranger by a bookmark only, and is up to date when all before is forgotten.
    let (listed, watched) = (lists(&cluster), watches(&cluster));
    told_of_stranger(&cluster, 1).await;
    cluster.forget_history();
    cluster.cut_watches();
    another_watch(&cluster, watched).await;
    told_of_stranger(&cluster, 2).await;
    assert_eq!(lists(&cluster), listed, "it was listed again");

    // Now the watch is cut before it could be told.
    cluster.cut_watches();
    cluster.put("pods", stranger(3));
    cluster.put("pods", stranger(4));
    cluster.forget_history();
    crate::fixture::until("another list", || (lists(&cluster) > listed).then_some(())).await;

    std::fs::write(&go, "").unwrap();
    let told = told_end(&mut started).await;
    assert_eq!((told.success, &*told.output), (true, "done"));
    launcher.forget(order.spin_up).await;
}

#[tokio::test]
async fn an_end_is_told_by_a_cluster_that_refuses_watches_for_a_while() {
    let (cluster, folder) = (
        TestCluster::start().await.unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let up = folder.path().join("up");
    let launcher = kubernetes(
        &cluster,
        &config(&format!("touch '{}'; exit 0", up.display())),
    );
    for (resource, failure) in [
        ("pods", Failure::Status(429, Some(1))),
        ("jobs", Failure::Status(500, None)),
        ("pods", Failure::LostAnswer),
    ] {
        cluster.fault(Fault::new("watch", resource, failure));
    }
    let order = order(SpinUpId::generate());
    let mut started = launcher.start(&order, never()).await.unwrap();
    file(&up).await;
    assert!(told_end(&mut started).await.success);
}

#[tokio::test]
async fn long_lists_come_page_by_page() {
    let cluster = TestCluster::start().await.unwrap();
    cluster.page(2);
    let order = order(SpinUpId::generate());
    let label = json!({"loom/spin-up-id": order.spin_up.to_string()});
    for number in 0..5 {
        // What has ended comes first, what runs last.
        let mut pod = stranger(number);
        pod["metadata"]["labels"] = label.clone();
        if number == 4 {
            pod["status"]["phase"] = "Running".into();
        }
        cluster.put("pods", pod);
    }
    let launcher = kubernetes(&cluster, &config("exec sleep 600"));
    let found = launcher.find(order.spin_up, None).await.unwrap();
    assert!(matches!(found, Found::Running(_)), "{found:?}");
    assert_eq!(lists(&cluster), 3);
    // The rest of a list that is forgotten meanwhile is listed anew.
    cluster.fault(Fault::new("list", "pods", Failure::Status(410, None)).after(1));
    let found = launcher.find(order.spin_up, None).await.unwrap();
    assert!(matches!(found, Found::Running(_)), "{found:?}");
    assert_eq!(lists(&cluster), 3 + 2 + 3);
}
