//! Under which queue group the owner takes requests.
//!
//! `loom`, as the wire says, as long as nobody else may be in it. A coordinator that was stopped (SIGSTOP, a
//! suspended machine) stays in its group until the server drops its connection, which takes minutes, and would be
//! given its share of the requests. So whoever takes over from *another* coordinator that did not give its
//! ownership back takes a group of its own, `loom-{epoch}`: the server gives every request to each group. The
//! former one is given copies, and drops them when it goes on, because it owns no more.
//!
//! A note beside the lease, without a time to live, says which group is in use and by whom; later owners stay in
//! it. [`FORGOTTEN_AFTER`] the takeover the next owner is `loom` again.
//!
//! | the note says | the group of the new owner |
//! |---|---|
//! | nothing | `loom` |
//! | this data directory's, or given back | the one in use, or `loom` again if that was taken long ago |
//! | another's, and not given back | `loom-{epoch}` |

use std::time::Duration;

use loom_protocol::{Timestamp, names};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// After how long no server has a connection any more that does not answer: nats-server asks every two
/// minutes, and drops who has left two questions open.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);

/// Which queue group is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GroupNote {
    /// The data directory of the owner.
    pub instance_id: Uuid,
    /// Its queue group.
    pub queue_group: String,
    /// Since when that group is in use.
    pub since: Timestamp,
    /// Whether the owner has left the group in order.
    pub given_back: bool,
}

impl GroupNote {
    /// Stands for a note of another version: of somebody else who may be in the group.
    pub fn unreadable() -> Self {
        Self {
            instance_id: Uuid::nil(),
            queue_group: names::QUEUE_GROUP.to_owned(),
            since: Timestamp::default(),
            given_back: false,
        }
    }

    /// The note of a new owner, given that of the one before.
    pub fn next(before: Option<&Self>, instance_id: Uuid, epoch: u64, now: Timestamp) -> Self {
        let (queue_group, since) = match before {
            Some(before) if before.instance_id != instance_id && !before.given_back => {
                (format!("{}-{epoch}", names::QUEUE_GROUP), now)
            }
            Some(before) if now.since(before.since) < FORGOTTEN_AFTER => {
                (before.queue_group.clone(), before.since)
            }
            _ => (names::QUEUE_GROUP.to_owned(), now),
        };
        Self {
            instance_id,
            queue_group,
            since,
            given_back: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Uuid = Uuid::from_u128(1);
    const TWO: Uuid = Uuid::from_u128(2);

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_millis(minutes * 60_000)
    }

    fn given_back(note: &GroupNote) -> GroupNote {
        GroupNote {
            given_back: true,
            ..note.clone()
        }
    }

    #[test]
    fn the_normal_group_is_left_only_for_a_takeover_from_another() {
        let first = GroupNote::next(None, ONE, 1, at(0));
        assert_eq!(first.queue_group, "loom");
        let again = GroupNote::next(Some(&first), ONE, 2, at(1));
        assert_eq!(again.queue_group, "loom", "the same data directory");
        let in_order = GroupNote::next(Some(&given_back(&again)), TWO, 3, at(2));
        assert_eq!(in_order.queue_group, "loom", "given back");
        let taken = GroupNote::next(Some(&in_order), ONE, 4, at(3));
        assert_eq!(taken.queue_group, "loom-4");
    }

    #[test]
    fn the_group_in_use_stays_while_a_former_owner_may_be_in_another() {
        let first = GroupNote::next(None, ONE, 1, at(0));
        let taken = GroupNote::next(Some(&first), TWO, 7, at(1));
        for before in [taken.clone(), given_back(&taken)] {
            for instance in [TWO, if before.given_back { ONE } else { TWO }] {
                let soon = GroupNote::next(Some(&before), instance, 9, at(60));
                assert_eq!(soon.queue_group, "loom-7");
                let later = GroupNote::next(Some(&soon), instance, 11, at(61));
                assert_eq!(later.queue_group, "loom", "an hour after the takeover");
            }
        }
    }
}
