//! `webhook`: a receiver of our own, which verifies the signature.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use loom_protocol::SpinUpId;
use loom_protocol::target::Mechanism;
use loom_targets::{Found, Launcher, Reference, StartErrorKind, Stopped, Surroundings};
use loom_testkit::webhook::{Received, TestReceiver};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::fixture::{GRACE, PATIENCE, around, launcher, order};

/// A variable that is set everywhere; its value is the key of the signatures.
const KEY: &str = "PATH";

async fn receiver(
    answer: impl Fn(usize, &Received) -> Response + Send + Sync + 'static,
) -> TestReceiver {
    TestReceiver::start(answer).await.unwrap()
}

fn is_signed(received: &Received) -> bool {
    received.is_signed(&std::env::var(KEY).unwrap())
}

fn webhook(config: &Value) -> Box<dyn Launcher> {
    webhook_around(config, &around(std::path::Path::new("unused")))
}

fn webhook_around(config: &Value, around: &Surroundings) -> Box<dyn Launcher> {
    launcher(Mechanism::Webhook, config, around)
}

fn never() -> CancellationToken {
    CancellationToken::new()
}

#[tokio::test]
async fn a_receiver_gets_all_that_it_needs_signed() {
    let receiver = receiver(|_, _| (StatusCode::ACCEPTED, "queued").into_response()).await;
    let config = json!({
        "url": receiver.url("/start?x=1"), "secretEnvVar": KEY,
        "headers": {"Authorization": "Bearer s3cret-token", "Idempotency-Key": "mine"},
    });
    let (webhook, order) = (webhook(&config), order(SpinUpId::generate()));
    let started = webhook.start(&order, never()).await.unwrap();
    assert_eq!(started.output.as_deref(), Some("queued"));
    assert!(matches!(&started.reference, Reference::Webhook(one) if one.spin_up == order.spin_up));
    let received = &receiver.received()[0];
    assert!(is_signed(received));
    assert_eq!(
        (&received.method, &*received.path),
        (&Method::POST, "/start?x=1")
    );
    let id = order.spin_up.to_string();
    for (name, value) in [
        ("idempotency-key", &*id),
        ("x-loom-spin-up", &*id),
        ("authorization", "Bearer s3cret-token"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(received.header(name), value, "{name}");
    }
    let body: Value = serde_json::from_slice(&received.body).unwrap();
    assert_eq!(body["ticket"], order.ticket.expose());
    assert_eq!(body["targetName"], "a target");
    assert_eq!(body["natsUrl"], order.nats_url);
    assert_eq!(body["timestamp"], "2027-01-15T08:00:00.000Z");
    assert!(matches!(
        webhook.find(order.spin_up, None).await.unwrap(),
        Found::Unknown { .. }
    ));
    assert!(matches!(
        webhook.stop(order.spin_up, None, GRACE).await.unwrap(),
        Stopped::NotPossible { .. }
    ));
}

#[tokio::test]
async fn the_method_the_template_and_the_codes_are_the_target_s() {
    let receiver =
        receiver(|at, _| [StatusCode::NO_CONTENT, StatusCode::OK][at].into_response()).await;
    let config = json!({
        "url": receiver.url("/"), "method": "PUT", "bodyTemplate": "{\"who\":\"{{agentType}}\",\"for\":\"{{workItemId}}\"}",
        "headers": {"content-type": "application/vnd.x+json"}, "successCodes": [204],
    });
    let first = order(SpinUpId::generate());
    webhook(&config).start(&first, never()).await.unwrap();
    let config = json!({"url": receiver.url("/"), "method": "GET", "secretEnvVar": KEY});
    webhook(&config)
        .start(&order(SpinUpId::generate()), never())
        .await
        .unwrap();
    let received = receiver.received();
    let body: Value = serde_json::from_slice(&received[0].body).unwrap();
    let expected = json!({"who": "claude-code", "for": first.work_item});
    assert_eq!((&received[0].method, body), (&Method::PUT, expected));
    assert_eq!(received[0].header("content-type"), "application/vnd.x+json");
    assert!(!received[0].headers.contains_key("x-loom-signature"));
    assert_eq!(
        (&received[1].method, received[1].body.len()),
        (&Method::GET, 0)
    );
    assert!(is_signed(&received[1]));
}

#[tokio::test]
async fn a_request_is_repeated_with_the_same_key() {
    let receiver = receiver(|at, _| match at {
        0 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        1 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")]).into_response(),
        _ => StatusCode::CREATED.into_response(),
    })
    .await;
    let order = order(SpinUpId::generate());
    webhook(&json!({"url": receiver.url("/")}))
        .start(&order, never())
        .await
        .unwrap();
    let received = receiver.received();
    assert_eq!(received.len(), 3);
    for one in &received {
        assert_eq!(one.header("idempotency-key"), order.spin_up.to_string());
        assert_eq!(one.body, received[0].body);
    }
}

#[tokio::test]
async fn a_refusal_is_told_without_secrets_and_not_repeated() {
    let echo = |_, received: &Received| {
        let said = format!(
            "no: {} {}",
            received.header("authorization"),
            String::from_utf8_lossy(&received.body)
        );
        (StatusCode::FORBIDDEN, said).into_response()
    };
    let receiver = receiver(echo).await;
    let config = json!({"url": receiver.url("/hidden-path"), "headers": {"Authorization": "Bearer s3cret-token"}});
    let order = order(SpinUpId::generate());
    let error = webhook(&config).start(&order, never()).await.unwrap_err();
    assert_eq!(error.kind(), StartErrorKind::Refused);
    assert!(
        error.to_string().contains("403") && error.to_string().contains("successCodes"),
        "{error}"
    );
    let told = error.output().unwrap();
    assert!(
        told.starts_with("no: *** {") && told.contains("\"ticket\":\"***\""),
        "{told}"
    );
    for hidden in [order.ticket.expose(), "s3cret-token", "hidden-path"] {
        assert!(!format!("{error:?}").contains(hidden), "{error:?}");
    }
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn what_never_answers_is_in_doubt_and_what_is_not_there_is_not() {
    let receiver = receiver(|_, _| StatusCode::BAD_GATEWAY.into_response()).await;
    let error = webhook(&json!({"url": receiver.url("/")}))
        .start(&order(SpinUpId::generate()), never())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), receiver.received().len()),
        (StartErrorKind::InDoubt, 3)
    );

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let hook = webhook(&json!({"url": url, "timeoutMs": 300}));
    let error = hook
        .start(&order(SpinUpId::generate()), never())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StartErrorKind::InDoubt, "{error}");
    assert!(error.to_string().contains("timeoutMs"), "{error}");
    assert!(
        hook.probe(PATIENCE)
            .await
            .unwrap_err()
            .to_string()
            .contains("300ms")
    );

    let hook = webhook(&json!({"url": url}));
    let (order_one, cancel) = (order(SpinUpId::generate()), CancellationToken::new());
    let starting = hook.start(&order_one, cancel.clone());
    let connected = async {
        let mut connections = Vec::new();
        // Those above come first.
        while connections.len() < 5 {
            connections.push(silent.accept().await.unwrap());
        }
        cancel.cancel();
    };
    let (started, ()) = tokio::join!(starting, connected);
    assert_eq!(started.unwrap_err().kind(), StartErrorKind::InDoubt);

    drop(silent);
    let error = hook
        .start(&order(SpinUpId::generate()), never())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StartErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("can't be reached"), "{error}");
    hook.probe(PATIENCE).await.unwrap_err();
}

#[tokio::test]
async fn only_the_same_host_is_followed_and_only_with_the_same_method() {
    let other = receiver(|_, _| StatusCode::OK.into_response()).await;
    let to_other = format!("http://localhost:{}/", other.address().port());
    let receiver = receiver(move |_, received| {
        let to = |code: u16, to: &str| {
            (
                StatusCode::from_u16(code).unwrap(),
                [("location", to.to_owned())],
            )
                .into_response()
        };
        match &*received.path {
            "/same" => to(308, "/there"),
            "/other" => to(307, &to_other),
            "/get" => to(302, "/there"),
            "/round" => to(307, "/round"),
            _ => StatusCode::OK.into_response(),
        }
    })
    .await;
    let start = async |path: &str| {
        let hook = webhook(&json!({"url": receiver.url(path), "secretEnvVar": KEY}));
        hook.start(&order(SpinUpId::generate()), never()).await
    };
    start("/same").await.unwrap();
    let last = receiver.received().pop().unwrap();
    assert_eq!((&*last.path, &last.method), ("/there", &Method::POST));
    assert!(is_signed(&last));
    for path in ["/other", "/get", "/round"] {
        let error = start(path).await.unwrap_err();
        assert_eq!(error.kind(), StartErrorKind::Refused, "{path}: {error}");
        assert!(error.to_string().contains("elsewhere"), "{path}: {error}");
    }
    assert_eq!(other.received().len(), 0);
    assert!(
        receiver
            .received()
            .iter()
            .all(|one| one.method == Method::POST)
    );
}

#[tokio::test]
async fn the_coordinator_itself_and_link_local_addresses_are_not_called() {
    let receiver = receiver(|_, _| StatusCode::OK.into_response()).await;
    let port = receiver.address().port();
    let folder = std::path::Path::new("unused");
    let own = Surroundings {
        own_addresses: vec![SocketAddr::from(([0, 0, 0, 0], port))],
        ..around(folder)
    };
    for host in [
        "127.0.0.1",
        "localhost",
        "127.0.0.2",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f.1",
    ] {
        let hook = webhook_around(&json!({"url": format!("http://{host}:{port}/")}), &own);
        let error = hook
            .start(&order(SpinUpId::generate()), never())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), StartErrorKind::Refused, "{host}: {error}");
        assert!(
            error.to_string().contains("coordinator itself"),
            "{host}: {error}"
        );
        let error = hook.probe(PATIENCE).await.unwrap_err();
        assert!(
            error.to_string().contains("coordinator itself"),
            "{host}: {error}"
        );
    }
    assert_eq!(receiver.received().len(), 0);
    for host in ["169.254.169.254", "[fe80::1]", "[::ffff:a9fe:a9fe]"] {
        let hook = webhook(&json!({"url": format!("http://{host}/latest/meta-data")}));
        let error = hook
            .start(&order(SpinUpId::generate()), never())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("metadata"), "{host}: {error}");
    }
    webhook(&json!({"url": receiver.url("/")}))
        .start(&order(SpinUpId::generate()), never())
        .await
        .unwrap();
}

#[tokio::test]
async fn without_its_key_nothing_is_sent_and_a_long_answer_is_cut() {
    let receiver = receiver(|_, _| "y".repeat(10_000_000).into_response()).await;
    let hook =
        webhook(&json!({"url": receiver.url("/"), "secretEnvVar": "LOOM_TEST_NO_SUCH_VARIABLE"}));
    for text in [
        hook.start(&order(SpinUpId::generate()), never())
            .await
            .unwrap_err()
            .to_string(),
        hook.probe(PATIENCE).await.unwrap_err().to_string(),
    ] {
        assert!(text.contains("LOOM_TEST_NO_SUCH_VARIABLE"), "{text}");
    }
    assert_eq!(receiver.received().len(), 0);
    let started = webhook(&json!({"url": receiver.url("/")}))
        .start(&order(SpinUpId::generate()), never())
        .await
        .unwrap();
    assert!(started.output.unwrap().len() <= 4096);
    let probe = webhook(&json!({"url": receiver.url("/x")}))
        .probe(Duration::from_secs(20))
        .await
        .unwrap();
    assert!(probe.seen.contains("answers"));
    let last = receiver.received().pop().unwrap();
    assert_eq!(
        (&last.method, &*last.path),
        (&Method::OPTIONS, "/"),
        "a probe asks for nothing"
    );
}
