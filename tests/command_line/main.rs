//! The program as its users see it: exit codes, what it prints, what it leaves behind.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;
mod init;
mod listing;
mod program;
mod spin_up;
mod submit_file;
mod targets;
mod up;
mod work;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use program::{SOON, Up, code_of, loom, outcome};
use serde_json::Value;

#[test]
fn without_a_coordinator_commands_exit_3_and_say_what_to_do() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    for command in [
        &["work"][..],
        &["agents"],
        &["stats"],
        &["work", "show", "0"],
    ] {
        let (code, stdout, stderr) = outcome(loom(command).args(["--url", &url]));
        assert_eq!((code, stdout.as_str()), (3, ""), "{command:?}");
        assert!(stderr.contains("loom up"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    let (code, _, stderr) = outcome(&mut loom(&["stats", "--json", "--url", &url]));
    let error: Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!((code, &error["code"]), (3, &Value::from("unavailable")));
}

#[test]
fn a_bad_configuration_exits_2_and_names_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("loom.toml");
    let text = "[agents]\nstale_after = 30\nhartbeat_every = \"1s\"\n";
    std::fs::write(&file, text).unwrap();
    for command in [&["config", "check"][..], &["config", "show"], &["up"]] {
        let (code, _, stderr) = outcome(loom(command).env("LOOM_CONFIG", &file));
        assert_eq!(code, 2, "{stderr}");
        for part in [
            "loom.toml:2: agents.stale_after",
            "loom.toml:3: ",
            "did you mean heartbeat_every?",
        ] {
            assert!(stderr.contains(part), "{part:?} is not in {stderr}");
        }
    }
    // The file of the working directory counts where nobody names one.
    let (code, ..) = outcome(loom(&["config", "check"]).current_dir(dir.path()));
    assert_eq!(code, 2);
    let (code, _, stderr) = outcome(&mut loom(&["config", "check", "--set", "api.port=x"]));
    assert_eq!(code, 2);
    assert!(stderr.contains("--set: api.port"), "{stderr}");
    let (code, stdout, _) = outcome(&mut loom(&["config", "sample"]));
    assert_eq!(code, 0);
    std::fs::write(&file, stdout).unwrap();
    let (code, _, stderr) = outcome(loom(&["config", "check"]).env("LOOM_CONFIG", &file));
    assert_eq!((code, stderr.as_str()), (0, ""));
    // What had an effect in an earlier version is taken, and it is said that it has none any more.
    std::fs::write(&file, "[supervision]\nstrategy = \"rest-for-one\"\n").unwrap();
    let (code, _, stderr) = outcome(loom(&["config", "check"]).env("LOOM_CONFIG", &file));
    assert_eq!(code, 0);
    assert!(
        stderr.contains("loom.toml:2: supervision.strategy"),
        "{stderr}"
    );
    assert!(stderr.contains("no effect any more"), "{stderr}");
}

#[test]
fn what_would_be_passed_over_in_silence_is_refused() {
    for (args, part) in [
        (
            &["submit", "x", "-c", "rust", "--batch", "b"][..],
            "--batch is for",
        ),
        (
            &["submit", "x", "-c", "rust", "--rejects", "r"],
            "--rejects is for",
        ),
        (&["submit", "-f", "x", "--batch", ""], "--batch"),
        (&["stats", "--log-level", "bad"], "\"bad\" is no log level"),
        (&["dlq", "discard"], "--all"),
        (&["dlq", "discard", "x", "--all"], "--all"),
    ] {
        let (code, _, stderr) = outcome(&mut loom(args));
        assert_eq!(code, 2, "{args:?}: {stderr}");
        assert!(stderr.contains(part), "{part:?} is not in {stderr}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = loom(&["config", "sample"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert_eq!((status.code(), stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn submitted_work_is_done_and_its_result_is_shown() {
    let up = Up::start(&[]);
    let mut agent = up.agent_for_one_item(r#"echo '{"summary": "all good", "output": {"n": 7}}'"#);
    let (code, stdout, stderr) = up.ask(&[
        "submit",
        "count the lines",
        "--capability",
        "rust",
        "--label",
        "team=a",
        "--wait",
    ]);
    assert_eq!(code, 0, "{stderr}");
    for part in ["completed", "all good", "\"n\": 7", "team=a"] {
        assert!(stdout.contains(part), "{part:?} is not in {stdout}");
    }
    assert_eq!(code_of(&mut agent), 0);
    let page = up.json(&["work", "--label", "team=a"]);
    let id = page["workItems"][0]["id"].as_str().unwrap();
    let shown = up.json(&["work", "show", &id[..18]]);
    assert_eq!(shown["result"]["output"]["n"], 7);
    assert_eq!(up.json(&["stats"])["completed"], 1);
    let (code, _, stderr) = up.ask(&["work", "cancel", id]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("completed"), "{stderr}");
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn an_agent_that_nobody_listens_to_works_on() {
    let up = Up::start(&[]);
    let mut agent = loom(&["agent", "run", "--once", "--capability", "rust"])
        .args(["--url", &up.url, "--", "true"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(agent.stderr.take());
    let (code, _, stderr) = up.ask(&["submit", "x", "-c", "rust", "--wait"]);
    assert_eq!((code, code_of(&mut agent)), (0, 0), "{stderr}");
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn agents_that_are_sent_home_leave_no_entry() {
    let up = Up::start(&[]);
    let mut agents: Vec<Child> = (0..4).map(|_| up.agent_for_one_item("true")).collect();
    let guids = || -> Vec<String> {
        let page = up.json(&["agents"]);
        let agents = page["agents"].as_array().unwrap().iter();
        agents
            .map(|agent| agent["guid"].as_str().unwrap().to_owned())
            .collect()
    };
    let deadline = Instant::now() + SOON;
    while guids().len() < agents.len() {
        assert!(Instant::now() < deadline, "not all of them register");
        // deliberate sleep: between two looks, before the deadline
        std::thread::sleep(Duration::from_millis(20));
    }
    let there = guids();
    let mut command = vec!["agents", "shutdown"];
    command.extend(there.iter().map(String::as_str));
    let (code, stdout, stderr) = up.ask(&command);
    assert_eq!((code, stdout.lines().count()), (0, there.len()), "{stderr}");
    for agent in &mut agents {
        // With --once and no item done, the work has failed.
        assert_eq!(code_of(agent), 1);
    }
    assert_eq!(guids(), Vec::<String>::new());
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn work_that_fails_makes_a_waiting_submit_exit_1() {
    let up = Up::start(&[]);
    let mut agent = up.agent_for_one_item("echo no disk >&2; exit 1");
    let (code, stdout, _) = up.ask(&[
        "submit",
        "hopeless",
        "--capability",
        "rust",
        "--max-attempts",
        "1",
        "--wait",
    ]);
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("no disk"), "{stdout}");
    assert_eq!(code_of(&mut agent), 1);
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn a_waiting_submit_says_why_nobody_takes_the_item() {
    let up = Up::start(&[]);
    let mut submit = loom(&["submit", "lonely", "-c", "rust", "--wait", "--url", &up.url])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(submit.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(line.contains("is submitted"), "{line}");
    line.clear();
    told.read_line(&mut line).unwrap();
    for part in ["is pending", "no agent is registered", "loom work explain"] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
    let mut agent = up.agent_for_one_item("true");
    assert_eq!((code_of(&mut submit), code_of(&mut agent)), (0, 0));
    let rest: Vec<String> = told.lines().map(Result::unwrap).collect();
    assert_eq!(rest, Vec::<String>::new(), "said once");
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn a_second_coordinator_at_the_port_exits_3_and_the_first_ends_with_0() {
    let mut up = Up::start(&[]);
    let port = up.url.rsplit(':').next().unwrap();
    let (code, _, stderr) = outcome(&mut loom(&["up", "--port", port]));
    assert_eq!(code, 3, "{stderr}");
    assert!(
        stderr.contains(port) && stderr.contains("--port"),
        "{stderr}"
    );
    up.end();
    assert_eq!(code_of(&mut up.process), 0);
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn tokens_are_asked_for_and_never_shown() {
    let up = Up::start(&["--set", "api.tokens=hunter2"]);
    let (code, _, stderr) = up.ask(&["stats"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("LOOM_API_TOKEN"), "{stderr}");
    let (code, ..) = up.ask(&["stats", "--token", "hunter2"]);
    assert_eq!(code, 0);
    let (_, stdout, _) = outcome(loom(&["config", "show"]).env("API_TOKENS", "hunter2"));
    assert!(
        stdout.contains("***") && !stdout.contains("hunter2"),
        "{stdout}"
    );
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn what_others_wrote_cannot_move_the_cursor() {
    let up = Up::start(&[]);
    let (code, ..) = up.ask(&["submit", "a\u{1b}[2Jb\u{202e}c", "--capability", "rust"]);
    assert_eq!(code, 0);
    for command in [&["work"][..], &["work", "--json"]] {
        let (_, stdout, _) = up.ask(command);
        assert!(!stdout.contains('\u{1b}'), "{stdout:?}");
    }
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn the_demo_shows_agents_finishing_work_and_leaves_nothing() {
    play_the_demo(&["demo"]);
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn the_demo_of_targets_begins_and_ends_without_agents() {
    let stderr = play_the_demo(&["demo", "--targets"]);
    assert!(stderr.contains("nobody is there; 3 targets"), "{stderr}");
    assert!(stderr.contains("nobody is there any more"), "{stderr}");
}

/// Gives what it said beside the table.
fn play_the_demo(arguments: &[&str]) -> String {
    let temporary = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = outcome(loom(arguments).env("TMPDIR", temporary.path()));
    assert_eq!(code, 0, "{stderr}");
    let row = |name: &str| {
        let line = stdout.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("no {name} in {stdout}"))
    };
    for agent in ["ada", "brian", "chen"] {
        row(agent);
    }
    assert!(row("all").contains(" 30 "), "{stdout}");
    let finished = stderr.lines().filter(|line| line.contains("/30 "));
    assert_eq!(finished.count(), 30, "{stderr}");
    assert!(is_empty(temporary.path()));
    stderr
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}
