//! What may be done with a letter: put it back, discard it. Both are made so that they may be repeated.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use loom_protocol::work::WorkStatus;
use loom_protocol::{WireError, WorkId};

use super::index::LetterInfo;
use super::letters::LetterError;
use super::publish_batch::{Context, note_of};
use crate::domain::letter;
use crate::domain::work::{Command, Refusal};
use crate::work_ledger::{LedgerError, Operation, ReadError};

/// How many letters of one order are put back at a time.
const IN_FLIGHT: usize = 32;
/// How often an item may change between existing and not while it is put back.
const MAX_TURNS: usize = 4;

/// Which letters are to be put back, and how.
#[derive(Debug, Clone)]
pub struct RetryBatch {
    /// The items.
    pub ids: Vec<WorkId>,
    /// Whether the spent attempts are forgotten; otherwise one more is given.
    pub reset_attempts: bool,
    /// Whether the schedule does it.
    pub automatic: bool,
}

/// What became of each, in the order of the ids.
pub type Retried = Vec<(WorkId, Result<(), WireError>)>;

impl Context {
    /// Puts letters back, some side by side.
    pub async fn retry_all(&self, order: &RetryBatch) -> Retried {
        stream::iter(order.ids.iter().copied())
            .map(|id| async move { (id, self.retry(id, order).await) })
            .buffered(IN_FLIGHT)
            .collect()
            .await
    }

    /// First the ledger says pending, then the letter is deleted by its sequence.
    async fn retry(&self, id: WorkId, order: &RetryBatch) -> Result<(), WireError> {
        for _ in 0..MAX_TURNS {
            let letter = self.letters.info(id);
            let header = self.read.header(id);
            let is_gone = header
                .as_ref()
                .is_some_and(|header| header.status == WorkStatus::Failed && !header.wants_letter);
            let turn = match (&header, &letter) {
                (None, None) => Err(LetterError::NotFound(id).into()),
                (Some(_), None) if is_gone => Err(LetterError::NotFound(id).into()),
                (None, Some(letter)) => self.create_again(letter, order).await,
                (Some(_), _) => self.put_back(id, letter.as_ref(), order).await,
            };
            match turn {
                Ok(Turn::Done) => {
                    if let Some(letter) = letter {
                        self.delete(letter.sequence).await?;
                    }
                    return Ok(());
                }
                Ok(Turn::Again) => {}
                Err(error) => return Err(error),
            }
        }
        let text = format!("work item {id} is being changed by others all the time; try again");
        Err(WireError::unavailable(
            text,
            std::time::Duration::from_secs(1),
        ))
    }

    /// Failed → Pending in the ledger.
    async fn put_back(
        &self,
        id: WorkId,
        letter: Option<&LetterInfo>,
        order: &RetryBatch,
    ) -> Result<Turn, WireError> {
        let command = Command::Retry {
            retries: letter.map(|letter| letter.head.retries),
            reset_attempts: order.reset_attempts,
            automatic: order.automatic,
        };
        match self.ledger.apply(id, command).await {
            Ok(_) => Ok(Turn::Done),
            Err(error @ LedgerError::Read(ReadError::NotFound(_))) => match letter {
                Some(letter) => self.create_again(letter, order).await,
                None => Err(error.into()),
            },
            Err(error @ LedgerError::Refused(Refusal::NotFailed { .. })) => {
                if let Some(letter) = letter {
                    self.delete(letter.sequence).await?;
                }
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The record has expired: it is created again from its letter.
    async fn create_again(&self, info: &LetterInfo, order: &RetryBatch) -> Result<Turn, WireError> {
        let letter = self.letters.read(info).await?;
        let now = self.clock.now();
        let record = letter::revived(letter, order.reset_attempts, order.automatic, now)
            .map_err(WireError::from)?;
        let create = Operation::Create(Arc::new(record));
        let outcome = self.ledger.carry_out(vec![create]).await?.pop();
        match outcome.unwrap_or(Err(LedgerError::Lost(info.id)))? {
            applied if applied.changed => Ok(Turn::Done),
            _ => Ok(Turn::Again),
        }
    }

    /// First the ledger notes the letter (so that it is not written again), then it is deleted.
    pub async fn discard(&self, id: WorkId) -> Result<(), WireError> {
        let Some(letter) = self.letters.info(id) else {
            return match self.read.header(id) {
                Some(header) if header.status == WorkStatus::Failed && !header.wants_letter => {
                    Ok(())
                }
                Some(header) if header.wants_letter => Err(WireError::unavailable(
                    format!("the dead letter {id} is being written; try again in a moment"),
                    std::time::Duration::from_millis(100),
                )),
                _ => Err(LetterError::NotFound(id).into()),
            };
        };
        let noted = self.ledger.carry_out(vec![note_of(&letter)]).await?.pop();
        match noted.unwrap_or(Err(LedgerError::Lost(id))) {
            Ok(_)
            | Err(
                LedgerError::Read(ReadError::NotFound(_))
                | LedgerError::Refused(Refusal::NotFailed { .. }),
            ) => {}
            Err(error) => return Err(error.into()),
        }
        self.delete(letter.sequence).await
    }

    /// Deletes letters; gives those that could not be deleted.
    pub async fn delete_all(&self, sequences: Vec<u64>) -> BTreeSet<u64> {
        stream::iter(sequences)
            .map(|sequence| async move { (sequence, self.delete(sequence).await) })
            .buffer_unordered(IN_FLIGHT)
            .filter_map(|(sequence, outcome)| async move { outcome.err().map(|_| sequence) })
            .collect()
            .await
    }

    /// Deletes the letter at a place.
    pub async fn delete(&self, sequence: u64) -> Result<(), WireError> {
        self.letters
            .store
            .delete(sequence)
            .await
            .map_err(LetterError::from)?;
        self.letters.index.write().remove(sequence);
        Ok(())
    }
}

/// How one try to put a letter back went.
enum Turn {
    /// The item is pending, or was put back before.
    Done,
    /// The record came or went meanwhile.
    Again,
}
