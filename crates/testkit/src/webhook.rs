//! A receiver of webhooks: it keeps what came, can tell whether that is signed, and answers as told. It may be one that
//! starts an agent for each order, as a service does that agents are ordered from.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use loom_testkit::outside::Outside;
//! use loom_testkit::webhook::TestReceiver;
//!
//! let agents = Outside::new("loom", &["agent", "run", "--", "claude", "-p"])?;
//! let receiver = TestReceiver::that_starts(agents.clone(), "the key").await?;
//! println!("{}", receiver.url("/agents"));
//! # Ok(())
//! # }
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use crate::received::Received;

use crate::outside::Outside;

/// The variable that an agent finds what a field of the body has in.
const VARIABLES: [(&str, &str); 10] = [
    ("LOOM_NATS_URL", "natsUrl"),
    ("LOOM_PROJECT_ID", "projectId"),
    ("LOOM_TARGET_ID", "targetId"),
    ("LOOM_TARGET_NAME", "targetName"),
    ("LOOM_AGENT_TYPE", "agentType"),
    ("LOOM_CAPABILITIES", "capability"),
    ("LOOM_BOUNDARIES", "boundary"),
    ("LOOM_SPIN_UP_ID", "spinUpId"),
    ("LOOM_TICKET", "ticket"),
    ("LOOM_WORK_ITEM_ID", "workItemId"),
];

impl Received {
    /// Whether `X-Loom-Signature` is that of the body by this key.
    pub fn is_signed(&self, key: &str) -> bool {
        let hex = self.header("x-loom-signature").strip_prefix("sha256=");
        let digits = |at: usize| u8::from_str_radix(hex?.get(at..at + 2)?, 16).ok();
        let digest: Option<Vec<u8>> = (0..hex.map_or(0, str::len))
            .step_by(2)
            .map(digits)
            .collect();
        let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).ok();
        mac.zip(digest).is_some_and(|(mut mac, digest)| {
            mac.update(&self.body);
            mac.verify_slice(&digest).is_ok()
        })
    }

    /// What an agent is to find in its environment, by a body of all placeholders.
    fn variables(&self) -> Vec<(String, String)> {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let value = |field: &str| body[field].as_str().filter(|value| !value.is_empty());
        let variables = VARIABLES.iter();
        let variables = variables.filter_map(|(name, field)| Some((*name, value(field)?)));
        variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }
}

type Answers = dyn Fn(usize, &Received) -> Response + Send + Sync;

/// What was received, and what is answered.
type Shared = (Arc<Mutex<Vec<Received>>>, Arc<Answers>);

/// A receiver that listens. Dropped, it is gone.
#[derive(Debug)]
pub struct TestReceiver {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl TestReceiver {
    /// Starts one. `answer` gets the number of the request, from 0, and may not wait.
    ///
    /// # Errors
    /// It can't listen.
    pub async fn start(
        answer: impl Fn(usize, &Received) -> Response + Send + Sync + 'static,
    ) -> Result<Self> {
        let received = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Answers> = Arc::new(answer);
        let service = Router::new()
            .fallback(take)
            .with_state((received.clone(), answer));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, service).await {
                tracing::error!(%error, "the receiver of a test has ended");
            }
        });
        Ok(Self {
            address,
            received,
            task,
        })
    }

    /// Starts one that starts an agent for each order that is signed by `key`: with what stands in its body, and once
    /// for an `Idempotency-Key`. Whatever is not signed is refused with 401.
    ///
    /// # Errors
    /// It can't listen.
    pub async fn that_starts(agents: Outside, key: &str) -> Result<Self> {
        let key = key.to_owned();
        Self::start(move |_, received| {
            if !received.is_signed(&key) {
                return StatusCode::UNAUTHORIZED.into_response();
            }
            let id = received.header("idempotency-key").to_owned();
            let (agents, variables) = (agents.clone(), received.variables());
            tokio::spawn(async move {
                let run = agents.run(&id, &variables, std::future::pending()).await;
                if let Err(error) = run {
                    tracing::error!(id, "the agent of a webhook: {error:#}");
                }
            });
            (StatusCode::ACCEPTED, "an agent is on its way").into_response()
        })
        .await
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// An address there.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All that was received, in its order.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().clone()
    }
}

impl Drop for TestReceiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(
    State((received, answer)): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let one = Received {
        method,
        path: uri.to_string(),
        headers,
        body,
        status: 0,
    };
    let number = {
        let mut received = received.lock();
        received.push(one.clone());
        received.len() - 1
    };
    let answer = answer(number, &one);
    received.lock()[number].status = answer.status().as_u16();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_body_and_of_the_key() {
        let of = |signature: &str| Received {
            method: Method::POST,
            path: "/".into(),
            headers: HeaderMap::from_iter([(
                axum::http::HeaderName::from_static("x-loom-signature"),
                signature.parse().unwrap(),
            )]),
            body: Bytes::from_static(b"what do ya want for nothing?"),
            status: 0,
        };
        // RFC 4231, the second case.
        let right = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert!(of(right).is_signed("Jefe"));
        assert!(!of(right).is_signed("jefe"));
        for wrong in [
            "",
            "sha256=",
            "sha256=5bd",
            "sha256=zz",
            &right[7..],
            &right[..40],
        ] {
            assert!(!of(wrong).is_signed("Jefe"), "{wrong}");
        }
    }
}
