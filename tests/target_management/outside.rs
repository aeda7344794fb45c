//! What others do to the bucket: they destroy it, purge it, put into it what nobody can read, and fill the store.

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::stream;
use loom_actors::nats::server::Profile;
use loom_protocol::rest::TargetsPage;
use loom_protocol::target::SpinUpStatus;
use loom_protocol::{AgentGuid, ErrorCode, names};
use loom_testkit::births::{Place, operations, submit};
use loom_testkit::fleet::{Fleet, Role, TestProject};
use loom_testkit::nats::TestNats;
use loom_testkit::process::LoomUp;
use serde_json::{Value, json};

use crate::{all, get, local, names_of, register, with};

async fn until_listed(project: &TestProject, names: &[&str]) -> Result<()> {
    let look = async || {
        let listed = all(project).await.ok()?;
        (names_of(&listed) == names).then_some(())
    };
    project
        .eventually(&format!("{names:?} are listed"), look)
        .await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_was_destroyed_or_purged_from_outside_is_listed_no_longer() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let bucket = names::targets_bucket(project.id());
    for name in ["one", "two", "three"] {
        register(&project, local(name)).await?;
    }
    project.jetstream().delete_key_value(&bucket).await?;
    until_listed(&project, &[]).await?;
    for name in ["one", "two", "three"] {
        register(&project, local(name)).await?;
    }
    until_listed(&project, &["one", "two", "three"]).await?;

    let stream = project
        .jetstream()
        .get_stream(format!("KV_{bucket}"))
        .await?;
    stream
        .purge()
        .filter(format!("$KV.{bucket}.target.two"))
        .await?;
    until_listed(&project, &["one", "three"]).await?;
    // One that is gone takes no others with it, and its change says that it is gone.
    stream.purge().await?;
    let update = json!({"target": "one", "updates": {"maxAgents": 2}});
    let gone = project.insist("targets.update", update).await;
    assert_eq!(gone.expect_err("it is gone").code, ErrorCode::NotFound);
    until_listed(&project, &[]).await?;
    assert_eq!(project.restarts(Role::TargetManager)?, 0);
    register(&project, local("one")).await?;
    until_listed(&project, &["one"]).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_was_started_and_has_not_registered_is_ended_with_the_bucket() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 1)).await?;
    submit(&project, 1).await?;
    let process = place.started(&project, 1).await?.remove(0);
    let bucket = names::targets_bucket(project.id());
    project.jetstream().delete_key_value(&bucket).await?;
    let ended = async || (!process.lives()).then_some(());
    project.eventually("the end of the process", ended).await?;
    assert_eq!(project.restarts(Role::TargetManager)?, 0);
    Ok(())
}

/// Has the coordinator read the bucket: it finds nothing where it knows a target.
async fn have_it_read(project: &TestProject) -> Result<()> {
    let other = with(local("other"), &json!({"capabilities": ["other"]}));
    register(project, other).await?;
    let bucket = names::targets_bucket(project.id());
    let stream = project.jetstream().get_stream(format!("KV_{bucket}"));
    let subject = format!("$KV.{bucket}.target.other");
    stream.await?.purge().filter(subject).await?;
    let update = json!({"target": "other", "updates": {"maxAgents": 2}});
    let gone = project.insist("targets.update", update).await;
    assert_eq!(gone.expect_err("it is gone").code, ErrorCode::NotFound);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_was_started_lives_on_while_the_record_of_its_target_cannot_be_read() -> Result<()> {
    const KEY: &str = "target.here";
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 1)).await?;
    submit(&project, 1).await?;
    let process = place.started(&project, 1).await?.remove(0);
    let begun = async || {
        let all = operations(&project).ok()?;
        (all.first()?.status == SpinUpStatus::InProgress).then_some(())
    };
    project.eventually("a start that is begun", begun).await?;
    let bucket = names::targets_bucket(project.id());
    let bucket = project.jetstream().get_key_value(&bucket).await?;
    let record = bucket.get(KEY).await?.context("its record")?;
    bucket.put(KEY, "\u{1}{".into()).await?;
    have_it_read(&project).await?;
    let targets = project.parts()?.targets.clone();
    let unreadable = async || (targets.quarantined() == 1).then_some(());
    project.eventually("it is unreadable", unreadable).await?;
    bucket.put(KEY, record).await?;
    have_it_read(&project).await?;
    until_listed(&project, &["here"]).await?;
    process.redeem(&project, AgentGuid::generate()).await??;
    ensure!(process.lives(), "it was ended");
    assert_eq!(place.processes(), [process]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_is_not_told_to_end_while_a_record_cannot_be_read_that_may_know_its_ticket()
-> Result<()> {
    const KEY: &str = "target.here";
    let mut fleet = Fleet::own().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 1)).await?;
    submit(&project, 1).await?;
    let process = place.started(&project, 1).await?.remove(0);
    let begun = async || {
        let all = operations(&project).ok()?;
        (all.first()?.status == SpinUpStatus::InProgress).then_some(())
    };
    project.eventually("a start that is begun", begun).await?;
    let bucket = names::targets_bucket(project.id());
    let bucket = project.jetstream().get_key_value(&bucket).await?;
    let record = bucket.get(KEY).await?.context("its record")?;
    bucket.put(KEY, "\u{1}{".into()).await?;
    let registration = process.registration(AgentGuid::generate());
    let is_told_to_wait = async || -> Result<()> {
        let answer = project.request("agents.register", registration.clone());
        let error = answer.await.err().context("nobody knows its ticket")?;
        ensure!(error.code == ErrorCode::Unavailable, "{error}");
        // What is to be done about it is said.
        ensure!(
            error.message.contains("loom targets remove here"),
            "{error}"
        );
        Ok(())
    };
    for time in ["it is come upon", "it is known"] {
        is_told_to_wait().await.context(time)?;
    }
    fleet.crash().await?;
    fleet.start_again().await?;
    project.insist("targets.list", json!({})).await?;
    is_told_to_wait()
        .await
        .context("it is found at the start")?;

    bucket.put(KEY, record).await?;
    have_it_read(&project).await?;
    until_listed(&project, &["here"]).await?;
    let born = project.insist("agents.register", registration).await?;
    ensure!(born["targetId"].is_string(), "{born}");
    assert_eq!(place.processes(), [process]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_record_that_cannot_be_read_is_named_with_its_remedy_and_removed_by_its_name()
-> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    register(&project, local("here")).await?;
    let bucket = names::targets_bucket(project.id());
    let bucket = project.jetstream().get_key_value(&bucket).await?;
    bucket.put("target.bro=2Eken", "\u{1}{".into()).await?;
    fleet.crash().await?;
    fleet.start_again().await?;
    project.insist("targets.list", json!({})).await?;

    let error = get(&project, "Bro.ken").await.expect_err("it is none");
    assert_eq!(error.code, ErrorCode::NotFound);
    ensure!(
        error.message.contains("loom targets remove bro.ken"),
        "{error}"
    );
    let api = project.api()?;
    let page: TargetsPage = api.get(&["targets"], &[]).await?;
    assert_eq!((page.page.total, page.unreadable.len()), (1, 1));
    ensure!(
        page.unreadable[0].reason.contains("remove bro.ken"),
        "{page:?}"
    );
    let taken = register(&project, local("bro.ken"))
        .await
        .expect_err("it is taken");
    assert_eq!(
        taken.code,
        ErrorCode::Unavailable,
        "there is no target of that name"
    );
    ensure!(taken.message.contains("remove bro.ken"), "{taken}");
    let details = taken.details.unwrap_or_default();
    assert_eq!(details["unreadable"], "bro.ken");

    let removed: Value = api.delete(&["targets", "BRO.ken"]).await?;
    assert_eq!(
        (&removed["success"], &removed["name"]),
        (&json!(true), &json!("bro.ken"))
    );
    assert_eq!(removed["message"], "bro.ken is removed");
    let again = project
        .request("targets.remove", json!({"target": "bro.ken"}))
        .await;
    assert_eq!(again.expect_err("it is gone").code, ErrorCode::NotFound);
    register(&project, local("bro.ken")).await?;
    assert_eq!(names_of(&all(&project).await?), ["here", "bro.ken"]);
    Ok(())
}

/// Takes all the room that the account has.
async fn fill(project: &TestProject) -> Result<()> {
    let config = stream::Config {
        name: "FILLER".into(),
        subjects: vec!["filler".into()],
        ..Default::default()
    };
    let jetstream = project.jetstream();
    jetstream.create_stream(config).await?;
    for size in [100_000, 1_000, 1] {
        while jetstream
            .publish("filler", vec![b'x'; size].into())
            .await?
            .await
            .is_ok()
        {}
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn where_the_store_is_full_a_target_is_removed_and_none_registered() -> Result<()> {
    const LIMIT: u64 = 8 * 1024 * 1024;
    let nats = TestNats::start_limited(Profile::Fast, Some(LIMIT)).await?;
    let _loom = LoomUp::new(env!("CARGO_BIN_EXE_loom"))
        .on_nats(nats.url())
        .start()
        .await?;
    let project = TestProject::of_process(TestNats::unique_project(), &nats.url()).await?;
    for name in ["one", "two"] {
        register(&project, local(name)).await?;
    }
    fill(&project).await?;
    let refused = register(&project, local("three"))
        .await
        .expect_err("it is full");
    assert_eq!(refused.code, ErrorCode::Unavailable, "{refused}");
    let removed = project
        .request("targets.remove", json!({"target": "one"}))
        .await?;
    assert_eq!(removed["name"], "one");
    assert_eq!(names_of(&all(&project).await?), ["two"]);
    let bucket = names::targets_bucket(project.id());
    let bucket = project.jetstream().get_key_value(&bucket).await?;
    assert!(bucket.get("target.one").await?.is_none());
    assert!(
        bucket
            .get("target.two")
            .await?
            .context("it is there")?
            .len()
            > 2
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_existing_clients_put_changes_a_target_and_what_cannot_be_changed_is_refused()
-> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    register(&project, local("here")).await?;
    let api = project.api()?;
    let put = async |body: Value| {
        let answer: Result<Value, _> = api.put(&["targets", "here"], &body).await;
        answer
    };
    let changed = put(json!({
        "command": "run2", "classifications": ["eu"], "enabled": false, "projectId": project.id(), "colour": "red",
    }))
    .await?;
    assert_eq!(
        (
            &changed["status"],
            &changed["boundaries"],
            &changed["config"]["local"]["command"]
        ),
        (&json!("disabled"), &json!(["eu"]), &json!("run2"))
    );
    let on = put(json!({"updates": {"enabled": true}})).await?;
    assert_eq!(on["status"], "available");
    let whole: Value = api.get(&["targets", "here"], &[]).await?;
    let mut whole_again = whole.clone();
    whole_again["maxAgents"] = json!(2);
    let whole_again = put(whole_again).await?;
    assert_eq!(
        (&whole_again["maxAgents"], &whole_again["config"]),
        (&json!(2), &whole["config"])
    );
    for (body, named) in [
        (json!({"name": "there"}), "name"),
        (json!({"mechanism": "ssh"}), "mechanism"),
        (json!({"host": "h"}), "host"),
        (json!({"status": "disabled"}), "status"),
    ] {
        let error = put(body).await.expect_err("it is refused").to_string();
        ensure!(error.contains(named), "{named}: {error}");
    }
    let over_nats = json!({"target": "here", "updates": {"agentType": "codex"}});
    let over_nats = project.request("targets.update", over_nats).await;
    assert_eq!(
        over_nats.expect_err("it is refused").code,
        ErrorCode::InvalidRequest
    );
    Ok(())
}
