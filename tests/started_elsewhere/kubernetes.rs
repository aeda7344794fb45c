//! `kubernetes`: an API server of our own, whose node runs the container of the Job as a process.

use anyhow::{Context as _, Result, ensure};
use loom_testkit::kubernetes::{NAMESPACE, TestCluster};
use serde_json::{Value, json};

use crate::house::House;

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
