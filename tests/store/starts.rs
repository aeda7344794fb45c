use anyhow::{Context as _, Result};
use loom_testkit::fleet::Fleet;
use loom_testkit::nats::TestNats;
use serde_json::json;

use super::house::loom_up;

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_start_on_another_store_warns_and_goes_on() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    project.submit_plain("rust").await?;
    fleet.stop().await?;
    fleet.nats().lose_the_store().await?;
    fleet.start_again().await?;
    let service = fleet.service()?;
    let warnings = service.info().warnings;
    let of_project = |text: &String| text.contains(project.id().as_str());
    assert!(warnings.iter().any(of_project), "{warnings:?}");
    assert!(
        warnings.iter().any(|text| text.contains("this NATS")),
        "{warnings:?}"
    );
    assert!(service.readiness().ready, "a URL alone proves nothing");
    let item = json!({"description": "d", "capability": "rust"});
    project.insist("work.submit", item).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn with_the_id_of_the_store_a_start_on_another_one_is_refused() -> Result<()> {
    let nats = TestNats::start().await?;
    let mut first = loom_up().on_nats(nats.url()).start().await?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build()?;
    let info = http.get(format!("{}/api/info", first.api_url()));
    let info: serde_json::Value = info.send().await?.json().await?;
    let id = info["storeId"].as_str().context("no id")?.to_owned();
    assert!(first.terminate().await?.success());

    let right = loom_up().on_nats(nats.url()).set("nats.store_id", &id);
    let mut right = right.start().await?;
    assert!(right.terminate().await?.success());

    nats.lose_the_store().await?;
    let wrong = loom_up().on_nats(nats.url()).set("nats.store_id", &id);
    let ended = wrong.run_to_its_end().await?;
    assert_ne!(ended.code(), Some(0));
    assert!(ended.stderr.contains(&id), "{}", ended.stderr);
    assert!(ended.stderr.contains("nats.store_id"), "{}", ended.stderr);
    let client = nats.connect().await?;
    let jetstream = async_nats::jetstream::new(client);
    jetstream
        .get_stream("KV_LOOM_OWNERS")
        .await
        .map(drop)
        .unwrap_err();
    Ok(())
}
