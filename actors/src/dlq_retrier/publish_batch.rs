//! From failed records to their letters: publish, then let the ledger note it. Every step may be
//! repeated, and none makes a second letter.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};

use super::index::LetterInfo;
use super::letters::DeadLetters;
use crate::clock::Clock;
use crate::domain::letter::{self, DeadLetterHeader};
use crate::domain::room::Room;
use crate::domain::work::{Command, Refusal, WorkRecord};
use crate::nats::dead_letters::NewLetter;
use crate::nats::error::StoreErrorKind;
use crate::work_ledger::{Header, LedgerError, Operation, ReadError, ReadModel, WorkLedgerHandle};

/// How many letters are written together.
pub(super) const BATCH: usize = 256;
/// How many of them are under way at a time.
const IN_FLIGHT: usize = 32;
/// How often a publish is tried again after a conflict.
const MAX_CONFLICTS: usize = 4;

/// What it takes to write letters, and to put them back.
#[derive(Clone)]
pub(super) struct Context {
    pub letters: Arc<DeadLetters>,
    pub read: Arc<ReadModel>,
    pub ledger: WorkLedgerHandle,
    pub clock: Clock,
}

/// How a batch went.
#[derive(Debug, Default)]
pub struct BatchReport {
    /// Some could not be written: begin again with the record of this revision.
    pub(super) again_from: Option<u64>,
    /// A publish had no answer: what the stream holds is to be read again.
    pub(super) in_doubt: bool,
    /// Letters whose items were put back meanwhile.
    pub(super) orphaned: Vec<u64>,
}

impl BatchReport {
    /// Nothing is known of how it went.
    pub(super) fn all_again() -> Self {
        Self {
            again_from: Some(0),
            ..Self::default()
        }
    }

    fn again(&mut self, revision: u64) {
        self.again_from = Some(self.again_from.map_or(revision, |from| from.min(revision)));
    }
}

/// What became of one record.
enum Written {
    /// Its letter is in the stream, and is to be noted.
    Letter(LetterInfo),
    /// It wants no letter any more, or never can have one.
    Nothing,
    /// Not just now.
    Later { in_doubt: bool },
}

impl Context {
    /// Writes the letters of these failed records, and has them noted.
    pub async fn publish_batch(&self, headers: Vec<Header>) -> BatchReport {
        if let Err(error) = self.letters.store.prepare().await {
            tracing::debug!("dead letters cannot be written yet: {error}");
            let mut report = BatchReport::default();
            for header in &headers {
                report.again(header.revision);
            }
            return report;
        }
        let written: Vec<(Header, Written)> = stream::iter(headers)
            .map(|header| async move {
                let written = self.write(&header).await;
                (header, written)
            })
            .buffered(IN_FLIGHT)
            .collect()
            .await;
        let mut report = BatchReport::default();
        let mut to_note = Vec::with_capacity(written.len());
        for (header, written) in written {
            match written {
                Written::Letter(letter) => to_note.push((header, letter)),
                Written::Nothing => {}
                Written::Later { in_doubt } => {
                    report.in_doubt |= in_doubt;
                    report.again(header.revision);
                }
            }
        }
        self.note(to_note, &mut report).await;
        report
    }

    async fn note(&self, letters: Vec<(Header, LetterInfo)>, report: &mut BatchReport) {
        let notes = letters.iter().map(|(_, letter)| note_of(letter)).collect();
        let outcomes = match self.ledger.carry_out(notes).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::debug!("dead letters could not be noted yet: {error}");
                for (header, _) in &letters {
                    report.again(header.revision);
                }
                return;
            }
        };
        for ((header, letter), outcome) in letters.iter().zip(outcomes) {
            match outcome {
                Ok(_) | Err(LedgerError::Read(ReadError::NotFound(_))) => {}
                Err(LedgerError::Refused(Refusal::NotFailed { .. })) => {
                    report.orphaned.push(letter.sequence);
                }
                Err(error) => {
                    tracing::debug!(id = %letter.id, "a dead letter could not be noted yet: {error}");
                    report.again(header.revision);
                }
            }
        }
    }

    async fn write(&self, header: &Header) -> Written {
        let (record, revision) = match self.read.record(header.id).await {
            Ok(read) => read,
            Err(ReadError::Store(error)) => {
                tracing::debug!(id = %header.id, "{error}");
                return Written::Later { in_doubt: false };
            }
            Err(error) => {
                tracing::error!(id = %header.id, "a failed item cannot become a dead letter: {error}");
                return Written::Nothing;
            }
        };
        if revision != header.revision {
            return Written::Nothing;
        }
        let known = self.letters.info(record.id);
        match known {
            Some(letter) if letter.head.is_of(&record) => Written::Letter(letter),
            known => {
                let replaced = known.map_or(0, |letter| letter.sequence);
                self.publish(&record, revision, replaced).await
            }
        }
    }

    async fn publish(&self, record: &WorkRecord, revision: u64, mut expected: u64) -> Written {
        let head = DeadLetterHeader::of(record);
        let letter = letter::letter_of(record, revision, self.read.project());
        let new = match (
            letter::encode_within(&letter, Room::of(self.letters.store.max_payload()).record()),
            serde_json::to_string(&head),
        ) {
            (Ok(bytes), Ok(line)) => NewLetter {
                id: record.id,
                message_id: letter::message_id(record.id, &head),
                head: line,
                bytes,
            },
            (bytes, _) => {
                let error = bytes.err().map(|error| error.to_string());
                tracing::error!(id = %record.id, ?error, "a dead letter cannot be written");
                return Written::Nothing;
            }
        };
        let store = &self.letters.store;
        for _ in 0..MAX_CONFLICTS {
            match store.publish(&new, expected).await {
                Ok(sequence) => {
                    let letter = LetterInfo {
                        id: record.id,
                        sequence,
                        stored_at: self.clock.now(),
                        head,
                    };
                    self.letters.index.write().insert(letter.clone());
                    return Written::Letter(letter);
                }
                Err(error) if error.kind() == StoreErrorKind::Conflict => {
                    match store.last_of(record.id).await {
                        Ok(stored) => {
                            expected = stored.as_ref().map_or(0, |stored| stored.sequence);
                            let found = stored.as_ref().and_then(DeadLetters::info_of);
                            if let Some(letter) = found.filter(|found| found.head.is_of(record)) {
                                self.letters.index.write().insert(letter.clone());
                                return Written::Letter(letter);
                            }
                        }
                        Err(error) => {
                            tracing::debug!(id = %record.id, "{error}");
                            return Written::Later { in_doubt: false };
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(id = %record.id, "a dead letter could not be written yet: {error}");
                    let in_doubt = error.kind() == StoreErrorKind::Unknown;
                    return Written::Later { in_doubt };
                }
            }
        }
        Written::Later { in_doubt: false }
    }
}

/// What the ledger is to write down of a letter.
pub(super) fn note_of(letter: &LetterInfo) -> Operation {
    let command = Command::NoteDeadLetter {
        sequence: letter.sequence,
        retries: letter.head.retries,
    };
    Operation::Apply(letter.id, Arc::new(command))
}
