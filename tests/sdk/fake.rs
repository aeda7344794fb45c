//! A coordinator that does what a test tells it: late answers, lost answers, refusals, lies.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use futures_util::StreamExt;
use loom_client::{Agent, AgentBuilder, Client, ClientOptions};
use loom_protocol::codec::CONTENT_TYPE;
use loom_protocol::error::ERROR_CODE_HEADER;
use loom_protocol::{Encoding, ErrorCode, ProjectId, WireError, WorkId};
use loom_testkit::nats::{TestNats, until_subscribed};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// No step of a test may take longer.
pub const LIMIT: Duration = Duration::from_secs(20);

/// What the coordinator does with one request.
pub enum Reply {
    Answer(Value),
    Refuse(ErrorCode),
    RefuseWith(Box<WireError>),
    /// Nothing, ever.
    Silence,
    /// Answers when told; until then the sender waits.
    When(tokio::sync::oneshot::Receiver<Value>),
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub action: String,
    pub body: Value,
}

type Script = Box<dyn FnMut(&Value) -> Option<Reply> + Send>;

pub struct Fake {
    // Dropped in this order: nobody is left without its server.
    pub client: Client,
    _nats: Arc<TestNats>,
    pub project: ProjectId,
    scripts: Arc<Mutex<HashMap<String, Script>>>,
    seen: mpsc::UnboundedReceiver<Seen>,
    task: JoinHandle<()>,
}

fn refusal(error: &WireError) -> (HeaderMap, Value) {
    let mut headers = HeaderMap::new();
    headers.insert(ERROR_CODE_HEADER, error.code.status().to_string());
    (headers, serde_json::to_value(error).unwrap())
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub async fn open() -> Self {
        let nats = TestNats::shared().await.unwrap();
        let project = TestNats::unique_project();
        let mut options = ClientOptions::new(nats.url(), project.clone());
        options.request_timeout = Duration::from_millis(300);
        let client = Client::connect(options).await.unwrap();
        let connection = nats.connect().await.unwrap();
        let mut requests = connection
            .subscribe(format!("coord.{project}.>"))
            .await
            .unwrap();
        until_subscribed(&connection).await.unwrap();
        let scripts: Arc<Mutex<HashMap<String, Script>>> = Arc::default();
        let (tell, seen) = mpsc::unbounded_channel();
        let playing = scripts.clone();
        let own_project = project.clone();
        let task = tokio::spawn(async move {
            while let Some(message) = requests.next().await {
                let subject = message.subject.as_str();
                let action = subject.splitn(3, '.').nth(2).unwrap().to_owned();
                let body: Value = Encoding::MessagePack.decode(&message.payload).unwrap();
                let told = playing.lock().get_mut(&action).and_then(|play| play(&body));
                let reply = told.unwrap_or_else(|| usual(&own_project, &action, &body));
                let _ = tell.send(Seen { action, body });
                let (connection, to) = (connection.clone(), message.reply.unwrap());
                tokio::spawn(async move {
                    let (headers, answer) = match reply {
                        Reply::Silence => return,
                        Reply::Answer(answer) => (HeaderMap::new(), answer),
                        Reply::When(answer) => (HeaderMap::new(), answer.await.unwrap()),
                        Reply::Refuse(code) => refusal(&WireError::new(code, "the test says no")),
                        Reply::RefuseWith(error) => refusal(&error),
                    };
                    let mut headers = headers;
                    headers.insert(CONTENT_TYPE, "application/msgpack");
                    let payload = Encoding::MessagePack.encode(&answer).unwrap();
                    let _ = connection
                        .publish_with_headers(to, headers, payload.into())
                        .await;
                });
            }
        });
        Self {
            client,
            _nats: nats,
            project,
            scripts,
            seen,
            task,
        }
    }

    /// From now on `script` answers an action; where it gives `None`, the usual answer is given.
    pub fn on(&self, action: &str, script: impl FnMut(&Value) -> Option<Reply> + Send + 'static) {
        self.scripts.lock().insert(action.into(), Box::new(script));
    }

    /// Gives these replies to an action, one after another, and then the usual one.
    pub fn replies(&self, action: &str, replies: impl IntoIterator<Item = Reply>) {
        let mut replies: Vec<Reply> = replies.into_iter().collect();
        replies.reverse();
        self.on(action, move |_| replies.pop());
    }

    /// The next request of an action; others are passed over.
    pub async fn next(&mut self, action: &str) -> Value {
        let found = async {
            loop {
                let seen = self.seen.recv().await.unwrap();
                if seen.action == action {
                    return seen.body;
                }
            }
        };
        timeout(LIMIT, found)
            .await
            .unwrap_or_else(|_| panic!("{action} never came"))
    }

    /// Everything that has come by now and was not looked at.
    pub fn rest(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }

    pub fn agent(&self) -> AgentBuilder {
        Agent::builder(&self.client)
            .capability("c")
            .claim_wait(Duration::from_millis(200))
            .cancel_grace(Duration::from_millis(500))
    }

    /// Publishes to a subject of the project.
    pub async fn publish(&self, subject: String, body: &Value) {
        let payload = serde_json::to_vec(body).unwrap();
        let nats = self.client.nats();
        nats.publish(subject, payload.into()).await.unwrap();
    }
}

/// What a well-behaved coordinator without work answers.
fn usual(project: &ProjectId, action: &str, body: &Value) -> Reply {
    Reply::Answer(match action {
        "agents.register" => json!({
            "guid": body["guid"], "handle": body["handle"], "agentType": body["agentType"],
            "status": "online", "capabilities": body["capabilities"], "boundaries": ["default"],
            "projectId": project, "currentTaskCount": 0, "maxConcurrentTasks": 1,
            "heartbeatIntervalMs": 150, "lastHeartbeat": TIME, "lastActivity": TIME,
            "registeredAt": TIME, "staleAfterMs": 30000, "leases": [], "protocol": 1,
            "features": [], "epoch": 1
        }),
        "agents.heartbeat" => json!({"ok": true, "lost": [], "directives": []}),
        "agents.deregister" => json!({"ok": true, "guid": body["guid"], "released": []}),
        "work.claim" => json!({"items": []}),
        "work.progress" => lease(body["attempt"].as_u64().unwrap(), 30_000),
        "work.complete" => {
            let items = body["items"].as_array().cloned().unwrap_or_default();
            let done: Vec<Value> = items.iter().map(|item| json!({"id": item["id"]})).collect();
            json!({ "items": done })
        }
        "work.submit" => {
            let items = body["items"].as_array().cloned().unwrap_or_default();
            let answers: Vec<Value> = items.iter().map(submitted).collect();
            json!({ "items": answers })
        }
        _ => {
            let id = body["id"].as_str().and_then(|id| id.parse().ok());
            item(id.unwrap_or_else(WorkId::generate), "pending", 0)
        }
    })
}

const TIME: &str = "2026-01-01T00:00:00.000Z";

pub fn submitted(item: &Value) -> Value {
    json!({
        "id": item["id"], "workItemId": item["id"], "taskId": item["description"],
        "targetAgentType": "any", "spinUpTriggered": false
    })
}

pub fn item(id: WorkId, status: &str, attempt: u32) -> Value {
    json!({
        "id": id, "taskId": "t", "projectId": "p", "capability": "c", "boundary": "default",
        "description": "d", "priority": 5, "status": status,
        "terminal": matches!(status, "completed" | "failed" | "cancelled"),
        "attempt": attempt, "attempts": 0, "maxAttempts": 3, "offeredBy": "test",
        "offeredAt": TIME, "updatedAt": TIME, "revision": 1,
        // A body, so that answers with bodies are read in MessagePack too.
        "contextData": {"files": ["a.rs"]}
    })
}

fn lease(attempt: u64, timeout_ms: u64) -> Value {
    json!({
        "attempt": attempt, "expiresAt": TIME, "expiresInMs": timeout_ms, "timeoutMs": timeout_ms
    })
}

/// An answer to a claim.
pub fn claimed(ids: &[WorkId]) -> Value {
    claimed_with_timeout(ids, 30_000)
}

/// An answer to a claim that gives an item under this attempt.
pub fn claimed_as(id: WorkId, attempt: u32) -> Value {
    let mut answer = claimed(&[id]);
    for part in ["workItem", "lease"] {
        answer["items"][0][part]["attempt"] = json!(attempt);
    }
    answer
}

pub fn claimed_with_timeout(ids: &[WorkId], timeout_ms: u64) -> Value {
    let items: Vec<Value> = ids
        .iter()
        .map(|id| json!({"workItem": item(*id, "in-progress", 1), "lease": lease(1, timeout_ms)}))
        .collect();
    json!({ "items": items })
}
