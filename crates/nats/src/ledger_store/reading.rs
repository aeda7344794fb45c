//! The bucket, read from one end to the other.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::{Entry, LedgerStore};
use crate::error::StoreError;

const REPLAY_TIMEOUT: Duration = Duration::from_secs(10);
/// What is tried, in the words of an error.
const REPLAYING: &str = "replaying";
/// How many records of a replay are handed over at a time.
const REPLAY_CHUNK: usize = 128;

impl LedgerStore {
    /// Sends every record whose last write is `from` or later, in the order of the writes, and
    /// gives the last sequence that the stream had then. What was sent before this is called is
    /// stored by then or never will be, although whoever sent it may have died since.
    ///
    /// # Errors
    /// The server does not answer, or nobody takes the chunks any more.
    pub async fn replay(
        &self,
        from: u64,
        chunks: mpsc::Sender<Vec<Entry>>,
    ) -> Result<u64, StoreError> {
        let known = self.guard.settled_within(REPLAY_TIMEOUT).await;
        known.map_err(|denied| StoreError::denied("reading", &self.resource, &denied))?;
        self.settle().await?;
        let last = self.last_sequence().await?;
        let mut messages = match self.messages(from, false).await? {
            Some(messages) if last >= from => messages,
            _ => return Ok(last),
        };
        let mut chunk = Vec::with_capacity(REPLAY_CHUNK);
        loop {
            let (message, sequence, is_last) = self.next(&mut messages).await?;
            chunk.push(Entry {
                id: self.id_of(&message.subject),
                sequence,
                bytes: message.payload.clone(),
            });
            if is_last || chunk.len() == REPLAY_CHUNK {
                let full = std::mem::replace(&mut chunk, Vec::with_capacity(REPLAY_CHUNK));
                let sent = chunks.send(full).await;
                let doing = "taking over what was read from";
                sent.map_err(|e| StoreError::unknown(doing, &self.resource, e))?;
            }
            if is_last {
                return Ok(last.max(sequence));
            }
        }
    }

    /// Calls `each` with the sequence of every message, without reading its body.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn sequences(&self, mut each: impl FnMut(u64)) -> Result<(), StoreError> {
        let Some(mut messages) = self.messages(1, true).await? else {
            return Ok(());
        };
        loop {
            let (_, sequence, is_last) = self.next(&mut messages).await?;
            each(sequence);
            if is_last {
                return Ok(());
            }
        }
    }

    async fn last_sequence(&self) -> Result<u64, StoreError> {
        let info = self.stream.get_info().await;
        let doing = "asking for the state of";
        let info = info.map_err(|e| StoreError::unknown(doing, &self.resource, e))?;
        Ok(info.state.last_sequence)
    }

    /// The messages from a sequence on; `None`: there are none.
    async fn messages(
        &self,
        from: u64,
        headers_only: bool,
    ) -> Result<Option<pull::Ordered>, StoreError> {
        let consumer = self
            .stream
            .create_consumer(pull::OrderedConfig {
                deliver_policy: DeliverPolicy::ByStartSequence {
                    start_sequence: from.max(1),
                },
                headers_only,
                ..Default::default()
            })
            .await
            .map_err(|e| StoreError::of(REPLAYING, &self.resource, &e))?;
        if consumer.cached_info().num_pending == 0 {
            return Ok(None);
        }
        let messages = consumer.messages().await;
        messages.map(Some).map_err(|e| self.interrupted(e))
    }

    /// The next message, its sequence, and whether it is the last one.
    async fn next(
        &self,
        messages: &mut pull::Ordered,
    ) -> Result<(jetstream::Message, u64, bool), StoreError> {
        let message = tokio::time::timeout(REPLAY_TIMEOUT, messages.next())
            .await
            .map_err(|_| StoreError::unanswered(REPLAYING, &self.resource, REPLAY_TIMEOUT))?
            .ok_or_else(|| self.interrupted("it ended early"))?
            .map_err(|e| self.interrupted(e))?;
        let (sequence, pending) = message
            .info()
            .map(|info| (info.stream_sequence, info.pending))
            .map_err(|e| self.interrupted(e))?;
        Ok((message, sequence, pending == 0))
    }

    fn interrupted(&self, why: impl std::fmt::Display) -> StoreError {
        StoreError::unknown(REPLAYING, &self.resource, why)
    }
}
