//! A nats-server of our own: what it keeps, whom it refuses, when it dies.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use loom_nats::connection::round_trip;
use loom_nats::server::{
    ManagedOptions, ManagedServer, ManagedState, NatsServer, Profile, ServerError, ServerOptions,
    find_server,
};
use loom_process::ParentDeath;

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// Tells the helper process which folder to use, and what to do when it dies.
const HELPER_DIR: &str = "LOOM_TEST_HELPER_DIR";
const HELPER_DEATH: &str = "LOOM_TEST_HELPER_DEATH";

fn options(dir: &Path) -> ServerOptions {
    ServerOptions {
        profile: Profile::Fast,
        ..ServerOptions::new(find_server(None).unwrap(), dir.to_owned())
    }
}

fn managed(data_dir: &Path) -> ManagedOptions {
    ManagedOptions {
        profile: Profile::Fast,
        ..ManagedOptions::new(data_dir.to_owned())
    }
}

async fn jetstream(url: &str) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(async_nats::connect(url).await.unwrap())
}

async fn store_a_message(url: &str) {
    let jetstream = jetstream(url).await;
    let config = async_nats::jetstream::stream::Config {
        name: "KEPT".to_owned(),
        subjects: vec!["kept".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(config).await.unwrap();
    let stored = jetstream.publish("kept", "one".into()).await.unwrap();
    stored.await.unwrap();
}

async fn stored_messages(url: &str) -> u64 {
    let stream = jetstream(url).await.get_stream("KEPT").await.unwrap();
    stream.cached_info().state.messages
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_was_stored_survives_stop_kill_and_restart_on_the_same_port() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(options(dir.path())).await.unwrap();
    let (url, first) = (server.client_url(), server.pid().unwrap());
    store_a_message(&url).await;

    server.stop().await;
    assert_eq!(server.pid(), None);
    assert!(async_nats::connect(&url).await.is_err(), "it has stopped");
    server.restart().await.unwrap();
    assert_eq!(server.client_url(), url);
    assert_ne!(server.pid().unwrap(), first);
    assert_eq!(stored_messages(&url).await, 1);

    server.kill().await;
    assert_eq!(server.pid(), None);
    server.restart().await.unwrap();
    assert_eq!(server.client_url(), url);
    assert_eq!(stored_messages(&url).await, 1);
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_paused_server_is_silent_until_it_is_resumed_and_can_be_stopped_while_paused() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(options(dir.path())).await.unwrap();
    let client = async_nats::connect(server.client_url()).await.unwrap();

    server.pause().unwrap();
    let round_trip = round_trip(&client);
    tokio::pin!(round_trip);
    let unanswered = tokio::time::timeout(Duration::from_millis(200), &mut round_trip).await;
    assert!(unanswered.is_err());
    server.resume().unwrap();
    round_trip.await.unwrap();

    server.pause().unwrap();
    server.stop().await;
    assert!(matches!(
        server.pause(),
        Err(ServerError::NotRunning { .. })
    ));
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_profile_lands_in_the_configuration_that_the_server_accepts() {
    for (profile, line) in [
        (Profile::Safe, "sync_interval: always"),
        (Profile::Fast, "sync_interval: \"100ms\""),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let options = ServerOptions {
            profile,
            ..options(dir.path())
        };
        let server = NatsServer::start(options).await.unwrap();
        let config = std::fs::read_to_string(dir.path().join("nats-server.conf")).unwrap();
        assert!(config.contains(line), "{config}");
        store_a_message(&server.client_url()).await;
        server.stop().await;
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn two_servers_on_one_store_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = NatsServer::start(options(dir.path())).await.unwrap();
    let error = NatsServer::start(options(dir.path())).await.unwrap_err();
    assert!(matches!(error, ServerError::StoreInUse { .. }), "{error:?}");
    let text = error.to_string();
    let pid = first.pid().unwrap().to_string();
    let dir = dir.path().display().to_string();
    assert!(text.contains(&pid) && text.contains(&dir), "{text}");
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_server_that_can_not_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    std::fs::write(dir.path().join("store/jetstream"), "in the way").unwrap();
    let error = NatsServer::start(options(dir.path())).await.unwrap_err();
    let ServerError::Ended { reason, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(reason.starts_with("Can't start JetStream"), "{error}");
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_taken_port_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = other.local_addr().unwrap();
    let options = ServerOptions {
        listen,
        ..options(dir.path())
    };
    let error = NatsServer::start(options).await.unwrap_err();
    assert!(matches!(error, ServerError::PortTaken { .. }), "{error:?}");
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_managed_server_that_is_killed_comes_back_under_its_url() {
    let dir = tempfile::tempdir().unwrap();
    let server = ManagedServer::start(managed(dir.path())).await.unwrap();
    let (url, first) = (server.client_url(), server.pid().unwrap());
    store_a_message(&url).await;

    let mut state = server.state();
    kill_9(first);
    let again =
        |state: &ManagedState| matches!(state, ManagedState::Running { pid } if *pid != first);
    let waited = tokio::time::timeout(PATIENCE, state.wait_for(again)).await;
    waited.expect("it is restarted in time").unwrap();
    assert_eq!(server.client_url(), url);
    assert_eq!(stored_messages(&url).await, 1);

    server.stop().await;
    assert_eq!(*state.borrow(), ManagedState::Stopped);
    assert!(async_nats::connect(&url).await.is_err(), "it has stopped");
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_second_coordinator_on_one_data_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = ManagedServer::start(managed(dir.path())).await.unwrap();
    let error = ManagedServer::start(managed(dir.path())).await.unwrap_err();
    assert!(matches!(error, ServerError::Managed { .. }), "{error:?}");
    let own_pid = std::process::id().to_string();
    assert!(error.to_string().contains(&own_pid), "{error}");

    async_nats::connect(first.client_url()).await.unwrap();
    first.stop().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_url_stays_the_same_over_runs_unless_somebody_takes_the_port() {
    let dir = tempfile::tempdir().unwrap();
    let first = ManagedServer::start(managed(dir.path())).await.unwrap();
    let url = first.client_url();
    store_a_message(&url).await;
    first.stop().await;

    let second = ManagedServer::start(managed(dir.path())).await.unwrap();
    assert_eq!(second.client_url(), url);
    assert!(!second.adopted());
    second.stop().await;

    let _other = TcpListener::bind(url.strip_prefix("nats://").unwrap()).unwrap();
    let third = ManagedServer::start(managed(dir.path())).await.unwrap();
    assert_ne!(third.client_url(), url);
    assert_eq!(stored_messages(&third.client_url()).await, 1);
    third.stop().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_survivor_of_a_killed_coordinator_is_adopted_and_watched() {
    let dir = tempfile::tempdir().unwrap();
    let mut helper = Helper::start(dir.path(), ParentDeath::Outlive);
    store_a_message(&helper.url).await;
    helper.kill_9();

    let server = ManagedServer::start(managed(dir.path())).await.unwrap();
    assert!(server.adopted());
    assert_eq!(server.pid(), Some(helper.server_pid));
    assert_eq!(server.client_url(), helper.url);

    let mut state = server.state();
    kill_9(helper.server_pid);
    let again = |state: &ManagedState| matches!(state, ManagedState::Running { pid } if *pid != helper.server_pid);
    let waited = tokio::time::timeout(PATIENCE, state.wait_for(again)).await;
    waited.expect("it is restarted in time").unwrap();
    assert_eq!(stored_messages(&helper.url).await, 1);
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_survivor_can_be_stopped_by_who_adopted_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut helper = Helper::start(dir.path(), ParentDeath::Outlive);
    helper.kill_9();
    let server = ManagedServer::start(managed(dir.path())).await.unwrap();
    assert!(server.adopted());
    server.stop().await;
    until_free(dir.path()).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_server_dies_with_its_killed_coordinator_and_the_next_one_starts_it_where_it_was() {
    for death in [ParentDeath::Kill, ParentDeath::Terminate] {
        let dir = tempfile::tempdir().unwrap();
        let mut helper = Helper::start(dir.path(), death);
        store_a_message(&helper.url).await;
        helper.kill_9();

        let server = ManagedServer::start(managed(dir.path())).await.unwrap();
        assert!(!server.adopted(), "{death:?}");
        assert_ne!(server.pid(), Some(helper.server_pid));
        assert_eq!(server.client_url(), helper.url);
        assert_eq!(stored_messages(&helper.url).await, 1);
        server.stop().await;
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_dropped_server_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let server = ManagedServer::start(managed(dir.path())).await.unwrap();
    drop(server);
    until_free(dir.path()).await;
}

/// Not a test: the coordinator that the tests above kill. Does nothing unless it is asked to.
#[tokio::test]
#[ignore = "a process for the other tests"]
async fn helper_process() {
    let Some(dir) = std::env::var_os(HELPER_DIR) else {
        return;
    };
    let on_parent_death = match std::env::var(HELPER_DEATH).unwrap().as_str() {
        "Kill" => ParentDeath::Kill,
        "Terminate" => ParentDeath::Terminate,
        _ => ParentDeath::Outlive,
    };
    let options = ManagedOptions {
        on_parent_death,
        ..managed(Path::new(&dir))
    };
    let server = ManagedServer::start(options).await.unwrap();
    let line = format!(
        "\nready {} {}\n",
        server.client_url(),
        server.pid().unwrap()
    );
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    std::future::pending::<()>().await;
}

struct Helper {
    process: Child,
    url: String,
    server_pid: u32,
}

impl Helper {
    fn start(dir: &Path, death: ParentDeath) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "helper_process",
                "--include-ignored",
                "--nocapture",
            ])
            .env(HELPER_DIR, dir)
            .env(HELPER_DEATH, format!("{death:?}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = lines
            .map(Result::unwrap)
            .find(|line| line.starts_with("ready "))
            .expect("the helper starts a server");
        let mut words = ready.split(' ').skip(1);
        Self {
            url: words.next().unwrap().to_owned(),
            server_pid: words.next().unwrap().parse().unwrap(),
            process,
        }
    }

    fn kill_9(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn kill_9(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Returns when no server runs on the store of this data directory any more.
async fn until_free(data_dir: &Path) {
    let lock = File::open(data_dir.join("nats/server.lock")).unwrap();
    let locked = tokio::task::spawn_blocking(move || lock.lock());
    let locked = tokio::time::timeout(PATIENCE, locked).await;
    locked.expect("the server ends in time").unwrap().unwrap();
}
