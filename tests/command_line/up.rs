//! A coordinator in the background: started, looked at, ended; and what a killed one leaves.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::program::{SOON, Up, loom, outcome};

/// A coordinator that `loom up -d` started, ended when the test is over.
struct Background {
    dir: tempfile::TempDir,
    url: String,
    pid: i32,
}

impl Background {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (code, stdout, stderr) = outcome(
            loom(&[
                "up",
                "-d",
                "--port",
                "0",
                "--profile",
                "fast",
                "--json",
                "--data-dir",
            ])
            .arg(dir.path()),
        );
        assert_eq!(code, 0, "{stderr}");
        let said: Value = serde_json::from_str(&stdout).unwrap();
        let url = said["running"]["api"].as_str().unwrap().to_owned();
        let pid = said["running"]["pid"].as_i64().unwrap();
        Self {
            dir,
            url,
            pid: pid.try_into().unwrap(),
        }
    }

    fn ask(&self, args: &[&str]) -> (i32, String, String) {
        outcome(loom(args).args(["--url", &self.url]))
    }

    fn here(&self, args: &[&str]) -> (i32, String, String) {
        outcome(loom(args).arg("--data-dir").arg(self.dir.path()))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let (_, stdout, _) = self.here(&["down"]);
        if !stdout.contains("no coordinator runs") && !stdout.contains("has ended") {
            let _ = kill_process(Pid::from_raw(self.pid).unwrap(), Signal::KILL);
        }
    }
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn a_coordinator_in_the_background_is_started_looked_at_and_ended() {
    let up = Background::start();
    let (code, stdout, stderr) = up.ask(&["status", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let status: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(status["pid"], up.pid);
    assert_eq!(status["owner"], true);
    let own = &status["nats"]["own"];
    assert!(
        own["pid"].is_u64() && own["freeBytes"].as_u64() > Some(0),
        "{status}"
    );
    assert!(Path::new(own["store"].as_str().unwrap()).starts_with(up.dir.path()));
    let (code, stdout, _) = up.ask(&["status"]);
    assert_eq!(code, 0);
    assert!(stdout.contains(" free"), "{stdout}");

    let (code, _, stderr) = up.here(&["up", "-d", "--port", "0"]);
    assert_ne!(code, 0, "two on one data directory");
    assert!(!stderr.is_empty());

    let (code, stdout, stderr) = up.here(&["down"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains(&up.pid.to_string()), "{stdout}");
    let log = std::fs::read_to_string(up.dir.path().join("loom.log")).unwrap();
    assert!(log.contains("loom is up"), "{log}");
    assert!(
        !log.contains("connection to NATS is lost"),
        "an orderly end is nothing to warn of: {log}"
    );
    let (code, stdout, _) = up.here(&["down"]);
    assert_eq!(code, 0, "nothing to end is no error");
    assert!(stdout.contains("no coordinator runs"), "{stdout}");
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn a_coordinator_that_was_killed_is_not_there() {
    let up = Background::start();
    kill_process(Pid::from_raw(up.pid).unwrap(), Signal::KILL).unwrap();
    let began = std::time::Instant::now();
    loop {
        let (code, stdout, stderr) = up.here(&["down"]);
        assert_eq!(code, 0, "{stderr}");
        if stdout.contains("no coordinator runs") {
            break;
        }
        assert!(began.elapsed() < SOON, "{stdout}");
    }
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn the_doctor_says_what_is_wrong_and_what_to_do() {
    let up = Up::start(&[]);
    let doctor = |more: &[&str]| {
        let args = [&["doctor", "--json"], more].concat();
        let mut command = loom(&args);
        outcome(command.arg("--data-dir").arg(up.dir.path()))
    };
    let (code, stdout, stderr) = doctor(&["--url", &up.url]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    let findings: Value = serde_json::from_str(&stdout).unwrap();
    let about = |what: &str| {
        let findings = findings.as_array().unwrap().iter();
        findings
            .filter(|finding| finding["what"] == what)
            .map(|finding| finding["level"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for what in [
        "configuration",
        "nats-server",
        "disk",
        "process",
        "coordinator",
        "work",
    ] {
        assert_eq!(about(what), ["ok"], "{what}: {stdout}");
    }
    up.ask(&["submit", "for nobody", "-c", "rust"]);
    let (code, stdout, _) = doctor(&["--url", &up.url]);
    assert_eq!(code, 0, "what waits is not broken");
    assert!(stdout.contains("loom agent run"), "{stdout}");

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let (code, stdout, _) = doctor(&["--url", &url]);
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("loom up"), "{stdout}");
}

/// Status and body of a GET.
fn get(url: &str, path: &str) -> (u16, Value) {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn a_standby_answers_is_found_and_is_ended() {
    let mut owner = Up::start(&[]);
    let status = owner.json(&["status"]);
    let nats_url = status["nats"]["url"].as_str().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let here = |args: &[&str]| outcome(loom(args).arg("--data-dir").arg(dir.path()));
    let (code, stdout, stderr) = here(&[
        "up",
        "-d",
        "--nats-url",
        nats_url,
        "--port",
        "0",
        "--standby",
        "--json",
    ]);
    assert_eq!(code, 0, "{stderr}");
    let said: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(said["running"]["standing"], "stands-by", "{said}");
    let url = said["running"]["api"].as_str().unwrap();

    let (status, health) = get(url, "/health");
    assert_eq!((status, &health["status"]), (200, &Value::from("ok")));
    let (status, ready) = get(url, "/ready");
    assert_eq!(
        (status, &ready["kinds"][0]),
        (503, &Value::from("not-owner"))
    );
    let sentence = ready["problems"][0].as_str().unwrap();
    for part in ["stands by", &format!("process {}", owner.process.id())] {
        assert!(sentence.contains(part), "{part:?} is not in {sentence}");
    }
    assert!(!sentence.contains("--standby"), "it has been: {sentence}");
    for path in ["/api/work", "/api/info", "/metrics", "/nothing"] {
        let (status, refused) = get(url, path);
        assert_eq!(
            (status, &refused["code"]),
            (503, &Value::from("unavailable"))
        );
        assert_eq!(refused["error"], sentence, "{path}");
    }
    let (code, _, stderr) = outcome(&mut loom(&["status", "--url", url]));
    assert!(code == 3 && stderr.contains("stands by"), "{code} {stderr}");
    let (code, stdout, _) = here(&["doctor", "--url", url]);
    assert!(code == 0 && stdout.contains("stands by"), "{code} {stdout}");
    let log = std::fs::read_to_string(dir.path().join("loom.log")).unwrap();
    assert!(!log.contains("--standby"), "{log}");

    let (code, stdout, stderr) = here(&["down"]);
    assert!(
        code == 0 && stdout.contains("has ended"),
        "{stdout}{stderr}"
    );
    assert!(TcpStream::connect(url.trim_start_matches("http://")).is_err());
    let (_, stdout, _) = here(&["down"]);
    assert!(stdout.contains("no coordinator runs"), "{stdout}");

    // One that is left alone takes over, on the same port.
    let (code, stdout, stderr) = here(&[
        "up",
        "-d",
        "--nats-url",
        nats_url,
        "--port",
        "0",
        "--standby",
    ]);
    assert!(
        code == 0 && stdout.contains("loom stands by"),
        "{stdout}{stderr}"
    );
    let url = stdout
        .split_whitespace()
        .find(|word| word.starts_with("http://"));
    assert_eq!(get(url.unwrap(), "/ready").0, 503);
    let (code, _, stderr) = here(&["down"]);
    assert_eq!(code, 0, "{stderr}");
    owner.end();
    assert_eq!(crate::program::code_of(&mut owner.process), 0);
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn a_start_in_the_background_that_fails_says_so_as_one_in_the_foreground() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let dir = tempfile::tempdir().unwrap();
    let args = ["up", "-d", "--port", &port, "--data-dir"];
    let (code, _, stderr) = outcome(loom(&args).arg(dir.path()));
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.starts_with("loom: port "), "{stderr}");
    let file = dir.path().join("loom.toml");
    std::fs::write(
        &file,
        "[agents]\nstale_after = 30\nhartbeat_every = \"1s\"\n",
    )
    .unwrap();
    let mut command = loom(&args);
    command.arg(dir.path()).env("LOOM_CONFIG", &file);
    let (_, _, stderr) = outcome(&mut command);
    assert!(
        !stderr.contains("\\n") && !stderr.contains("loom: loom:"),
        "{stderr}"
    );
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn a_server_that_runs_needs_not_be_found_by_the_doctor() {
    let up = Up::start(&[]);
    let doctor = |data_dir: &Path| {
        let mut command = loom(&["doctor", "--url", &up.url, "--data-dir"]);
        outcome(
            command
                .arg(data_dir)
                .env("NATS_SERVER_BIN", "/no/such/program"),
        )
    };
    let (code, stdout, _) = doctor(up.dir.path());
    assert!(
        code == 0 && stdout.contains("/no/such/program"),
        "{code} {stdout}"
    );
    let nothing_runs = tempfile::tempdir().unwrap();
    let (code, stdout, _) = doctor(nothing_runs.path());
    assert!(
        code == 1 && stdout.contains("WRONG   nats-server"),
        "{code} {stdout}"
    );
}
