//! Whether a ledger that is found is the one that was worked with.
//!
//! A ledger is known by a stamp in the metadata of its stream, made at random with the stream, and by
//! the last sequence that the server acknowledged: sequences of a stream only grow, whatever expires,
//! is purged or removed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a process, or the memory of its data directory, knows of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its stamp.
    pub stamp: String,
    /// The highest sequence that was acknowledged; 0: none.
    #[serde(rename = "lastSequence")]
    pub last: u64,
}

/// What the server has under the name of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No stream.
    Nothing,
    /// A stream.
    Ledger {
        /// Its stamp; `None`: its metadata has none.
        stamp: Option<String>,
        /// When it was made, in nanoseconds: the stamp of a stream without one.
        made: i128,
        /// The last sequence it gave out.
        last: u64,
    },
}

/// How a ledger that is found differs from the one that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// There is no ledger.
    Missing {
        /// The stamp it should have.
        stamp: String,
        /// What was acknowledged.
        known: u64,
    },
    /// It has no stamp.
    NoStamp {
        /// The one it should have.
        known: String,
    },
    /// It has another stamp.
    OtherStamp {
        /// Its own.
        found: String,
        /// The one it should have.
        known: String,
    },
    /// It ends before what was acknowledged: an older copy.
    Behind {
        /// Where it ends.
        found: u64,
        /// What was acknowledged.
        known: u64,
    },
}

/// The stamp of a stream that was made before streams had one. It follows from when the stream was made, so
/// that two coordinators that look at the same moment, or one that looks twice, give it the same.
pub fn stamp_of_old(made: i128) -> String {
    format!("made-{made:x}")
}

/// How what is found differs from what is known; `None`: it is the same ledger, with everything in it that
/// was acknowledged.
pub fn difference(known: &Known, found: &Found) -> Option<Difference> {
    let Found::Ledger { stamp, made, last } = found else {
        return Some(Difference::Missing {
            stamp: known.stamp.clone(),
            known: known.last,
        });
    };
    match stamp {
        Some(stamp) if *stamp != known.stamp => Some(Difference::OtherStamp {
            found: stamp.clone(),
            known: known.stamp.clone(),
        }),
        None if stamp_of_old(*made) != known.stamp => Some(Difference::NoStamp {
            known: known.stamp.clone(),
        }),
        _ if *last < known.last => Some(Difference::Behind {
            found: *last,
            known: known.last,
        }),
        _ => None,
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { stamp, known: 0 } => write!(f, "{stamp} is not there"),
            Self::Missing { stamp, known } => write!(
                f,
                "{stamp} is not there, and had acknowledged writes up to {known}"
            ),
            Self::NoStamp { known } => write!(f, "it has no stamp, and should have {known}"),
            Self::OtherStamp { found, known } => {
                write!(f, "its stamp is {found}, and should be {known}")
            }
            Self::Behind { found, known } => write!(
                f,
                "it ends at {found}, and had acknowledged writes up to {known}: an older copy"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn known(stamp: &str, last: u64) -> Known {
        Known {
            stamp: stamp.into(),
            last,
        }
    }

    fn found(stamp: Option<&str>, last: u64) -> Found {
        Found::Ledger {
            stamp: stamp.map(Into::into),
            made: 7,
            last,
        }
    }

    proptest! {
        #[test]
        fn only_a_ledger_of_the_same_stamp_with_all_that_was_acknowledged_is_the_same(
            same_stamp: bool, stamped: bool, acknowledged in 0..1_000u64, last in 0..1_000u64,
        ) {
            let stamp = if same_stamp { "a" } else { "b" };
            let differs = difference(&known("a", acknowledged), &found(stamped.then_some(stamp), last));
            let same = same_stamp && stamped && last >= acknowledged;
            prop_assert_eq!(differs.is_none(), same, "{:?}", differs);
        }
    }

    #[test]
    fn a_stream_of_an_older_version_has_the_stamp_that_it_will_be_given() {
        let before = known(&stamp_of_old(7), 5);
        assert_eq!(difference(&before, &found(None, 5)), None);
        let stamped = stamp_of_old(7);
        assert_eq!(difference(&before, &found(Some(&stamped), 5)), None);
        let other = Found::Ledger {
            stamp: None,
            made: 8,
            last: 5,
        };
        assert!(matches!(
            difference(&before, &other),
            Some(Difference::NoStamp { .. })
        ));
    }

    #[test]
    fn the_numbers_are_told() {
        let gone = difference(&known("a", 12), &Found::Nothing).unwrap();
        assert!(gone.to_string().contains("12"), "{gone}");
        let behind = difference(&known("a", 12), &found(Some("a"), 9)).unwrap();
        let text = behind.to_string();
        assert!(text.contains("12") && text.contains('9'), "{text}");
    }
}
