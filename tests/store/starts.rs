use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use loom_actors::stores::REMEMBER_EVERY;
use loom_protocol::VerbName;
use loom_testkit::fleet::{Fleet, everybody};
use loom_testkit::nats::TestNats;
use loom_testkit::process::LoomProcess;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::house::{NOT_THE_ONE, loom, loom_store, loom_up};

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
    let warnings = service.info(&everybody(VerbName::Info, None)?).warnings;
    let of_project = |text: &String| text.contains(project.id().as_str());
    assert!(warnings.iter().any(of_project), "{warnings:?}");
    assert!(
        warnings.iter().any(|text| text.contains("this NATS")),
        "{warnings:?}"
    );
    // The command line says the same wherever somebody looks.
    let (code, said) = loom_store(&fleet, &["lost"]).await?;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(project.id().as_str()), "{said}");
    assert!(!said.contains("nothing is known to be lost"), "{said}");
    for command in ["status", "doctor"] {
        let (_, said) = loom(&fleet, &[command]).await?;
        for part in [project.id().as_str(), "this NATS"] {
            assert!(
                said.contains(part),
                "{part} is not in what {command} says: {said}"
            );
        }
    }
    assert!(service.readiness().ready, "a URL alone proves nothing");
    let item = json!({"description": "d", "capability": "rust"});
    project.insist("work.submit", item).await?;
    Ok(())
}

/// What a process with this id in its settings says over REST.
struct Asked {
    http: reqwest::Client,
    api: String,
}

impl Asked {
    fn of(process: &LoomProcess) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self {
            http: reqwest::Client::builder().no_proxy().build()?,
            api: process.api_url().to_owned(),
        })
    }

    async fn get(&self, path: &str) -> Result<(u16, Value)> {
        let answer = self.http.get(format!("{}{path}", self.api)).send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    async fn post(&self, path: &str, body: Value) -> Result<(u16, Value)> {
        let asked = self.http.post(format!("{}{path}", self.api)).json(&body);
        let answer = asked.send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    /// REST takes things in a moment before the API over NATS does; only then the process calls itself ready.
    async fn ready_at_last(&self) -> Result<()> {
        let ready = async {
            while self.get("/ready").await?.0 != 200 {
                // deliberate sleep: between two looks, before the deadline
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        };
        timeout(Duration::from_mins(1), ready)
            .await
            .context("it is never ready")?
    }

    /// A submission, repeated until it is taken in.
    async fn submit_at_last(&self) -> Result<Value> {
        let item = json!({"description": "d", "capability": "rust"});
        let submitted = async {
            loop {
                match self.post("/api/work", item.clone()).await? {
                    (status, answer) if status < 300 => return anyhow::Ok(answer),
                    // deliberate sleep: between two looks, before the deadline
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        timeout(Duration::from_mins(1), submitted)
            .await
            .context("nothing is taken in")?
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn with_the_id_of_the_store_a_start_on_another_one_is_red_until_the_right_one_is_there()
-> Result<()> {
    let nats = TestNats::start().await?;
    let mut first = loom_up().on_nats(nats.url()).start().await?;
    let asked = Asked::of(&first)?;
    let item = json!({"description": "d", "capability": "rust"});
    let (_, before) = asked.post("/api/work", item.clone()).await?;
    let (_, info) = asked.get("/api/info").await?;
    let id = info["storeId"].as_str().context("no id")?.to_owned();
    assert!(first.terminate().await?.success());
    let copy = nats.keep_a_copy().await?;
    nats.lose_the_store().await?;

    for standby in [false, true] {
        let wrong = loom_up().on_nats(nats.url()).set("nats.store_id", &id);
        let wrong = if standby {
            wrong.argument("--standby")
        } else {
            wrong
        };
        let mut process = wrong.start().await?;
        let asked = Asked::of(&process)?;
        let (status, ready) = asked.get("/ready").await?;
        let said = ready.to_string();
        assert_eq!(status, 503, "{said}");
        for part in [NOT_THE_ONE, &id, "nats.store_id"] {
            assert!(said.contains(part), "{part:?} is not in: {said}");
        }
        let (status, refused) = asked.post("/api/work", item.clone()).await?;
        assert_eq!((status, &refused["code"]), (503, &json!("unavailable")));
        assert!(refused.to_string().contains(NOT_THE_ONE), "{refused}");
        let (status, refused) = asked.post("/api/store/accept", json!({})).await?;
        assert_eq!((status, &refused["code"]), (400, &json!("invalid-request")));
        assert!(refused.to_string().contains("nats.store_id"), "{refused}");
        let jetstream = async_nats::jetstream::new(nats.connect().await?);
        let made: Vec<String> = jetstream.stream_names().try_collect().await?;
        assert_eq!(made, Vec::<String>::new(), "nothing is made");

        nats.go_back_to(&copy).await?;
        asked.submit_at_last().await?;
        asked.ready_at_last().await?;
        let path = format!("/api/work/{}", before["id"].as_str().context("no id")?);
        let (status, found) = asked.get(&path).await?;
        assert_eq!(status, 200, "what was there is there: {found}");
        assert!(process.terminate().await?.success());
        nats.lose_the_store().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_a_data_directory_remembers_outlasts_a_start_that_never_owned() -> Result<()> {
    let nats = TestNats::start().await?;
    let directory = tempfile::tempdir()?;
    let up = || {
        let up = loom_up().on_nats(nats.url());
        up.data_dir(directory.path())
    };
    let mut first = up().start().await?;
    let asked = Asked::of(&first)?;
    asked.submit_at_last().await?;
    let (_, info) = asked.get("/api/info").await?;
    let id = info["storeId"].as_str().context("no id")?.to_owned();
    assert!(first.terminate().await?.success());
    nats.lose_the_store().await?;
    let mut waiting = up().set("nats.store_id", &id).start().await?;
    // deliberate sleep: what is tested is that nothing is written in this time
    tokio::time::sleep(REMEMBER_EVERY + Duration::from_secs(1)).await;
    assert!(waiting.terminate().await?.success());
    let after = up().start().await?;
    let (_, info) = Asked::of(&after)?.get("/api/info").await?;
    let warnings = info["warnings"].to_string();
    for part in ["this NATS", "project default"] {
        assert!(warnings.contains(part), "{warnings}");
    }
    Ok(())
}
