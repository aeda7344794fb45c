//! `loom work`, `loom agents`, `loom dlq`: what is found, in which order, how it is named and how it fits.

use std::fmt::Write as _;
use std::io::Read as _;
use std::process::Stdio;

use loom_protocol::{ProjectId, names};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

use crate::program::{SOON, Up, code_of, eventually, loom};

/// Submits items from lines of JSON.
fn submit(up: &Up, lines: &str) -> Vec<String> {
    let file = up.dir.path().join("items.jsonl");
    std::fs::write(&file, lines).unwrap();
    let (code, stdout, stderr) = up.ask(&["submit", "-f", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    stdout.lines().map(Into::into).collect()
}

fn words_of(stdout: &str, word: usize) -> Vec<&str> {
    let rows = stdout.lines().skip(1);
    rows.map(|row| row.split_whitespace().nth(word).unwrap())
        .collect()
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn one_item_among_many_is_found_and_the_newest_come_first() {
    let up = Up::start(&[]);
    let mut lines = String::from("{\"description\": \"rare\", \"capability\": \"go\"}\n");
    for number in 0..20_500 {
        let _ = writeln!(
            lines,
            "{{\"description\": \"{number}\", \"capability\": \"rust\"}}"
        );
    }
    let ids = submit(&up, &lines);
    // Newest first it is the last of all, beyond what one look goes through.
    let (code, stdout, _) = up.ask(&["work", "-q", "--capability", "go"]);
    assert_eq!((code, stdout.trim()), (0, ids[0].as_str()));
    let (_, stdout, _) = up.ask(&["work", "list", "-o", "id"]);
    let newest: Vec<&str> = ids.iter().rev().take(50).map(String::as_str).collect();
    assert_eq!(stdout.lines().collect::<Vec<_>>(), newest);
    let (_, stdout, _) = up.ask(&["work", "-q", "--sort", "oldest", "--limit", "1200"]);
    let oldest: Vec<&str> = ids.iter().take(1_200).map(String::as_str).collect();
    assert_eq!(stdout.lines().collect::<Vec<_>>(), oldest);
    let page = up.json(&["work", "--limit", "3"]);
    assert_eq!(
        (&page["count"], &page["hasMore"]),
        (&3.into(), &true.into())
    );
    // A page of REST stays oldest first, unless asked otherwise.
    let next = up.json(&[
        "work",
        "--limit",
        "3",
        "--cursor",
        page["nextCursor"].as_str().unwrap(),
    ]);
    assert_eq!(next["workItems"][0]["id"], ids[ids.len() - 4]);
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn since_and_sort_choose_and_order_what_is_listed() {
    let up = Up::start(&[]);
    let ids = submit(
        &up,
        "{\"description\": \"old\", \"capability\": \"a\", \"priority\": 3, \"offeredAt\": \"2020-01-01T00:00:00Z\"}\n\
         {\"description\": \"urgent\", \"capability\": \"a\", \"priority\": 9}\n\
         {\"description\": \"new\", \"capability\": \"a\", \"priority\": 2}\n",
    );
    let listed = |args: &[&str]| -> Vec<usize> {
        let mut all = vec!["work", "-q"];
        all.extend(args);
        let (code, stdout, stderr) = up.ask(&all);
        assert_eq!(code, 0, "{stderr}");
        let place = |id: &str| ids.iter().position(|known| known == id).unwrap();
        stdout.lines().map(place).collect()
    };
    assert_eq!(listed(&[]), [2, 1, 0]);
    assert_eq!(listed(&["--since", "2h"]), [2, 1]);
    assert_eq!(listed(&["--since", "2019-12-31"]), [2, 1, 0]);
    assert_eq!(listed(&["--sort", "priority"]), [1, 0, 2]);
    assert_eq!(listed(&["--sort", "oldest"]), [0, 1, 2]);
    assert_eq!(listed(&["--status", "failed"]), Vec::<usize>::new());
    let (_, stdout, _) = up.ask(&["work", "-o", "wide"]);
    assert!(
        stdout.contains(&ids[0]) && stdout.contains("TASK"),
        "{stdout}"
    );
    let (_, stdout, _) = up.ask(&["work"]);
    assert!(
        !stdout.contains(&ids[0]) && stdout.contains("s ago"),
        "{stdout}"
    );
    assert_eq!(
        words_of(&stdout, 0),
        [&ids[2][..8], &ids[1][..8], &ids[0][..8]]
    );
    let (_, stdout, _) = up.ask(&["work", "show", &ids[0]]);
    assert!(stdout.contains("2020-01-01T00:00:00.000Z ("), "{stdout}");
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn task_ids_and_handles_name_things_wherever_an_id_does() {
    let up = Up::start(&[]);
    let ids = submit(
        &up,
        "{\"description\": \"one\", \"capability\": \"rust\", \"taskId\": \"PROJ-1/a\", \"maxAttempts\": 1}\n\
         {\"description\": \"two\", \"capability\": \"go\", \"taskId\": \"PROJ-2\"}\n\
         {\"description\": \"three\", \"capability\": \"go\", \"taskId\": \"PROJ-2\"}\n",
    );
    assert_eq!(up.json(&["work", "show", "PROJ-1/a"])["id"], ids[0]);
    assert_eq!(up.json(&["work", "explain", "PROJ-1/a"])["id"], ids[0]);
    // An id of another item as a taskId does not get in its way.
    let (code, stdout, _) = up.ask(&["submit", "x", "-c", "go", "--task-id", &ids[0][..8]]);
    assert_eq!(code, 0);
    assert_eq!(up.json(&["work", "show", &ids[0][..8]])["id"], ids[0]);
    assert_ne!(stdout.trim(), ids[0]);
    let (code, _, stderr) = up.ask(&["work", "cancel", "PROJ-2"]);
    assert_eq!(code, 2);
    assert!(
        stderr.contains(&ids[1]) && stderr.contains(&ids[2]),
        "{stderr}"
    );
    let (code, _, stderr) = up.ask(&["work", "show", "PROJ-3"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("no work item PROJ-3"), "{stderr}");

    let held = submit(
        &up,
        "{\"description\": \"held\", \"capability\": \"rust\"}\n",
    );
    let script = "test \"$1\" = held || { echo no disk >&2; exit 1; }; sleep 600";
    let mut agent = loom(&["agent", "run", "--handle", "anna-1", "-c", "rust"])
        .args([
            "--url",
            &up.url,
            "--",
            "sh",
            "-c",
            script,
            "sh",
            "{description}",
        ])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The letter is there a moment after the end.
    eventually("a dead letter", || {
        !up.json(&["dlq"])["items"].as_array().unwrap().is_empty()
    });
    eventually("the other item is held", || {
        up.json(&["work", "show", &held[0]])["status"] == "in-progress"
    });
    let shown = up.json(&["agents", "show", "anna-1"]);
    let guid = shown["guid"].as_str().unwrap();
    // What it holds, and what it had last.
    let (_, stdout, _) = up.ask(&["work", "-q", "--assigned-to", "anna-1"]);
    assert!(
        stdout.contains(&held[0]) && stdout.contains(&ids[0]),
        "{stdout}"
    );
    let args = [
        "work",
        "-q",
        "--assigned-to",
        "anna-1",
        "--status",
        "in-progress",
    ];
    let (_, stdout, _) = up.ask(&args);
    assert_eq!(stdout.trim(), held[0]);
    let (code, _, stderr) = up.ask(&["work", "--assigned-to", "nobody"]);
    assert_eq!(code, 2, "{stderr}");
    assert_eq!(up.json(&["dlq", "show", "PROJ-1/a"])["id"], ids[0]);
    let (_, stdout, _) = up.ask(&["dlq"]);
    assert!(
        stdout.contains(&ids[0][..8]) && stdout.contains("exit code 1"),
        "{stdout}"
    );
    let (code, _, stderr) = up.ask(&["dlq", "discard", "PROJ-1/a"]);
    assert_eq!(code, 0, "{stderr}");
    let (_, stdout, _) = up.ask(&["agents"]);
    assert_eq!(words_of(&stdout, 0), [&guid[..8]]);
    let (code, _, stderr) = up.ask(&["agents", "shutdown", "anna-1", "--now"]);
    assert_eq!(code, 0, "{stderr}");
    code_of(&mut agent);
    let (_, stdout, _) = up.ask(&["projects", "-q"]);
    assert_eq!(stdout.trim(), "default");
}

/// What a command prints on a terminal of this width; 0 is one that does not know its size.
pub fn on_terminal(up: &Up, columns: u16, args: &[&str]) -> Vec<String> {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let size = Winsize {
        ws_row: columns.min(24),
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&terminal, size).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let other_end = std::fs::File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let mut command = loom(args);
    command.args(["--url", &up.url]).env_remove("COLUMNS");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(other_end)
        .spawn()
        .unwrap();
    drop(command);
    let mut printed = Vec::new();
    // The end of the other side is an error here.
    let _ = std::fs::File::from(terminal).read_to_end(&mut printed);
    assert_eq!(code_of(&mut child), 0);
    let text = String::from_utf8(printed).unwrap();
    text.lines().map(Into::into).collect()
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn tables_fit_the_terminal_and_break_no_id() {
    let up = Up::start(&[]);
    let mut lines = String::new();
    for number in 0..4 {
        let _ = writeln!(
            lines,
            "{{\"description\": \"number {number}, {}\\nand more\", \"capability\": \"a-rather-long-capability\"}}",
            "with a description that no terminal holds".repeat(3)
        );
    }
    let ids = submit(&up, &lines);
    for columns in [80, 40, 20] {
        let printed = on_terminal(&up, columns, &["work"]);
        assert_eq!(printed.len(), 5, "{printed:?}");
        for (row, id) in printed[1..].iter().zip(ids.iter().rev()) {
            assert!(row.starts_with(&id[..8]), "{row}");
            let room = usize::from(columns).max(40);
            assert!(row.chars().count() <= room, "{columns}: {row}");
        }
    }
    // Where the terminal does not know its size, nothing is left out.
    let unknown = on_terminal(&up, 0, &["work"]);
    let wide = on_terminal(&up, 200, &["work"]);
    assert_eq!(unknown[0], wide[0]);
    assert!(
        unknown[1].contains("a-rather-long-capability"),
        "{unknown:?}"
    );
    let ids_only = on_terminal(&up, 20, &["work", "-q"]);
    assert_eq!(ids_only, ids.iter().rev().cloned().collect::<Vec<_>>());
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn what_is_asked_of_rest_comes_oldest_first_unless_it_says_otherwise() {
    let up = Up::start(&[]);
    let ids = submit(
        &up,
        "{\"description\": \"a\", \"capability\": \"a\"}\n{\"description\": \"b\", \"capability\": \"a\"}\n",
    );
    let get = |query: &str| -> Value {
        let mut stream =
            std::net::TcpStream::connect(up.url.trim_start_matches("http://")).unwrap();
        let request = format!(
            "GET /api/work{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str(body).unwrap()
    };
    let first = |query: &str| get(query)["workItems"][0]["id"].clone();
    assert_eq!(first(""), ids[0]);
    assert_eq!(first("?order=asc"), ids[0]);
    assert_eq!(first("?order=desc"), ids[1]);
    assert_eq!(get("?since=2100-01-01T00:00:00Z")["count"], 0);
    for bad in ["?order=up", "?since=yesterday", "?cursor=x"] {
        assert_eq!(get(bad)["code"], "invalid-request", "{bad}");
    }
    assert_eq!(get("?assignedTo=nobody")["code"], "not-found");
}

/// Publishes what is no work item, as somebody without a client does.
fn publish_garbage(up: &Up, capability: &str) {
    let status = up.json(&["status"]);
    let nats = status["nats"]["url"].as_str().unwrap();
    let mut nats = std::net::TcpStream::connect(nats.trim_start_matches("nats://")).unwrap();
    nats.set_read_timeout(Some(SOON)).unwrap();
    let subject = names::work_queue(&ProjectId::new("default").unwrap(), capability);
    let publish = format!("CONNECT {{\"verbose\":false}}\r\nPUB {subject} 4\r\nnone\r\nPING\r\n");
    std::io::Write::write_all(&mut nats, publish.as_bytes()).unwrap();
    let mut said = String::new();
    while !said.contains("PONG") {
        let mut some = [0; 512];
        let length = nats.read(&mut some).unwrap();
        assert!(length > 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&some[..length]));
    }
}

fn letters(up: &Up) -> usize {
    up.json(&["dlq"])["items"].as_array().unwrap().len()
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn letters_that_cannot_be_put_back_are_told_and_can_be_discarded_together() {
    let up = Up::start(&["--set", "agents.quarantine_after=100"]);
    submit(
        &up,
        "{\"description\": \"a\", \"capability\": \"rust\", \"maxAttempts\": 1}\n\
         {\"description\": \"b\", \"capability\": \"rust\", \"maxAttempts\": 1}\n",
    );
    for _ in 0..2 {
        code_of(&mut up.agent_for_one_item("exit 1"));
    }
    publish_garbage(&up, "rust");
    publish_garbage(&up, "go");
    eventually("all letters are there", || letters(&up) == 4);
    let (code, stdout, stderr) = up.ask(&["dlq", "retry", "--all"]);
    assert_eq!(
        (code, stdout.trim()),
        (1, "2 back in the queue"),
        "{stderr}"
    );
    for part in [
        "2 of 4 could not be put back",
        "2 of them, like ",
        "loom dlq discard",
    ] {
        assert!(stderr.contains(part), "{part:?} is not in {stderr}");
    }
    let (code, stdout, stderr) = up.ask(&["dlq", "discard", "--capability", "go"]);
    assert_eq!(
        (code, stdout.trim()),
        (0, "1 dead letter is discarded"),
        "{stderr}"
    );
    for _ in 0..2 {
        code_of(&mut up.agent_for_one_item("exit 1"));
    }
    eventually("they are there again", || letters(&up) == 3);
    let (code, stdout, stderr) = up.ask(&["dlq", "discard", "--all"]);
    assert_eq!(
        (code, stdout.trim()),
        (0, "3 dead letters are discarded"),
        "{stderr}"
    );
    assert_eq!(letters(&up), 0);
    let (code, ..) = up.ask(&["dlq", "retry", "--all"]);
    assert_eq!(code, 0);
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn every_table_fits_forty_columns() {
    let up = Up::start(&[]);
    let long = "a-rather-long-name-of-a-capability";
    let line =
        format!("{{\"description\": \"d\", \"capability\": \"{long}\", \"maxAttempts\": 1}}\n");
    let ids = submit(&up, &line.repeat(2));
    let mut agent = loom(&[
        "agent",
        "run",
        "--handle",
        "a-handle-of-some-length",
        "-c",
        long,
    ])
    .args(["--url", &up.url, "--", "sh", "-c"])
    .arg("echo an error that is told at some length >&2; exit 1")
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    eventually("both have failed", || letters(&up) == 2);
    for args in [
        &["dlq"][..],
        &["agents"],
        &["work"],
        &["gc", "--dry-run"],
        &["queue", "-A"],
    ] {
        for row in on_terminal(&up, 40, args) {
            assert!(row.chars().count() <= 40, "{args:?}: {row:?}");
        }
    }
    let pending = submit(&up, &line.replace(long, "go"));
    // The first line is a sentence.
    for row in &on_terminal(&up, 40, &["work", "explain", &pending[0]])[1..] {
        assert!(row.chars().count() <= 40, "{row:?}");
    }
    assert!(on_terminal(&up, 40, &["dlq"])[1].starts_with(&ids[1][..8]));
    let pid = rustix::process::Pid::from_raw(agent.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    code_of(&mut agent);
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn the_queues_of_all_projects_are_told_together() {
    let up = Up::start(&[]);
    for project in ["shop", "bank"] {
        let (code, ..) = up.ask(&["submit", "x", "-c", "rust", "--project", project]);
        assert_eq!(code, 0);
    }
    let (code, stdout, stderr) = up.ask(&["queue", "-A"]);
    assert_eq!(code, 0, "{stderr}");
    let of = |project: &str| {
        let row = stdout.lines().find(|line| line.starts_with(project));
        row.unwrap_or_else(|| panic!("no {project} in {stdout}"))
            .split_whitespace()
    };
    for project in ["shop", "bank"] {
        assert_eq!(of(project).collect::<Vec<_>>(), [project, "rust", "1"]);
    }
    let all = up.json(&["queue", "-A"]);
    let queues = all["queues"].as_array().unwrap();
    let shop = queues.iter().find(|queue| queue["projectId"] == "shop");
    assert_eq!(shop.unwrap()["pending"]["rust"], 1, "{all}");
    let (code, _, stderr) = up.ask(&["queue", "purge", "--all", "-A"]);
    assert_eq!(code, 2, "{stderr}");
}
