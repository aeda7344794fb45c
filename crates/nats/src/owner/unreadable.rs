//! An entry that nobody can read, and for how long it has not changed.

use std::time::Duration;

use tokio::time::Instant;

use super::OwnerError;

/// An entry that says who owns, and that nobody can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the key coordinator of the bucket LOOM_OWNERS holds no entry of Loom (revision {revision})"
)]
pub struct UnreadableEntry {
    /// Its revision.
    pub revision: u64,
}

/// For how long an unreadable entry has not changed.
#[derive(Debug, Default)]
pub(super) struct Unchanged(Option<(UnreadableEntry, Instant)>);

impl Unchanged {
    /// The entry that has not changed for this long.
    pub fn expired(&self, after: Duration) -> Option<UnreadableEntry> {
        let (entry, since) = self.0?;
        (since.elapsed() >= after).then_some(entry)
    }

    /// What a look has shown. True where it is another unreadable entry than before.
    pub fn note(&mut self, error: &OwnerError) -> bool {
        match error {
            OwnerError::Unreadable { entry, .. } => {
                let is_news = self.0.is_none_or(|(known, _)| known != *entry);
                if is_news {
                    self.0 = Some((*entry, Instant::now()));
                }
                is_news
            }
            // Nobody has said anything about the entry.
            OwnerError::Unavailable(_) => false,
            _ => {
                self.0 = None;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_unreadable_entry_has_expired_when_it_has_not_changed_for_the_length_of_a_lease() {
        let ttl = Duration::from_secs(14);
        let unreadable = |revision| OwnerError::Unreadable {
            entry: UnreadableEntry { revision },
            ttl,
        };
        let mut unchanged = Unchanged::default();
        assert!(unchanged.note(&unreadable(7)));
        tokio::time::advance(Duration::from_secs(13)).await;
        assert!(!unchanged.note(&unreadable(7)));
        assert_eq!(unchanged.expired(ttl), None);
        assert!(unchanged.note(&unreadable(8)), "it was written again");
        tokio::time::advance(Duration::from_secs(13)).await;
        assert_eq!(unchanged.expired(ttl), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        let expired = Some(UnreadableEntry { revision: 8 });
        assert_eq!(unchanged.expired(ttl), expired);
    }
}
