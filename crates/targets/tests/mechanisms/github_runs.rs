//! `github-actions`: runs are watched, ended and asked for, and the coordinator is killed between all steps.

use std::time::Duration;

use axum::http::Method;
use loom_protocol::SpinUpId;
use loom_targets::{AgentEnd, Found, Launcher, Started, Stopped};
use loom_testkit::github::{Cancelled, Fault, TestGithub};
use serde_json::json;

use crate::fixture::{PATIENCE, order, until};
use crate::github::{actions, config, github, never};

/// A run that was started, and its id.
async fn started(github: &TestGithub, actions: &dyn Launcher) -> (SpinUpId, Started, u64) {
    let order = order(SpinUpId::generate());
    let started = actions.start(&order, never()).await.unwrap();
    let (id, _) = github.dispatched().pop().unwrap();
    (order.spin_up, started, id)
}

async fn end_of(started: Started) -> AgentEnd {
    let mut end = started.end.unwrap();
    let ended = tokio::time::timeout(PATIENCE, end.wait_for(Option::is_some));
    ended.await.unwrap().unwrap().clone().unwrap()
}

#[tokio::test]
async fn the_end_of_a_run_is_told_with_its_jobs() {
    let (github, folder) = (github().await, tempfile::tempdir().unwrap());
    let actions = actions(&config(&github), folder.path());
    for (conclusion, success, job) in [
        ("success", true, "agent: success"),
        ("failure", false, "agent: failure, at Run the agent"),
    ] {
        let (spin_up, started, id) = started(&github, &*actions).await;
        let reference = started.reference.clone();
        github.begin(id);
        let looks = |status: u16| {
            let received = github.received();
            let path = format!("/repos/octo/agents/actions/runs/{id}");
            received
                .iter()
                .filter(|one| one.path == path && one.status == status)
                .count()
        };
        // What has not changed costs nothing, and what fails is no end.
        let gone = Fault::Answer(502, Vec::new(), String::new());
        github.fail_next(Method::GET, &format!("/runs/{id}"), gone);
        github.fail_next(Method::GET, &format!("/runs/{id}"), Fault::CutBefore);
        until("a look that costs nothing", || {
            (looks(304) > 0).then_some(())
        })
        .await;
        github.finish(id, conclusion);
        let end = end_of(started).await;
        assert_eq!(
            (end.success, end.how),
            (success, format!("the run ended: {conclusion}"))
        );
        let page = format!(
            "run {id} (https://github.example/octo/agents/actions/runs/{id}): {conclusion}"
        );
        assert_eq!(end.output, format!("{job}\n{page}"));
        let output = Some(end.output);
        for known in [None, Some(&reference)] {
            let found = actions.find(spin_up, known).await.unwrap();
            assert_eq!(
                found,
                Found::Ended {
                    output: output.clone()
                }
            );
        }
    }
}

#[tokio::test]
async fn a_run_that_does_not_begin_in_time_is_cancelled() {
    let (github, folder) = (github().await, tempfile::tempdir().unwrap());
    let mut config = config(&github);
    config["startTimeoutMs"] = json!(1500);
    let actions = actions(&config, folder.path());
    let (spin_up, waits, id) = started(&github, &*actions).await;
    let (_, begins, other) = started(&github, &*actions).await;
    github.begin(other);
    let end = end_of(waits).await;
    assert!(
        !end.success && end.how.contains("raise startTimeoutMs"),
        "{}",
        end.how
    );
    assert!(matches!(
        actions.find(spin_up, None).await.unwrap(),
        Found::Ended { .. }
    ));
    let cancels = github.received();
    let cancels: Vec<&str> = cancels
        .iter()
        .map(|one| &*one.path)
        .filter(|path| path.ends_with("/cancel"))
        .collect();
    assert_eq!(
        cancels,
        [format!("/repos/octo/agents/actions/runs/{id}/cancel")]
    );
    github.finish(other, "success");
    assert!(end_of(begins).await.success);
}

#[tokio::test]
async fn a_run_is_cancelled_and_by_force_where_it_does_not_obey() {
    let (github, folder) = (github().await, tempfile::tempdir().unwrap());
    let actions = actions(&config(&github), folder.path());
    for (way, by_reference, killed) in [
        (Cancelled::Ends, true, 0),
        (Cancelled::Ends, false, 0),
        (Cancelled::NeedsForce, true, 1),
        (Cancelled::NeedsForce, false, 1),
    ] {
        github.set(|settings| settings.cancelled = way);
        let (spin_up, started, id) = started(&github, &*actions).await;
        github.begin(id);
        let known = Some(&started.reference).filter(|_| by_reference);
        let stopped = actions
            .stop(spin_up, known, Duration::from_secs(1))
            .await
            .unwrap();
        let page = format!("https://github.example/octo/agents/actions/runs/{id}");
        let output = Some(format!(
            "agent: cancelled, at Run the agent\nrun {id} ({page}): cancelled"
        ));
        let ended = |processes, killed| Stopped::Ended {
            processes,
            killed,
            output: output.clone(),
        };
        assert_eq!(stopped, ended(1, killed));
        // One that has ended is what is wanted.
        let again = actions
            .stop(spin_up, known, Duration::from_secs(1))
            .await
            .unwrap();
        assert_eq!(again, ended(0, 0));
    }
    // It ends between the look and the cancelling.
    let (spin_up, started, id) = started(&github, &*actions).await;
    let over = json!({"message": "Cannot cancel a workflow run that is completed."}).to_string();
    github.fail_next(
        Method::POST,
        "/cancel",
        Fault::Answer(409, Vec::new(), over),
    );
    let stopping = actions.stop(spin_up, Some(&started.reference), PATIENCE);
    let ending = async {
        until("the cancelling", || {
            let received = github.received();
            received.iter().any(|one| one.status == 409).then_some(())
        })
        .await;
        github.finish(id, "success");
    };
    let (stopped, ()) = tokio::join!(stopping, ending);
    assert!(matches!(
        stopped.unwrap(),
        Stopped::Ended {
            processes: 1,
            killed: 0,
            ..
        }
    ));
    // Somebody deletes it.
    github.delete(id);
    let found = actions
        .find(spin_up, Some(&started.reference))
        .await
        .unwrap();
    let Found::Ended {
        output: Some(output),
    } = found
    else {
        panic!("{found:?}");
    };
    assert!(output.contains("deleted"), "{output}");
    let stopped = actions
        .stop(spin_up, Some(&started.reference), PATIENCE)
        .await
        .unwrap();
    assert_eq!(
        stopped,
        Stopped::Ended {
            processes: 0,
            killed: 0,
            output: None
        }
    );
    // A token that sees nothing says nothing of a run.
    let mut config = config(&github);
    config["tokenEnvVar"] = json!("CARGO_PKG_NAME");
    let blind = crate::github::actions(&config, folder.path());
    let error = blind
        .find(spin_up, Some(&started.reference))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("CARGO_PKG_NAME"), "{error}");
    blind
        .stop(spin_up, Some(&started.reference), Duration::ZERO)
        .await
        .unwrap_err();
}

#[tokio::test]
async fn what_was_never_sent_is_ended_at_once_and_what_runs_is_told_to_end() {
    let (github, folder) = (github().await, tempfile::tempdir().unwrap());
    let actions = actions(&config(&github), folder.path());
    github.on_dispatch(|run| {
        tokio::spawn(async move {
            run.begin();
            run.cancelled().await;
            run.finish("cancelled");
        });
    });
    let (spin_up, started, _) = started(&github, &*actions).await;
    let stopped = actions
        .stop(spin_up, Some(&started.reference), PATIENCE)
        .await
        .unwrap();
    assert!(
        matches!(
            stopped,
            Stopped::Ended {
                processes: 1,
                killed: 0,
                ..
            }
        ),
        "{stopped:?}"
    );
    github.set(|settings| settings.has_trigger = false);
    let refused = order(SpinUpId::generate());
    actions.start(&refused, never()).await.unwrap_err();
    let stopped = actions.stop(refused.spin_up, None, PATIENCE).await.unwrap();
    assert_eq!(
        stopped,
        Stopped::Ended {
            processes: 0,
            killed: 0,
            output: None
        }
    );
}

#[tokio::test]
async fn a_probe_sees_the_workflow_and_the_right_to_dispatch_and_starts_nothing() {
    let (github, folder) = (github().await, tempfile::tempdir().unwrap());
    let good = config(&github);
    let probe = async |field: &str, value: serde_json::Value| {
        let mut config = good.clone();
        config[field] = value;
        actions(&config, folder.path()).probe(PATIENCE).await
    };
    let seen = probe("ref", json!("main")).await.unwrap().seen;
    assert!(
        seen.contains("may dispatch it") && seen.contains("run-name: loom ${{ inputs.spin_up }}"),
        "{seen}"
    );
    for (field, value, words) in [
        (
            "tokenEnvVar",
            json!("CARGO_MANIFEST_DIR"),
            "`actions: write`",
        ),
        ("tokenEnvVar", json!("CARGO_PKG_NAME"), "CARGO_PKG_NAME"),
        (
            "tokenEnvVar",
            json!("LOOM_TEST_NO_SUCH_VARIABLE"),
            "LOOM_TEST_NO_SUCH_VARIABLE",
        ),
        ("repo", json!("octo/other"), "octo/other"),
        ("workflow", json!("other.yml"), "other.yml"),
        ("inputs", json!({}), "{{spinUpId}}"),
        ("apiUrl", json!("http://127.0.0.1:9/"), "can't be reached"),
    ] {
        let error = probe(field, value).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    github.set(|settings| settings.workflow_state = "disabled_inactivity".to_owned());
    let error = probe("ref", json!("main")).await.unwrap_err();
    assert!(error.to_string().contains("disabled_inactivity"), "{error}");
    assert_eq!(github.dispatched(), []);
    // One that is silent costs no more than the limit.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = good.clone();
    config["apiUrl"] = json!(format!("http://{}", silent.local_addr().unwrap()));
    let error = actions(&config, folder.path())
        .probe(Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("300ms"), "{error}");
}
