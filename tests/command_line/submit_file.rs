//! `loom submit -f`: what is taken, what a second run does, what is put aside.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::program::{SOON, Up, code_of, loom, outcome};

/// So many lines, each an item of its own.
fn lines(count: usize) -> String {
    (0..count).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "{{\"description\": \"task {number}\"}}");
        text
    })
}

/// Writes a file of tasks and submits it.
fn submit(up: &Up, text: &str, more: &[&str]) -> (i32, String, String) {
    let file = up.dir.path().join("tasks.jsonl");
    std::fs::write(&file, text).unwrap();
    let mut args = vec!["submit", "-f", file.to_str().unwrap(), "-c", "rust"];
    args.extend(more);
    up.ask(&args)
}

fn total(up: &Up) -> u64 {
    up.json(&["stats"])["total"].as_u64().unwrap()
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn every_line_is_checked_before_the_first_is_sent() {
    let up = Up::start(&[]);
    let mut text = lines(300);
    text.push_str("{\"description\": }\n{\"description\": \"bad\", \"priority\": 11}\n");
    let (code, stdout, stderr) = submit(&up, &text, &[]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    for part in [
        "nothing was submitted: 2 of 302",
        "tasks.jsonl:301: ",
        "tasks.jsonl:302: priority is 11",
        "--rejects",
    ] {
        assert!(stderr.contains(part), "{part:?} is not in {stderr}");
    }
    assert_eq!(total(&up), 0);
    let bad = "{\"description\": \"a\", \"priority\": 0}\n".repeat(100);
    let (_, _, stderr) = submit(&up, &bad, &[]);
    assert!(stderr.contains("and 80 more"), "{stderr}");
    assert!(stderr.lines().count() < 30, "{stderr}");
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn a_second_run_of_a_file_says_what_was_there_and_doubles_nothing() {
    let up = Up::start(&[]);
    // Two lines that say the same are two items.
    let mut text = lines(299);
    text.push_str("{\"description\": \"task 0\"}\n");
    let (code, first, stderr) = submit(&up, &text, &[]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("300 taken now;"), "{stderr}");
    let ids: BTreeSet<&str> = first.lines().collect();
    assert_eq!((first.lines().count(), ids.len()), (300, 300));
    for id in &ids {
        let uuid: uuid::Uuid = id.parse().unwrap();
        assert_eq!(uuid.get_version_num(), 4);
    }
    let (code, second, stderr) = submit(&up, &text, &[]);
    assert_eq!((code, &second), (0, &first), "{stderr}");
    assert!(
        stderr.contains("0 taken now, 300 were there already"),
        "{stderr}"
    );
    assert_eq!(total(&up), 300);
    // Over standard input it is the same file.
    let mut piped = loom(&[
        "submit", "-f", "-", "-c", "rust", "--json", "--url", &up.url,
    ])
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    let mut stdin = piped.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = piped.wait_with_output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["sums"]["existing"], 300, "{answer}");
    assert_eq!(answer["items"].as_array().unwrap().len(), 300);
    assert_eq!(answer["items"][0]["existing"], true);
    // Another batch is other work.
    let (_, _, stderr) = submit(&up, &text, &["--batch", "again"]);
    assert!(stderr.contains("300 taken now"), "{stderr}");
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn an_edited_file_under_the_same_batch_adds_only_what_is_new() {
    let up = Up::start(&[]);
    let (code, ..) = submit(&up, &lines(5), &["--batch", "b"]);
    assert_eq!(code, 0);
    let edited = format!("{{\"description\": \"first\"}}\n\n{}", lines(6));
    let (code, _, stderr) = submit(&up, &edited, &["--batch", "b"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stderr.contains("2 taken now, 5 were there already; batch b"),
        "{stderr}"
    );
    assert_eq!(total(&up), 7);
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn refused_lines_are_put_aside_with_the_reason_and_can_be_submitted_again() {
    let up = Up::start(&[]);
    let aside = up.dir.path().join("rejects.jsonl");
    let aside = aside.to_str().unwrap();
    let text = format!(
        "{}{{\"description\": \"bad\", \"priority\": 11}}\nno json\n",
        lines(2)
    );
    let (code, stdout, stderr) = submit(&up, &text, &["--rejects", aside, "--batch", "b"]);
    assert_eq!((code, stdout.lines().count()), (2, 2), "{stderr}");
    assert!(stderr.contains("2 of 4 items were refused"), "{stderr}");
    let rejects = std::fs::read_to_string(aside).unwrap();
    let rejects: Vec<&str> = rejects.lines().collect();
    assert!(rejects[0].starts_with('#') && rejects[0].contains("tasks.jsonl:3: priority is 11"));
    assert_eq!(rejects[1], "{\"description\": \"bad\", \"priority\": 11}");
    assert_eq!(rejects[3], "no json");
    let mended = format!("{}\n{}\n", rejects[0], rejects[1].replace("11", "9"));
    let (code, stdout, stderr) = submit(&up, &mended, &["--batch", "b"]);
    assert_eq!((code, stdout.lines().count()), (0, 1), "{stderr}");
    assert_eq!(total(&up), 3);
    // What is submitted is never written over.
    let file = up.dir.path().join("tasks.jsonl");
    let (code, _, stderr) = submit(&up, &lines(1), &["--rejects", file.to_str().unwrap()]);
    assert_eq!(code, 2, "{stderr}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), lines(1));
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn fields_that_nobody_reads_are_named_for_the_first_lines_and_counted() {
    let up = Up::start(&[]);
    let text = lines(300).replace('}', ", \"colour\": 1}");
    let (code, _, stderr) = submit(&up, &text, &[]);
    assert_eq!(code, 0, "{stderr}");
    for part in [
        "tasks.jsonl:20: nobody reads the field \"colour\"",
        "280 more items have fields that nobody reads",
    ] {
        assert!(stderr.contains(part), "{part:?} is not in {stderr}");
    }
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn a_file_is_waited_for_to_its_last_item() {
    let up = Up::start(&[]);
    let mut agent = up.agent_for_one_item(r#"echo '{"summary": "all good"}'"#);
    let (code, stdout, stderr) = submit(&up, &lines(1), &["--wait"]);
    assert_eq!((code, stdout.lines().count()), (0, 1), "{stderr}");
    assert!(stderr.contains("completed: all good"), "{stderr}");
    assert_eq!(code_of(&mut agent), 0);
    // The same again waits for nothing any more.
    let (code, _, stderr) = submit(&up, &lines(1), &["--wait"]);
    assert_eq!(code, 0);
    assert!(stderr.contains("1 were there already"), "{stderr}");
}

/// Between the program and a coordinator: passes requests on and loses the first answers to
/// submissions.
struct LossyProxy {
    url: String,
    submits: Arc<AtomicUsize>,
}

impl LossyProxy {
    /// Loses the answers to the first `lost` connections, after the coordinator has given them.
    fn start(up: &Up, lost: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let target = up.url.trim_start_matches("http://").to_owned();
        let submits = Arc::new(AtomicUsize::new(0));
        let counted = submits.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let count = counted.fetch_add(1, Ordering::SeqCst);
                let server = TcpStream::connect(&target).unwrap();
                let client = client.unwrap();
                std::thread::spawn(move || pass(client, server, count < lost));
            }
        });
        Self { url, submits }
    }
}

fn pass(mut client: TcpStream, mut server: TcpStream, loses: bool) {
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    if loses {
        // The answer has begun: what was asked is done.
        let _ = server.read(&mut [0; 1]);
        let _ = client.shutdown(std::net::Shutdown::Both);
        let _ = server.shutdown(std::net::Shutdown::Both);
    } else {
        let _ = std::io::copy(&mut server, &mut client);
    }
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn a_submit_without_an_answer_is_repeated_under_its_id() {
    let up = Up::start(&[]);
    let proxy = LossyProxy::start(&up, 2);
    let (code, stdout, stderr) =
        outcome(loom(&["submit", "once", "-c", "rust"]).args(["--url", &proxy.url]));
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("sent again"), "{stderr}");
    assert!(proxy.submits.load(Ordering::SeqCst) >= 3);
    let page = up.json(&["work"]);
    let items = page["workItems"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{page}");
    assert_eq!(items[0]["id"], stdout.trim());

    let proxy = LossyProxy::start(&up, 1);
    let file = up.dir.path().join("tasks.jsonl");
    std::fs::write(&file, lines(10)).unwrap();
    let (code, stdout, stderr) = outcome(
        loom(&["submit", "-c", "rust", "-f", file.to_str().unwrap()]).args(["--url", &proxy.url]),
    );
    assert_eq!((code, stdout.lines().count()), (0, 10), "{stderr}");
    assert!(
        stderr.contains("10 there since a request without an answer"),
        "{stderr}"
    );
    assert_eq!(total(&up), 11);
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn an_interrupted_submit_says_how_far_it_came_and_the_same_again_goes_on() {
    let up = Up::start(&[]);
    let file = up.dir.path().join("tasks.jsonl");
    std::fs::write(&file, lines(3_000)).unwrap();
    let path = file.to_str().unwrap();
    let args = ["submit", "-f", path, "-c", "rust", "--url", &up.url];
    let mut submit = loom(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(submit.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    let pid = Pid::from_raw(submit.id().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let answered = stdout.lines().count() + 1;
    assert_eq!(code_of(&mut submit), 130);
    let mut said = String::new();
    let mut stderr = submit.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert!(answered < 3_000, "it was interrupted");
    for part in [
        format!("{answered} of 3000 items were answered"),
        "The same command again".into(),
        format!("loom submit -f {path} --batch "),
    ] {
        assert!(said.contains(&part), "{part:?} is not in {said}");
    }
    let (code, stdout, stderr) = outcome(&mut loom(&args));
    assert_eq!((code, stdout.lines().count()), (0, 3_000), "{stderr}");
    assert!(stderr.contains("were there already"), "{stderr}");
    assert_eq!(total(&up), 3_000);
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn a_coordinator_that_restarts_in_the_middle_is_waited_for() {
    let mut up = Up::start(&[]);
    let port = up.url.rsplit(':').next().unwrap().to_owned();
    let file = up.dir.path().join("tasks.jsonl");
    std::fs::write(&file, lines(3_000)).unwrap();
    let mut submit = loom(&[
        "submit",
        "-f",
        file.to_str().unwrap(),
        "-c",
        "rust",
        "--url",
        &up.url,
    ])
    .stdout(Stdio::piped())
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    let mut stdout = BufReader::new(submit.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    up.end();
    assert_eq!(code_of(&mut up.process), 0);
    let mut again = loom(&["up", "--port", &port, "--profile", "fast", "--data-dir"]);
    up.process = again
        .arg(up.dir.path())
        .args(["--log-level", "error"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    assert_eq!(stdout.lines().count() + 1, 3_000);
    assert_eq!(code_of(&mut submit), 0);
    assert!(started.elapsed() < SOON * 4);
    assert_eq!(total(&up), 3_000);
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn a_file_is_submitted_to_its_end_though_nobody_reads_the_ids() {
    let up = Up::start(&[]);
    let file = up.dir.path().join("tasks.jsonl");
    std::fs::write(&file, lines(3_000)).unwrap();
    let path = file.to_str().unwrap();
    let mut submit = loom(&["submit", "-f", path, "-c", "rust", "--url", &up.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(submit.stdout.take());
    let output = submit.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(
        stderr.matches("nobody reads the output").count(),
        1,
        "{stderr}"
    );
    assert!(stderr.contains("3000 taken now"), "{stderr}");
    assert_eq!(total(&up), 3_000);
    // Nor is anything to be said where nobody hears it.
    std::fs::write(&file, lines(3_300)).unwrap();
    let mut submit = loom(&["submit", "-f", path, "-c", "rust", "--url", &up.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((submit.stdout.take(), submit.stderr.take()));
    assert_eq!(code_of(&mut submit), 0);
    assert_eq!(total(&up), 6_300);
    // Several items are all called off.
    let (_, ids, _) = up.ask(&["work", "-q", "--limit", "3"]);
    let mut args = vec!["work", "cancel"];
    args.extend(ids.lines());
    let mut cancel = loom(&args)
        .args(["--url", &up.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(cancel.stdout.take());
    assert_eq!(code_of(&mut cancel), 0);
    assert_eq!(up.json(&["stats"])["cancelled"], 3);
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn a_line_that_cannot_be_read_is_put_aside_as_it_came() {
    let up = Up::start(&[]);
    let file = up.dir.path().join("tasks.jsonl");
    let aside = up.dir.path().join("rejects.jsonl");
    let long = [
        b"{\"description\": \"",
        &vec![b'x'; 5 << 20][..],
        b"\"}\r\n",
    ]
    .concat();
    let latin = b"{\"description\": \"caf\xe9\"}".as_slice();
    let fine = b"{\"description\": \"fine\"}\n".as_slice();
    std::fs::write(&file, [fine, &long, latin].concat()).unwrap();
    let (path, to) = (file.to_str().unwrap(), aside.to_str().unwrap());
    let (code, stdout, stderr) = up.ask(&["submit", "-f", path, "-c", "rust", "--rejects", to]);
    assert_eq!((code, stdout.lines().count()), (2, 1), "{stderr}");
    let rejects = std::fs::read(&aside).unwrap();
    let rest = rejects.strip_prefix(b"# ").unwrap();
    let begin = rest.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    assert!(rest[begin..].starts_with(&long), "the long line is there");
    let rest = &rest[begin + long.len()..];
    assert!(rest.starts_with(b"# ") && rest.ends_with(&[latin, b"\n"].concat()));
    let (code, _, stderr) = up.ask(&["submit", "-f", path, "--rejects", "-"]);
    assert!(code == 2 && stderr.contains("standard output"), "{stderr}");
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn an_id_that_a_file_names_for_two_things_is_refused_before_anything_is_sent() {
    let up = Up::start(&[]);
    let line = r#"{"id": "01890a5d-ac96-774b-bcce-b302099a8057", "description": "one"}"#;
    let other = line.replace("one", "two");
    let (code, _, stderr) = submit(&up, &format!("{line}\n{other}\n"), &[]);
    assert_eq!(code, 2, "{stderr}");
    assert!(
        stderr.contains("tasks.jsonl:2: has the id of line 1"),
        "{stderr}"
    );
    assert_eq!(total(&up), 0);
    let (code, _, stderr) = submit(&up, &format!("{line}\n{line}\n"), &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(total(&up), 1);
    let aside = up.dir.path().join("rejects.jsonl");
    let to = ["--rejects", aside.to_str().unwrap()];
    let (code, _, stderr) = submit(&up, &format!("{line}\n{other}\n"), &to);
    assert_eq!(code, 2, "{stderr}");
    assert!(
        std::fs::read_to_string(aside)
            .unwrap()
            .ends_with(&format!("{other}\n"))
    );
}
