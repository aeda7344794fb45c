//! What is done to items from the command line: called off, put back, cloned, watched.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::program::{Up, eventually, loom};

impl Up {
    /// Submits an item; gives its id.
    fn submit(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.ask(&[&["submit"], args].concat());
        assert_eq!(code, 0, "{stderr}");
        stdout.trim().to_owned()
    }

    fn status_of(&self, id: &str) -> Value {
        self.json(&["work", "show", id])["status"].clone()
    }

    /// Starts a command that goes on; gives it with what it prints.
    fn follow(&self, args: &[&str]) -> (Child, BufReader<ChildStdout>) {
        let mut child = loom(args)
            .args(["--url", &self.url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        (child, BufReader::new(stdout))
    }
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn items_are_called_off_by_what_they_are() {
    let up = Up::start(&[]);
    let kept = up.submit(&["kept", "-c", "rust", "-l", "team=a"]);
    let labelled = up.submit(&["one", "-c", "rust", "-l", "team=b"]);
    let other = up.submit(&["two", "-c", "python"]);
    let (code, stdout, stderr) = up.ask(&["work", "cancel", "--label", "team=b"]);
    assert_eq!(
        (code, stdout.as_str()),
        (0, "1 item is cancelled\n"),
        "{stderr}"
    );
    assert_eq!(up.status_of(&labelled), "cancelled");
    let cancelled = up.json(&["work", "cancel", "--capability", "python", "--reason", "x"]);
    assert_eq!(cancelled["cancelled"], serde_json::json!([other]));
    assert_eq!(up.status_of(&kept), "pending");
    assert_eq!(up.json(&["queue"])["pending"]["rust"], 1);

    // Nothing is called off where nothing is said.
    for nothing in [&["work", "cancel"][..], &["queue", "purge"]] {
        let (code, _, stderr) = up.ask(nothing);
        assert_eq!(code, 2, "{stderr}");
    }
    let (code, stdout, _) = up.ask(&["queue", "purge", "--all"]);
    assert_eq!((code, stdout.as_str()), (0, "1 item is cancelled\n"));
    assert_eq!(up.status_of(&kept), "cancelled");
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn what_failed_is_put_back_and_what_ended_is_cloned() {
    let up = Up::start(&[]);
    let id = up.submit(&["work", "-c", "rust", "-p", "8", "--context", "{\"a\":1}"]);
    let (code, _, stderr) = up.ask(&["work", "retry", &id]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("loom work clone"), "{stderr}");
    let (code, copy, stderr) = up.ask(&["work", "clone", &id]);
    assert_eq!(code, 0, "{stderr}");
    let copy = up.json(&["work", "show", copy.trim()]);
    assert_ne!(copy["id"], id.as_str());
    for (field, value) in [
        ("description", Value::from("work")),
        ("priority", 8.into()),
        ("contextData", serde_json::json!({"a": 1})),
        ("status", "pending".into()),
    ] {
        assert_eq!(copy[field], value, "{field}");
    }
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn a_description_comes_from_a_pipe_or_a_file() {
    let up = Up::start(&[]);
    let long = "x".repeat(100_000);
    let file = up.dir.path().join("task.md");
    std::fs::write(&file, format!("{long}\n")).unwrap();
    let file = file.to_str().unwrap();
    let from_file = up.submit(&["-c", "rust", "--description-file", file]);
    assert_eq!(up.json(&["work", "show", &from_file])["description"], long);
    for words in [&["submit", "-"][..], &["submit"]] {
        let mut child = loom(words)
            .args(["-c", "rust", "--url", &up.url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"from a pipe\n").unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let id = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            up.json(&["work", "show", id.trim()])["description"],
            "from a pipe"
        );
    }
    // Nothing is piped in: nothing to be done.
    let (code, _, stderr) = up.ask(&["submit", "-c", "rust"]);
    assert_eq!(code, 2, "{stderr}");
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn watching_shows_every_transition_and_no_backlog() {
    let up = Up::start(&[]);
    let before = up.submit(&["before", "-c", "rust"]);
    let (mut child, mut lines) = up.follow(&["work", "watch", "--json"]);
    let mut next = || -> Value {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    };
    // It is followed from some moment on: the first thing that is seen tells that.
    let seen = std::thread::scope(|scope| {
        let first = scope.spawn(&mut next);
        while !first.is_finished() {
            up.submit(&["probe", "-c", "probe"]);
        }
        first.join().unwrap()
    });
    assert_eq!(seen["type"], "work:submitted");
    let id = up.submit(&["short", "-c", "rust"]);
    up.ask(&["work", "cancel", &id]);
    let mut told = Vec::new();
    while told.len() < 2 {
        let event = next();
        assert_ne!(
            event["workId"],
            before.as_str(),
            "what was there is no event"
        );
        if event["workId"] == id.as_str() {
            told.push(event["type"].clone());
        }
    }
    assert_eq!(told, ["work:submitted", "work:cancelled"]);
    child.kill().unwrap();
    child.wait().unwrap();

    // One that has ended is told as it stands, and decides the exit code.
    let (code, stdout, _) = up.ask(&["work", "watch", &id]);
    assert_eq!(code, 1);
    assert!(stdout.contains("cancelled"), "{stdout}");
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn an_interrupted_wait_says_that_the_item_goes_on() {
    let up = Up::start(&[]);
    let mut submit = loom(&["submit", "long", "-c", "rust", "--wait", "--url", &up.url])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(submit.stderr.take().unwrap());
    let mut line = String::new();
    // The id is said before anything is waited for.
    told.read_line(&mut line).unwrap();
    let words = line.split_whitespace();
    let id = words.skip_while(|word| *word != "item").nth(1).unwrap();
    kill_process(
        Pid::from_raw(submit.id().try_into().unwrap()).unwrap(),
        Signal::INT,
    )
    .unwrap();
    assert_eq!(submit.wait().unwrap().code(), Some(130));
    let rest: Vec<String> = told.lines().map(Result::unwrap).collect();
    let rest = rest.join(" ");
    for part in [
        "goes on",
        &format!("loom work watch {id}"),
        &format!("loom work cancel {id}"),
    ] {
        assert!(rest.contains(part), "{part:?} is not in {rest:?}");
    }
    assert_eq!(up.status_of(id), "pending");
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn listings_are_of_the_default_project_and_of_all_on_demand() {
    let up = Up::start(&[]);
    let here = up.submit(&["here", "-c", "rust"]);
    let there = up.submit(&["there", "-c", "rust", "--project", "other"]);
    let ids = |page: &Value| -> Vec<String> {
        let items = page["workItems"].as_array().unwrap().iter();
        let mut ids: Vec<String> = items
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&up.json(&["work"])), std::slice::from_ref(&here));
    let mut both = [here, there];
    both.sort();
    assert_eq!(ids(&up.json(&["work", "-A"])), both);
    assert_eq!(up.json(&["stats"])["pending"], 1);
    assert_eq!(up.json(&["stats", "--all-projects"])["pending"], 2);
    let (code, _, stderr) = up.ask(&["submit", "x", "-c", "rust", "-A"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("--project"), "{stderr}");
}

/// What `loom events` prints, as it prints it; killed with the test.
struct Events {
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Events {
    fn of(up: &Up, more: &[&str]) -> Self {
        let mut process = loom(&["events", "--url", &up.url])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (heard, stdout) = (lines.clone(), process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                heard.lock().unwrap().push(line);
            }
        });
        Self { process, lines }
    }

    fn tell_of(&self, ids: &[String]) -> bool {
        let lines = self.lines.lock().unwrap();
        lines
            .iter()
            .any(|line| ids.iter().any(|id| line.contains(id)))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn agents_dead_letters_and_events_are_of_the_default_project_and_of_all_on_demand() {
    let up = Up::start(&[]);
    let (own, all) = (Events::of(&up, &[]), Events::of(&up, &["-A"]));
    let (mut here, mut there) = (Vec::new(), Vec::new());
    eventually("events of both projects", || {
        // First there: where the event of here is heard, that of there would have been.
        there.push(up.submit(&["x", "-c", "rust", "--project", "other"]));
        here.push(up.submit(&["x", "-c", "rust"]));
        own.tell_of(&here) && all.tell_of(&here) && all.tell_of(&there)
    });
    assert!(!own.tell_of(&there), "events of another project");

    let fails = ["y", "-c", "fails", "--max-attempts", "1"];
    let failed = up.submit(&fails);
    let mut both = [
        failed.clone(),
        up.submit(&[&fails[..], &["--project", "other"]].concat()),
    ];
    both.sort();
    let agent = |handle: &str, more: &[&str]| {
        loom(&[
            "agent", "run", "-c", "fails", "--handle", handle, "--url", &up.url,
        ])
        .args(more)
        .args(["--", "false"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
    };
    let mut agents = [agent("ada", &[]), agent("ben", &["--project", "other"])];
    let told = |args: &[&str], list: &str, field: &str| -> Vec<String> {
        let page = up.json(args);
        let things = page[list].as_array().unwrap().iter();
        let mut told: Vec<String> = things
            .map(|thing| thing[field].as_str().unwrap().to_owned())
            .collect();
        told.sort();
        told
    };
    let handles = |args: &[&str]| told(args, "agents", "handle");
    eventually("agents of both projects", || {
        handles(&["agents", "-A"]) == ["ada", "ben"]
    });
    assert_eq!(handles(&["agents"]), ["ada"]);
    let letters = |args: &[&str]| told(args, "items", "id");
    eventually("dead letters of both projects", || {
        letters(&["dlq", "-A"]) == both
    });
    assert_eq!(letters(&["dlq"]), [failed]);
    assert_eq!(letters(&["dlq", "-A", "--limit", "1"]).len(), 1);
    for agent in &mut agents {
        agent.kill().unwrap();
        agent.wait().unwrap();
    }
}
