use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use serde_json::{Value, json};

use super::*;

/// A peer that answers everything with one status and one body.
async fn peer(status: u16, body: &'static str) -> ApiClient {
    let answer = move || async move { (StatusCode::from_u16(status).unwrap(), body) };
    served(Router::new().fallback(answer)).await
}

async fn served(router: Router) -> ApiClient {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let project = ProjectId::new("p").unwrap();
    ApiClient::new(&url, Some(Secret::new("t")), Some(project)).unwrap()
}

#[tokio::test]
async fn project_and_token_go_with_every_request() {
    let echo = |headers: HeaderMap| async move {
        let text = |name: &str| headers[name].to_str().unwrap().to_owned();
        axum::Json(json!([text("loom-project"), text("authorization")]))
    };
    let client = served(Router::new().route("/api/work/{id}", get(echo))).await;
    let answer: Value = client.get(&["work", "a/b"], &[]).await.unwrap();
    assert_eq!(answer, json!(["p", "Bearer t"]));
}

#[tokio::test]
async fn refusals_keep_their_code() {
    let client = peer(
        409,
        r#"{"error":"e","message":"e","code":"terminal-state"}"#,
    )
    .await;
    let error = client.get::<Value>(&["stats"], &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TerminalState));
    assert!(!error.is_transient());
    let client = peer(
        429,
        r#"{"error":"e","message":"e","code":"overloaded","retryAfterMs":5}"#,
    )
    .await;
    let error = client.get::<Value>(&["stats"], &[]).await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(error.asked_pause(), Some(Duration::from_millis(5)));
}

#[tokio::test]
async fn a_stranger_at_the_port_is_called_one() {
    for (status, body) in [(404, "<html>"), (200, "<html>"), (500, "")] {
        let client = peer(status, body).await;
        let error = client.get::<Value>(&["stats"], &[]).await.unwrap_err();
        assert!(matches!(error, ApiError::NotACoordinator(_)), "{error}");
    }
}

#[tokio::test]
async fn nobody_at_the_port_is_one_sentence_with_the_remedy() {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = listener.local_addr().unwrap().to_string();
    drop(listener);
    let client = ApiClient::new(&url, None, None).unwrap();
    let error = client.get::<Value>(&["stats"], &[]).await.unwrap_err();
    assert!(error.to_string().contains("loom up"), "{error}");
    assert!(matches!(error, ApiError::Unreachable(_)));
}

#[test]
fn urls_that_are_none() {
    for url in ["nats://h:1", "http://", "::::"] {
        let error = ApiClient::new(url, None, None).unwrap_err();
        assert!(matches!(error, ApiError::BadUrl(_)), "{url}");
    }
}

#[tokio::test]
async fn a_wrong_scheme_is_told_as_one() {
    let plain = peer(200, "{}").await.url();
    let tls = plain.replace("http://", "https://");
    let client = ApiClient::new(&tls, None, None).unwrap();
    let error = client.get::<Value>(&["stats"], &[]).await.unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, ApiError::NotACoordinator(_)), "{said}");
    assert!(
        said.contains("http://") && !said.contains("loom up"),
        "{said}"
    );
    // Nobody there is nobody there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", free.local_addr().unwrap());
    drop(free);
    let client = ApiClient::new(&url, None, None).unwrap();
    let error = client.get::<Value>(&["stats"], &[]).await.unwrap_err();
    assert!(matches!(error, ApiError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn what_is_no_http_is_no_coordinator() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut some = [0; 16];
        let _ = stream.read(&mut some).await;
        // What a TLS server answers to what is no handshake.
        stream.write_all(&[0x15, 3, 1, 0, 2, 2, 70]).await.unwrap();
    });
    let client = ApiClient::new(&url, None, None).unwrap();
    let error = client.get::<Value>(&["stats"], &[]).await.unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, ApiError::NotACoordinator(_)), "{said}");
    assert!(said.contains("https://"), "{said}");
}

/// Whatever the peer would take.
#[tokio::test]
async fn a_body_that_no_coordinator_reads_is_refused_before_it_is_sent() {
    let takes_all = async |_: axum::body::Bytes| "{}";
    let client = served(Router::new().fallback(takes_all)).await;
    for (room, is_sent) in [(0, true), (1, false)] {
        // Two quotes stand around it.
        let text = "x".repeat(MAX_BODY - 2 + room);
        for sent in [
            client.post::<Value>(&["targets"], &text).await,
            client.put::<Value>(&["targets", "x"], &text).await,
        ] {
            let refusal = sent.err().and_then(|error| error.code());
            let expected = (!is_sent).then_some(ErrorCode::TooLarge);
            assert_eq!(refusal, expected);
        }
    }
}
