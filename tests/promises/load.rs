//! What costs much takes its turn: the rest does not wait behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use async_nats::{HeaderMap, Request};
use loom_protocol::codec::CONTENT_TYPE;
use loom_protocol::{Encoding, ErrorCode, WireError, names};
use loom_testkit::fleet::{Fleet, PATIENCE, TestProject};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a heartbeat may take beside any load.
const BEATEN_WITHIN: Duration = Duration::from_secs(2);
const READERS: usize = 100;
const ITEMS: usize = 2_000;

/// Beats until there is nothing more under way, and gives the longest wait for an answer.
async fn beat_beside(project: &TestProject, load: &mut JoinSet<Result<()>>) -> Result<Duration> {
    let agent = project.agent("rust").spawn().await?;
    let own = project.another_connection().await?;
    let mut longest = Duration::ZERO;
    while !load.is_empty() {
        let asked = Instant::now();
        let beat = json!({"guid": agent.guid()});
        own.request("agents.heartbeat", beat).await?;
        longest = longest.max(asked.elapsed());
        while let Some(ended) = load.try_join_next() {
            ended??;
        }
        tokio::task::yield_now().await;
    }
    Ok(longest)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn long_pages_for_many_readers_keep_nobody_else_waiting() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    for _ in 0..ITEMS / 250 {
        let item = json!({"description": "d".repeat(300), "capability": "go"});
        let batch = json!({"items": vec![item; 250]});
        project.insist("work.submit", batch).await?;
    }
    let address = fleet.api_address()?;
    let url = format!("http://{address}/p/{}/api/work?limit=1000", project.id());
    // Only the first one of a process is taken; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build()?;
    let served = Arc::new(AtomicUsize::new(0));
    let mut load = JoinSet::new();
    for _ in 0..READERS {
        let (request, served) = (http.get(&url), served.clone());
        load.spawn(async move {
            let answer = request.send().await?;
            let status = answer.status().as_u16();
            answer.bytes().await?;
            ensure!(status == 200 || status == 429, "a page ended with {status}");
            served.fetch_add(usize::from(status == 200), Ordering::Relaxed);
            Ok(())
        });
    }
    let longest = beat_beside(&project, &mut load).await?;
    assert!(longest < BEATEN_WITHIN, "a heartbeat took {longest:?}");
    assert!(served.load(Ordering::Relaxed) > 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_list_of_too_many_items_is_refused_before_it_is_read() -> Result<()> {
    const EMPTY_ITEMS: usize = 300_000;
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let json = format!("{{\"items\":[{}{{}}]}}", "{},".repeat(EMPTY_ITEMS - 1));
    let mut packed = b"\x81\xa5items\xdd".to_vec();
    packed.extend(u32::try_from(EMPTY_ITEMS)?.to_be_bytes());
    packed.extend(vec![0x80; EMPTY_ITEMS]);
    let mut load = JoinSet::new();
    for number in 0..40 {
        let project = project.clone();
        let (encoding, payload) = if number % 2 == 0 {
            (Encoding::Json, json.clone().into_bytes())
        } else {
            (Encoding::MessagePack, packed.clone())
        };
        load.spawn(async move {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, encoding.content_type());
            let request = Request::new()
                .headers(headers)
                .payload(payload.into())
                .timeout(Some(PATIENCE));
            let subject = names::request(project.id(), "work.submit");
            let answer = project.client().send_request(subject, request).await?;
            let error: WireError = encoding.decode(&answer.payload)?;
            ensure!(error.code == ErrorCode::TooLarge, "{error}");
            ensure!(error.message.contains("items: at most 256"), "{error}");
            Ok(())
        });
    }
    let longest = beat_beside(&project, &mut load).await?;
    assert!(longest < BEATEN_WITHIN, "a heartbeat took {longest:?}");
    Ok(())
}
