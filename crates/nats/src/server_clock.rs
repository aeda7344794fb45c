//! The clock of the servers that have a stream: what they say of times is told by ours.
//!
//! Every answer about a stream says when it was made ([`ClockOffset`]). A stream is asked for its own leader's
//! clock, since the servers of a cluster may differ too.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use loom_protocol::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use crate::clock::Clock;
use crate::error::{Resource, StoreError};
use crate::verdicts::server_time::ClockOffset;

/// For how long an answer is good: somebody may set either clock.
const GOOD_FOR: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How far a server's clock is from ours, as far as it was asked. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ServerClock {
    ours: Clock,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    offset: ClockOffset,
    asked_at: Option<Instant>,
}

/// What of an answer is needed. An error has the time too.
#[derive(Deserialize)]
struct Answer {
    ts: Option<Timestamp>,
}

impl ServerClock {
    /// Taken for the same as ours until it is asked.
    pub fn of(ours: &Clock) -> Self {
        Self {
            ours: ours.clone(),
            known: Arc::default(),
        }
    }

    /// Asks the leader of a stream what time it is.
    ///
    /// # Errors
    /// It does not say; what was known stays.
    pub async fn ask(
        &self,
        jetstream: &jetstream::Context,
        stream: &str,
    ) -> Result<(), StoreError> {
        let (doing, resource) = ("asking for the clock of", Resource::stream(stream));
        let sent = self.ours.now();
        let question = jetstream.request(format!("STREAM.INFO.{stream}"), &());
        let answer: Answer = timeout(ANSWER_WITHIN, question)
            .await
            .map_err(|_| StoreError::unanswered(doing, &resource, ANSWER_WITHIN))?
            .map_err(|error| StoreError::unknown(doing, &resource, error))?;
        let received = self.ours.now();
        let mut known = self.known.lock();
        // Servers that say no time are taken to have ours.
        if let Some(said) = answer.ts {
            known.offset = known.offset.observe(sent, said, received);
        }
        known.asked_at = Some(Instant::now());
        Ok(())
    }

    /// The same, where that was not done a moment ago; where it is not answered, what was known stays.
    pub async fn ask_if_old(&self, jetstream: &jetstream::Context, stream: &str) {
        let asked_at = self.known.lock().asked_at;
        if asked_at.is_some_and(|at| at.elapsed() < GOOD_FOR) {
            return;
        }
        if let Err(error) = self.ask(jetstream, stream).await {
            tracing::debug!("{error}");
        }
    }

    /// A time of the server, by our clock.
    pub fn to_ours(&self, theirs: Timestamp) -> Timestamp {
        self.known.lock().offset.to_ours(theirs)
    }
}
