//! A coordinator in the background: started, looked at, ended; and what a killed one leaves.

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
