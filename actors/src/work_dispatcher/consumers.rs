//! The durable consumers of published work and reports: one of each kind and ownership.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use futures_util::TryStreamExt as _;
use loom_protocol::ProjectId;

use super::actor::WorkDispatcherArgs;
use super::stream::{consumer_prefix, ensure_stream, keep_stream};
use crate::nats::connection::Nats;
use crate::nats::store_guard::StoreGuard;

const ACK_WAIT: Duration = Duration::from_secs(30);
const MAX_ACK_PENDING: i64 = 1_024;
/// How often it is looked at whether the stream keeps what is published.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// The consumers of one ownership in a project's stream.
#[derive(Clone)]
pub(super) struct Consumers {
    project: ProjectId,
    nats: Nats,
    replicas: usize,
    epoch: u64,
    store: StoreGuard,
}

impl Consumers {
    pub fn new(args: &WorkDispatcherArgs) -> Self {
        Self {
            project: args.read.project().clone(),
            nats: args.nats.clone(),
            replicas: args.replicas,
            epoch: args.epoch,
            store: args.read.guard().clone(),
        }
    }

    /// Sets the stream back to what keeps what is published, for as long as this is polled.
    pub async fn keep_stream(self) {
        loop {
            if let Err(error) = self.look_at_stream().await {
                tracing::debug!(project = %self.project, "the work stream cannot be looked at: {error}");
            }
            tokio::time::sleep(KEEP_EVERY).await;
        }
    }

    async fn look_at_stream(&self) -> Result<(), async_nats::Error> {
        self.store.settled().await?;
        let jetstream = &self.nats.jetstream;
        let stream = ensure_stream(jetstream, &self.project, self.replicas).await?;
        keep_stream(jetstream, &stream, &self.project, self.replicas, &self.store).await?;
        Ok(())
    }

    /// Our consumer of this epoch; those of former owners would overlap and are removed. One of a later owner stays:
    /// it is this one that owns no more.
    pub async fn own(
        &self,
        kind: &str,
        filters: &[String],
    ) -> Result<PullConsumer, async_nats::Error> {
        self.store.settled().await?;
        let stream = ensure_stream(&self.nats.jetstream, &self.project, self.replicas).await?;
        let prefix = consumer_prefix(kind);
        let name = format!("{prefix}{}", self.epoch);
        let known: Vec<String> = stream.consumer_names().try_collect().await?;
        let epochs = |other: &str| epoch_of(&prefix, other);
        if let Some(later) = known
            .iter()
            .filter_map(|o| epochs(o))
            .find(|e| *e > self.epoch)
        {
            let text = format!("another coordinator has taken over, under epoch {later}");
            return Err(text.into());
        }
        for former in known
            .iter()
            .filter(|other| epochs(other).is_some_and(|epoch| epoch < self.epoch))
        {
            stream.delete_consumer(former).await?;
        }
        let config = pull::Config {
            durable_name: Some(name.clone()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: MAX_ACK_PENDING,
            filter_subjects: filters.to_vec(),
            ..Default::default()
        };
        Ok(stream.get_or_create_consumer(&name, config).await?)
    }
}

/// Of which ownership a consumer is; `None`: it is not of this kind.
fn epoch_of(prefix: &str, consumer: &str) -> Option<u64> {
    consumer.strip_prefix(prefix)?.parse().ok()
}
