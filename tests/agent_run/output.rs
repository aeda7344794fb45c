//! What becomes of all that a program writes.

use futures_util::StreamExt;
use loom_protocol::names;
use loom_protocol::work::WorkStatus;
use loom_testkit::nats::until_subscribed;
use tokio::time::timeout;

use crate::house::{House, LIMIT, Process};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn fifty_megabytes_on_one_line_are_kept_at_their_end_and_the_cut_is_told() {
    let house = House::open().await;
    let id = house.submit("huge").await;
    let script = "echo before; head -c 50000000 /dev/zero | tr '\\0' x; echo 'the end'";
    let mut command = house.agent_command(&["--once"], script);
    // It is looked for secrets all the way.
    let url = house.nats.url().replace("://", "://ann:xxs3cret%2Fword@");
    let mut agent = Process(command.env("NATS_URL", url).spawn().unwrap());
    let item = house.ended(id).await;
    assert_eq!(item.status, WorkStatus::Completed);
    let result = item.result.unwrap();
    assert!(result.summary.unwrap().ends_with("the end"));
    let output: String = result.output.unwrap().parse().unwrap();
    let (mark, kept) = output.split_once('\n').unwrap();
    assert!(
        kept.ends_with("xxxthe end") && kept.len() > 30_000,
        "{mark}"
    );
    let left_out = "before\n".len() + 50_000_000 + "the end".len() - kept.len();
    assert_eq!(mark, format!("[… {left_out} bytes left out]"));
    assert!(agent.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_error_of_an_item_has_the_end_of_a_long_last_line() {
    let house = House::open().await;
    let id = house.submit("long").await;
    let script = "head -c 3000 /dev/zero | tr '\\0' y >&2; echo ' no disk' >&2; exit 3";
    let _agent = house.agent(&["--once", "--exit-code", "3=permanent"], script);
    let error = house.ended(id).await.error.unwrap().message;
    assert!(
        error.ends_with("yy no disk") && error.contains("bytes left out]"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn where_json_is_asked_for_an_item_without_any_fails_and_says_so() {
    let house = House::open().await;
    let id = house.submit("no json").await;
    let _agent = house.agent(&["--result", "json"], "echo just prose");
    let item = house.ended(id).await;
    let error = item.error.unwrap();
    assert_eq!(
        (item.status, error.code.as_deref()),
        (WorkStatus::Failed, Some("no-result"))
    );
    assert!(error.message.contains("--result json") && error.message.ends_with("just prose"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_loom_handed_out_in_confidence_is_in_nothing_that_it_tells() {
    const SECRETS: [&str; 3] = ["s3cret%2Fword", "s3cret/word", "t0ken-t0ken"];
    let house = House::open().await;
    let id = house.submit("talkative").await;
    let logs = names::logs(&house.project, id, 1);
    let mut logs = house.client.nats().subscribe(logs).await.unwrap();
    until_subscribed(house.client.nats()).await.unwrap();
    let url = house.nats.url().replace("://", "://ann:s3cret%2Fword@");
    // It says all that it knows, a part of it cut in two, and reports progress and its failure with it.
    let script = r#"
        echo "::progress 5 at $LOOM_NATS_URL"; echo "url $LOOM_NATS_URL"; printf 's3cret/'
        sleep 0.3; echo word; echo "token $LOOM_API_TOKEN" >&2
        case $1 in
        talkative) exit 3;;
        *) "$LOOM_BIN" work progress 50 "$LOOM_NATS_URL"
           "$LOOM_BIN" work fail --permanent "s3cret/word at $LOOM_NATS_URL";;
        esac"#;
    let mut command = house.agent_command(
        &[
            "--log-level",
            "trace",
            "--max-items",
            "2",
            "--exit-code",
            "3=permanent",
        ],
        script,
    );
    let said = std::fs::File::create(house.path("said")).unwrap();
    command
        .env("NATS_URL", &url)
        .env("LOOM_API_TOKEN", "t0ken-t0ken");
    let mut agent = Process(command.stderr(said).spawn().unwrap());
    let item = house.ended(id).await;
    let mut told = serde_json::to_string(&item).unwrap();
    assert!(told.contains("***") && told.contains("token ***"), "{told}");
    let inside = house.submit("inside").await;
    told.push_str(&serde_json::to_string(&house.ended(inside).await).unwrap());
    while !told.contains("url nats://***@127.0.0.1") {
        let message = timeout(LIMIT, logs.next()).await.unwrap().unwrap();
        told.push_str(&String::from_utf8_lossy(&message.payload));
    }
    agent.ended().await;
    told.push_str(&std::fs::read_to_string(house.path("said")).unwrap());
    for secret in SECRETS {
        let at = told.find(secret).map(|at| &told[at.saturating_sub(300)..]);
        assert_eq!(at, None, "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_is_read_of_json_has_no_secret_in_it_however_it_was_written() {
    let house = House::open().await;
    for (script, expected) in [
        (
            r#"printf '%s\n' '{"output":{"pw":"p\u00e4ss\"w1ord1","\u0070\u00e4ss\"w1ord1":"{\"a\":\"p\\u00e4ss\\\"w1ord1\"}"}}'"#,
            r#"{"pw":"***","***":"{\"a\":\"***\"}"}"#,
        ),
        (
            r#""$LOOM_BIN" work complete --output '{"pw":"p\u00e4ss\"w1ord1"}'"#,
            r#"{"pw":"***"}"#,
        ),
        ("echo 'a=p%C3%A4ss%22w1ord1'", r#""a=***""#),
    ] {
        let id = house.submit("tell").await;
        let mut command = house.agent_command(&["--once"], script);
        command
            .env("NATS_USER", "ann")
            .env("NATS_PASS", "p\u{e4}ss\"w1ord1");
        let mut agent = Process(command.spawn().unwrap());
        let output = house.ended(id).await.result.unwrap().output.unwrap();
        let read = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).unwrap();
        assert_eq!(read(output.as_bytes()), read(expected.as_bytes()));
        agent.ended().await;
    }
}
