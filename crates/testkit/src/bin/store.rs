//! Writes a store with everything in it that Loom keeps: the fixtures of `tests/old_stores`.
//!
//! ```text
//! cargo build --bin loom          # at the commit whose store is wanted
//! cargo run -p loom-testkit --bin store -- --program target/debug/loom --out tests/fixtures/store-0.1.0
//! ```
//! Makes `….tar.gz`, the folder `store` of a nats-server that was killed together with its coordinator, and
//! `….json`, what that coordinator answered about it. What it keeps for a time is kept for a hundred years
//! ([`KEPT`]), and no agent is given up, so that the store is whole whenever it is started on.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::jetstream::kv;
use futures_util::TryStreamExt as _;
use loom_actors::clock::Clock;
use loom_actors::nats::server::Profile;
use loom_protocol::{AgentGuid, ProjectId, names};
use loom_testkit::agent::FakeAgent;
use loom_testkit::fleet::TestProject;
use loom_testkit::nats::TestNats;
use loom_testkit::process::LoomUp;
use serde_json::{Value, json};

const USAGE: &str = "store --program PATH --out PATH-WITHOUT-ENDING";
/// How long everything is kept that is kept for a time.
const KEPT: &str = "36500d";
const BEAT: Duration = Duration::from_millis(200);
/// Nothing is written any more when nothing was for so many looks, one a [`BEAT`].
const QUIET_LOOKS: usize = 10;
const DAY: Duration = Duration::from_hours(24);

#[tokio::main]
async fn main() -> Result<()> {
    let (mut program, mut out) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let (Some(name), value) = (arguments.next(), arguments.next()) {
        match name.as_str() {
            "--program" => program = value.map(PathBuf::from),
            "--out" => out = value,
            _ => bail!("there is no option {name}\n\n{USAGE}"),
        }
    }
    let (program, out) = program.zip(out).context(USAGE)?;
    let nats = TestNats::start_with(Profile::Safe).await?;
    let up = |stale_after: &str, bury_after: &str| {
        LoomUp::new(std::path::absolute(&program).unwrap_or_else(|_| program.clone()))
            .on_nats(nats.url())
            .set("work.retention", KEPT)
            .set("dlq.retention", KEPT)
            .set("agents.grave_retention", KEPT)
            .set("agents.heartbeat_every", "200ms")
            .set("agents.stale_after", stale_after)
            .set("agents.bury_after", bury_after)
            .set("work.start_timeout", "1h")
    };
    let project = |id: &str| {
        let (id, url) = (ProjectId::new(id), nats.url());
        async move { TestProject::of_process(id?, &url).await }
    };
    let (shop, other) = (project("shop").await?, project("other_1").await?);

    let mut loom = up("1s", "2s").start().await?;
    bury_one(&shop).await?;
    loom.terminate().await?;

    let mut loom = up("1h", KEPT).start().await?;
    let cancelled = Box::pin(fill(&shop)).await?;
    let idle = other.agent("rust").spawn().await?;
    other.submit_plain("python").await?;
    let epoch = idle.heartbeat(json!({})).await?.epoch;
    settle(&shop).await?;
    let mut told = json!({ "stopping": cancelled, "epoch": epoch, "projects": {} });
    for project in [&shop, &other] {
        told["projects"][project.id().as_str()] = contents(project).await?;
    }
    loom.kill_9().await;
    nats.kill().await?;

    let packed = format!("{out}.tar.gz");
    let status = Command::new("tar")
        .args(["--owner=0", "--group=0", "--numeric-owner", "-C"])
        .arg(nats.folder()?)
        .args(["-czf", &packed, "store"])
        .status()
        .context("start tar")?;
    ensure!(status.success(), "tar could not write {packed}");
    let text = serde_json::to_string_pretty(&told)?;
    std::fs::write(format!("{out}.json"), text + "\n").context("write what was told")?;
    println!("written: {packed} and {out}.json");
    Ok(())
}

/// An agent that dies with an item in hand, and is buried.
async fn bury_one(project: &TestProject) -> Result<()> {
    let lost = project.agent("lost").heartbeat_every(BEAT).spawn().await?;
    project.submit_plain("lost").await?;
    let item = lost.claim_one().await?;
    lost.start(&item).await?;
    lost.die();
    let buried = project.eventually("its grave", async || {
        let report = project.request("gc.report", json!({})).await.ok()?;
        (report["graves"] == 1).then_some(())
    });
    buried.await
}

/// Items in every status, letters, agents. Gives what a cancelled item's agent is still to be told.
async fn fill(project: &TestProject) -> Result<Value> {
    let submit = async |capability: &str, more: Value| {
        let mut item =
            json!({ "description": format!("of {capability}"), "capability": capability });
        for (name, value) in more.as_object().into_iter().flatten() {
            item[name] = value.clone();
        }
        anyhow::Ok(project.submit(item).await?.id)
    };
    let worker = project.agent("work").slots(8).spawn().await?;

    submit("wanted", json!({
        "taskId": "a task", "boundary": "eu", "priority": 9, "labels": {"sprint": "7", "urgent": ""},
        "contextData": {"repo": "shop", "files": ["a.ts"]}, "requiredAgentType": "codex", "maxAttempts": 5,
        "timeoutMs": 60_000, "notBefore": "2100-01-01T00:00:00Z", "deadline": "2100-01-02T00:00:00Z",
    }))
    .await?;
    submit("wanted", json!({ "preferredAgentType": "codex" })).await?;
    let queue = names::work_queue(project.id(), "wanted");
    project
        .publish(queue.clone(), &json!({ "description": "published" }))
        .await?;
    project
        .publish(
            queue.clone(),
            &json!({ "description": "rejected", "priority": 99 }),
        )
        .await?;
    project
        .jetstream()
        .publish(queue, "{poison".into())
        .await?
        .await?;

    submit("work", json!({})).await?;
    let failed_once = worker.claim_one().await?;
    let failure = json!({ "error": {"message": "not yet", "code": "E1"}, "retryAfterMs": 30 * DAY.as_millis() });
    worker.report("fail", &failed_once, failure).await?;
    submit("work", json!({ "contextData": "kept" })).await?;
    worker.claim_one().await?;
    submit("work", json!({})).await?;
    let running = worker.claim_one().await?;
    let said = json!({ "progress": 40, "message": "half", "usage": {"tokens": 7, "costUsd": 0.5} });
    worker.report("progress", &running, said).await?;
    submit("work", json!({})).await?;
    let done = worker.claim_one().await?;
    let result =
        json!({ "result": {"summary": "done", "output": {"pr": 12}}, "usage": {"tokens": 9} });
    worker.report("complete", &done, result).await?;
    submit("work", json!({})).await?;
    let called_off = worker.claim_one().await?;
    worker.start(&called_off).await?;
    let id = called_off.work_item.id;
    project
        .request(
            "work.cancel",
            json!({ "id": id, "reason": "changed our mind" }),
        )
        .await?;
    let never_begun = submit("wanted", json!({})).await?;
    project
        .request("work.cancel", json!({ "id": never_begun, "by": "me" }))
        .await?;

    failures(project, submit).await?;
    let limited = project
        .agent("limited")
        .field("limitGroup", json!("account"))
        .spawn()
        .await?;
    submit("limited", json!({})).await?;
    let item = limited.claim_one().await?;
    let until = Clock::system().now().after(30 * DAY);
    let limit = json!({ "reason": "usage-limit", "pauseUntil": until });
    limited.report("release", &item, limit).await?;
    bare_entries(project).await?;
    Ok(json!({ "guid": worker.guid(), "id": id, "attempt": called_off.lease.attempt }))
}

/// An agent that is quarantined for what it fails, a letter that was put back, an item past its deadline.
async fn failures(
    project: &TestProject,
    submit: impl AsyncFn(&str, Value) -> Result<loom_protocol::WorkId>,
) -> Result<()> {
    let broken: FakeAgent = project.agent("breaks").spawn().await?;
    let mut last = None;
    for _ in 0..3 {
        submit(
            "breaks",
            json!({ "maxAttempts": 1, "contextData": {"a": 1} }),
        )
        .await?;
        let item = broken.claim_one().await?;
        broken.fail(&item, "the build is broken", true).await?;
        last = Some(item.work_item.id);
    }
    let soon = Clock::system().now().after(Duration::from_secs(1));
    submit("wanted", json!({ "deadline": soon })).await?;
    let letters = async |count: usize| {
        let written = project.eventually("the letters", async || {
            let list = project.request("dlq.list", json!({})).await.ok()?;
            (list.as_array()?.len() == count).then_some(())
        });
        written.await
    };
    letters(6).await?;
    project.request("dlq.retry", json!({ "id": last })).await?;
    letters(5).await
}

/// Agents that only write their entries: one is there, one has said goodbye.
async fn bare_entries(project: &TestProject) -> Result<()> {
    let bucket: kv::Store = project.agents_bucket().await?;
    for status in ["online", "offline"] {
        let guid = AgentGuid::generate();
        for status in ["online", status] {
            let entry = json!({
                "guid": guid, "handle": format!("bare-{status}"), "capabilities": ["bare", "node.js"],
                "status": status, "metadata": {"agentType": "codex", "boundaries": ["eu"]},
            });
            bucket
                .put(guid.to_string(), entry.to_string().into())
                .await?;
            let seen = project.eventually("the bare agent is seen", async || {
                let agent = project
                    .request("agents.get", json!({ "guid": guid }))
                    .await
                    .ok()?;
                (agent["status"] == status).then_some(())
            });
            seen.await?;
        }
    }
    Ok(())
}

/// Waits until nothing is written any more: letters are noted, entries of agents brought up to date.
async fn settle(project: &TestProject) -> Result<()> {
    let mut looks = tokio::time::interval(BEAT);
    let (mut before, mut quiet) = (Vec::new(), 0);
    while quiet < QUIET_LOOKS {
        looks.tick().await;
        let streams: Vec<_> = project.jetstream().streams().try_collect().await?;
        let mut now: Vec<_> = streams
            .into_iter()
            .filter(|stream| stream.config.name != "KV_LOOM_OWNERS")
            .map(|stream| (stream.config.name, stream.state.last_sequence))
            .collect();
        now.sort_unstable();
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
    Ok(())
}

/// Everything that a project says of itself.
async fn contents(project: &TestProject) -> Result<Value> {
    let mut items = Vec::new();
    for item in project.all_work().await? {
        items.push(
            project
                .request("work.get", json!({ "id": item.id }))
                .await?,
        );
    }
    let mut letters = Vec::new();
    let list = project.request("dlq.list", json!({})).await?;
    for letter in list.as_array().into_iter().flatten() {
        letters.push(
            project
                .request("dlq.get", json!({ "id": letter["id"] }))
                .await?,
        );
    }
    Ok(json!({
        "items": items,
        "letters": letters,
        "agents": project.request("agents.list", json!({})).await?,
        "graves": project.request("gc.report", json!({})).await?["graves"],
        "pending": project.request("queue.info", json!({})).await?["pending"],
    }))
}
