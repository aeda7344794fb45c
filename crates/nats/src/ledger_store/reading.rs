//! The bucket, read from one end to the other.

use tokio::sync::mpsc;

use super::{Entry, LedgerStore};
use crate::error::StoreError;
use crate::replay::{NEXT_WITHIN, Replay};

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
        let known = self.guard.settled_within(NEXT_WITHIN).await;
        known.map_err(|denied| StoreError::denied("reading", &self.resource, &denied))?;
        self.settle().await?;
        let last = self.last_sequence().await?;
        let replay = Replay::open(&self.stream, &self.resource, from, false).await?;
        let mut replay = match replay {
            Some(replay) if last >= from => replay,
            _ => return Ok(last),
        };
        let mut chunk = Vec::with_capacity(REPLAY_CHUNK);
        loop {
            let next = replay.next().await?;
            chunk.push(Entry {
                id: self.id_of(&next.message.subject),
                sequence: next.sequence,
                bytes: next.message.payload.clone(),
            });
            if next.is_last || chunk.len() == REPLAY_CHUNK {
                let full = std::mem::replace(&mut chunk, Vec::with_capacity(REPLAY_CHUNK));
                let sent = chunks.send(full).await;
                let doing = "taking over what was read from";
                sent.map_err(|e| StoreError::unknown(doing, &self.resource, e))?;
            }
            if next.is_last {
                return Ok(last.max(next.sequence));
            }
        }
    }

    /// Calls `each` with the sequence of every message, without reading its body.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn sequences(&self, mut each: impl FnMut(u64)) -> Result<(), StoreError> {
        let Some(mut replay) = Replay::open(&self.stream, &self.resource, 1, true).await? else {
            return Ok(());
        };
        loop {
            let next = replay.next().await?;
            each(next.sequence);
            if next.is_last {
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
}
