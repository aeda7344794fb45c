//! A socket and those who lie to it.

use std::sync::Arc;
use std::time::Duration;

use loom_client::JobEnd;
use loom_protocol::ErrorCode;
use loom_protocol::work::WorkItem;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::broker::{Broker, Terms};
use super::children::Slots;
use super::client::{Problem, ask};
use super::message::{Complete, Verb};
use super::server::Server;
use super::{LONGEST_LINE, PLACES};
use crate::secrets::Secrets;
use crate::testing::job;

const LIMIT: Duration = Duration::from_secs(30);

fn open() -> (Arc<Broker>, Server) {
    let terms = Terms {
        line: None,
        handle: "tester".into(),
        may_submit: Arc::new([]),
        slots: Slots::new(1),
        secrets: Secrets::new(["sesame-open".to_owned()]),
    };
    let broker = Arc::new(Broker::new(&job(), terms));
    let server = Server::open(broker.clone()).unwrap();
    (broker, server)
}

async fn said(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(server.path()).await.unwrap();
    // It may hang up before it has heard all.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let reading = timeout(LIMIT, stream.read_to_end(&mut answer)).await;
    let _ = reading.unwrap();
    answer
}

fn refused(problem: Result<Value, Problem>) -> ErrorCode {
    match problem {
        Err(Problem::Refused(refusal)) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

fn judged() -> JobEnd {
    JobEnd::Released
}

#[tokio::test]
async fn an_item_is_shown_and_an_end_is_noted_without_secrets() {
    let (broker, server) = open();
    let item: WorkItem = ask(server.path(), Verb::Show, &json!({})).await.unwrap();
    assert_eq!(item.description, "d");
    let done = Complete {
        summary: Some("by sesame-open".into()),
        ..Complete::default()
    };
    ask::<()>(server.path(), Verb::Complete, &done)
        .await
        .unwrap();
    let (JobEnd::Completed(result), true) = broker.over(judged(), true) else {
        panic!("not completed");
    };
    assert_eq!(result.reported().summary.as_deref(), Some("by ***"));
    let late = ask(server.path(), Verb::Fail, &json!({"message": "no"})).await;
    assert_eq!(refused(late), ErrorCode::StaleLease);
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_changes_nothing() {
    let (broker, server) = open();
    let path = server.path();
    for (verb, request, code) in [
        (
            Verb::Complete,
            json!({"id": "x"}),
            ErrorCode::InvalidRequest,
        ),
        (
            Verb::Complete,
            json!({"summary": "x".repeat(400 << 10)}),
            ErrorCode::TooLarge,
        ),
        (
            Verb::Fail,
            json!({"message": " "}),
            ErrorCode::InvalidRequest,
        ),
        (
            Verb::Progress,
            json!({"progress": 101}),
            ErrorCode::InvalidRequest,
        ),
        (
            Verb::Submit,
            json!({"description": "d", "capability": "c"}),
            ErrorCode::Forbidden,
        ),
        (
            Verb::Submit,
            json!({"description": "d", "capability": "c", "boundary": "b"}),
            ErrorCode::InvalidRequest,
        ),
        (Verb::Await, json!({"id": "*"}), ErrorCode::InvalidRequest),
    ] {
        let shown = request.to_string().chars().take(80).collect::<String>();
        assert_eq!(refused(ask(path, verb, &request).await), code, "{shown}");
    }
    for odd in [
        "{}\n",
        "nonsense\n",
        "{\"verb\":\"cancel\"}\n",
        "\u{0}\n",
        "[]\n",
    ] {
        let answer: Value = serde_json::from_slice(&said(&server, odd.as_bytes()).await).unwrap();
        assert_eq!(answer["error"]["code"], "invalid-request", "{odd:?}");
    }
    let deep = format!(
        "{{\"verb\":\"complete\",\"request\":{}\n",
        "[".repeat(100_000)
    );
    let answer = said(&server, deep.as_bytes()).await;
    assert!(answer.starts_with(b"{\"error\""));
    assert!(matches!(
        broker.over(judged(), true),
        (JobEnd::Released, false)
    ));
}

/// A request that is cut anywhere does nothing.
#[tokio::test]
async fn half_a_request_does_nothing() {
    let (broker, server) = open();
    let whole = r#"{"verb":"complete","request":{"summary":"x"}}"#;
    for end in [1, whole.len() - 1, whole.len()] {
        let mut stream = UnixStream::connect(server.path()).await.unwrap();
        stream.write_all(&whole.as_bytes()[..end]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        timeout(LIMIT, stream.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(answer.is_empty(), "{end}: {answer:?}");
    }
    assert!(matches!(
        broker.over(judged(), true),
        (JobEnd::Released, false)
    ));
}

#[tokio::test]
async fn a_client_that_never_ends_its_line_is_cut_off_at_its_bound() {
    let (_broker, server) = open();
    let chunk = vec![b'x'; 64 * 1024];
    let mut stream = UnixStream::connect(server.path()).await.unwrap();
    let mut sent = 0;
    while stream.write_all(&chunk).await.is_ok() {
        sent += chunk.len();
        assert!(sent < 4 * LONGEST_LINE, "it goes on listening");
    }
    let answer = said(&server, &vec![b'x'; LONGEST_LINE + 1]).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("too-large"), "{answer}");
    // And an honest one is answered.
    ask::<WorkItem>(server.path(), Verb::Show, &json!({}))
        .await
        .unwrap();
}

/// The clock stands still while anybody has something to do.
#[tokio::test(start_paused = true)]
async fn those_who_say_nothing_make_room_when_their_time_is_over() {
    let (_broker, server) = open();
    let mut idle = Vec::new();
    for _ in 0..PLACES * 3 {
        idle.push(UnixStream::connect(server.path()).await.unwrap());
    }
    ask::<WorkItem>(server.path(), Verb::Show, &json!({}))
        .await
        .unwrap();
    let mut answer = Vec::new();
    idle[0].read_to_end(&mut answer).await.unwrap();
    assert!(answer.is_empty());
}

#[tokio::test]
async fn a_socket_that_was_left_behind_gives_a_sentence() {
    let (broker, server) = open();
    let path = server.path().to_owned();
    let dir = path.parent().unwrap().to_owned();
    drop(server);
    assert!(!dir.exists(), "it goes with its directory");
    let left = tempfile::tempdir().unwrap();
    let stale = left.path().join("socket");
    drop(tokio::net::UnixListener::bind(&stale).unwrap());
    let long = left.path().join("x".repeat(200));
    for path in [path, stale, long] {
        let gone = ask::<WorkItem>(&path, Verb::Show, &json!({})).await;
        let Err(Problem::Gone(sentence)) = gone else {
            panic!("{gone:?}");
        };
        assert!(sentence.contains("does not answer at"), "{sentence}");
    }
    drop(broker);
}
