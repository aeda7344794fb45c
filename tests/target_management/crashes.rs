//! Deaths and races: of the coordinator, of the actor, of many clients at once; and what lies in the bucket unasked.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use loom_coordinator::api_client::ApiError;
use loom_protocol::{ErrorCode, names};
use loom_testkit::fleet::{Fleet, Role, TestProject};
use serde_json::{Value, json};

use crate::{all, get, local, names_of, register};

/// In how many parts the time of a change is divided: at the end of each the coordinator is killed.
const MOMENTS: u32 = 6;

/// Sends a request and does not wait for its answer.
async fn send(project: &TestProject, action: &str, body: &Value) -> Result<()> {
    let subject = names::request(project.id(), action);
    let client = project.client();
    let inbox = client.new_inbox();
    client
        .publish_with_reply(subject, inbox, body.to_string().into())
        .await?;
    client.flush().await?;
    Ok(())
}

/// Each change is sent and the coordinator is killed a moment later, each time at another one; what is there afterwards
/// is the state before or after, and the change can be made.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_coordinator_that_is_killed_in_the_middle_leaves_a_target_as_it_was_or_is_to_be()
-> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    register(&project, local("first")).await?;
    let began = Instant::now();
    for change in ["targets.disable", "targets.enable"] {
        project.request(change, json!({"target": "first"})).await?;
    }
    // How long a change takes.
    let undisturbed = began.elapsed() / 2;
    for round in 0..=MOMENTS {
        let crash = async |fleet: &mut Fleet| -> Result<()> {
            // deliberate sleep: until the moment at which the coordinator is killed
            tokio::time::sleep(undisturbed * round / MOMENTS).await;
            fleet.crash().await?;
            fleet.start_again().await
        };
        let name = format!("t{round}");
        send(&project, "targets.register", &local(&name)).await?;
        crash(&mut fleet).await?;
        let again = project.insist("targets.register", local(&name)).await;
        if let Err(error) = &again {
            assert_eq!(error.code, ErrorCode::AlreadyExists, "{error}");
        }
        let target = get(&project, &name).await?;
        assert_eq!(all(&project).await?.len(), 2, "once, beside the first");

        let update = json!({"target": name, "updates": {"maxAgents": 7}});
        send(&project, "targets.update", &update).await?;
        crash(&mut fleet).await?;
        let now = project
            .insist("targets.get", json!({"target": name}))
            .await?;
        ensure!(now["maxAgents"] == 1 || now["maxAgents"] == 7, "{now}");
        ensure!(now["id"] == json!(target.id));
        project.insist("targets.update", update).await?;

        send(&project, "targets.disable", &json!({"target": name})).await?;
        crash(&mut fleet).await?;
        let now = project
            .insist("targets.disable", json!({"target": name}))
            .await?;
        ensure!(
            now["status"] == "disabled" && now["maxAgents"] == 7,
            "{now}"
        );

        send(&project, "targets.remove", &json!({"target": name})).await?;
        crash(&mut fleet).await?;
        match project
            .insist("targets.remove", json!({"target": name}))
            .await
        {
            Ok(_) => {}
            Err(error) => assert_eq!(error.code, ErrorCode::NotFound, "{error}"),
        }
        let left = project
            .insist("targets.list", json!({"includeDisabled": true}))
            .await?;
        ensure!(left.as_array().map(Vec::len) == Some(1), "{left}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn of_twenty_clients_that_register_one_name_at_once_exactly_one_does() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    for round in 0..5 {
        let spelled = |number: usize| {
            let name = format!("same-{round}");
            let mut letters: Vec<String> = name.chars().map(String::from).collect();
            letters[number % 4] = letters[number % 4].to_uppercase();
            letters.concat()
        };
        let clients = join_all((0..20).map(|_| project.another_connection())).await;
        let clients: Vec<TestProject> = clients.into_iter().collect::<Result<_>>()?;
        let at_once = clients.iter().enumerate();
        let at_once = at_once.map(|(number, client)| register(client, local(&spelled(number))));
        let (done, refused): (Vec<_>, Vec<_>) =
            join_all(at_once).await.into_iter().partition(Result::is_ok);
        assert_eq!((done.len(), refused.len()), (1, 19));
        for error in refused.into_iter().filter_map(Result::err) {
            assert_eq!(error.code, ErrorCode::AlreadyExists, "{error}");
        }
        assert_eq!(all(&project).await?.len(), round + 1);
    }
    // Over REST it is 409.
    let refused: Result<Value, ApiError> =
        project.api()?.post(&["targets"], &local("SAME-0")).await;
    let Err(ApiError::Refused(error)) = refused else {
        panic!("the name is taken");
    };
    assert_eq!(
        (error.code, error.code.status()),
        (ErrorCode::AlreadyExists, 409)
    );
    Ok(())
}

/// Asks until it is done. An actor that has crashed often pauses for longer than a request waits: `unavailable` then says
/// that the change may happen all the same, and only after that `done_before` tells that it did.
async fn until_done(
    project: &TestProject,
    action: &str,
    body: Value,
    done_before: ErrorCode,
) -> Result<()> {
    match project.request(action, body.clone()).await {
        Err(error) if error.code.is_transient() => match project.insist(action, body).await {
            Err(error) if error.code != done_before => Err(error.into()),
            _ => Ok(()),
        },
        outcome => Ok(outcome.map(drop)?),
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_actor_that_is_killed_during_writes_loses_none_and_does_none_twice() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    register(&project, local("first")).await?;
    for round in 1..=4 {
        let names: Vec<String> = (0..20).map(|number| format!("r{round}-{number}")).collect();
        let writes = join_all(names.iter().map(|name| {
            // The handle sends it again to the next incarnation.
            until_done(
                &project,
                "targets.register",
                local(name),
                ErrorCode::AlreadyExists,
            )
        }));
        let kill = async {
            tokio::task::yield_now().await;
            project.kill(Role::TargetManager)
        };
        let (written, killed) = tokio::join!(writes, kill);
        killed?;
        for outcome in written {
            outcome?;
        }
        project
            .wait_until_restarted(Role::TargetManager, 2 * round - 1)
            .await?;
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let there = all(&project).await?;
        let there: Vec<&str> = names_of(&there)
            .into_iter()
            .filter(|n| names.contains(n))
            .collect();
        assert_eq!(there.len(), 20, "each once");
        let removals = join_all(
            names
                .iter()
                .map(|name| json!({"target": name}))
                .map(|target| until_done(&project, "targets.remove", target, ErrorCode::NotFound)),
        );
        let (removed, killed) = tokio::join!(removals, async { project.kill(Role::TargetManager) });
        killed?;
        for outcome in removed {
            outcome?;
        }
        project
            .wait_until_restarted(Role::TargetManager, 2 * round)
            .await?;
        assert_eq!(names_of(&all(&project).await?), ["first"]);
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_record_that_cannot_be_read_is_left_alone_and_its_name_stays_taken() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    register(&project, local("here")).await?;
    let bucket = names::targets_bucket(project.id());
    let bucket = project.jetstream().get_key_value(&bucket).await?;
    for (key, value) in [
        ("target.later", &b"\x07from a later program"[..]),
        ("target.broken", b"\x01{"),
        ("spin-up.something", b"of no interest here"),
    ] {
        bucket.put(key, value.to_vec().into()).await?;
    }
    let here = bucket.get("target.here").await?.context("it is there")?;
    bucket.put("target.other", here).await?;
    fleet.crash().await?;
    fleet.start_again().await?;
    let there = project.insist("targets.list", json!({})).await?;
    assert_eq!(there.as_array().map(Vec::len), Some(1), "{there}");
    assert_eq!(project.parts()?.targets.quarantined(), 3);
    assert_eq!(project.restarts(Role::TargetManager)?, 0, "it is no crash");
    let taken = register(&project, local("later"))
        .await
        .expect_err("it is taken");
    assert_eq!(taken.code, ErrorCode::Unavailable);
    let value = bucket
        .get("target.later")
        .await?
        .context("it is left alone")?;
    assert_eq!(&value[..], b"\x07from a later program");
    register(&project, local("more")).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_bucket_that_was_destroyed_is_made_again_and_what_was_in_it_is_gone() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    register(&project, local("here")).await?;
    let bucket = names::targets_bucket(project.id());
    project.jetstream().delete_key_value(&bucket).await?;
    let update = json!({"target": "here", "updates": {"maxAgents": 2}});
    let gone = project.insist("targets.update", update).await;
    assert_eq!(gone.expect_err("it is gone").code, ErrorCode::NotFound);
    register(&project, local("here")).await?;
    let bucket = project.jetstream().get_key_value(&bucket).await?;
    assert!(bucket.get("target.here").await?.is_some());
    assert_eq!(names_of(&all(&project).await?), ["here"]);
    Ok(())
}

/// NATS is killed while targets are registered: each that was answered is there, and each is there once.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_outage_of_nats_loses_no_target_and_doubles_none() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    register(&project, local("first")).await?;
    let names: Vec<String> = (0..20).map(|number| format!("t{number}")).collect();
    let writes = join_all(names.iter().map(|name| {
        let target = local(name);
        let project = &project;
        async move { project.insist("targets.register", target).await }
    }));
    let outage = async {
        fleet.nats().kill().await?;
        fleet.nats().restart().await
    };
    let (written, outage) = tokio::join!(writes, outage);
    outage?;
    for outcome in written {
        // The answer to the first try may have been lost.
        if let Err(error) = outcome {
            assert_eq!(error.code, ErrorCode::AlreadyExists, "{error}");
        }
    }
    let left = project
        .insist("targets.list", json!({"limit": 100}))
        .await?;
    ensure!(left.as_array().map(Vec::len) == Some(21), "{left}");
    project
        .insist("targets.remove", json!({"target": "t7"}))
        .await?;
    Ok(())
}
