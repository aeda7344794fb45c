//! `github-actions`: limits, and starts that are in doubt.

use std::time::{Duration, Instant};

use axum::http::Method;
use loom_protocol::SpinUpId;
use loom_targets::{Found, StartErrorKind, Stopped};
use loom_testkit::github::{Fault, RunDetails};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fixture::order;
use crate::github::{actions, config, github, never, posts, run_of};

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
        assert!(matches!(found, Found::Running(_)), "{found:?}");
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
