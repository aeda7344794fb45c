//! `kubernetes`: an API server of our own, whose node runs the container of the Job as a process.

use anyhow::{Context as _, Result, ensure};
use loom_testkit::kubernetes::{Fate, NAMESPACE, TestCluster};
use serde_json::{Value, json};

use crate::house::{House, TARGET};

/// The only start, as the list shows it.
async fn start(house: &House) -> Option<Value> {
    let listed = house.project.request("spin-up.list", json!({})).await;
    let mut listed = listed.ok()?;
    Some(listed.as_array_mut()?.first_mut()?.take())
}

/// Until the list says this of the only start while it goes on; that start.
async fn until_said(house: &House, text: &str) -> Result<Value> {
    let said = async || {
        let start = start(house).await?;
        let output = start["output"].as_str()?;
        (start["status"] == "in-progress" && output.contains(text)).then_some(start)
    };
    house
        .project
        .eventually(&format!("it says {text:?}"), said)
        .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn why_a_job_waits_is_shown_while_it_does_and_after_a_crash_too() -> Result<()> {
    const IMAGE: &str = "registry/agent:1";
    let cluster = TestCluster::start().await?;
    let full = "0/3 nodes are available: 3 Insufficient cpu";
    cluster.fate(IMAGE, Fate::Unscheduled(full.to_owned()));
    let kubeconfig = cluster.kubeconfig();
    let kubeconfig = kubeconfig.to_str().context("a temporary path is text")?;
    let mut house = House::open(&[("KUBECONFIG", kubeconfig)]).await?;
    let config = json!({"namespace": NAMESPACE, "jobNamePrefix": "loom-agent", "image": IMAGE, "command": ["sleep", "600"]});
    house.target("kubernetes", config).await?;
    let item = house.project.submit_plain("rust").await?;

    let start = until_said(&house, full).await?;
    let id = &start["operationId"];
    let shown = json!({"operationId": id});
    let shown = house.project.request("spin-up.status", shown).await?;
    ensure!(shown["output"] == start["output"], "{shown}");
    let why = json!({"id": item});
    let explained = house.project.request("work.explain", why.clone()).await?;
    let said = explained["beingStarted"][0]["said"].as_str();
    ensure!(said.is_some_and(|said| said.contains(full)), "{explained}");
    let summary = explained["summary"].as_str().unwrap_or_default();
    ensure!(
        summary.contains(full) && summary.contains(TARGET),
        "{summary}"
    );

    // It waits for something else now.
    cluster.fate(
        IMAGE,
        Fate::waits("CreateContainerError", "the volume is not there"),
    );
    let other = until_said(&house, "the volume is not there").await?;
    ensure!(&other["operationId"] == id, "another start: {other}");

    house.coordinator.kill_9().await;
    house.coordinator.restart().await?;
    let after = until_said(&house, "the volume is not there").await?;
    ensure!(&after["operationId"] == id, "another start: {after}");

    // Nothing is said of one that runs.
    cluster.fate(IMAGE, Fate::Run);
    let silent = async || {
        let start = self::start(&house).await?;
        (start["status"] == "in-progress" && start["output"].is_null()).then_some(())
    };
    house
        .project
        .eventually("nothing more is said", silent)
        .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_job_is_the_agent_and_nothing_of_it_stays_in_the_cluster() -> Result<()> {
    let cluster = TestCluster::start().await?;
    let kubeconfig = cluster.kubeconfig();
    let kubeconfig = kubeconfig.to_str().context("a temporary path is text")?;
    let house = House::open(&[("KUBECONFIG", kubeconfig)]).await?;
    // `$(` is Kubernetes' own.
    let words = house.agent(&[]);
    let config = json!({
        "namespace": NAMESPACE, "jobNamePrefix": "loom-agent", "image": "registry/agent:1",
        "command": words[..3], "args": words[3..],
    });
    house.target("kubernetes", config).await?;
    let lived = house.work_gets_an_agent().await?;
    house.the_agent_goes(&lived).await?;
    for plural in ["jobs", "pods", "secrets"] {
        cluster.until(plural, <[Value]>::is_empty).await?;
    }
    let requests = cluster.requests();
    let made = requests.iter().filter(|one| one.method == "POST");
    let of = |plural: &str| {
        made.clone()
            .filter(|one| one.path.ends_with(plural))
            .count()
    };
    ensure!(
        (of("/jobs"), of("/secrets")) == (1, 1),
        "one Job with one Secret"
    );
    // Base64 in the Secret or as it is: the ticket is in no other request.
    let tells = |text: &str| text.contains(&lived.ticket);
    let mut told = requests
        .iter()
        .filter(|one| tells(&one.body) || tells(&one.path));
    ensure!(
        told.all(|one| one.path.contains("/secrets")),
        "the ticket is elsewhere than in the Secret"
    );
    Ok(())
}
