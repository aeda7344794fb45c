//! What NATS alone makes of the same bytes: the limit that Loom is measured against.

use std::time::Duration;

use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::context::{ContextBuilder, PublishError};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, stream};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use uuid::Uuid;

use super::load::{Sample, drive};
use super::{BenchResult, failed};

/// How long the server may take to acknowledge a write.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(2);
/// How many writes may be without acknowledgement: more than anybody asks to have in flight.
const MAX_UNACKNOWLEDGED: usize = 64 * 1_024;

/// One stream to publish to, and one that is made like the bucket of the ledger.
pub(super) struct RawNats {
    jetstream: jetstream::Context,
    name: String,
    payload: Bytes,
}

impl RawNats {
    /// Makes the streams; each message carries `payload`.
    pub async fn open(nats: Client, payload: Bytes) -> BenchResult<Self> {
        let jetstream = ContextBuilder::new()
            .timeout(ACKNOWLEDGED_WITHIN)
            .ack_timeout(ACKNOWLEDGED_WITHIN)
            .max_ack_inflight(MAX_UNACKNOWLEDGED)
            .build(nats);
        let name = format!("loom-bench-{}", Uuid::new_v4().simple());
        let raw = Self {
            jetstream,
            name,
            payload,
        };
        let log = stream::Config {
            name: raw.log(),
            subjects: vec![raw.log()],
            ..Default::default()
        };
        let bucket = stream::Config {
            name: raw.bucket(),
            subjects: vec![format!("$KV.{}.>", raw.name)],
            max_messages_per_subject: 1,
            discard: stream::DiscardPolicy::New,
            allow_direct: true,
            allow_rollup: true,
            allow_message_ttl: true,
            ..Default::default()
        };
        for config in [log, bucket] {
            let made = raw.jetstream.create_stream(config).await;
            made.map_err(|error| failed("a stream for the raw limit cannot be made", error))?;
        }
        Ok(raw)
    }

    /// Removes the streams.
    pub async fn close(self) {
        for stream in [self.log(), self.bucket()] {
            if let Err(error) = self.jetstream.delete_stream(&stream).await {
                tracing::warn!("the stream {stream} of this run is left behind: {error}");
            }
        }
    }

    fn log(&self) -> String {
        format!("{}-log", self.name)
    }

    fn bucket(&self) -> String {
        format!("KV_{}", self.name)
    }

    /// One acknowledged publish per item.
    pub async fn publish(&self, items: usize, in_flight: usize) -> Sample {
        let subject = async_nats::Subject::from(self.log());
        drive(items, 1, in_flight, |_| {
            let message = PublishMessage::build().payload(self.payload.clone());
            let acknowledged = self.acknowledged(subject.clone(), message);
            async move { acknowledged.await.map(drop) }
        })
        .await
    }

    /// One create per item, as the ledger has for a submit.
    pub async fn create(&self, items: usize, in_flight: usize) -> Sample {
        drive(items, 1, in_flight, |_| self.writes_of_one(1)).await
    }

    /// One create and two compare-and-sets per item, as the ledger has in the life of one.
    pub async fn cycle(&self, items: usize, in_flight: usize) -> Sample {
        drive(items, 1, in_flight, |_| self.writes_of_one(3)).await
    }

    async fn writes_of_one(&self, writes: usize) -> Result<(), PublishError> {
        let subject = async_nats::Subject::from(format!("$KV.{}.{}", self.name, Uuid::new_v4()));
        let mut sequence = 0_u64;
        for _ in 0..writes {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, sequence.to_string());
            let message = PublishMessage::build()
                .payload(self.payload.clone())
                .headers(headers);
            sequence = self.acknowledged(subject.clone(), message).await?;
        }
        Ok(())
    }

    async fn acknowledged(
        &self,
        subject: async_nats::Subject,
        message: PublishMessage,
    ) -> Result<u64, PublishError> {
        let acknowledgement = self.jetstream.send_publish(subject, message).await?.await?;
        Ok(acknowledgement.sequence)
    }
}
