//! Orders, targets, and waiting for a state of the system.

use std::path::Path;
use std::time::{Duration, Instant};

use loom_process::stat::{self, Entry};
use loom_protocol::target::{BirthTicket, Mechanism, RawConfig, TargetConfig};
use loom_protocol::{ProjectId, SpinUpId, TargetId, Timestamp, WorkId};
use loom_targets::{
    Launcher, Reference, StartOrder, Started, Stopped, Surroundings, mechanism_for,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// Between TERM and KILL.
pub const GRACE: Duration = Duration::from_secs(10);

pub fn order(spin_up: SpinUpId) -> StartOrder {
    StartOrder {
        spin_up,
        target_id: TargetId::generate(),
        target_name: "a target".to_owned(),
        agent_type: "claude-code".to_owned(),
        project: ProjectId::new("p").unwrap(),
        capabilities: vec!["rust".to_owned(), "c, c++".to_owned()],
        boundaries: vec!["default".to_owned()],
        capability: Some("rust".to_owned()),
        boundary: Some("default".to_owned()),
        work_item: Some(WorkId::generate()),
        nats_url: "nats://127.0.0.1:4222".to_owned(),
        ticket: BirthTicket::generate(),
        ordered_at: Timestamp::from_millis(1_800_000_000_000),
    }
}

pub fn around(folder: &Path) -> Surroundings {
    // Where nobody has done it, no client can be made.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    Surroundings {
        folder: folder.join("starts"),
        ..Surroundings::default()
    }
}

pub fn launcher(mechanism: Mechanism, config: &Value, around: &Surroundings) -> Box<dyn Launcher> {
    let raw: RawConfig = serde_json::from_value(config.clone()).unwrap();
    let config = TargetConfig::read(mechanism, &raw).unwrap();
    mechanism_for(&config, around).unwrap()
}

/// Waits until something is so.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < until, "{what} did not come to be");
        // deliberate sleep: between two looks at the system, which tells nobody
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a file that was moved into its place.
pub async fn file(path: &Path) -> String {
    until(&path.display().to_string(), || {
        std::fs::read_to_string(path).ok()
    })
    .await
}

/// All that lives with the id of a start in its environment.
pub fn alive(spin_up: SpinUpId) -> Vec<Entry> {
    stat::with_variable("LOOM_SPIN_UP_ID", &spin_up.to_string())
}

pub fn pid_of(started: &Started) -> u32 {
    match &started.reference {
        Reference::Local(local) => local.pid,
        Reference::Ssh(ssh) => ssh.pid,
        Reference::Webhook(_) | Reference::Kubernetes(_) | Reference::GithubActions(_) => {
            panic!("no process is known of it")
        }
    }
}

/// Ends a start and holds that nothing of it is left.
pub async fn end(
    launcher: &dyn Launcher,
    spin_up: SpinUpId,
    reference: Option<&Reference>,
) -> (usize, usize) {
    let stopped = launcher.stop(spin_up, reference, GRACE).await.unwrap();
    let Stopped::Ended {
        processes, killed, ..
    } = stopped
    else {
        panic!("{stopped:?}");
    };
    assert_eq!(alive(spin_up), []);
    let found = launcher.find(spin_up, reference).await.unwrap();
    assert!(found.reference().is_none(), "{found:?}");
    launcher.forget(spin_up).await;
    (processes, killed)
}

/// Orders the same start from all of them at once, and holds that one began it and all say which it is.
pub async fn started_once(launchers: Vec<Box<dyn Launcher>>, order: &StartOrder) -> Reference {
    let starts = launchers.into_iter().map(|launcher| {
        let order = order.clone();
        tokio::spawn(async move {
            launcher
                .start(&order, CancellationToken::new())
                .await
                .unwrap()
        })
    });
    let (mut began, mut references) = (0, Vec::new());
    for start in starts.collect::<Vec<_>>() {
        let started = start.await.unwrap();
        began += usize::from(!started.existing);
        references.push(started.reference);
    }
    references.dedup();
    assert_eq!((began, references.len()), (1, 1));
    references.remove(0)
}
