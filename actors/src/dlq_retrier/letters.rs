//! What everybody may read at any time: the index, and the letters in the stream.
//!
//! It belongs to the project tree and survives a crash of the actor. Only the DlqRetrier writes it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loom_protocol::dead_letter::DeadLetter;
use loom_protocol::{ErrorCode, WireError, WorkId};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::index::{LetterFilter, LetterIndex, LetterInfo, LetterPage};
use crate::domain::id_prefix;
use crate::domain::letter;
use crate::domain::listing::Start;
use crate::nats::dead_letters::{LetterStore, StoredLetter};
use crate::nats::error::StoreError;
use crate::settings::DlqSettings;

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The read side of a project's dead letters.
pub struct DeadLetters {
    pub(super) store: LetterStore,
    pub(super) settings: DlqSettings,
    pub(super) index: RwLock<LetterIndex>,
    pub(super) known: watch::Sender<bool>,
    pub(super) expired: AtomicU64,
    pub(super) unreadable: AtomicU64,
}

impl DeadLetters {
    /// An empty one; the DlqRetrier fills it when it starts.
    pub fn new(store: LetterStore, settings: &DlqSettings) -> Self {
        Self {
            store,
            index: RwLock::new(LetterIndex::new(settings)),
            settings: settings.clone(),
            known: watch::Sender::new(false),
            expired: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
        }
    }

    /// The stream that holds them.
    pub fn store(&self) -> &LetterStore {
        &self.store
    }

    /// Waits until the letters were read once; before, nobody can say what there is.
    ///
    /// # Errors
    /// They were not, within the bound; or a stream of somebody else is in the way of theirs.
    pub async fn ready(&self, within: Duration) -> Result<(), LetterError> {
        if let Some(problem) = self.store.problem() {
            return Err(LetterError::NoStream(problem));
        }
        let mut known = self.known.subscribe();
        let waited = tokio::time::timeout(within, known.wait_for(|known| *known)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(LetterError::NotRead),
        }
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.index.read().len()
    }

    /// How many have expired by age since the start.
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// How many messages in the stream are no letters; they stay where they are.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// What is known of an item's letter.
    pub fn info(&self, id: WorkId) -> Option<LetterInfo> {
        self.index.read().get(id).cloned()
    }

    /// Whether the schedule will put this item's letter back.
    pub fn is_scheduled(&self, id: WorkId) -> bool {
        self.index.read().is_scheduled(id)
    }

    /// How many letters the schedule will put back.
    pub fn scheduled(&self) -> usize {
        self.index.read().scheduled()
    }

    /// When the oldest letter was stored.
    pub fn oldest(&self) -> Option<loom_protocol::Timestamp> {
        self.index.read().oldest()
    }

    /// The place of an item's letter.
    pub(super) fn place_of(&self, id: WorkId) -> Option<u64> {
        let index = self.index.read();
        index.get(id).map(|letter| letter.sequence)
    }

    /// What a stored message says of itself; `None`: it is no letter.
    pub(super) fn info_of(stored: &StoredLetter) -> Option<LetterInfo> {
        let head = serde_json::from_str(stored.head.as_deref()?).ok()?;
        Some(LetterInfo {
            id: stored.id?,
            sequence: stored.sequence,
            stored_at: stored.stored_at,
            head,
        })
    }

    /// One page after a place in the stream (0: the first).
    pub fn page(&self, filter: &LetterFilter, after: u64, limit: usize) -> LetterPage {
        self.index.read().page(filter, Start::After(after), limit)
    }

    /// One page from a place in the stream on, in either direction.
    pub fn page_from(&self, filter: &LetterFilter, start: Start, limit: usize) -> LetterPage {
        self.index.read().page(filter, start, limit)
    }

    /// The place of the last letter; 0: there is none.
    pub fn last(&self) -> u64 {
        self.index.read().last()
    }

    /// The ids that begin with a text, at most `limit`; none where no id begins like that.
    pub fn ids_like(&self, text: &str, limit: usize) -> Vec<WorkId> {
        id_prefix::bounds(text).map_or_else(Vec::new, |(first, last)| {
            self.index.read().ids_between(first, last, limit)
        })
    }

    /// Reads a letter.
    ///
    /// # Errors
    /// It is gone, cannot be read, or NATS does not answer.
    pub async fn read(&self, info: &LetterInfo) -> Result<DeadLetter, LetterError> {
        let stored = self.store.get(info.sequence).await?;
        // In a stream that was made again its place may be another one's.
        let stored = stored.filter(|stored| stored.id == Some(info.id));
        let Some(stored) = stored else {
            self.index.write().remove(info.sequence);
            return Err(LetterError::NotFound(info.id));
        };
        letter::decode(&stored.bytes).map_err(|error| LetterError::Damaged {
            id: info.id,
            why: error.to_string(),
        })
    }
}

/// Why a letter cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LetterError {
    /// There is none.
    #[error(
        "there is no dead letter {0}; it may have been put back, discarded, or have expired, see `loom dlq list`"
    )]
    NotFound(WorkId),
    /// The stream was not read yet.
    #[error("the dead letters are being read; try again in a moment")]
    NotRead,
    /// The stream cannot be made.
    #[error("the stream of the dead letters cannot be used: {0}")]
    NoStream(String),
    /// The stream does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not a letter.
    #[error("the dead letter {id} cannot be read: {why}; it stays in the stream")]
    Damaged {
        /// Which.
        id: WorkId,
        /// Why.
        why: String,
    },
}

impl From<LetterError> for WireError {
    fn from(error: LetterError) -> Self {
        let text = error.to_string();
        match error {
            LetterError::NotFound(_) => Self::new(ErrorCode::NotFound, text),
            LetterError::NotRead | LetterError::NoStream(_) => Self::unavailable(text, RETRY_AFTER),
            LetterError::Store(error) => error.into(),
            LetterError::Damaged { .. } => Self::new(ErrorCode::Internal, text),
        }
    }
}
