//! Whether the bucket still holds what it should: the limits of its stream, and every record of an item that has not ended.
//!
//! A look counts, by the list of all streams where that says that the bucket is as it was and ends where everything is known;
//! otherwise it costs one question: where the bucket holds fewer records than are known, beside those that may have
//! expired or been removed by us, every sequence is read (without bodies), and what is missing is asked for at the leader.
//! Only what the leader does not have is lost; then the store is not the one that is worked with any more, and the project
//! is put to sleep. A reading that finds nothing missing makes the next one wait, twice as long each time: fewer records for
//! an innocent reason (an earlier, shorter retention) cost little.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use loom_protocol::{Timestamp, WorkId};
use tokio::time::Instant;

use super::header::Header;
use super::read_model::ReadModel;
use crate::nats::error::StoreError;
use crate::nats::listing::{FollowedStream, Listed, Sight};
use crate::nats::owner::Ownership;

/// How often the bucket is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long after a reading that found nothing the next one is, at the least and at the most.
const READ_AGAIN: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));
/// A reading takes no more than this part of the time.
const SHARE: u32 = 20;
/// How much later than the server an expired record is taken for gone here.
const SLACK: Duration = Duration::from_secs(10);
/// How many records are asked for at the leader; where all of these are lost, so are the others.
const ASKED_FOR: usize = 10_000;
const IN_FLIGHT: usize = 32;

/// When the bucket is to be read.
#[derive(Debug, Clone)]
pub(super) struct Looks {
    next: Instant,
    read_after: Instant,
    pause: Duration,
    /// How many fewer records than expected were found to be innocent.
    explained: usize,
    /// Up to which sequence everything was known at the last look, where the bucket went further.
    behind_at: Option<u64>,
    /// The next look is a reading, whatever it counts.
    forced: bool,
}

/// What a look comes to.
#[derive(Debug, Clone)]
pub(super) struct Looked {
    /// The looks to come.
    pub looks: Looks,
    /// Something was written that is not known here.
    pub replay: bool,
}

impl Looks {
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            next: now + LOOK_EVERY,
            read_after: now,
            pause: READ_AGAIN.0,
            explained: 0,
            behind_at: None,
            forced: false,
        }
    }

    /// As they are while one is under way.
    pub fn begun(mut self) -> Self {
        self.next = Instant::now() + LOOK_EVERY;
        self.forced = false;
        self
    }

    pub fn are_due(&self) -> bool {
        self.next <= Instant::now()
    }

    /// Something may speak against the bucket: the next look is at once.
    pub fn hasten(&mut self) {
        self.next = Instant::now();
    }

    /// A record was not there: the next look is a reading, at once.
    pub fn force(&mut self) {
        self.suspect();
        self.forced = true;
    }

    /// Something speaks against the bucket: the next look is at once, and a reading where anything is missing.
    pub fn suspect(&mut self) {
        self.hasten();
        self.read_after = Instant::now();
        self.explained = 0;
    }

    /// Whether a bucket that holds so many fewer records than expected is to be read.
    fn is_to_be_read(&mut self, missing: usize, now: Instant) -> bool {
        self.explained = self.explained.min(missing);
        missing > self.explained && self.read_after <= now
    }

    /// So many fewer were innocent, as a reading that took so long has shown.
    fn were_innocent(&mut self, missing: usize, took: Duration) {
        self.explained = missing;
        self.read_after = Instant::now() + self.pause.max(took * SHARE);
        self.pause = (self.pause * 2).min(READ_AGAIN.1);
    }
}

/// What a look goes by.
#[derive(Clone)]
pub(super) struct Inspector {
    pub read: Arc<ReadModel>,
    pub ownership: Ownership,
    /// How many finished records are kept.
    pub keep: usize,
    /// What was written before has expired.
    pub expired: Timestamp,
    /// Nothing of ours is under way.
    pub is_idle: bool,
    /// What the list of all streams says of the bucket.
    pub lookout: Arc<FollowedStream>,
}

/// What the bucket holds.
struct Holds {
    messages: u64,
    last: u64,
}

impl Inspector {
    /// Looks once.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn look(&self, mut looks: Looks) -> Result<Looked, StoreError> {
        let store = self.read.store();
        looks.next = Instant::now() + LOOK_EVERY;
        let quiet = Looked {
            looks: looks.clone(),
            replay: false,
        };
        if !self.ownership.is_held() || store.guard().may_write().is_err() {
            return Ok(quiet);
        }
        // Counted before the server is asked: what is created meanwhile is too much there, never too little.
        let soon = self.expired.after(SLACK);
        let expected = self.read.expected(self.keep, soon);
        let replayed_to = self.read.replayed_to();
        let found = self.holds(replayed_to, looks.forced).await?;
        let messages = usize::try_from(found.messages).unwrap_or(usize::MAX);
        let missing = expected.least.saturating_sub(messages);
        let surely = expected.kept > messages;
        if std::mem::take(&mut looks.forced)
            || surely
            || looks.is_to_be_read(missing, Instant::now())
        {
            let began = Instant::now();
            let lost = self.missing().await?;
            if lost.is_empty() {
                looks.were_innocent(missing, began.elapsed());
            } else if self.ownership.is_held() {
                self.read.lose(&lost);
            }
        }
        let is_behind = found.last > replayed_to;
        let replay = is_behind && (self.is_idle || looks.behind_at == Some(replayed_to));
        looks.behind_at = is_behind.then_some(replayed_to);
        Ok(Looked { looks, replay })
    }

    /// What the bucket holds. A list that was made before the last write that is known here holds too little of it.
    async fn holds(&self, replayed_to: u64, by_name: bool) -> Result<Holds, StoreError> {
        let is_listed = !by_name && self.lookout.is_as_noted();
        if let Sight::There(listed) = self.lookout.sight()
            && is_listed
            && listed.last == replayed_to
        {
            let Listed { messages, last, .. } = listed;
            return Ok(Holds { messages, last });
        }
        self.lookout.forget();
        let kept = self.read.store().keep().await?;
        self.lookout.note(Some(kept.identity));
        Ok(Holds {
            messages: kept.info.state.messages,
            last: kept.info.state.last_sequence,
        })
    }

    /// The items whose records are to stay and are not there.
    async fn missing(&self) -> Result<Vec<Header>, StoreError> {
        let mut kept = self.read.kept();
        self.read
            .store()
            .sequences(|sequence| {
                kept.remove(&sequence);
            })
            .await?;
        let unchanged = |(revision, id): (&u64, &WorkId)| {
            let header = self.read.header(*id);
            header.filter(|header| header.revision == *revision)
        };
        let mut candidates: Vec<Header> = kept.iter().filter_map(unchanged).collect();
        candidates.sort_by_key(|header| header.revision);
        let others = candidates.split_off(candidates.len().min(ASKED_FOR));
        let asked = candidates.len();
        let mut lost: Vec<Header> = stream::iter(candidates)
            .map(|header| async move {
                let there = self.read.store().get_from_leader(header.id).await?;
                Ok::<_, StoreError>(there.is_none().then_some(header))
            })
            .buffer_unordered(IN_FLIGHT)
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?;
        if lost.len() == asked {
            lost.extend(others);
        }
        // The leader that has answered may have been one without everything that was acknowledged.
        if !lost.is_empty() {
            self.read.store().confirm().await?;
        }
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_found_innocent_is_not_read_again_and_more_of_it_seldom() {
        let mut looks = Looks::new();
        assert!(!looks.is_to_be_read(0, Instant::now()));
        assert!(looks.is_to_be_read(5, Instant::now()));
        looks.were_innocent(5, Duration::from_secs(1));
        assert!(!looks.is_to_be_read(6, Instant::now()), "too soon");
        tokio::time::advance(READ_AGAIN.0).await;
        assert!(!looks.is_to_be_read(5, Instant::now()));
        assert!(looks.is_to_be_read(6, Instant::now()));
        looks.were_innocent(6, Duration::from_secs(30));
        tokio::time::advance(READ_AGAIN.0 * 2).await;
        assert!(!looks.is_to_be_read(7, Instant::now()), "it took long");
        assert!(!looks.is_to_be_read(2, Instant::now()));
        tokio::time::advance(READ_AGAIN.1).await;
        assert!(looks.is_to_be_read(3, Instant::now()), "it had become less");
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspicion_makes_the_next_look_a_reading() {
        let mut looks = Looks::new();
        looks.were_innocent(5, Duration::ZERO);
        looks.suspect();
        assert!(looks.are_due() && looks.is_to_be_read(1, Instant::now()));
    }
}
