//! What becomes of a start: its end with its last words, an early failure, a reason why it waits.

use loom_protocol::SpinUpId;
use loom_targets::{Found, Stopped};
use loom_testkit::kubernetes::{Fate, TestCluster};
use serde_json::{Value, json};

use super::{config, kubernetes, never, nothing_is_left, running, told_end};
use crate::fixture::{GRACE, alive, order};

#[tokio::test]
async fn an_end_is_told_with_the_last_words_and_without_secrets() {
    let cluster = TestCluster::start().await.unwrap();
    let line =
        "head -c 20000 /dev/zero | tr '\\0' x; echo; echo \"T=$LOOM_TICKET K=$KEY end\"; exit 3";
    let mut config = config(line);
    config["env"] = json!({"KEY": "hunter2hunter2"});
    let launcher = kubernetes(&cluster, &config);
    let order = order(SpinUpId::generate());
    let mut started = launcher.start(&order, never()).await.unwrap();
    let told = told_end(&mut started).await;
    assert_eq!((told.success, &*told.how), (false, "exit status 3"));
    assert!(
        told.output.ends_with("T=*** K=*** end") && told.output.len() <= 4096,
        "{}",
        told.output
    );
    // Another coordinator sees the same, with and without the reference.
    let next = kubernetes(&cluster, &config);
    for reference in [None, Some(&started.reference)] {
        let found = next.find(order.spin_up, reference).await.unwrap();
        assert!(
            matches!(&found, Found::Ended { output: Some(output) } if output.ends_with("T=*** K=*** end")),
            "{found:?}"
        );
    }
    let again = next.start(&order, never()).await.unwrap();
    assert!(again.existing, "what has ended is not begun again");
    let stopped = next.stop(order.spin_up, None, GRACE).await.unwrap();
    assert!(
        matches!(stopped, Stopped::Ended { processes: 0, .. }),
        "{stopped:?}"
    );
    next.forget(order.spin_up).await;
    nothing_is_left(&cluster).await;
    let found = next
        .find(order.spin_up, Some(&started.reference))
        .await
        .unwrap();
    assert_eq!(found, Found::Ended { output: None });
    assert_eq!(next.find(order.spin_up, None).await.unwrap(), Found::Absent);
}

#[tokio::test]
async fn a_finished_job_stays_as_long_as_the_target_says() {
    let cluster = TestCluster::start().await.unwrap();
    let mut config = config("exit 0");
    config["ttlSecondsAfterFinished"] = json!(1);
    let launcher = kubernetes(&cluster, &config);
    let order = order(SpinUpId::generate());
    let mut started = launcher.start(&order, never()).await.unwrap();
    assert!(told_end(&mut started).await.success);
    launcher.forget(order.spin_up).await;
    let deleted = |one: &loom_testkit::kubernetes::Recorded| one.method == "DELETE";
    assert!(!cluster.requests().iter().any(deleted));
    nothing_is_left(&cluster).await;
}

#[tokio::test]
async fn what_can_not_begin_fails_early() {
    let cluster = TestCluster::start().await.unwrap();
    for reason in ["ErrImagePull", "InvalidImageName"] {
        cluster.fate("registry/agent:1", Fate::waits(reason, "no such manifest"));
        let launcher = kubernetes(&cluster, &config("exec sleep 600"));
        let order = order(SpinUpId::generate());
        let mut started = launcher.start(&order, never()).await.unwrap();
        let told = told_end(&mut started).await;
        assert!(!told.success);
        for words in [
            reason,
            "no such manifest",
            "registry/agent:1",
            "write another image",
        ] {
            assert!(told.how.contains(words), "{}", told.how);
        }
        // Mended by now, it does not begin after all.
        cluster.fate("registry/agent:1", Fate::Run);
        nothing_is_left(&cluster).await;
        assert_eq!(alive(order.spin_up), []);
    }
}

#[tokio::test]
async fn what_has_only_waited_says_why_when_it_is_ended() {
    let cluster = TestCluster::start().await.unwrap();
    let unscheduled =
        Fate::Unscheduled("0/3 nodes are available: 3 Insufficient memory.".to_owned());
    for (fate, seen, words) in [
        (unscheduled, "Insufficient", Some("3 Insufficient memory")),
        (
            Fate::waits("ContainerCreating", ""),
            "ContainerCreating",
            Some("is being made"),
        ),
        (Fate::NoPod, "", Some("no pod has been made")),
        (Fate::Run, "Running", None),
    ] {
        cluster.fate("registry/agent:1", fate);
        let launcher = kubernetes(&cluster, &config("exec sleep 600"));
        let order = order(SpinUpId::generate());
        let started = launcher.start(&order, never()).await.unwrap();
        let reference = Some(&started.reference);
        let is_seen = |pods: &[Value]| {
            let mut pods = pods.iter();
            seen.is_empty() || pods.any(|pod| pod["status"].to_string().contains(seen))
        };
        cluster.until("pods", is_seen).await.unwrap();
        let found = launcher.find(order.spin_up, reference).await.unwrap();
        assert_eq!(found.reference(), Some(&started.reference));
        match (&found, words) {
            (Found::Waiting { why, .. }, Some(words)) => assert!(why.contains(words), "{why}"),
            (Found::Running(_), None) => {}
            _ => panic!("{found:?}"),
        }
        let stopped = launcher.stop(order.spin_up, reference, GRACE).await;
        let Ok(Stopped::Ended { output, .. }) = stopped else {
            panic!("{stopped:?}");
        };
        match words {
            Some(words) => assert!(output.unwrap().contains(words)),
            None => assert_eq!(output, None),
        }
        nothing_is_left(&cluster).await;
    }
}

#[tokio::test]
async fn an_image_that_can_not_be_pulled_is_an_end_for_the_next_coordinator_too() {
    let cluster = TestCluster::start().await.unwrap();
    let launcher = kubernetes(&cluster, &config("exec sleep 600"));
    cluster.fate("registry/agent:1", Fate::waits("ContainerCreating", ""));
    let order = order(SpinUpId::generate());
    let started = launcher.start(&order, never()).await.unwrap();
    let reference = started.reference.clone();
    drop(started);
    cluster.fate(
        "registry/agent:1",
        Fate::waits("ImagePullBackOff", "unauthorized"),
    );
    let has_reason = |pods: &[Value]| {
        pods.iter()
            .any(|pod| pod.to_string().contains("ImagePullBackOff"))
    };
    cluster.until("pods", has_reason).await.unwrap();
    let next = kubernetes(&cluster, &config("exec sleep 600"));
    let found = next.find(order.spin_up, Some(&reference)).await.unwrap();
    let Found::Ended { output: Some(why) } = found else {
        panic!("{found:?}");
    };
    assert!(why.contains("unauthorized"), "{why}");
    nothing_is_left(&cluster).await;
}

#[tokio::test]
async fn a_pod_that_is_gone_and_a_job_that_is_deleted_are_ends() {
    let cluster = TestCluster::start().await.unwrap();
    let launcher = kubernetes(&cluster, &config("exec sleep 600"));
    for plural in ["pods", "jobs"] {
        let order = order(SpinUpId::generate());
        let mut started = launcher.start(&order, never()).await.unwrap();
        running(&cluster).await;
        let name = cluster.objects(plural)[0]["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        cluster.remove(plural, &name);
        let told = told_end(&mut started).await;
        assert!(!told.success, "{told:?}");
        launcher.stop(order.spin_up, None, GRACE).await.unwrap();
        launcher.forget(order.spin_up).await;
        nothing_is_left(&cluster).await;
    }
}
