//! The four agent programs that Loom understands (what they are given and denied: `programs_given`), as stubs that speak like them.

use std::path::Path;
use std::process::Output;

use loom_client::NewWork;
use loom_protocol::WorkId;
use loom_protocol::agent::{Agent, AgentStatus, GuidRequest};
use loom_protocol::work::{ListWorkRequest, Reason, WorkItem, WorkStatus};
use loom_protocol::{AgentGuid, Body};
use loom_testkit::programs::{self, NAMES};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::house::{House, LIMIT, Process};

const ANSWER: &str = "The file is made, and the tests pass.";

/// `loom agent NAME` for items with its name as their capability; `PATH` has the stubs.
pub fn agent_command(house: &House, name: &str, options: &[&str]) -> Command {
    let path = programs::install(&house.dir.path().join("bin")).unwrap();
    let mut command = house.loom();
    let workdir = house.path("work/{id}");
    command
        .args(["agent", name, "--capability", name, "--grace", "1s"])
        .args(["--workdir", &workdir])
        .args(options)
        .env("PATH", path)
        .env("STUB_STARTS", house.path("starts"));
    command
}

fn agent(house: &House, name: &str, options: &[&str]) -> Process {
    Process(agent_command(house, name, options).spawn().unwrap())
}

pub async fn submit(house: &House, name: &str, scenario: &str) -> WorkId {
    let work = NewWork::new(name, format!("scenario={scenario}"));
    house.client.submit(&work).await.unwrap().id
}

fn read(body: Option<Body>) -> Value {
    body.map_or(Value::Null, |body| body.parse().unwrap())
}

/// The arguments and prompts of all starts so far.
pub fn starts(house: &House) -> Vec<Value> {
    let text = std::fs::read_to_string(house.path("starts")).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn is_completed_with_all(item: &WorkItem, name: &str) {
    assert_eq!(
        (item.status, item.attempts),
        (WorkStatus::Completed, 0),
        "{name}: {item:?}"
    );
    let result = item.result.clone().unwrap();
    assert_eq!(result.summary.as_deref(), Some(ANSWER), "{name}");
    assert_eq!(read(result.output), json!(ANSWER), "{name}");
    let artifacts = read(result.artifacts);
    assert_eq!(artifacts[0]["kind"], "session", "{name}: {artifacts}");
    let (tokens, cost) = item
        .usage
        .as_ref()
        .map_or((None, None), |usage| (usage.tokens, usage.cost_usd));
    let session = item.session.as_ref().unwrap();
    assert_eq!(session.id, artifacts[0]["id"], "{name}");
    assert_eq!(session.agent_guid, item.assigned_to, "{name}");
    assert!(
        session
            .path
            .as_ref()
            .is_some_and(|path| path.contains("work/")),
        "{session:?}"
    );
    let expected = match name {
        "claude" => (Some(1_000), Some(0.25)),
        "copilot" => (None, None),
        _ => (Some(1_000), None),
    };
    assert_eq!((tokens, cost), expected, "{name}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn each_program_completes_with_its_answer_its_usage_and_its_session() {
    let house = House::open().await;
    for name in NAMES {
        let mut agent = agent(&house, name, &["--max-items", "3", "--", "--model=m"]);
        for scenario in ["success", "exit-one", "mentions-a-limit"] {
            let id = submit(&house, name, scenario).await;
            let item = house.ended(id).await;
            if scenario == "mentions-a-limit" {
                assert_eq!(item.status, WorkStatus::Completed, "{name}: {item:?}");
            } else {
                is_completed_with_all(&item, name);
            }
            assert!(Path::new(&house.path(&format!("work/{id}/made.txt"))).exists());
        }
        assert!(agent.ended().await.success(), "{name}");
    }
    let starts = starts(&house);
    assert_eq!(starts.len(), 12);
    for start in starts {
        let prompt = start["prompt"].as_str().unwrap();
        let (rules, rest) = prompt.split_once("BEGIN ").unwrap();
        assert!(rules.starts_with("You do one item of work") && !rules.contains("scenario="));
        assert!(rest.contains("\nscenario="), "{prompt}");
        let args = start["args"].as_array().unwrap();
        assert!(
            args.contains(&json!("--model=m"))
                && !args.iter().any(|arg| arg.to_string().contains("scenario="))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_result_counts_although_the_program_hangs_or_makes_noise() {
    let house = House::open().await;
    for name in NAMES {
        let mut agent = agent(&house, name, &["--max-items", "2"]);
        for scenario in ["hang", "noise"] {
            let id = submit(&house, name, scenario).await;
            is_completed_with_all(&house.ended(id).await, name);
        }
        assert!(agent.ended().await.success(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_run_without_a_good_result_fails_whatever_its_exit_code_is() {
    let house = House::with(&[("agents.quarantine_after", "0")]).await;
    for name in NAMES {
        let mut scenarios = vec![
            ("no-result", "no-result", "it has told no result"),
            ("half", "no-result", "it has told no result"),
            ("stderr-only", "no-result", "out of luck"),
            ("is-error", "", "It fell over."),
        ];
        if name != "codex" {
            scenarios.push(("denied", "denied", "tools were denied"));
        }
        let count = scenarios.len().to_string();
        let options = ["--max-items", &count, "--give-up-after", "1"];
        let _agent = agent(&house, name, &options);
        for (scenario, code, message) in scenarios {
            let id = submit(&house, name, scenario).await;
            let item = house.ended(id).await;
            assert_eq!(
                (item.status, item.attempts),
                (WorkStatus::Failed, 1),
                "{name} {scenario}"
            );
            let error = item.error.unwrap();
            assert!(
                error.message.contains(message),
                "{name} {scenario}: {error:?}"
            );
            let told = error.code.unwrap_or_default();
            assert!(code.is_empty() || told == code, "{name} {scenario}: {told}");
            let reason = match code {
                "no-result" => Reason::NoResult,
                "denied" => Reason::Denied,
                _ => Reason::AgentError,
            };
            assert_eq!(error.reason, reason, "{name} {scenario}");
            if name == "claude" && scenario == "is-error" {
                // What it cost counts, and its conversation is known.
                assert_eq!(item.usage.unwrap().cost_usd, Some(0.25));
                assert!(error.message.contains("(session "), "{}", error.message);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_second_spent_attempt_is_the_last_and_is_told_of_the_first() {
    let house = House::open().await;
    let work = NewWork::new("claude", "scenario=is-error").max_attempts(5);
    let id = house.client.submit(&work).await.unwrap().id;
    let mut agent = agent(&house, "claude", &["--max-items", "2"]);
    let item = house.ended(id).await;
    assert_eq!((item.status, item.attempts), (WorkStatus::Failed, 2));
    agent.ended().await;
    let starts = starts(&house);
    let prompt = |n: usize| starts[n]["prompt"].as_str().unwrap();
    assert!(!prompt(0).contains("It fell over."));
    assert!(prompt(1).contains("It fell over."), "{}", prompt(1));
}

/// Waits until the agent is paused, and gives it.
async fn paused(house: &House, guid: AgentGuid) -> Agent {
    let deadline = Instant::now() + LIMIT;
    loop {
        let request = GuidRequest {
            guid: guid.to_string(),
        };
        let seen = house.client.request::<Agent>("agents.get", &request).await;
        match seen {
            Ok(agent) if agent.status == AgentStatus::Paused => return agent,
            other => assert!(Instant::now() < deadline, "never paused: {other:?}"),
        }
        // deliberate sleep: between two looks, before the deadline
        sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn limits_outages_and_accounts_spend_no_attempt_and_start_nothing_more() {
    const MINUTE: u64 = 60;
    let house = House::open().await;
    let mut cases = Vec::new();
    for name in NAMES {
        if name != "gemini" {
            cases.push((name, "limit-by-event"));
        }
        cases.extend([(name, "limit-by-text"), (name, "outage")]);
    }
    cases.extend([("claude", "account"), ("codex", "limit-by-text-only")]);
    for (n, (name, scenario)) in cases.into_iter().enumerate() {
        let id = submit(&house, name, scenario).await;
        submit(&house, name, scenario).await;
        let guid = AgentGuid::generate();
        let agent = agent(&house, name, &["--guid", &guid.to_string()]);
        let seen = paused(&house, guid).await;
        let until = seen.paused_until.unwrap();
        let rest = until.since(loom_client::clock::now()).as_secs();
        let named = match (name, scenario) {
            ("claude", "limit-by-event") => rest > MINUTE * 60 * 24 * 29,
            ("claude", "limit-by-text") => {
                let time = until.to_string().parse::<jiff::Timestamp>().unwrap();
                let time = time.in_tz("Europe/Paris").unwrap().time();
                rest <= MINUTE * 60 * 25 && time == jiff::civil::time(3, 0, 0, 0)
            }
            (_, "limit-by-text" | "limit-by-text-only") => {
                (MINUTE * 100..=MINUTE * 125).contains(&rest)
            }
            (_, "limit-by-event") => rest > MINUTE,
            (_, "outage") => rest <= MINUTE,
            _ => rest > MINUTE * 60 * 24 * 29,
        };
        assert!(named, "{name} {scenario}: {rest} s");
        let item = house.client.get(id).await.unwrap();
        assert_eq!(
            (item.status, item.attempts),
            (WorkStatus::Pending, 0),
            "{name} {scenario}"
        );
        let reason = match scenario {
            "limit-by-event" | "limit-by-text" | "limit-by-text-only" => Reason::UsageLimit,
            "outage" => Reason::Outage,
            _ => Reason::Account,
        };
        assert_eq!(item.pending_reason, Some(reason), "{name} {scenario}");
        assert_eq!(
            starts(&house).len(),
            n + 1,
            "{name} {scenario}: nothing more is started"
        );
        let items = house
            .client
            .list(&ListWorkRequest::default())
            .await
            .unwrap()
            .items;
        for item in items.into_iter().filter(|item| !item.terminal) {
            house.client.cancel(item.id, "tidy").await.unwrap();
        }
        drop(agent);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn silence_is_judged_by_events() {
    let house = House::open().await;
    let options = ["--silent-timeout", "2s", "--give-up-after", "1"];
    let _agent = agent(&house, "claude", &options);
    let id = submit(&house, "claude", "silent").await;
    let item = house.ended(id).await;
    assert_eq!(item.status, WorkStatus::Failed);
    assert_eq!(item.error.unwrap().reason, Reason::Timeout);
    let id = submit(&house, "claude", "slow").await;
    let item = house.ended(id).await;
    assert_eq!(item.status, WorkStatus::Completed, "{item:?}");
}

/// Waits until this is so of an item, and gives it.
async fn until(house: &House, id: WorkId, is_so: impl Fn(&WorkItem) -> bool) -> WorkItem {
    let deadline = Instant::now() + LIMIT;
    loop {
        let item = house.client.get(id).await.unwrap();
        if is_so(&item) {
            return item;
        }
        assert!(Instant::now() < deadline, "never so: {item:?}");
        // deliberate sleep: between two looks, before the deadline
        sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_run_tells_what_it_does_and_keeps_what_it_said_when_it_is_cancelled() {
    let house = House::open().await;
    for name in NAMES {
        let _agent = agent(&house, name, &[]);
        let id = submit(&house, name, "long").await;
        until(&house, id, |item| {
            item.progress_message.as_deref() == Some("edits made.txt")
        })
        .await;
        house.client.cancel(id, "enough").await.unwrap();
        let has_stopped = |item: &WorkItem| {
            let cancel = item.cancel.as_ref();
            cancel.is_some_and(|cancel| cancel.stopped_at.is_some())
        };
        let item = until(&house, id, has_stopped).await;
        assert_eq!(item.status, WorkStatus::Cancelled, "{name}");
        let said = read(item.result.unwrap().output);
        assert_eq!(said, json!("I look around."), "{name}");
    }
}

pub async fn output(command: &mut Command) -> Output {
    timeout(LIMIT, command.output()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_would_be_run_is_shown_and_what_can_not_be_run_is_refused_at_once() {
    let house = House::open().await;
    for (name, words) in [
        (
            "claude",
            "claude -p --output-format=stream-json --verbose --permission-mode=acceptEdits",
        ),
        (
            "codex",
            "codex exec --json --sandbox=workspace-write --skip-git-repo-check --model=m -",
        ),
        (
            "gemini",
            "gemini --output-format=stream-json --approval-mode=auto_edit --skip-trust",
        ),
        (
            "copilot",
            "copilot -s --output-format=json --no-ask-user --session-id=",
        ),
    ] {
        let mut command = agent_command(&house, name, &["--print", "--", "--model=m"]);
        let shown = output(&mut command).await;
        let text = String::from_utf8(shown.stdout).unwrap();
        assert!(
            shown.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&shown.stderr)
        );
        assert!(
            text.contains(words) && text.contains("{description}"),
            "{name}: {text}"
        );
    }
    for (name, options, why) in [
        (
            "claude",
            &["--", "--permission-mode=plan"][..],
            "--permission-mode is set by",
        ),
        ("codex", &["--", "--yolo"], "--allow"),
        (
            "gemini",
            &["--", "--model={descripton}"],
            "{descripton} is no placeholder",
        ),
        (
            "copilot",
            &["--stdin", "json"],
            "--stdin is for other programs",
        ),
        ("claude", &["--program", "codex"], "two programs are named"),
        ("claude", &["--may-run", "a,b"], "no plain command"),
    ] {
        let refused = output(&mut agent_command(&house, name, options)).await;
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains(why), "{name}: {said}");
    }
    assert!(starts(&house).is_empty());
}
