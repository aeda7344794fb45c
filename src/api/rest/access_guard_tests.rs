use axum::Json;
use axum::http::HeaderValue;
use axum::routing::{get, post};
use loom_protocol::{ProjectId, VerbName, WireError};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::access::Allowed;
use crate::api::rest::call::{Call, DEPRECATED_HEADER, Ground, Reading};
use crate::service::{LARGE_BODY, is_aside};

/// What came back: status, headers, body.
type Answer = (StatusCode, HeaderMap, Value);

fn open() -> ApiSettings {
    ApiSettings::default()
}

fn with_tokens(tokens: &[&str]) -> ApiSettings {
    ApiSettings {
        tokens: tokens.iter().copied().map(Secret::new).collect(),
        ..ApiSettings::default()
    }
}

async fn echo(call: Call) -> RestResult<Response> {
    let (body, ignored) = call.body_noting::<Small>()?;
    Ok(call.answer(Json(json!({
        "project": call.project().map(ToString::to_string),
        "id": call.id,
        "limit": call.number("limit")?,
        "boundary": call.boundary(),
        "name": body.name,
        "ignored": ignored.own().named,
    }))))
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Small {
    name: String,
}

async fn trust(trust: Option<axum::Extension<Trust>>) -> Json<Value> {
    let full = trust.is_some_and(|trust| trust.0 == Trust::Full);
    Json(json!({ "full": full }))
}

async fn boom() -> Json<Value> {
    panic!("on purpose")
}

/// Where a body is read.
#[derive(Default)]
struct Whereabouts {
    is_aside: bool,
}

impl<'de> serde::Deserialize<'de> for Whereabouts {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer)?;
        let is_aside = is_aside();
        Ok(Self { is_aside })
    }
}

async fn whereabouts(call: Call) -> RestResult<Json<Value>> {
    let read: Whereabouts = call.body()?;
    Ok(Json(
        json!({ "isReadAside": read.is_aside, "isDoneAside": is_aside() }),
    ))
}

/// A service without projects.
#[derive(Clone)]
struct Nothing(ProjectId);

impl Ground for Nothing {
    fn default_project(&self) -> &ProjectId {
        &self.0
    }

    async fn settled(&self, _: &Allowed, _: Option<&Reading>, _: usize) -> Result<(), WireError> {
        Ok(())
    }
}

fn door(settings: &ApiSettings, permits: usize) -> Router {
    let api = || {
        Router::new()
            .route("/api/echo/{id}", post(echo).get(echo))
            .route("/api/whereabouts", post(whereabouts))
            .route("/api/boom", get(boom))
            .route("/api/hang", get(std::future::pending::<()>))
    };
    let inside = Router::new()
        .nest("/p/{project}", api())
        .merge(api())
        .layer(axum::Extension(VerbName::WorkGet))
        .with_state(Nothing(ProjectId::new("default").unwrap()));
    let outside = Router::new()
        .route("/health", get(|| async { "up" }))
        .route("/ready", get(trust));
    let access_guard = AccessGuard::new(settings, permits, Duration::from_millis(1500));
    layer(inside, outside, Arc::new(access_guard))
}

async fn ask(door: Router, request: Request) -> Answer {
    let (parts, body) = door.oneshot(request).await.unwrap().into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    (parts.status, parts.headers, body)
}

fn request(method: &str, uri: &str, body: impl Into<Body>) -> Request {
    Request::builder()
        .method(method)
        .uri(uri)
        .header("Host", "127.0.0.1:3000")
        .header("Content-Type", "application/json")
        .body(body.into())
        .unwrap()
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    let (got, _, body) = answer;
    assert_eq!((got.as_u16(), body["code"].as_str()), (status, Some(code)));
    assert_eq!(body["error"], body["message"]);
}

#[tokio::test]
async fn what_there_is_not_answers_in_json() {
    let answer = ask(door(&open(), 1), request("GET", "/nothing", "")).await;
    refused(&answer, 404, "not-found");
    let answer = ask(door(&open(), 1), request("GET", "/api/nothing", "")).await;
    refused(&answer, 404, "not-found");
    for path in ["/api/echo/1", "/p/x/api/echo/1"] {
        let answer = ask(door(&open(), 1), request("DELETE", path, "")).await;
        refused(&answer, 405, "invalid-request");
        assert!(answer.1.contains_key(header::ALLOW));
    }
}

#[tokio::test]
async fn a_large_body_is_read_aside_and_nothing_else_is_done_there() {
    for (size, is_large) in [(10, false), (LARGE_BODY, true)] {
        let body = json!({ "text": "x".repeat(size) }).to_string();
        let (status, _, said) =
            ask(door(&open(), 1), request("POST", "/api/whereabouts", body)).await;
        let expected = json!({ "isReadAside": is_large, "isDoneAside": false });
        assert_eq!((status.as_u16(), said), (200, expected), "{size} bytes");
    }
}

#[tokio::test]
async fn bodies_may_be_empty_and_broken_ones_are_located() {
    let (status, _, body) = ask(door(&open(), 1), request("POST", "/api/echo/7", "")).await;
    assert_eq!((status.as_u16(), &body["id"]), (200, &json!("7")));
    let answer = ask(
        door(&open(), 1),
        request("POST", "/api/echo/7", "{\n  \"name\": nope}"),
    )
    .await;
    refused(&answer, 400, "invalid-request");
    let message = answer.2["message"].as_str().unwrap();
    assert!(message.contains("line 2 column"), "{message}");
    for half in ["{\"name\": \"x\"", "[1]", "{} {}", "\u{feff}{}"] {
        let answer = ask(door(&open(), 1), request("POST", "/api/echo/7", half)).await;
        refused(&answer, 400, "invalid-request");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_too_large() {
    for length in [MAX_BODY + 1, MAX_DISCARDED + 1] {
        let answer = ask(
            door(&open(), 1),
            request("POST", "/api/echo/7", vec![b' '; length]),
        )
        .await;
        refused(&answer, 413, "too-large");
    }
    let fits = format!("{{{}}}", " ".repeat(MAX_BODY - 2));
    let answer = ask(door(&open(), 1), request("POST", "/api/echo/7", fits)).await;
    assert_eq!(answer.0.as_u16(), 200);
}

#[tokio::test]
async fn a_project_may_be_named_in_four_ways_that_agree() {
    let named = |path: &str, body: &'static str| request("POST", path, body);
    for asked in [
        named("/api/echo/1?projectId=a", ""),
        named("/p/a/api/echo/1", ""),
        named("/api/echo/1", r#"{"projectId": "a"}"#),
        named("/p/a/api/echo/1?projectId=a", r#"{"projectId": "a"}"#),
    ] {
        let (status, _, body) = ask(door(&open(), 1), asked).await;
        assert_eq!((status.as_u16(), &body["project"]), (200, &json!("a")));
        assert_eq!(body["ignored"], json!([]));
    }
    let mut by_header = named("/api/echo/1", "");
    let value = HeaderValue::from_static("a");
    by_header.headers_mut().insert("Loom-Project", value);
    assert_eq!(ask(door(&open(), 1), by_header).await.2["project"], "a");

    let answer = ask(door(&open(), 1), named("/p/b/api/echo/1?projectId=a", "")).await;
    refused(&answer, 400, "invalid-request");
    for bad in ["a.b", "global", "a%20b", "%C3%BC"] {
        let path = format!("/api/echo/1?projectId={bad}");
        refused(
            &ask(door(&open(), 1), request("POST", &path, "")).await,
            400,
            "invalid-token",
        );
    }
}

#[tokio::test]
async fn the_old_word_for_boundary_is_read_and_marked() {
    for asked in [
        request("GET", "/api/echo/1?classification=work", ""),
        request("POST", "/api/echo/1", r#"{"classification": "work"}"#),
    ] {
        let (_, headers, body) = ask(door(&open(), 1), asked).await;
        assert_eq!(body["boundary"], "work");
        assert_eq!(body["ignored"], json!([]));
        assert_eq!(headers[DEPRECATED_HEADER], "classification");
    }
    let asked = request("GET", "/api/echo/1?boundary=work&limit=5", "");
    let (_, headers, body) = ask(door(&open(), 1), asked).await;
    assert_eq!(
        (&body["boundary"], &body["limit"]),
        (&json!("work"), &json!(5))
    );
    assert!(!headers.contains_key(DEPRECATED_HEADER));
    let answer = ask(door(&open(), 1), request("GET", "/api/echo/1?limit=x", "")).await;
    refused(&answer, 400, "invalid-request");
}

#[tokio::test]
async fn fields_that_nobody_reads_are_noted() {
    let asked = request("POST", "/api/echo/1", r#"{"name": "n", "colour": "red"}"#);
    let (_, _, body) = ask(door(&open(), 1), asked).await;
    assert_eq!(body["ignored"], json!(["colour"]));
}

#[tokio::test]
async fn with_tokens_only_their_bearers_are_let_in() {
    let settings = with_tokens(&["one", "two"]);
    let bearing = |token: Option<&str>| {
        let mut asked = request("GET", "/api/echo/1", "");
        if let Some(token) = token {
            let value = HeaderValue::from_str(token).unwrap();
            asked.headers_mut().insert(header::AUTHORIZATION, value);
        }
        asked
    };
    for good in ["Bearer one", "bearer two"] {
        let answer = ask(door(&settings, 1), bearing(Some(good))).await;
        assert_eq!(answer.0.as_u16(), 200, "{good}");
    }
    for bad in [
        None,
        Some("Bearer three"),
        Some("Basic one"),
        Some("Bearer "),
    ] {
        let answer = ask(door(&settings, 1), bearing(bad)).await;
        refused(&answer, 401, "unauthorized");
        assert_eq!(answer.1[header::WWW_AUTHENTICATE], "Bearer");
    }
    let answer = ask(door(&settings, 1), request("GET", "/nothing", "")).await;
    refused(&answer, 401, "unauthorized");
    let answer = ask(door(&settings, 1), request("GET", "/health", "")).await;
    assert_eq!(answer.0.as_u16(), 200);
}

#[tokio::test]
async fn without_tokens_pages_of_other_sites_are_kept_out() {
    let with = |name: &'static str, value: &str| {
        let mut asked = request("POST", "/api/echo/1", "");
        let value = HeaderValue::from_str(value).unwrap();
        asked.headers_mut().insert(name, value);
        asked
    };
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("host", "evil.example:3000"),
    ] {
        let answer = ask(door(&open(), 1), with(name, value)).await;
        refused(&answer, 403, "forbidden");
    }
    for (name, value) in [
        ("origin", "http://127.0.0.1:3000"),
        ("host", "localhost:3000"),
        ("host", "[::1]:3000"),
    ] {
        let answer = ask(door(&open(), 1), with(name, value)).await;
        assert_eq!(answer.0.as_u16(), 200, "{name}: {value}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_request_too_many_is_told_when_to_come_back() {
    let door = door(&open(), 1);
    let first = tokio::spawn(ask(door.clone(), request("GET", "/api/hang", "")));
    while !first.is_finished() {
        let answer = ask(door.clone(), request("GET", "/api/echo/1", "")).await;
        if answer.0 == StatusCode::TOO_MANY_REQUESTS {
            refused(&answer, 429, "overloaded");
            assert_eq!(answer.1[header::RETRY_AFTER], "2");
            assert_eq!(answer.2["retryAfterMs"], 1500);
            break;
        }
        tokio::task::yield_now().await;
    }
    refused(&first.await.unwrap(), 503, "unavailable");
    let answer = ask(door, request("GET", "/api/echo/1", "")).await;
    assert_eq!(answer.0.as_u16(), 200, "the permit came back");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_holds_no_permit() {
    let door = door(&open(), 1);
    let trickle =
        Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    let slow = tokio::spawn(ask(door.clone(), request("POST", "/api/echo/1", trickle)));
    tokio::task::yield_now().await;
    let answer = ask(door, request("GET", "/api/echo/1", "")).await;
    assert_eq!(answer.0.as_u16(), 200);
    refused(&slow.await.unwrap(), 408, "invalid-request");
}

#[tokio::test]
async fn a_panic_is_an_answer_and_gives_its_permit_back() {
    let door = door(&open(), 1);
    for _ in 0..2 {
        let answer = ask(door.clone(), request("GET", "/api/boom", "")).await;
        refused(&answer, 500, "internal");
        assert!(!answer.2.to_string().contains("on purpose"));
    }
}

#[tokio::test]
async fn only_this_machine_and_known_tokens_are_told_what_is_wrong() {
    let told = async |settings: &ApiSettings, from: &str, more: &[(&'static str, &str)]| {
        let mut asked = request("GET", "/ready", "");
        for (name, value) in more {
            let value = HeaderValue::from_str(value).unwrap();
            asked.headers_mut().insert(*name, value);
        }
        let peer = Peer(from.parse().unwrap());
        asked.extensions_mut().insert(peer);
        let (status, _, body) = ask(door(settings, 1), asked).await;
        assert_eq!(status, StatusCode::OK, "the path is open to everybody");
        body["full"] == true
    };
    let (guarded, away) = (with_tokens(&["secret"]), "192.0.2.7:4000");
    for here in ["127.0.0.1:4000", "[::1]:4000", "[::ffff:127.0.0.1]:4000"] {
        assert!(told(&guarded, here, &[]).await, "{here}");
        for through in ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"] {
            assert!(!told(&guarded, here, &[(through, "192.0.2.7")]).await);
        }
        assert!(!told(&guarded, here, &[("Origin", "https://evil.example")]).await);
    }
    assert!(!told(&guarded, away, &[]).await);
    assert!(!told(&guarded, away, &[("Authorization", "Bearer wrong")]).await);
    assert!(told(&guarded, away, &[("Authorization", "Bearer secret")]).await);
    assert!(told(&open(), away, &[]).await, "no tokens are wanted");
}
