//! The doors of one coordinator: NATS in JSON, NATS in MessagePack, REST.

use std::sync::Arc;

use loom_protocol::codec::CONTENT_TYPE;
use loom_protocol::error::{ERROR_CODE_HEADER, ERROR_HEADER};
use loom_protocol::{Encoding, ErrorCode, WireError};
use loom_testkit::fleet::{Fleet, TestProject};
use serde_json::{Value, json};

/// A coordinator, and a project of the test's own.
pub struct Doors {
    pub project: TestProject,
    http: reqwest::Client,
    fleet: Arc<Fleet>,
}

impl Doors {
    pub async fn open() -> Self {
        // Only the first one of a process is taken; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fleet = Fleet::shared().await.unwrap();
        Self {
            project: fleet.project().await.unwrap(),
            http: reqwest::Client::new(),
            fleet,
        }
    }

    /// The refusal of a request over NATS, in both encodings.
    pub async fn refused(&self, action: &str, body: &Value) -> Vec<WireError> {
        let mut refusals = Vec::new();
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let payload = encoding.encode(body).unwrap();
            refusals.push(self.refused_bytes(encoding, action, payload).await);
        }
        refusals
    }

    /// The refusal of a request over NATS that is sent as these bytes.
    pub async fn refused_bytes(
        &self,
        encoding: Encoding,
        action: &str,
        payload: Vec<u8>,
    ) -> WireError {
        let answer = self.project.exchange(encoding, action, payload).await;
        let answer = answer.unwrap();
        let headers = answer.headers.unwrap();
        let text = |name: &str| headers.get(name).map(ToString::to_string);
        assert_eq!(text(CONTENT_TYPE).as_deref(), Some(encoding.content_type()));
        let error: WireError = encoding.decode(&answer.payload).unwrap();
        let status = error.code.status().to_string();
        assert_eq!(text(ERROR_CODE_HEADER), Some(status), "{error}");
        assert!(text(ERROR_HEADER).is_some(), "{error}");
        error
    }

    /// The refusal of a POST.
    pub async fn refused_post(&self, path: &str, body: impl Into<reqwest::Body>) -> WireError {
        let project = self.project.id().as_str();
        self.refused_post_in(project, path, body).await
    }

    /// The refusal of a POST whose header names this project.
    pub async fn refused_post_in(
        &self,
        project: &str,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> WireError {
        let address = self.fleet.api_address().unwrap();
        let request = self.http.post(format!("http://{address}{path}"));
        let request = request
            .header("Loom-Project", project)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let error: WireError = answer.json().await.unwrap();
        assert_eq!(status, error.code.status(), "{error}");
        error
    }

    /// Every door's refusal of an item.
    pub async fn refused_item(&self, item: &Value) -> Vec<WireError> {
        let mut refusals = self.refused("work.submit", item).await;
        refusals.push(self.refused_post("/api/work", item.to_string()).await);
        let batch = json!({"items": [item]});
        let answer = self.project.request("work.submit", batch).await.unwrap();
        refusals.push(serde_json::from_value(answer["items"][0].clone()).unwrap());
        refusals
    }

    /// Where the coordinator's REST API is.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.fleet.api_address().unwrap())
    }

    /// Where the coordinator's NATS is.
    pub fn nats_url(&self) -> String {
        self.fleet.nats().url()
    }

    /// That a project has nothing: what was refused has left no trace.
    pub async fn nothing_was_taken(&self) {
        assert!(self.project.all_work().await.unwrap().is_empty());
    }
}

/// An item, but for what `patch` says.
pub fn item(patch: &Value) -> Value {
    let mut item = json!({"description": "something to do", "capability": "rust"});
    for (key, value) in patch.as_object().into_iter().flatten() {
        item[key] = value.clone();
    }
    item
}

/// Checks a refusal: its code, and that its sentence says each of `parts`.
#[track_caller]
pub fn check(error: &WireError, code: ErrorCode, parts: &[&str]) {
    assert_eq!(error.code, code, "{error}");
    assert_eq!(error.error, error.message);
    for part in parts {
        assert!(error.message.contains(part), "{part:?} is not in: {error}");
    }
}
