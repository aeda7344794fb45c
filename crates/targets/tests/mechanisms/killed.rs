//! The coordinator is killed between every two steps of a start: still there is never more than one agent, and the next
//! coordinator knows it. The coordinator is this very test program, started again as a process of its own.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use loom_protocol::SpinUpId;
use loom_protocol::target::Mechanism;
use loom_targets::{Found, SshProgram, Step, StepHook, Surroundings};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fixture::{alive, around, end, file, launcher, order, until};

/// What the other process is to do.
const ORDERS: &str = "LOOM_TEST_COORDINATOR";

#[derive(Clone, Serialize, Deserialize)]
struct Orders {
    mechanism: Mechanism,
    config: Value,
    folder: std::path::PathBuf,
    known_hosts: Option<std::path::PathBuf>,
    client_config: Option<std::path::PathBuf>,
    kubeconfig: Option<std::path::PathBuf>,
    spin_up: SpinUpId,
    /// The step before which it is killed, counted as they come.
    dies_before: usize,
}

impl Orders {
    /// To start a local agent, and to die when it is started.
    fn local(config: Value, folder: &Path) -> Self {
        Self {
            mechanism: Mechanism::Local,
            config,
            folder: folder.to_owned(),
            known_hosts: None,
            client_config: None,
            kubeconfig: None,
            spin_up: SpinUpId::generate(),
            dies_before: Step::ALL.len() - 1,
        }
    }

    fn around(&self) -> Surroundings {
        Surroundings {
            ssh: SshProgram {
                config_file: self.client_config.clone(),
                known_hosts_file: self.known_hosts.clone(),
                ..SshProgram::default()
            },
            kubeconfig: self.kubeconfig.clone(),
            ..around(&self.folder)
        }
    }
}

/// No test: the coordinator that the tests below start.
#[tokio::test]
async fn a_coordinator_of_its_own() {
    let Ok(orders) = std::env::var(ORDERS) else {
        return;
    };
    let orders: Orders = serde_json::from_str(&orders).unwrap();
    let (dies_before, steps) = (orders.dies_before, AtomicUsize::new(0));
    let surroundings = Surroundings {
        on_step: StepHook::new(move |_| {
            if steps.fetch_add(1, Ordering::Relaxed) == dies_before {
                let own = rustix::process::getpid();
                rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
            }
        }),
        ..orders.around()
    };
    let launcher = launcher(orders.mechanism, &orders.config, &surroundings);
    launcher
        .start(&order(orders.spin_up), CancellationToken::new())
        .await
        .unwrap();
    panic!("it was to be killed");
}

/// Runs a coordinator until it is killed.
fn coordinator_that_dies(orders: &Orders) {
    let mut coordinator = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::a_coordinator_of_its_own", "--nocapture"])
        .env(ORDERS, serde_json::to_string(orders).unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = coordinator.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "{status}");
}

/// Waits until a line is in a file, which is there before the line is.
async fn line_in(path: &Path) -> String {
    until("the agent", || {
        let text = std::fs::read_to_string(path).ok()?;
        text.ends_with('\n').then_some(text)
    })
    .await
}

async fn is_never_doubled(
    mechanism: Mechanism,
    config: Value,
    folder: &Path,
    ssh: Option<&loom_testkit::sshd::TestSshd>,
) {
    let log = folder.join("starts of agents");
    for dies_before in 0..Step::ALL.len() {
        let orders = Orders {
            mechanism,
            config: config.clone(),
            folder: folder.to_owned(),
            known_hosts: ssh.map(loom_testkit::sshd::TestSshd::known_hosts),
            client_config: ssh.map(loom_testkit::sshd::TestSshd::client_config),
            kubeconfig: None,
            spin_up: SpinUpId::generate(),
            dies_before,
        };
        let _ = std::fs::remove_file(&log);
        coordinator_that_dies(&orders);
        let next = launcher(mechanism, &orders.config, &orders.around());
        let found = next.find(orders.spin_up, None).await.unwrap();
        let launched = dies_before
            > Step::ALL
                .iter()
                .position(|step| *step == Step::Launch)
                .unwrap();
        if launched && mechanism == Mechanism::Local {
            assert!(
                matches!(found, Found::Running(_)),
                "{dies_before}: {found:?}"
            );
        } else if !launched {
            assert_eq!(found, Found::Absent, "{dies_before}");
        }
        // In doubt it is begun again, which is the same start.
        let started = next
            .start(&order(orders.spin_up), CancellationToken::new())
            .await
            .unwrap();
        if let Some(reference) = found.reference() {
            assert!(started.existing);
            assert_eq!(started.reference, *reference);
        }
        assert_eq!(
            line_in(&log).await,
            "x\n",
            "{dies_before}: there was one agent"
        );
        assert_eq!(alive(orders.spin_up).len(), 1);
        end(&*next, orders.spin_up, Some(&started.reference)).await;
        assert_eq!(file(&log).await, "x\n");
    }
}

#[tokio::test]
async fn a_local_agent_is_found_again_and_never_doubled() {
    let folder = tempfile::tempdir().unwrap();
    let line = "echo x >> 'starts of agents'; exec sleep 600";
    let config = json!({"command": line, "workingDirectory": folder.path()});
    is_never_doubled(Mechanism::Local, config, folder.path(), None).await;
}

#[tokio::test]
#[ignore = "needs an ssh server: run `cargo xtask test`"]
async fn an_agent_over_ssh_is_found_again_and_never_doubled() {
    let Some(sshd) = loom_testkit::sshd::TestSshd::start().await.unwrap() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut config = crate::ssh::config(&sshd);
    config["command"] = "echo x >> 'starts of agents'; exec sleep 600".into();
    config["workingDirectory"] = json!(folder.path());
    is_never_doubled(Mechanism::Ssh, config, folder.path(), Some(&sshd)).await;
}

#[tokio::test]
async fn an_agent_goes_on_writing_when_its_coordinator_is_dead() {
    let folder = tempfile::tempdir().unwrap();
    // More than any pipe holds.
    let line = "touch up; while [ ! -e dead ]; do sleep 0.05; done; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end; touch written; exec sleep 600";
    let orders = Orders::local(
        json!({"command": line, "workingDirectory": folder.path()}),
        folder.path(),
    );
    coordinator_that_dies(&orders);
    std::fs::write(folder.path().join("dead"), "").unwrap();
    file(&folder.path().join("written")).await;
    let next = launcher(Mechanism::Local, &orders.config, &orders.around());
    let Found::Running(reference) = next.find(orders.spin_up, None).await.unwrap() else {
        panic!("it was ended");
    };
    let stopped = next
        .stop(orders.spin_up, Some(&reference), crate::fixture::GRACE)
        .await
        .unwrap();
    let loom_targets::Stopped::Ended { output, .. } = stopped else {
        panic!("{stopped:?}");
    };
    let output = output.unwrap();
    assert!(
        output.ends_with("x\nthe end") && output.len() <= 4096,
        "{}",
        output.len()
    );
    end(&*next, orders.spin_up, Some(&reference)).await;
}

#[tokio::test]
async fn an_agent_that_is_not_detached_ends_with_its_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"local": {"command": "sleep", "args": ["600"], "detached": false}});
    let orders = Orders::local(config, folder.path());
    coordinator_that_dies(&orders);
    until("the end of the agent", || {
        alive(orders.spin_up).is_empty().then_some(())
    })
    .await;
}

// The stand-in goes on while the other process is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_a_workflow_is_found_again_and_never_dispatched_twice() {
    let github = crate::github::github().await;
    let folder = tempfile::tempdir().unwrap();
    for (dies_before, appears) in [
        (Step::Begin, true),
        (Step::Launch, true),
        (Step::Record, true),
        (Step::Record, false),
        (Step::Answer, true),
    ] {
        github.set(|settings| settings.appears_after = if appears { 0 } else { usize::MAX });
        let mut config = crate::github::config(&github);
        config["startTimeoutMs"] = json!(2000);
        let at = Step::ALL.iter().position(|step| *step == dies_before);
        let orders = Orders {
            mechanism: Mechanism::GithubActions,
            dies_before: at.unwrap(),
            ..Orders::local(config, folder.path())
        };
        coordinator_that_dies(&orders);
        let ours = || {
            let id = orders.spin_up.to_string();
            let dispatched = github.dispatched();
            dispatched
                .iter()
                .filter(|(_, inputs)| inputs["spin_up"] == id)
                .count()
        };
        let sent = usize::from(dies_before == Step::Record || dies_before == Step::Answer);
        assert_eq!(ours(), sent, "{dies_before:?}");
        let next = launcher(orders.mechanism, &orders.config, &orders.around());
        let found = next.find(orders.spin_up, None).await.unwrap();
        match (dies_before, appears) {
            // Nothing is noted yet: another coordinator may have begun it, for all that is known here.
            (Step::Begin, _) | (_, false) => {
                assert!(matches!(found, Found::Unknown { .. }), "{found:?}");
            }
            (Step::Launch, _) => assert_eq!(found, Found::Absent),
            _ => assert!(found.reference().is_some(), "{found:?}"),
        }
        // Whoever begins it again all the same does not double it.
        let order = order(orders.spin_up);
        let again = next.start(&order, CancellationToken::new()).await;
        if appears {
            let again = again.unwrap();
            assert_eq!(again.existing, sent == 1, "{dies_before:?}");
            if let Some(reference) = found.reference() {
                assert_eq!(again.reference, *reference);
            }
        } else {
            assert_eq!(
                again.unwrap_err().kind(),
                loom_targets::StartErrorKind::InDoubt
            );
            github.reveal();
            let again = next.start(&order, CancellationToken::new()).await.unwrap();
            assert!(again.existing);
        }
        assert_eq!(ours(), 1, "{dies_before:?}");
        end(&*next, orders.spin_up, None).await;
    }
}

#[cfg(feature = "k8s")]
#[tokio::test]
async fn a_job_is_found_again_and_never_doubled() {
    // Before the Job, before its Secret, before the resumption, and twice after that.
    for (dies_before, jobs, secrets) in [(0, 0, 0), (1, 1, 0), (2, 1, 1), (3, 1, 1), (4, 1, 1)] {
        let cluster = loom_testkit::kubernetes::TestCluster::start()
            .await
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("starts of agents");
        let line = format!("echo $LOOM_TICKET >> '{}'; exec sleep 600", log.display());
        let orders = Orders {
            mechanism: Mechanism::Kubernetes,
            kubeconfig: Some(cluster.kubeconfig()),
            dies_before,
            ..Orders::local(crate::kubernetes::config(&line), folder.path())
        };
        let dying = orders.clone();
        tokio::task::spawn_blocking(move || coordinator_that_dies(&dying))
            .await
            .unwrap();
        let there = |plural: &str| cluster.objects(plural).len();
        assert_eq!(
            (there("jobs"), there("secrets")),
            (jobs, secrets),
            "{dies_before}"
        );
        let next = launcher(Mechanism::Kubernetes, &orders.config, &orders.around());
        let found = next.find(orders.spin_up, None).await.unwrap();
        let was_launched = dies_before > 2;
        assert_eq!(
            found.reference().is_some(),
            was_launched,
            "{dies_before}: {found:?}"
        );
        assert!(was_launched || (found == Found::Absent && !log.exists()));
        // In doubt it is begun again, with a ticket of its own where nothing was launched.
        let again = order(orders.spin_up);
        let started = next.start(&again, CancellationToken::new()).await.unwrap();
        assert_eq!(started.existing, was_launched);
        if let Some(reference) = found.reference() {
            assert_eq!(started.reference, *reference);
        }
        let said = line_in(&log).await;
        assert_eq!(
            said.lines().count(),
            1,
            "{dies_before}: there was one agent"
        );
        let is_new = said.trim() == again.ticket.expose();
        assert_eq!(
            is_new, !was_launched,
            "{dies_before}: its ticket is the one that counts"
        );
        assert_eq!((there("jobs"), there("secrets")), (1, 1));
        end(&*next, orders.spin_up, Some(&started.reference)).await;
        assert_eq!(file(&log).await, said);
        cluster.until("secrets", <[Value]>::is_empty).await.unwrap();
    }
}

#[cfg(feature = "k8s")]
#[tokio::test]
async fn what_a_killed_coordinator_left_is_removed_when_nobody_wants_it() {
    let cluster = loom_testkit::kubernetes::TestCluster::start()
        .await
        .unwrap();
    for dies_before in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let orders = Orders {
            mechanism: Mechanism::Kubernetes,
            kubeconfig: Some(cluster.kubeconfig()),
            dies_before,
            ..Orders::local(crate::kubernetes::config("exec sleep 600"), folder.path())
        };
        let dying = orders.clone();
        tokio::task::spawn_blocking(move || coordinator_that_dies(&dying))
            .await
            .unwrap();
        let next = launcher(Mechanism::Kubernetes, &orders.config, &orders.around());
        next.forget(orders.spin_up).await;
        for plural in ["jobs", "secrets"] {
            cluster.until(plural, <[Value]>::is_empty).await.unwrap();
        }
    }
}
