//! `kubernetes`: an API server of our own, whose node runs the containers as processes.

mod ends;
mod refused;
mod unsteady;

use std::path::Path;
use std::time::Duration;

use loom_protocol::SpinUpId;
use loom_protocol::target::Mechanism;
use loom_targets::{
    AgentEnd, Found, Launcher, Reference, StartErrorKind, Started, Stopped, Surroundings,
};
use loom_testkit::kubernetes::{NAMESPACE, ROLE, TestCluster};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fixture::{GRACE, PATIENCE, alive, around, end, file, launcher, order, started_once};

fn never() -> CancellationToken {
    CancellationToken::new()
}

/// A target whose container is this line of a shell.
pub fn config(line: &str) -> Value {
    json!({
        "namespace": NAMESPACE, "jobNamePrefix": "loom-agent", "image": "registry/agent:1",
        "command": ["sh", "-c"], "args": [line],
    })
}

fn around_cluster(cluster: &TestCluster) -> Surroundings {
    Surroundings {
        kubeconfig: Some(cluster.kubeconfig()),
        ..around(Path::new("unused"))
    }
}

fn kubernetes(cluster: &TestCluster, config: &Value) -> Box<dyn Launcher> {
    launcher(Mechanism::Kubernetes, config, &around_cluster(cluster))
}

/// Waits for the end that a start tells.
async fn told_end(started: &mut Started) -> AgentEnd {
    let end = started.end.as_mut().unwrap();
    let told = tokio::time::timeout(PATIENCE, end.wait_for(Option::is_some)).await;
    told.unwrap().unwrap().clone().unwrap()
}

/// Waits until a container runs.
async fn running(cluster: &TestCluster) -> Value {
    let runs = |pods: &[Value]| pods.iter().any(|pod| pod["status"]["phase"] == "Running");
    cluster.until("pods", runs).await.unwrap().remove(0)
}

async fn nothing_is_left(cluster: &TestCluster) {
    for plural in ["jobs", "pods", "secrets"] {
        cluster.until(plural, <[Value]>::is_empty).await.unwrap();
    }
}

#[tokio::test]
async fn an_agent_is_a_job_with_a_secret_of_its_own() {
    let (cluster, folder) = (
        TestCluster::start().await.unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let nasty = " a\"b'c$HOME $(PATH) $$ `x`\n\\ é";
    let mut config = config("env -0 > env.new && mv env.new env && exec sleep 600");
    config["args"][0] = json!(format!(
        "cd '{}'; {}",
        folder.path().display(),
        config["args"][0].as_str().unwrap()
    ));
    for (field, value) in [
        ("env", json!({"NASTY": nasty, "LOOM_TICKET": "overridden"})),
        ("resources", json!({"cpu": "500m", "memory": "1Gi"})),
        ("serviceAccount", json!("agent")),
        ("imagePullSecret", json!("pull")),
        ("ttlSecondsAfterFinished", json!(3600)),
    ] {
        config[field] = value;
    }
    let launcher = kubernetes(&cluster, &config);
    let order = loom_targets::StartOrder {
        target_name: "a target with $(PATH)".to_owned(),
        ..order(SpinUpId::generate())
    };
    let started = launcher.start(&order, never()).await.unwrap();
    assert!(!started.existing);
    let seen = file(&folder.path().join("env")).await;
    let seen: std::collections::BTreeMap<&str, &str> = seen
        .split('\0')
        .filter_map(|one| one.split_once('='))
        .collect();
    assert_eq!(seen["NASTY"], nasty);
    for (name, value) in order.variables() {
        assert_eq!(seen[&*name], value, "{name}");
    }

    let job = &cluster.objects("jobs")[0];
    let name = job["metadata"]["name"].as_str().unwrap();
    assert!(
        name.starts_with("loom-agent-") && name.len() <= 63,
        "{name}"
    );
    assert_eq!(
        job["metadata"]["labels"]["loom/spin-up-id"],
        order.spin_up.to_string()
    );
    assert_eq!(
        job["metadata"]["annotations"]["loom/target-name"],
        order.target_name
    );
    let (spec, pod) = (&job["spec"], &job["spec"]["template"]["spec"]);
    assert_eq!(
        (&spec["backoffLimit"], &spec["ttlSecondsAfterFinished"]),
        (&json!(0), &json!(3600))
    );
    assert_eq!(pod["restartPolicy"], "Never");
    assert_eq!(pod["enableServiceLinks"], false);
    assert_eq!(pod["serviceAccountName"], "agent");
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "pull"}]));
    let quantities = json!({"cpu": "500m", "memory": "1Gi"});
    let container = &pod["containers"][0];
    assert_eq!(
        container["resources"],
        json!({"limits": quantities, "requests": quantities})
    );
    let secret = &cluster.objects("secrets")[0];
    let owner = &secret["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["uid"], &owner["kind"]),
        (&job["metadata"]["uid"], &json!("Job"))
    );

    for request in cluster.requests() {
        let text = format!("{} {} {}", request.path, request.query, request.body);
        let is_secret = text.contains(order.ticket.expose()) || text.contains("a\\\"b'c$HOME");
        assert_eq!(is_secret, request.path.ends_with("/secrets"), "{text}");
        let reads_secrets = request.method == "GET" && request.path.contains("/secrets");
        assert!(!reads_secrets, "{request:?}");
    }
    let Reference::Kubernetes(reference) = &started.reference else {
        panic!("{started:?}");
    };
    assert_eq!(
        (&reference.namespace, &*reference.job),
        (&NAMESPACE.to_owned(), name)
    );
    end(&*launcher, order.spin_up, Some(&started.reference)).await;
    nothing_is_left(&cluster).await;
}

#[tokio::test]
async fn the_same_start_at_once_by_several_is_one_agent() {
    let cluster = TestCluster::start().await.unwrap();
    let config = config("exec sleep 600");
    let launchers = (0..4).map(|_| kubernetes(&cluster, &config)).collect();
    let order = order(SpinUpId::generate());
    let reference = started_once(launchers, &order).await;
    running(&cluster).await;
    assert_eq!(
        (cluster.objects("jobs").len(), alive(order.spin_up).len()),
        (1, 1)
    );
    // Another prefix, another ticket: still the same start.
    let mut other = config.clone();
    other["jobNamePrefix"] = "other".into();
    let next = kubernetes(&cluster, &other);
    let again = next
        .start(&crate::fixture::order(order.spin_up), never())
        .await
        .unwrap();
    assert!(again.existing);
    assert_eq!(again.reference, reference);
    assert_eq!(alive(order.spin_up).len(), 1);
    end(&*next, order.spin_up, None).await;
}

#[tokio::test]
async fn what_obeys_term_ends_by_it_and_the_rest_is_killed() {
    let (cluster, folder) = (
        TestCluster::start().await.unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let up = folder.path().join("up");
    for (line, grace, killed) in [
        (
            "trap 'echo goodbye; exit 0' TERM; touch UP; while :; do sleep 0.05; done",
            GRACE,
            0,
        ),
        (
            "trap '' TERM; touch UP; while :; do sleep 0.05; done",
            Duration::from_secs(1),
            1,
        ),
    ] {
        let line = line.replace("UP", &up.display().to_string());
        let launcher = kubernetes(&cluster, &config(&line));
        let order = order(SpinUpId::generate());
        let started = launcher.start(&order, never()).await.unwrap();
        file(&up).await;
        std::fs::remove_file(&up).unwrap();
        let stopped = launcher
            .stop(order.spin_up, Some(&started.reference), grace)
            .await
            .unwrap();
        let Stopped::Ended {
            processes,
            killed: were_killed,
            output,
        } = stopped
        else {
            panic!("{stopped:?}");
        };
        assert_eq!((processes, were_killed), (1, killed));
        if killed == 0 {
            let output = output.unwrap_or_default();
            assert!(output.ends_with("goodbye"), "{output}");
        }
        assert_eq!(alive(order.spin_up), []);
        nothing_is_left(&cluster).await;
    }
}

#[tokio::test]
async fn a_cancelled_start_is_in_doubt_and_leaves_nothing_that_runs() {
    use loom_testkit::kubernetes::{Failure, Fault};
    let cluster = TestCluster::start().await.unwrap();
    let launcher = kubernetes(&cluster, &config("exec sleep 600"));
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let error = launcher
        .start(&order(SpinUpId::generate()), cancelled)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StartErrorKind::Cancelled);
    let (order, cancel) = (order(SpinUpId::generate()), CancellationToken::new());
    cluster.fault(Fault::new("create", "secrets", Failure::Hangs));
    let starting = launcher.start(&order, cancel.clone());
    let cancelling = async {
        cluster
            .until("jobs", |jobs| !jobs.is_empty())
            .await
            .unwrap();
        cancel.cancel();
    };
    let (started, ()) = tokio::join!(starting, cancelling);
    assert_eq!(started.unwrap_err().kind(), StartErrorKind::InDoubt);
    assert_eq!(
        launcher.find(order.spin_up, None).await.unwrap(),
        Found::Absent
    );
    let stopped = launcher.stop(order.spin_up, None, GRACE).await.unwrap();
    assert!(
        matches!(stopped, Stopped::Ended { processes: 0, .. }),
        "{stopped:?}"
    );
    nothing_is_left(&cluster).await;
}

#[test]
fn the_role_of_the_docs_is_the_one_that_is_tested() {
    let docs = include_str!("../../../../docs/targets.md");
    let yaml = docs
        .split("```yaml")
        .filter_map(|block| block.split("```").next())
        .find(|block| block.contains("kind: Role\n"))
        .unwrap();
    let mut said = Vec::new();
    let list = |line: &str, field: &str| -> Option<Vec<String>> {
        let rest = line.trim().trim_start_matches("- ").strip_prefix(field)?;
        let inner = rest.trim().trim_start_matches('[').trim_end_matches(']');
        let words = inner
            .split(',')
            .map(|word| word.trim().trim_matches('"').to_owned());
        Some(words.collect())
    };
    let (mut groups, mut resources) = (Vec::new(), Vec::new());
    for line in yaml.lines() {
        if let Some(words) = list(line, "apiGroups:") {
            groups = words;
        } else if let Some(words) = list(line, "resources:") {
            resources = words;
        } else if let Some(verbs) = list(line, "verbs:") {
            for verb in verbs {
                said.push((verb, groups[0].clone(), resources[0].clone()));
            }
        }
    }
    let mut tested: Vec<_> = ROLE
        .iter()
        .map(|(verb, group, of)| ((*verb).to_owned(), (*group).to_owned(), (*of).to_owned()))
        .collect();
    said.sort();
    tested.sort();
    assert_eq!(said, tested);
}
