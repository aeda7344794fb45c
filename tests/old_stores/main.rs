//! Stores that earlier programs have written: today's coordinator starts on each, and nothing is lost.
//!
//! `tests/fixtures/store-VERSION.tar.gz` is the JetStream store of a nats-server that was killed together with its
//! coordinator; `….json` is what that coordinator answered about it. They are written once, by the program of that
//! version, and stay as they are for ever:
//!
//! ```text
//! cargo build --bin loom          # at the commit whose store is wanted
//! cargo run -p loom-testkit --bin store -- --program target/debug/loom --out tests/fixtures/store-VERSION
//! ```
//! `store-0.1.0` is of commit 0692714, before stores had a number of their format (`loom_actors::nats::owner`). A
//! program that changes the format adds the store of the version before it. Whatever expires is kept for a hundred
//! years in it, and the settings here keep it as long; `notBefore` and `deadline` are in the year 2100.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use loom_actors::clock::Clock;
use loom_actors::nats::server::Profile;
use loom_protocol::work::WorkStatus;
use loom_protocol::{ErrorCode, ProjectId, Timestamp};
use loom_testkit::fleet::TestProject;
use loom_testkit::nats::TestNats;
use loom_testkit::process::{LoomProcess, LoomUp};
use serde_json::{Value, json};

const KEPT: &str = "36500d";

/// A coordinator of today on a copy of a store, and what was told of it when it was written.
struct OldStore {
    told: Value,
    _loom: LoomProcess,
    nats: TestNats,
}

impl OldStore {
    async fn open(name: &str) -> Result<Self> {
        let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let told = std::fs::read(fixtures.join(format!("{name}.json")))?;
        let packed = fixtures.join(format!("{name}.tar.gz"));
        let nats = TestNats::start_on(Profile::Fast, |folder| {
            let unpacking = Command::new("tar")
                .arg("-xzf")
                .arg(&packed)
                .arg("-C")
                .arg(folder)
                .status();
            ensure!(
                unpacking.context("start tar")?.success(),
                "{} cannot be unpacked",
                packed.display()
            );
            Ok(())
        });
        let nats = nats.await?;
        let loom = LoomUp::new(env!("CARGO_BIN_EXE_loom"))
            .on_nats(nats.url())
            .set("work.retention", KEPT)
            .set("dlq.retention", KEPT)
            .set("agents.grave_retention", KEPT)
            .set("agents.bury_after", KEPT)
            .set("agents.stale_after", "1h")
            .set("work.start_timeout", "1h")
            // The machine of the store has died: its entry goes first.
            .argument("--standby")
            .start();
        Ok(Self {
            told: serde_json::from_slice(&told)?,
            _loom: loom.await?,
            nats,
        })
    }

    async fn project(&self, id: &str) -> Result<TestProject> {
        TestProject::of_process(ProjectId::new(id)?, &self.nats.url()).await
    }

    fn told_of(&self, project: &str, what: &str) -> Vec<Value> {
        let told = &self.told["projects"][project][what];
        told.as_array().cloned().unwrap_or_default()
    }
}

/// Where `found` does not say what `told` says; it may say more.
fn difference(told: &Value, found: &Value, at: &str) -> Option<String> {
    match (told, found) {
        (Value::Object(told), Value::Object(found)) => told.iter().find_map(|(name, value)| {
            let found = found.get(name).unwrap_or(&Value::Null);
            difference(value, found, &format!("{at}.{name}"))
        }),
        (Value::Array(told), Value::Array(found)) if told.len() == found.len() => {
            let mut pairs = told.iter().zip(found).enumerate();
            pairs.find_map(|(n, (told, found))| difference(told, found, &format!("{at}[{n}]")))
        }
        (Value::Number(told), Value::Number(found)) if told.as_f64() == found.as_f64() => None,
        _ if told == found => None,
        _ => Some(format!("{at} was {told} and is {found}")),
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn nothing_of_a_store_of_0_1_0_is_lost() -> Result<()> {
    let store = OldStore::open("store-0.1.0").await?;
    let mut statuses = Vec::new();
    for id in ["shop", "other_1"] {
        let project = store.project(id).await?;
        let items = store.told_of(id, "items");
        assert_eq!(project.all_work().await?.len(), items.len());
        for told in &items {
            let found = project
                .request("work.get", json!({ "id": told["id"] }))
                .await?;
            assert_eq!(difference(told, &found, "item"), None, "{found}");
            statuses.push(told["status"].clone());
        }
        let letters = store.told_of(id, "letters");
        let listed = project.request("dlq.list", json!({})).await?;
        assert_eq!(listed.as_array().map(Vec::len), Some(letters.len()));
        for told in &letters {
            let found = project
                .request("dlq.get", json!({ "id": told["id"] }))
                .await?;
            assert_eq!(difference(told, &found, "letter"), None, "{found}");
        }
        let queue = project.request("queue.info", json!({})).await?;
        let pending = &store.told["projects"][id]["pending"];
        assert_eq!(difference(pending, &queue["pending"], "pending"), None);
        let report = project.request("gc.report", json!({})).await?;
        assert_eq!(report["graves"], store.told["projects"][id]["graves"]);
        agents_are_there(&store, &project).await?;
    }
    for status in WorkStatus::ALL {
        assert!(statuses.contains(&json!(status)), "no item is {status}");
    }
    Ok(())
}

async fn agents_are_there(store: &OldStore, project: &TestProject) -> Result<()> {
    let agents = store.told_of(project.id().as_str(), "agents");
    let listed = project.request("agents.list", json!({})).await?;
    assert_eq!(listed.as_array().map(Vec::len), Some(agents.len()));
    for mut told in agents {
        let found = project
            .request("agents.get", json!({ "guid": told["guid"] }))
            .await?;
        let until: Option<Timestamp> = serde_json::from_value(told["pausedUntil"].clone())?;
        let fields = told.as_object_mut().context("an agent")?;
        // These are in memory, and written down now and then.
        for name in ["lastHeartbeat", "lastActivity"] {
            fields.remove(name);
        }
        // Years later the usage limit is over.
        if until.is_some_and(|until| until <= Clock::system().now()) {
            for name in ["status", "pausedUntil", "pauseReason"] {
                fields.remove(name);
            }
        }
        assert_eq!(difference(&told, &found, "agent"), None, "{found}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn work_goes_on_with_a_store_of_0_1_0() -> Result<()> {
    let store = OldStore::open("store-0.1.0").await?;
    let project = store.project("shop").await?;

    // Whoever holds an item ends it, with the attempt from before.
    let items = store.told_of("shop", "items");
    let running = items.iter().find(|item| item["status"] == "in-progress");
    let running = running.context("an item in progress")?;
    let end = json!({
        "id": running["id"], "guid": running["assignedTo"], "attempt": running["attempt"], "result": "done",
    });
    let ended = project.request("work.complete", end).await?;
    assert_eq!(ended["status"], "completed");

    // An agent that has not stopped a cancelled item says so now, under a later epoch.
    let stopped = project
        .request("work.stopped", store.told["stopping"].clone())
        .await?;
    assert!(stopped["cancel"]["stoppedAt"].is_string(), "{stopped}");
    let heartbeat = json!({ "guid": store.told["stopping"]["guid"] });
    let answer = project.request("agents.heartbeat", heartbeat).await?;
    let (epoch, before) = (answer["epoch"].as_u64(), store.told["epoch"].as_u64());
    assert!(
        epoch > before,
        "{epoch:?} is no later epoch than {before:?}"
    );

    // A letter is put back, and the item is done at last.
    let letters = store.told_of("shop", "letters");
    let letter = letters
        .iter()
        .find(|letter| letter["reason"] == "agent-error");
    let id = &letter.context("a letter of an agent")?["id"];
    let retried = project.request("dlq.retry", json!({ "id": id })).await?;
    assert_eq!(retried["ids"], json!([id]));
    let agent = project.agent("breaks").slots(4).spawn().await?;
    let claimed = agent.claim(json!({ "max": 4 })).await?;
    let item = claimed.iter().find(|item| json!(item.work_item.id) == *id);
    let item = item.context("the item that was put back")?;
    agent.complete(item, "mended").await?;
    // What was published and could not be read stays with its bytes, and cannot be put back.
    let poison = letters.iter().find(|letter| letter["reason"] == "poison");
    let poison = &poison.context("a poison letter")?["id"];
    let refused = project.request("dlq.retry", json!({ "id": poison })).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::InvalidRequest);
    Ok(())
}
