//! `ssh`: a real server on loopback.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use loom_process::stat;
use loom_protocol::SpinUpId;
use loom_protocol::target::Mechanism;
use loom_targets::{Found, Launcher, SshProgram, StartErrorKind, Stopped, Surroundings};
use loom_testkit::sshd::TestSshd;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fixture::{GRACE, PATIENCE, alive, around, end, file, launcher, order, pid_of, until};

pub fn config(sshd: &TestSshd) -> Value {
    json!({
        "host": "127.0.0.1", "port": sshd.port(), "user": sshd.user(), "privateKeyPath": sshd.private_key(),
        "command": "exec sleep 600", "connectionTimeoutMs": 20_000,
    })
}

pub fn surroundings(sshd: &TestSshd) -> Surroundings {
    Surroundings {
        ssh: SshProgram {
            config_file: Some(sshd.client_config()),
            known_hosts_file: Some(sshd.known_hosts()),
            ..SshProgram::default()
        },
        ..around(sshd.folder())
    }
}

fn ssh(sshd: &TestSshd, changes: &[(&str, Value)]) -> Box<dyn Launcher> {
    let mut config = config(sshd);
    for (name, value) in changes {
        config[*name] = value.clone();
    }
    launcher(Mechanism::Ssh, &config, &surroundings(sshd))
}

fn never() -> CancellationToken {
    CancellationToken::new()
}

/// Looks at every command line for as long as it is kept.
struct CommandLines {
    over: Arc<AtomicBool>,
    looking: std::thread::JoinHandle<Vec<String>>,
}

impl CommandLines {
    fn with(text: &str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (is_over, text) = (over.clone(), text.to_owned());
        let looking = std::thread::spawn(move || {
            let mut found = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                for entry in stat::table() {
                    let line =
                        std::fs::read(format!("/proc/{}/cmdline", entry.pid.as_raw_nonzero()));
                    let line = String::from_utf8_lossy(&line.unwrap_or_default()).into_owned();
                    if line.contains(&text) {
                        found.push(line);
                    }
                }
            }
            found
        });
        Self { over, looking }
    }

    fn found(self) -> Vec<String> {
        self.over.store(true, Ordering::Relaxed);
        self.looking.join().unwrap()
    }
}

#[tokio::test]
#[ignore = "needs an ssh server: run `cargo xtask test`"]
async fn the_environment_reaches_the_command_and_the_ticket_stands_in_no_command_line() {
    let Some(sshd) = TestSshd::start().await.unwrap() else {
        return;
    };
    let nasty = " a\"b'c$HOME `x` $(y)\n\\ é '; exit; ' ";
    let folder = sshd.folder().join("dir with 'quotes' and $HOME");
    std::fs::create_dir(&folder).unwrap();
    let line = "umask > mask && env -0 > env.new && mv env.new env && printf '%s' 'it'\\''s \"fine\"\n$HOME' > said && exec sleep 600";
    let ssh = ssh(
        &sshd,
        &[
            ("command", line.into()),
            ("workingDirectory", json!(folder)),
            ("env", json!({"NASTY": nasty})),
        ],
    );
    let order = order(SpinUpId::generate());
    let lines = CommandLines::with(order.ticket.expose());
    let started = ssh.start(&order, never()).await.unwrap();
    let seen = file(&folder.join("env")).await;
    assert_eq!(lines.found(), Vec::<String>::new());
    let seen: BTreeMap<&str, &str> = seen
        .split('\0')
        .filter_map(|one| one.split_once('='))
        .collect();
    assert_eq!(seen["NASTY"], nasty);
    for (name, value) in order.variables() {
        assert_eq!(seen[&*name], value, "{name}");
    }
    let said = until("what was said", || {
        std::fs::read_to_string(folder.join("said"))
            .ok()
            .filter(|said| !said.is_empty())
    })
    .await;
    assert_eq!(said, "it's \"fine\"\n$HOME");
    let mask = std::fs::read_to_string(folder.join("mask")).unwrap();
    assert_ne!(
        mask.trim(),
        "0077",
        "the mask of the script is not the agent's"
    );
    assert!(!started.existing);
    end(&*ssh, order.spin_up, Some(&started.reference)).await;
}

#[tokio::test]
#[ignore = "needs an ssh server: run `cargo xtask test`"]
async fn an_agent_survives_its_connection_and_ends_with_its_session() {
    let Some(mut sshd) = TestSshd::start().await.unwrap() else {
        return;
    };
    let line = "(trap '' TERM; touch deaf; while :; do sleep 1; done) & setsid /bin/sleep 600 & env -i /bin/sleep 600 & touch up; echo said; wait";
    let folder = sshd.folder().join("agent");
    std::fs::create_dir(&folder).unwrap();
    let ssh = ssh(
        &sshd,
        &[
            ("command", line.into()),
            ("workingDirectory", json!(folder)),
        ],
    );
    let order = order(SpinUpId::generate());
    let started = ssh.start(&order, never()).await.unwrap();
    file(&folder.join("up")).await;
    file(&folder.join("deaf")).await;
    sshd.restart().await.unwrap();
    for reference in [None, Some(&started.reference)] {
        let found = ssh.find(order.spin_up, reference).await.unwrap();
        assert_eq!(found, Found::Running(started.reference.clone()));
    }
    let stopped = ssh
        .stop(order.spin_up, None, Duration::from_secs(1))
        .await
        .unwrap();
    let Stopped::Ended {
        processes,
        killed,
        output,
    } = stopped
    else {
        panic!("{stopped:?}")
    };
    assert!(processes >= 4 && killed >= 1, "{processes} {killed}");
    assert_eq!(output.as_deref(), Some("said"));
    assert_eq!(alive(order.spin_up), []);
    assert_eq!(
        end(&*ssh, order.spin_up, Some(&started.reference)).await,
        (0, 0)
    );
    assert_eq!(
        ssh.find(order.spin_up, None).await.unwrap(),
        Found::Absent,
        "it is forgotten"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an ssh server: run `cargo xtask test`"]
async fn many_starts_of_one_id_are_one_start_and_one_that_has_ended_stays_so() {
    let Some(sshd) = TestSshd::start().await.unwrap() else {
        return;
    };
    let log = sshd.folder().join("log of starts");
    let line = format!(
        "echo x >> '{}'; echo \"$LOOM_TICKET\"; sleep 600; exit 3",
        log.display()
    );
    let order = order(SpinUpId::generate());
    let starts = (0..5).map(|_| {
        let (ssh, order) = (
            ssh(&sshd, &[("command", line.clone().into())]),
            order.clone(),
        );
        tokio::spawn(async move { ssh.start(&order, never()).await.unwrap() })
    });
    let mut references = Vec::new();
    let mut first = 0;
    for start in starts.collect::<Vec<_>>() {
        let started = start.await.unwrap();
        first += usize::from(!started.existing);
        references.push(started.reference);
    }
    references.dedup();
    assert_eq!((first, references.len()), (1, 1));
    until("the agent", || log.exists().then_some(())).await;
    let ssh = ssh(&sshd, &[("command", line.into())]);
    let stopped = ssh
        .stop(order.spin_up, Some(&references[0]), PATIENCE)
        .await
        .unwrap();
    assert!(
        matches!(stopped, Stopped::Ended { killed: 0, .. }),
        "{stopped:?}"
    );
    let found = ssh.find(order.spin_up, None).await.unwrap();
    assert_eq!(
        found,
        Found::Ended {
            output: Some("***".to_owned())
        }
    );
    let again = ssh.start(&order, never()).await.unwrap();
    assert!(again.existing);
    assert_eq!(again.reference, references[0]);
    assert_eq!(file(&log).await, "x\n");
    ssh.forget(order.spin_up).await;
}

#[tokio::test]
#[ignore = "needs an ssh server: run `cargo xtask test`"]
async fn what_is_in_the_way_is_said_by_its_name() {
    let Some(sshd) = TestSshd::start().await.unwrap() else {
        return;
    };
    let strict = ("knownHosts", json!("strict"));
    let nowhere = json!("/no/such/key");
    for (changes, words, kind) in [
        (
            vec![strict.clone()],
            ["Host key verification failed", "known hosts"],
            StartErrorKind::Unavailable,
        ),
        (
            vec![("port", json!(1))],
            ["Connection refused", "127.0.0.1:1"],
            StartErrorKind::Unavailable,
        ),
        (
            vec![("privateKeyPath", nowhere)],
            ["/no/such/key", "Permission denied"],
            StartErrorKind::Unavailable,
        ),
        (
            vec![("command", json!("no-such-program --x"))],
            ["no-such-program", "was not found there"],
            StartErrorKind::Refused,
        ),
        (
            vec![("command", json!("/etc/passwd"))],
            ["/etc/passwd", "not executable"],
            StartErrorKind::Refused,
        ),
        (
            vec![("workingDirectory", json!("/no/such/place"))],
            ["/no/such/place", "workingDirectory"],
            StartErrorKind::Refused,
        ),
    ] {
        let ssh = ssh(&sshd, &changes);
        let order = order(SpinUpId::generate());
        let error = ssh.start(&order, never()).await.unwrap_err();
        let probed = ssh.probe(PATIENCE).await.unwrap_err();
        for word in words {
            assert!(error.to_string().contains(word), "{error}");
            assert!(probed.to_string().contains(word), "{probed}");
        }
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(alive(order.spin_up), []);
    }
    let open = ssh(&sshd, &[]);
    assert!(open.probe(PATIENCE).await.unwrap().seen.contains("command"));
    // It is known from then on.
    ssh(&sshd, &[strict]).probe(PATIENCE).await.unwrap();
    let known = std::fs::read_to_string(sshd.known_hosts()).unwrap();
    let another = std::fs::read_to_string(sshd.folder().join("key.pub")).unwrap();
    let host = known.split(' ').next().unwrap();
    std::fs::write(sshd.known_hosts(), format!("{host} {another}")).unwrap();
    let error = open.probe(PATIENCE).await.unwrap_err();
    assert!(
        error.to_string().contains("Host key verification failed"),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "needs an ssh server: run `cargo xtask test`"]
async fn a_machine_on_the_way_is_passed_with_the_same_key() {
    let Some(sshd) = TestSshd::start().await.unwrap() else {
        return;
    };
    let jump = format!("{}@127.0.0.1:{}", sshd.user(), sshd.port());
    let ssh = ssh(&sshd, &[("jumpHost", jump.into())]);
    let order = order(SpinUpId::generate());
    let started = ssh.start(&order, never()).await.unwrap();
    assert!(stat::entry(pid_of(&started)).is_some());
    assert!(
        sshd.log().matches("Accepted publickey").count() >= 2,
        "{}",
        sshd.log()
    );
    end(&*ssh, order.spin_up, Some(&started.reference)).await;
}

#[tokio::test]
#[ignore = "needs an ssh server: run `cargo xtask test`"]
async fn a_start_that_is_cancelled_or_cut_in_the_middle_is_in_doubt_and_found() {
    let Some(sshd) = TestSshd::start().await.unwrap() else {
        return;
    };
    // A server that takes the connection and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ssh_to_silent = ssh(
        &sshd,
        &[("port", json!(silent.local_addr().unwrap().port()))],
    );
    let order = order(SpinUpId::generate());
    let cancel = CancellationToken::new();
    let starting = ssh_to_silent.start(&order, cancel.clone());
    let connected = async {
        let connection = silent.accept().await.unwrap();
        cancel.cancel();
        connection
    };
    let (started, _connection) = tokio::join!(starting, connected);
    assert_eq!(started.unwrap_err().kind(), StartErrorKind::InDoubt);

    let ssh = ssh(&sshd, &[]);
    let cutting = AtomicBool::new(true);
    let started = {
        let cut = async {
            while cutting.load(Ordering::Relaxed) {
                sshd.cut_connections();
                tokio::task::yield_now().await;
            }
        };
        let start = async {
            let started = ssh.start(&order, never()).await;
            cutting.store(false, Ordering::Relaxed);
            started
        };
        tokio::join!(start, cut).0
    };
    // However far it came: begun again, there is one.
    if let Err(error) = &started {
        assert_ne!(error.kind(), StartErrorKind::Refused, "{error}");
    }
    let again = ssh.start(&order, never()).await.unwrap();
    assert_eq!(alive(order.spin_up).len(), 1);
    end(&*ssh, order.spin_up, Some(&again.reference)).await;
}

#[tokio::test]
#[ignore = "needs an ssh server: run `cargo xtask test`"]
async fn a_start_that_comes_after_its_end_starts_nothing() {
    let Some(sshd) = TestSshd::start().await.unwrap() else {
        return;
    };
    let (ssh, order) = (ssh(&sshd, &[]), order(SpinUpId::generate()));
    let stopped = ssh.stop(order.spin_up, None, GRACE).await.unwrap();
    assert!(
        matches!(stopped, Stopped::Ended { processes: 0, .. }),
        "{stopped:?}"
    );
    // A script that was still on its way when its start was cancelled.
    let error = ssh.start(&order, never()).await.unwrap_err();
    assert_eq!(error.kind(), StartErrorKind::Refused);
    assert!(
        error.to_string().contains("ended before it began"),
        "{error}"
    );
    assert_eq!(ssh.find(order.spin_up, None).await.unwrap(), Found::Absent);
    ssh.forget(order.spin_up).await;
}
