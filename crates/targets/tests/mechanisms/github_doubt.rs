//! `github-actions`: limits, and starts that are in doubt.

use std::time::{Duration, Instant};

use axum::http::Method;
use loom_protocol::SpinUpId;
use loom_protocol::target::Mechanism;
use loom_targets::{Found, StartErrorKind, Stopped};
use loom_testkit::github::{Fault, RunDetails};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fixture::{PATIENCE, around, launcher, order};
use crate::github::{READER, WRITER, actions, config, github, never, posts, run_of};

#[tokio::test]
async fn limits_are_waited_for_and_never_doubled() {
    let (github, folder) = (github().await, tempfile::tempdir().unwrap());
    let reset = 1_800_000_000_u64;
    let limited = |headers: Vec<(&'static str, String)>, words: &str| {
        Fault::Answer(403, headers, json!({"message": words}).to_string())
    };
    let until_reset = || {
        vec![
            ("x-ratelimit-remaining", "0".to_owned()),
            ("x-ratelimit-reset", reset.to_string()),
        ]
    };
    let secondary =
        "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
    github.fail_next(
        Method::GET,
        "/runs?",
        limited(until_reset(), "API rate limit exceeded"),
    );
    github.fail_next(
        Method::POST,
        "/dispatches",
        limited(vec![("retry-after", "1".to_owned())], secondary),
    );
    let (actions_, order_) = (
        actions(&config(&github), folder.path()),
        order(SpinUpId::generate()),
    );
    let begun = Instant::now();
    actions_.start(&order_, never()).await.unwrap();
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!((posts(&github), github.dispatched().len()), (2, 1));

    // A wait that is longer than there is time for: nothing was sent, and it says why.
    let mut short = config(&github);
    short["startTimeoutMs"] = json!(5000);
    github.fail_next(Method::POST, "/dispatches", limited(Vec::new(), secondary));
    let order_ = order(SpinUpId::generate());
    let short = actions(&short, folder.path());
    let error = short.start(&order_, never()).await.unwrap_err();
    assert_eq!(error.kind(), StartErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("rate limit"), "{error}");
    assert_eq!(
        short.find(order_.spin_up, None).await.unwrap(),
        Found::Absent
    );
}

#[tokio::test]
async fn a_limit_that_one_target_meets_holds_for_all_with_its_token() {
    let (github, folder) = (github().await, tempfile::tempdir().unwrap());
    let around = around(folder.path());
    let target = |token: &str| {
        let mut config = config(&github);
        config["tokenEnvVar"] = json!(token);
        config["startTimeoutMs"] = json!(5000);
        launcher(Mechanism::GithubActions, &config, &around)
    };
    let asked = || github.received().len();
    github.set(|settings| settings.rate_limit = Some((0, Duration::from_hours(1))));
    let error = target(WRITER).probe(PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("rate limit"), "{error}");
    assert_eq!(asked(), 1);
    // Another target, another verb: nothing is asked, and nothing was dispatched.
    let order = order(SpinUpId::generate());
    let error = target(WRITER).start(&order, never()).await.unwrap_err();
    assert_eq!(error.kind(), StartErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("rate limit"), "{error}");
    target(WRITER).find(order.spin_up, None).await.unwrap_err();
    assert_eq!(asked(), 1);
    target(READER).probe(PATIENCE).await.unwrap_err();
    assert_eq!(asked(), 2, "another token has a limit of its own");
}

#[tokio::test]
async fn what_may_have_been_dispatched_is_never_dispatched_again() {
    let lost = [
        (Fault::CutAfter, true),
        (Fault::DoneBut(502), true),
        (Fault::CutBefore, false),
        (Fault::Answer(503, Vec::new(), "busy".to_owned()), false),
    ];
    for (fault, done) in lost {
        let (github, folder) = (github().await, tempfile::tempdir().unwrap());
        github.fail_next(Method::POST, "/dispatches", fault.clone());
        let mut config = config(&github);
        config["startTimeoutMs"] = json!(1500);
        let (actions, order) = (actions(&config, folder.path()), order(SpinUpId::generate()));
        let started = actions.start(&order, never()).await;
        if done {
            let reference = started.unwrap().reference;
            assert_eq!(run_of(&reference), github.dispatched()[0].0);
        } else {
            let error = started.unwrap_err();
            assert_eq!(error.kind(), StartErrorKind::InDoubt, "{fault:?}: {error}");
            let found = actions.find(order.spin_up, None).await.unwrap();
            assert!(matches!(found, Found::Unknown { .. }), "{found:?}");
            let error = actions.start(&order, never()).await.unwrap_err();
            assert_eq!(error.kind(), StartErrorKind::InDoubt, "{fault:?}: {error}");
            let stopped = actions
                .stop(order.spin_up, None, Duration::ZERO)
                .await
                .unwrap();
            assert!(
                matches!(stopped, Stopped::NotPossible { .. }),
                "{stopped:?}"
            );
        }
        assert_eq!(posts(&github), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_run_that_does_not_appear_is_in_doubt_until_it_does() {
    let (github, folder) = (github().await, tempfile::tempdir().unwrap());
    github.set(|settings| {
        settings.run_details = RunDetails::Ignored;
        settings.appears_after = usize::MAX;
    });
    let mut config = config(&github);
    config["startTimeoutMs"] = json!(800);
    let (actions_, order_) = (actions(&config, folder.path()), order(SpinUpId::generate()));
    let error = actions_.start(&order_, never()).await.unwrap_err();
    assert_eq!(error.kind(), StartErrorKind::InDoubt);
    assert!(
        error
            .to_string()
            .contains("`run-name: loom ${{ inputs.spin_up }}`"),
        "{error}"
    );
    let found = actions_.find(order_.spin_up, None).await.unwrap();
    assert!(matches!(found, Found::Unknown { .. }), "{found:?}");
    // Another machine, which has no note, knows it just as little.
    let elsewhere = actions(&config, tempfile::tempdir().unwrap().path());
    let found = elsewhere.find(order_.spin_up, None).await.unwrap();
    assert!(matches!(found, Found::Unknown { .. }), "{found:?}");
    github.reveal();
    for one in [&actions_, &elsewhere] {
        let found = one.find(order_.spin_up, None).await.unwrap();
        assert!(found.reference().is_some(), "{found:?}");
        assert!(one.start(&order_, never()).await.unwrap().existing);
    }
    assert_eq!(posts(&github), 1);
}

#[tokio::test]
async fn a_cancelled_start_says_whether_anything_was_sent() {
    let (github, folder) = (github().await, tempfile::tempdir().unwrap());
    github.set(|settings| {
        settings.run_details = RunDetails::Ignored;
        settings.appears_after = usize::MAX;
    });
    let actions = actions(&config(&github), folder.path());
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let (first, second) = (order(SpinUpId::generate()), order(SpinUpId::generate()));
    let error = actions.start(&first, cancelled).await.unwrap_err();
    assert_eq!(
        (error.kind(), posts(&github)),
        (StartErrorKind::Cancelled, 0)
    );
    let cancel = CancellationToken::new();
    let of_hook = cancel.clone();
    github.on_dispatch(move |_| of_hook.cancel());
    let error = actions.start(&second, cancel).await.unwrap_err();
    assert_eq!((error.kind(), posts(&github)), (StartErrorKind::InDoubt, 1));
}

#[tokio::test]
async fn the_token_and_the_ticket_go_nowhere_else() {
    let (github_, other) = (github().await, github().await);
    let folder = tempfile::tempdir().unwrap();
    let (actions, order) = (
        actions(&config(&github_), folder.path()),
        order(SpinUpId::generate()),
    );
    let elsewhere = || {
        format!(
            "{}/repos/octo/agents/actions/workflows/agent.yml",
            other.api_url()
        )
    };
    let sent_on = |status| Fault::Answer(status, vec![("location", elsewhere())], String::new());
    let paged = vec![(
        "link",
        format!("<{}/runs?page=2>; rel=\"next\"", elsewhere()),
    )];
    let empty = json!({"workflow_runs": []}).to_string();
    let echo = json!({"message": format!("Provided value '{}' for input 'x' not in the list", order.ticket.expose())});
    for (method, path, fault, kind, words) in [
        (
            Method::GET,
            "/runs?",
            sent_on(301),
            StartErrorKind::Refused,
            "new name as repo",
        ),
        (
            Method::POST,
            "/dispatches",
            sent_on(307),
            StartErrorKind::Refused,
            "new name as repo",
        ),
        (
            Method::GET,
            "/runs?",
            Fault::Answer(200, paged, empty),
            StartErrorKind::Unavailable,
            "another host",
        ),
        (
            Method::GET,
            "/runs?",
            Fault::Answer(200, Vec::new(), "<html>".to_owned()),
            StartErrorKind::Unavailable,
            "no GitHub",
        ),
        (
            Method::POST,
            "/dispatches",
            Fault::Answer(422, Vec::new(), echo.to_string()),
            StartErrorKind::Refused,
            "value '***'",
        ),
    ] {
        github_.fail_next(method, path, fault);
        let error = actions.start(&order, never()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(
            !format!("{error:?}").contains(order.ticket.expose()),
            "{error:?}"
        );
        assert_eq!(
            actions.find(order.spin_up, None).await.unwrap(),
            Found::Absent
        );
    }
    assert_eq!((other.received().len(), github_.dispatched().len()), (0, 0));
    actions.start(&order, never()).await.unwrap();
    // What is kept on the disk has neither.
    for file in std::fs::read_dir(folder.path().join("starts")).unwrap() {
        let kept = std::fs::read_to_string(file.unwrap().path()).unwrap();
        assert_eq!(kept, "2027-01-15T08:00:00.000Z\nsent\n");
    }
}

#[tokio::test]
async fn a_limit_that_outlasts_the_wait_for_a_run_is_not_met_again_and_again() {
    let (github, folder) = (github().await, tempfile::tempdir().unwrap());
    github.set(|settings| {
        settings.run_details = RunDetails::Ignored;
        settings.appears_after = usize::MAX;
    });
    let mut config = config(&github);
    config["startTimeoutMs"] = json!(2000);
    let (actions, order) = (actions(&config, folder.path()), order(SpinUpId::generate()));
    let starting = actions.start(&order, never());
    let limiting = crate::fixture::until("the dispatch", || {
        let taken = !github.dispatched().is_empty();
        taken.then(|| {
            github.set(|settings| settings.rate_limit = Some((0, Duration::from_hours(1))));
        })
    });
    let (started, ()) = tokio::join!(starting, limiting);
    let error = started.unwrap_err();
    assert_eq!(error.kind(), StartErrorKind::InDoubt);
    assert!(error.to_string().contains("rate limit"), "{error}");
    let refused = github.received();
    let refused = refused.iter().filter(|one| one.status == 403).count();
    assert_eq!(refused, 1, "it is not asked again before it may be");
    let error = actions.find(order.spin_up, None).await.unwrap_err();
    assert!(error.to_string().contains("rate limit"), "{error}");
}
