//! A stream, told in its order from some place on, for ever: by a consumer that goes by itself when nobody asks it any more.
//!
//! Nobody acknowledges what it sends. So whatever interrupts it (a gap, a reconnect, a consumer that is gone, silence) leaves
//! open what was lost, and the consumer is made anew behind the last message that was told ([`Ordered::resume`]).

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::{self, Message};

use crate::error::{Resource, StoreError};
use crate::inbox::SharedInbox;
use crate::pull::{Interruption, Pull, PullTerms};

/// How it asks. A request that got lost, though the connection stands, is known after two signs of life that are missing.
const TERMS: PullTerms = PullTerms {
    batch: 256,
    expires: Duration::from_mins(5),
    heartbeat: Duration::from_mins(1),
};
/// How long the server keeps the consumer that nobody asks.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// What is tried, in the words of an error.
const READING: &str = "reading";

/// What is to be told.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Of this stream.
    pub stream: String,
    /// What errors are about.
    pub resource: Resource,
    /// Messages with these subjects.
    pub filter: String,
    /// From where on.
    pub from: DeliverPolicy,
}

/// What is told of a stream.
pub(crate) struct Ordered {
    told: Told,
    jetstream: jetstream::Context,
    inbox: SharedInbox,
    pull: Pull,
    consumer: Consumer,
    /// The sequence of the last message; 0: there was none.
    last: u64,
}

impl Ordered {
    /// Begins. How many messages are there to be told, too.
    ///
    /// # Errors
    /// The server does not answer, or there is no such stream.
    pub async fn open(
        jetstream: &jetstream::Context,
        inbox: &SharedInbox,
        told: Told,
    ) -> Result<(Self, u64), StoreError> {
        let (pull, consumer, pending) = begin(jetstream, inbox, &told, told.from).await?;
        let ordered = Self {
            told,
            jetstream: jetstream.clone(),
            inbox: inbox.clone(),
            pull,
            consumer,
            last: 0,
        };
        Ok((ordered, pending))
    }

    /// The next messages, at least one and at most so many; waits for as long as there is none. Safe to drop at any time.
    ///
    /// # Errors
    /// It was interrupted: to be resumed.
    pub async fn next(&mut self, most: usize) -> Result<Vec<Message>, Interruption> {
        let chunk = self.pull.next(most).await?;
        let last = chunk.last().and_then(|message| message.info().ok());
        if let Some(last) = last {
            self.last = last.stream_sequence;
        }
        Ok(chunk)
    }

    /// Goes on behind the last message, by another consumer. How many messages are there to be told. Where it is given up
    /// half way, the next call of either tries again.
    ///
    /// # Errors
    /// The server does not answer, or there is no such stream.
    pub async fn resume(&mut self) -> Result<u64, StoreError> {
        let from = match self.last {
            0 => self.told.from,
            last => DeliverPolicy::ByStartSequence {
                start_sequence: last + 1,
            },
        };
        let (pull, consumer, pending) =
            begin(&self.jetstream, &self.inbox, &self.told, from).await?;
        (self.pull, self.consumer) = (pull, consumer);
        Ok(pending)
    }
}

async fn begin(
    jetstream: &jetstream::Context,
    inbox: &SharedInbox,
    told: &Told,
    from: DeliverPolicy,
) -> Result<(Pull, Consumer, u64), StoreError> {
    let (stream, resource) = (&told.stream, &told.resource);
    let name = format!("loom-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    // What comes over an older connection than this is of the consumer that is about to be made.
    let consumer = (stream.as_str(), name.as_str());
    let pull = Pull::open(inbox, jetstream, consumer, TERMS).await;
    let pull = pull.map_err(|error| StoreError::unknown(READING, resource, error))?;
    let config = pull::Config {
        name: Some(name.clone()),
        deliver_policy: from,
        ack_policy: AckPolicy::None,
        filter_subject: told.filter.clone(),
        inactive_threshold: KEPT_FOR,
        memory_storage: true,
        num_replicas: 1,
        ..Default::default()
    };
    let made = jetstream.create_consumer_on_stream(config, stream).await;
    let made = made.map_err(|error| StoreError::of(READING, resource, &error))?;
    let consumer = Consumer {
        client: jetstream.client(),
        removal: format!("$JS.API.CONSUMER.DELETE.{stream}.{name}"),
    };
    Ok((pull.counting(), consumer, made.cached_info().num_pending))
}

/// One at the server, removed when this is dropped: its request waits there for minutes, and would keep it.
struct Consumer {
    client: Client,
    removal: String,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (client, removal) = (self.client.clone(), std::mem::take(&mut self.removal));
            runtime.spawn(async move {
                // Where that gets lost it goes by itself.
                let _ = client.publish(removal, "".into()).await;
            });
        }
    }
}
