//! What becomes of a published message, by how its operation ended.

use std::collections::HashMap;

use crate::work_ledger::{LedgerError, ReadError};

/// How often a message is tried whose record cannot be written or read.
const MOST_TRIES: u32 = 5;

/// What becomes of a message.
pub(super) enum Fate {
    /// It is dealt with.
    Ack,
    /// Not possible just now.
    Later,
    /// Never possible, for this reason.
    GiveUp(String),
}

/// How often messages were tried whose record cannot be written or read, by their sequences in the stream. How often the
/// server has delivered one says nothing of that: it may have been given back unread, or have waited for something else.
/// The count begins anew with each dispatcher, and with each stream.
#[derive(Debug, Default)]
pub(super) struct Tries(HashMap<u64, u32>);

impl Tries {
    /// The message of this sequence was tried, and its operation ended so. One without a sequence can't be acknowledged
    /// either: it is not given up.
    pub fn fate_of(&mut self, error: &LedgerError, subject: &str, sequence: Option<u64>) -> Fate {
        let fate = fate_of(error, subject);
        let Some(sequence) = sequence.filter(|_| is_hopeless(error)) else {
            return fate;
        };
        let tries = self.0.entry(sequence).or_default();
        *tries += 1;
        if *tries >= MOST_TRIES {
            return Fate::GiveUp(error.to_string());
        }
        fate
    }

    /// The message of this sequence is dealt with.
    pub fn over(&mut self, sequence: u64) {
        self.0.remove(&sequence);
    }

    /// The stream begins with this sequence: what was before it does not come again.
    pub fn begins_with(&mut self, first: u64) {
        self.0.retain(|sequence, _| *sequence >= first);
    }
}

fn fate_of(error: &LedgerError, subject: &str) -> Fate {
    match error {
        LedgerError::Refused(refusal) => {
            tracing::info!(subject, "a published report changes nothing: {refusal}");
            Fate::Ack
        }
        LedgerError::Read(ReadError::NotFound(id)) => {
            tracing::info!(subject, %id, "a published report is about an unknown item");
            Fate::Ack
        }
        LedgerError::TooLarge(..) => Fate::GiveUp(error.to_string()),
        error if is_hopeless(error) => {
            tracing::warn!(subject, "a published message cannot be dealt with: {error}");
            Fate::Later
        }
        _ => Fate::Later,
    }
}

/// Whether an operation fails for a reason that time does not mend.
pub(super) const fn is_hopeless(error: &LedgerError) -> bool {
    matches!(
        error,
        LedgerError::Record(..)
            | LedgerError::Lost(_)
            | LedgerError::Read(ReadError::Damaged { .. })
    )
}

#[cfg(test)]
mod tests {
    use loom_protocol::WorkId;

    use super::*;

    #[test]
    fn a_message_is_given_up_after_five_tries_of_its_own_that_no_time_mends() {
        let id = WorkId::generate();
        let hopeless = LedgerError::Lost(id);
        let mut tries = Tries::default();
        for sequence in [7, 8] {
            for _ in 1..MOST_TRIES {
                let fate = tries.fate_of(&hopeless, "queue", Some(sequence));
                assert!(matches!(fate, Fate::Later));
                let fate = tries.fate_of(&LedgerError::Overloaded, "queue", Some(sequence));
                assert!(matches!(fate, Fate::Later), "that is not its fault");
            }
        }
        let is_given_up =
            |fate| matches!(fate, Fate::GiveUp(why) if why == LedgerError::Lost(id).to_string());
        assert!(is_given_up(tries.fate_of(&hopeless, "queue", Some(7))));
        // As long as it cannot be kept.
        assert!(is_given_up(tries.fate_of(&hopeless, "queue", Some(7))));
        tries.over(7);
        assert!(matches!(
            tries.fate_of(&hopeless, "queue", Some(7)),
            Fate::Later
        ));
        for _ in 0..=MOST_TRIES {
            assert!(matches!(
                tries.fate_of(&hopeless, "queue", None),
                Fate::Later
            ));
        }
        tries.begins_with(8);
        assert_eq!(tries.0.keys().collect::<Vec<_>>(), [&8]);
        assert!(is_given_up(tries.fate_of(&hopeless, "queue", Some(8))));
    }
}
