//! What a cluster refuses is told in words: where, what, and what to do.

use loom_protocol::SpinUpId;
use loom_targets::{Launcher, StartError, StartErrorKind, Stopped, Surroundings};
use loom_testkit::kubernetes::{Failure, Fate, Fault, NAMESPACE, TestCluster};
use serde_json::json;

use super::{around_cluster, config, kubernetes, never, nothing_is_left, running};
use crate::fixture::{GRACE, PATIENCE, end, launcher, order};
use loom_protocol::target::Mechanism;

async fn refused(launcher: &dyn Launcher) -> StartError {
    launcher
        .start(&order(SpinUpId::generate()), never())
        .await
        .unwrap_err()
}

fn has_all(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

#[tokio::test]
async fn each_missing_permission_is_named_and_leaves_nothing() {
    for (verb, resource) in [
        ("list", "jobs"),
        ("create", "jobs"),
        ("create", "secrets"),
        ("patch", "jobs"),
    ] {
        let cluster = TestCluster::start().await.unwrap();
        cluster.deny(verb, resource);
        let launcher = kubernetes(&cluster, &config("exec sleep 600"));
        let error = refused(&*launcher).await;
        assert_eq!(error.kind(), StartErrorKind::Refused, "{error}");
        let what = format!("permission to {verb} {resource}");
        has_all(
            &error.to_string(),
            &["context \"test\"", "\"agents\"", &what, "docs/targets.md"],
        );
        nothing_is_left(&cluster).await;
        let probe = launcher.probe(PATIENCE).await.unwrap_err();
        has_all(
            &probe.to_string(),
            &[
                "\"agents\"",
                &format!("{verb} {resource}"),
                "docs/targets.md",
            ],
        );
    }
}

#[tokio::test]
async fn a_probe_sees_the_namespace_and_the_permissions_and_writes_nothing() {
    let cluster = TestCluster::start().await.unwrap();
    let mut config = config("exec sleep 600");
    let probe = kubernetes(&cluster, &config).probe(PATIENCE).await.unwrap();
    has_all(&probe.seen, &["\"agents\"", "registry/agent:1"]);
    assert!(cluster.objects("jobs").is_empty() && cluster.objects("secrets").is_empty());
    cluster.fault(Fault::new("create", "jobs", Failure::Hangs));
    let limit = std::time::Duration::from_millis(300);
    let error = kubernetes(&cluster, &config)
        .probe(limit)
        .await
        .unwrap_err();
    has_all(&error.to_string(), &["did not answer within 300ms"]);
    config["namespace"] = "elsewhere".into();
    let error = kubernetes(&cluster, &config)
        .probe(PATIENCE)
        .await
        .unwrap_err();
    has_all(
        &error.to_string(),
        &["\"elsewhere\"", "create jobs", "list pods"],
    );
}

#[tokio::test]
async fn a_job_of_somebody_else_is_not_taken() {
    let cluster = TestCluster::start().await.unwrap();
    let launcher = kubernetes(&cluster, &config("exec sleep 600"));
    let order = order(SpinUpId::generate());
    let digits: String = order
        .spin_up
        .to_string()
        .replace('-', "")
        .chars()
        .take(20)
        .collect();
    let name = format!("loom-agent-{digits}");
    let theirs = json!({"metadata": {"name": name, "labels": {"loom/spin-up-id": "another"}}, "spec": {"suspend": true}});
    cluster.put("jobs", theirs);
    let error = launcher.start(&order, never()).await.unwrap_err();
    assert_eq!(error.kind(), StartErrorKind::Refused);
    has_all(
        &error.to_string(),
        &[&name, "not of the start", "jobNamePrefix", NAMESPACE],
    );
    launcher.stop(order.spin_up, None, GRACE).await.unwrap();
    launcher.forget(order.spin_up).await;
    assert_eq!(cluster.objects("jobs").len(), 1);
}

#[tokio::test]
async fn new_credentials_count_without_a_restart() {
    let cluster = TestCluster::start().await.unwrap();
    let launcher = kubernetes(&cluster, &config("exec sleep 600"));
    launcher.probe(PATIENCE).await.unwrap();
    cluster.rotate_token("another-token", true).unwrap();
    let order = order(SpinUpId::generate());
    let started = launcher.start(&order, never()).await.unwrap();
    running(&cluster).await;
    end(&*launcher, order.spin_up, Some(&started.reference)).await;
    cluster.rotate_token("a-third-token", false).unwrap();
    let error = refused(&*launcher).await;
    assert_eq!(error.kind(), StartErrorKind::Refused);
    has_all(
        &error.to_string(),
        &[
            "context \"test\"",
            "does not know who asks",
            "renew the credentials",
        ],
    );
}

#[tokio::test]
async fn a_kubeconfig_that_is_wrong_is_told() {
    let cluster = TestCluster::start().await.unwrap();
    let mut config = config("exec sleep 600");
    config["context"] = "production".into();
    let error = refused(&*kubernetes(&cluster, &config)).await;
    has_all(
        &error.to_string(),
        &["no context \"production\"", "\"test\""],
    );
    config["context"] = "test".into();
    kubernetes(&cluster, &config).probe(PATIENCE).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let nowhere = Surroundings {
        kubeconfig: Some(folder.path().join("none")),
        ..around_cluster(&cluster)
    };
    let error = refused(&*launcher(Mechanism::Kubernetes, &config, &nowhere)).await;
    has_all(
        &error.to_string(),
        &["no kubeconfig that can be read", "KUBECONFIG"],
    );
    let kubeconfig = cluster.kubeconfig();
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    let away = folder.path().join("away");
    let port = text
        .split("127.0.0.1:")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    std::fs::write(&away, text.replace(port, "9")).unwrap();
    let unreachable = Surroundings {
        kubeconfig: Some(away),
        ..around_cluster(&cluster)
    };
    let error = refused(&*launcher(Mechanism::Kubernetes, &config, &unreachable)).await;
    assert_eq!(error.kind(), StartErrorKind::Unavailable);
    has_all(
        &error.to_string(),
        &["context \"test\"", "does not answer", "refused"],
    );
}

#[tokio::test]
async fn a_node_that_is_gone_is_told_within_bounds() {
    let cluster = TestCluster::start().await.unwrap();
    cluster.fate("registry/agent:1", Fate::Lost);
    let launcher = kubernetes(&cluster, &config("exec sleep 600"));
    let order = order(SpinUpId::generate());
    let started = launcher.start(&order, never()).await.unwrap();
    running(&cluster).await;
    let grace = std::time::Duration::from_secs(1);
    let error = launcher
        .stop(order.spin_up, Some(&started.reference), grace)
        .await
        .unwrap_err();
    has_all(
        &error.to_string(),
        &["node-1", "are not gone within", "by force"],
    );
    let pod = cluster.objects("pods")[0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    cluster.remove("pods", &pod);
    let stopped = launcher
        .stop(order.spin_up, Some(&started.reference), grace)
        .await
        .unwrap();
    assert!(matches!(stopped, Stopped::Ended { .. }));
    nothing_is_left(&cluster).await;
}
