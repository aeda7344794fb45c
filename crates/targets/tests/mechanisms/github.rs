//! `github-actions`: starts, against a stand-in that speaks as GitHub does.

use std::path::Path;

use axum::http::Method;
use loom_protocol::SpinUpId;
use loom_protocol::target::Mechanism;
use loom_targets::{Found, Launcher, Reference, StartErrorKind};
use loom_testkit::github::{RunDetails, TestGithub};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fixture::{around, launcher, order, started_once};

/// Variables that are set everywhere; their values are the tokens: one that may dispatch, one that may look, one of nobody.
pub const WRITER: &str = "PATH";
pub const READER: &str = "CARGO_MANIFEST_DIR";
const NOBODY: &str = "CARGO_PKG_NAME";

/// One that has the time of the orders.
pub async fn github() -> TestGithub {
    let at = order(SpinUpId::generate()).ordered_at;
    let github = TestGithub::start_at(at).await.unwrap();
    github.set(|settings| {
        settings.writer = std::env::var(WRITER).unwrap();
        settings.reader = std::env::var(READER).unwrap();
    });
    github
}

pub fn config(github: &TestGithub) -> Value {
    json!({
        "repo": TestGithub::REPO, "workflow": TestGithub::WORKFLOW, "tokenEnvVar": WRITER,
        "apiUrl": github.api_url(), "inputs": {"spin_up": "{{spinUpId}}"},
    })
}

pub fn actions(config: &Value, folder: &Path) -> Box<dyn Launcher> {
    launcher(Mechanism::GithubActions, config, &around(folder))
}

pub fn never() -> CancellationToken {
    CancellationToken::new()
}

pub fn run_of(reference: &Reference) -> u64 {
    match reference {
        Reference::GithubActions(github) => github.run_id,
        other => panic!("{other:?}"),
    }
}

/// How often a dispatch came, taken or not.
pub fn posts(github: &TestGithub) -> usize {
    let received = github.received();
    let posts = received.iter().filter(|one| one.method == Method::POST);
    posts
        .filter(|one| one.path.ends_with("/dispatches"))
        .count()
}

#[tokio::test]
async fn a_run_gets_the_inputs_of_the_target_and_is_found_by_its_name() {
    for (details, requests) in [
        (RunDetails::Told, 1),
        (RunDetails::Ignored, 1),
        (RunDetails::Refused(400), 2),
        (RunDetails::Refused(422), 2),
    ] {
        let (github, folder) = (github().await, tempfile::tempdir().unwrap());
        github.set(|settings| {
            settings.run_details = details;
            let names = ["ticket", "where", "unused"];
            let inputs = names.map(|name| (name.to_owned(), false));
            settings.inputs.extend(inputs);
        });
        let mut config = config(&github);
        config["inputs"] = json!({"spin_up": "{{spinUpId}}", "ticket": "{{ ticket }}", "where": "\"{{natsUrl}}\" {x}"});
        let (actions, order) = (actions(&config, folder.path()), order(SpinUpId::generate()));
        let started = actions.start(&order, never()).await.unwrap();
        assert!(!started.existing);
        assert!(
            started
                .output
                .unwrap()
                .contains("https://github.example/octo/agents/actions/runs/")
        );
        let dispatched = github.dispatched();
        let [(run, inputs)] = &*dispatched else {
            panic!("{dispatched:?}");
        };
        assert_eq!(
            (run_of(&started.reference), posts(&github)),
            (*run, requests)
        );
        let sent: Vec<(&str, &str)> = inputs
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!(
            sent,
            [
                ("spin_up", &*order.spin_up.to_string()),
                ("ticket", order.ticket.expose()),
                ("where", "\"nats://127.0.0.1:4222\" {x}"),
            ],
            "what the target lists, and nothing else"
        );
        for received in github.received() {
            let token = format!("Bearer {}", std::env::var(WRITER).unwrap());
            assert_eq!(received.header("authorization"), token);
            assert_eq!(received.header("accept"), "application/vnd.github+json");
            assert_eq!(received.header("x-github-api-version"), "2022-11-28");
            assert!(received.header("user-agent").starts_with("loom/"));
            assert!(!received.path.contains("loom-ticket"), "{}", received.path);
        }
        // It is found again by whoever knows the id alone, and started again it is the same start.
        let found = actions.find(order.spin_up, None).await.unwrap();
        assert!(
            matches!(&found, Found::Waiting { why, .. } if why.contains("no runner has taken it")),
            "{found:?}"
        );
        assert_eq!(found.reference(), Some(&started.reference));
        let again = actions.start(&order, never()).await.unwrap();
        assert!(again.existing);
        assert_eq!(again.reference, started.reference);
        assert_eq!(posts(&github), requests);
        actions.forget(order.spin_up).await;
        assert_eq!(
            std::fs::read_dir(folder.path().join("starts"))
                .unwrap()
                .count(),
            0
        );
    }
}

#[tokio::test]
async fn the_run_is_waited_for_and_neither_the_newest_nor_a_later_page_confuses() {
    let (github, folder) = (github().await, tempfile::tempdir().unwrap());
    github.set(|settings| {
        settings.run_details = RunDetails::Ignored;
        settings.appears_after = 3;
    });
    github.add_runs(2);
    let (actions, order) = (
        actions(&config(&github), folder.path()),
        order(SpinUpId::generate()),
    );
    let started = actions.start(&order, never()).await.unwrap();
    // It comes to stand on the second page.
    github.add_runs(150);
    let found = actions.find(order.spin_up, None).await.unwrap();
    assert_eq!(found.reference(), Some(&started.reference));
    assert_eq!(run_of(&started.reference), github.dispatched()[0].0);
    let lists = github.received();
    let second = lists
        .iter()
        .filter(|one| one.path.starts_with("/repositories/") && one.path.contains("page=2"));
    assert_eq!(second.count(), 1, "pages are followed as they are linked");
    assert!(
        lists
            .iter()
            .any(|one| one.path.contains("created=%3E%3D2027-01-15T07%3A00%3A00Z"))
    );
    assert_eq!(posts(&github), 1);
}

#[tokio::test]
async fn four_that_start_the_same_at_once_dispatch_it_once() {
    let (github, folder) = (github().await, tempfile::tempdir().unwrap());
    github.set(|settings| {
        settings.run_details = RunDetails::Ignored;
        settings.appears_after = 2;
    });
    let four = (0..4).map(|_| actions(&config(&github), folder.path()));
    let reference = started_once(four.collect(), &order(SpinUpId::generate())).await;
    assert_eq!(
        (posts(&github), run_of(&reference)),
        (1, github.dispatched()[0].0)
    );
}

#[tokio::test]
async fn a_refusal_says_what_to_do_and_leaves_nothing_behind() {
    type Change = fn(&mut loom_testkit::github::Settings);
    let as_it_is: Change = |_| {};
    let cases: [(&str, Value, Change, &str); 13] = [
        (
            "tokenEnvVar",
            json!(NOBODY),
            as_it_is,
            "put a valid one there",
        ),
        ("tokenEnvVar", json!(READER), as_it_is, "`actions: write`"),
        (
            "tokenEnvVar",
            json!("LOOM_TEST_NO_SUCH_VARIABLE"),
            as_it_is,
            "LOOM_TEST_NO_SUCH_VARIABLE, which is to hold",
        ),
        (
            "repo",
            json!("octo/others"),
            as_it_is,
            "no workflow agent.yml in octo/others",
        ),
        (
            "workflow",
            json!("other.yml"),
            as_it_is,
            "no workflow other.yml in octo/agents",
        ),
        ("ref", json!("v9"), as_it_is, "no branch or tag \"v9\""),
        (
            "inputs",
            json!({}),
            as_it_is,
            "`run-name: loom ${{ inputs.loom_spin_up }}`",
        ),
        (
            "inputs",
            json!({"spin_up": "{{targetId}}"}),
            as_it_is,
            "{\"loom_spin_up\": \"{{spinUpId}}\"}",
        ),
        (
            "inputs",
            json!({"spin_up": "{{spinUpId}}", "extra": ""}),
            as_it_is,
            "on.workflow_dispatch.inputs",
        ),
        (
            "ref",
            json!("main"),
            |settings| settings.has_trigger = false,
            "`on: workflow_dispatch:`",
        ),
        (
            "ref",
            json!("main"),
            |settings| settings.workflow_state = "disabled_manually".into(),
            "enable it",
        ),
        (
            "ref",
            json!("main"),
            |settings| _ = settings.inputs.insert("must".into(), true),
            "add it to the target's inputs",
        ),
        (
            "apiUrl",
            json!("http://github.example/api/v3"),
            as_it_is,
            "without encryption",
        ),
    ];
    for (field, value, change, words) in cases {
        let (github, folder) = (github().await, tempfile::tempdir().unwrap());
        github.set(change);
        let good = config(&github);
        let mut config = good.clone();
        config[field] = value;
        let order = order(SpinUpId::generate());
        let error = actions(&config, folder.path())
            .start(&order, never())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), StartErrorKind::Refused, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        for token in [WRITER, READER] {
            let token = std::env::var(token).unwrap();
            assert!(!format!("{error:?}").contains(&token), "{error:?}");
        }
        assert_eq!(github.dispatched(), []);
        // Where GitHub was asked at all, nothing is in doubt, and it may be started once the target is mended.
        if !github.received().is_empty() {
            let mended = actions(&good, folder.path());
            assert_eq!(
                mended.find(order.spin_up, None).await.unwrap(),
                Found::Absent
            );
            github.set(|settings| {
                settings.has_trigger = true;
                settings.workflow_state = "active".to_owned();
                settings.inputs.remove("must");
            });
            assert!(
                !mended.start(&order, never()).await.unwrap().existing,
                "{words}"
            );
        }
    }
}

#[tokio::test]
async fn a_workflow_without_the_line_is_told_of() {
    let (github, folder) = (github().await, tempfile::tempdir().unwrap());
    github.set(|settings| settings.run_name = None);
    let (actions, order) = (
        actions(&config(&github), folder.path()),
        order(SpinUpId::generate()),
    );
    let started = actions.start(&order, never()).await.unwrap();
    let output = started.output.unwrap();
    assert!(
        output.contains("write the line `run-name: loom ${{ inputs.spin_up }}` into agent.yml"),
        "{output}"
    );
    let found = actions.find(order.spin_up, None).await.unwrap();
    assert!(matches!(found, Found::Unknown { .. }), "{found:?}");
    let found = actions
        .find(order.spin_up, Some(&started.reference))
        .await
        .unwrap();
    assert_eq!(found.reference(), Some(&started.reference));
}
