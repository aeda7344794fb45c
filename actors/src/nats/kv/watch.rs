//! A watch that does not end: it survives errors, reconnects, and the loss of the whole bucket.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::jetstream::stream;
use futures_util::StreamExt;
use futures_util::stream::ReadyChunks;
use tokio::time::{sleep, timeout};

use super::{Bucket, BucketError, Record, record};

/// How many records come at once at the most.
const CHUNK: usize = 256;
/// After how much quiet the watch looks after itself.
const QUIET: Duration = Duration::from_secs(1);
/// The pause after a failed opening; doubles up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What a watch tells.
#[derive(Debug)]
pub enum WatchEvent {
    /// All keys will be told from here on, whether told before or not.
    Opened {
        /// It is another bucket than before: the former one was lost with all that was in it.
        anew: bool,
    },
    /// Some records, in the order of their revisions since the last [`WatchEvent::Opened`].
    Records(Vec<Record>),
    /// All that was there at [`WatchEvent::Opened`] has been told.
    Current {
        /// How far the bucket was then.
        up_to: u64,
    },
}

/// A watch of all keys. Errors are not its end: it opens again, with pauses.
pub struct Watch {
    bucket: Bucket,
    messages: Option<ReadyChunks<push::Ordered>>,
    /// When the bucket was created: its identity.
    created: Option<i128>,
    /// How often the client had connected when the bucket was last looked at.
    connects: u64,
    phase: Phase,
    /// The last sequence of the bucket when it was opened.
    up_to: u64,
    pause: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// What was there at the opening is being told.
    Catching,
    /// It has been told, and that has to be told.
    Caught,
    /// As above, and it was.
    Current,
}

impl Watch {
    pub(super) fn new(bucket: Bucket) -> Self {
        Self {
            bucket,
            messages: None,
            created: None,
            connects: 0,
            phase: Phase::Catching,
            up_to: 0,
            pause: PAUSE_FIRST,
        }
    }

    /// The next event; waits for as long as there is none.
    pub async fn next(&mut self) -> WatchEvent {
        loop {
            if self.phase == Phase::Caught {
                self.phase = Phase::Current;
                return WatchEvent::Current { up_to: self.up_to };
            }
            let Some(messages) = &mut self.messages else {
                match self.open().await {
                    Ok(anew) => return WatchEvent::Opened { anew },
                    Err(error) => {
                        if self.pause == PAUSE_FIRST {
                            tracing::warn!(%error, "the bucket cannot be watched just now; trying again");
                        }
                        sleep(self.pause).await;
                        self.pause = PAUSE_MAX.min(self.pause * 2);
                    }
                }
                continue;
            };
            match timeout(QUIET, messages.next()).await {
                Ok(Some(chunk)) => {
                    let records = self.take(chunk);
                    if !records.is_empty() {
                        return WatchEvent::Records(records);
                    }
                }
                Ok(None) => self.messages = None,
                Err(_quiet) => self.look_after().await,
            }
        }
    }

    /// Opens the watch. Whether it is another bucket than before.
    async fn open(&mut self) -> Result<bool, BucketError> {
        let connects = self.connects_now();
        let info = self.bucket.ensure().await?;
        self.up_to = info.state.last_sequence;
        let stream = self
            .bucket
            .jetstream
            .get_stream_no_info(&self.bucket.config.name)
            .await
            .map_err(|e| self.bucket.problem(format!("cannot be watched: {e}")))?;
        let consumer = stream
            .create_consumer(push::OrderedConfig {
                deliver_subject: self.bucket.client.new_inbox(),
                deliver_policy: DeliverPolicy::LastPerSubject,
                filter_subject: format!("{}>", self.bucket.prefix),
                ..Default::default()
            })
            .await
            .map_err(|e| self.bucket.problem(format!("cannot be watched: {e}")))?;
        // An empty bucket tells nothing, ever: only the number of what is to come says so.
        self.phase = if consumer.cached_info().num_pending == 0 {
            Phase::Caught
        } else {
            Phase::Catching
        };
        let messages = consumer
            .messages()
            .await
            .map_err(|e| self.bucket.problem(format!("cannot be watched: {e}")))?;
        self.messages = Some(messages.ready_chunks(CHUNK));
        self.connects = connects;
        self.pause = PAUSE_FIRST;
        let created = identity(&info);
        let before = self.created.replace(created);
        Ok(before.is_some_and(|before| before != created))
    }

    fn take(
        &mut self,
        chunk: Vec<Result<async_nats::jetstream::Message, push::OrderedError>>,
    ) -> Vec<Record> {
        let mut records = Vec::with_capacity(chunk.len());
        for message in chunk {
            let message = match message {
                Ok(message) => message,
                Err(error) => {
                    tracing::debug!(bucket = self.bucket.name, %error, "the watch was interrupted; opening it again");
                    self.messages = None;
                    return records;
                }
            };
            let (Some(key), Ok(info)) = (
                message.subject.strip_prefix(&self.bucket.prefix),
                message.info(),
            ) else {
                continue;
            };
            let (key, revision, pending) = (key.to_owned(), info.stream_sequence, info.pending);
            if pending == 0 && self.phase == Phase::Catching {
                self.phase = Phase::Caught;
            }
            let headers = message.message.headers.as_ref();
            records.push(record(
                key,
                headers,
                message.message.payload.clone(),
                revision,
            ));
        }
        records
    }

    /// Nothing came for a while. Entries that were to come may have been removed meanwhile; and
    /// after a reconnect the bucket may be another one.
    async fn look_after(&mut self) {
        let connects = self.connects_now();
        if self.phase == Phase::Current && connects == self.connects {
            return;
        }
        match self.bucket.info().await {
            Ok(info) if info.as_ref().map(identity) != self.created => self.messages = None,
            Ok(_) => {
                self.connects = connects;
                if self.phase == Phase::Catching {
                    self.phase = Phase::Caught;
                }
            }
            Err(error) => tracing::debug!(%error, "the watched bucket cannot be looked at"),
        }
    }

    fn connects_now(&self) -> u64 {
        let statistics = self.bucket.client.statistics();
        statistics.connects.load(Ordering::Relaxed)
    }
}

fn identity(info: &stream::Info) -> i128 {
    info.created.unix_timestamp_nanos()
}
