//! Whether a project may sleep, and whether one that sleeps is still what it was.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use loom_protocol::Timestamp;
use loom_protocol::rest::{TargetTotals, WorkTotals};
use serde::{Deserialize, Serialize};

/// The version of a mark that this program writes and reads. Since 2 targets whose last start failed are counted.
const VERSION: u32 = 2;
/// How soon after it has fallen asleep a project wakes again at the earliest because something in it expires: its items
/// may expire one by one, for days.
const WAKES_AFTER: Duration = Duration::from_hours(1);

/// What is to be known of a project before it may sleep.
#[derive(Debug, Clone, Default)]
pub struct Signs {
    /// For how long nobody has used it.
    pub unused: Duration,
    /// Its agents, whatever their status.
    pub agents: usize,
    /// What it has to do, by status.
    pub work: WorkTotals,
    /// Messages in its work stream.
    pub messages: u64,
    /// Failed items whose dead letter is still to be written.
    pub without_letter: usize,
    /// Dead letters that the schedule will put back.
    pub scheduled: usize,
    /// Starts of agents that are not decided, agents that have places at targets, and what is to be ended or removed of
    /// those that have left.
    pub births: usize,
    /// Records, entries and letters that cannot be read: somebody is to be told of them.
    pub unreadable: usize,
}

/// Why a project stays awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaysAwake {
    /// It was used not long ago.
    Used,
    /// It has agents.
    Agents,
    /// It has items that are not finished.
    Work,
    /// Its work stream has messages.
    Messages,
    /// A dead letter is to be written.
    WithoutLetter,
    /// A dead letter is to be put back by the schedule.
    Scheduled,
    /// An agent is being started, has a place at a target, or has left something that is to be ended.
    Births,
    /// Something in it cannot be read.
    Unreadable,
}

/// Why a project stays awake; `None`: it may sleep, having been unused for `sleep_after`.
pub fn why_awake(signs: &Signs, sleep_after: Duration) -> Option<StaysAwake> {
    let reasons = [
        (signs.unused < sleep_after, StaysAwake::Used),
        (signs.agents > 0, StaysAwake::Agents),
        (signs.work.pending + signs.work.active > 0, StaysAwake::Work),
        (signs.messages > 0, StaysAwake::Messages),
        (signs.without_letter > 0, StaysAwake::WithoutLetter),
        (signs.scheduled > 0, StaysAwake::Scheduled),
        (signs.births > 0, StaysAwake::Births),
        (signs.unreadable > 0, StaysAwake::Unreadable),
    ];
    let reason = reasons.into_iter().find(|(holds, _)| *holds);
    reason.map(|(_, reason)| reason)
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StreamPosition {
    /// When it was made, in milliseconds since 1970: one that was made anew is another one.
    pub made: i64,
    /// The sequence of the last message that it was given.
    pub last: u64,
}

/// Where streams stand, by name.
pub type StreamPositions = BTreeMap<String, StreamPosition>;

/// What is in a project that sleeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AsleepTotals {
    /// Its items; none is unfinished.
    pub work: WorkTotals,
    /// Its dead letters.
    pub letters: usize,
    /// Its targets; none has an agent.
    #[serde(default)]
    pub targets: TargetTotals,
    /// When an item was last written.
    pub last_activity: Option<Timestamp>,
}

/// What is written of a project that sleeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    version: u32,
    /// Since when it sleeps.
    pub since: Timestamp,
    /// When it is to be woken because something in it has expired, so that its totals are no longer these.
    pub until: Option<Timestamp>,
    /// Under which settings: a digest of those that say what becomes of what is in it.
    settings: u64,
    /// Where its streams stood.
    pub streams: StreamPositions,
    /// What is in it.
    pub totals: AsleepTotals,
}

impl Mark {
    /// The mark of a project that falls asleep now, under these settings. `expires`: when the first thing in it does.
    pub fn new(
        now: Timestamp,
        settings: u64,
        expires: Option<Timestamp>,
        streams: StreamPositions,
        totals: AsleepTotals,
    ) -> Self {
        let earliest = now.after(WAKES_AFTER);
        Self {
            version: VERSION,
            since: now,
            settings,
            until: expires.map(|expires| expires.max(earliest)),
            streams,
            totals,
        }
    }

    /// As it is kept in memory.
    pub fn digested(&self) -> DigestedMark {
        let is_known = self.version == VERSION && !self.streams.is_empty();
        DigestedMark {
            until: self.until,
            stood: is_known.then(|| digest(&self.streams, self.settings)),
            totals: self.totals,
        }
    }
}

/// What is kept in memory of a mark, of which there is one for each project that sleeps: where its streams stood, and under
/// which settings, is a digest, since it is only asked whether that is so still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestedMark {
    /// As in [`Mark`].
    until: Option<Timestamp>,
    /// `None`: the mark is of another version of this program, or of a project without streams, and never holds.
    stood: Option<u64>,
    /// What is in it.
    pub totals: AsleepTotals,
}

impl DigestedMark {
    /// Whether nothing has happened since: the project has the same streams, at the same places, and what becomes of what is
    /// in it is the same.
    pub fn holds(&self, streams: &StreamPositions, settings: u64) -> bool {
        self.stood == Some(digest(streams, settings))
    }

    /// Whether it is time to wake because something in it has expired.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

fn digest(streams: &StreamPositions, settings: u64) -> u64 {
    let mut digest = DefaultHasher::new();
    (streams, settings).hash(&mut digest);
    digest.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AFTER: Duration = Duration::from_mins(10);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn streams(last: u64) -> StreamPositions {
        [(
            "KV_loom-work-p".to_owned(),
            StreamPosition { made: 7, last },
        )]
        .into()
    }

    #[test]
    fn an_unused_project_without_anything_to_do_may_sleep_whatever_is_finished_in_it() {
        let signs = Signs {
            unused: AFTER,
            work: WorkTotals {
                completed: 1_000_000,
                failed: 3,
                cancelled: 2,
                ..WorkTotals::default()
            },
            ..Signs::default()
        };
        assert_eq!(why_awake(&signs, AFTER), None);
    }

    proptest! {
        #[test]
        fn anything_that_is_left_to_do_keeps_a_project_awake(
            unused in 0..1_200_u64, counts in proptest::array::uniform8(0..2_usize),
        ) {
            let [agents, pending, active, messages, without_letter, scheduled, births, unreadable] = counts;
            let signs = Signs {
                unused: Duration::from_secs(unused),
                agents,
                work: WorkTotals { pending, active, ..WorkTotals::default() },
                messages: messages as u64,
                without_letter,
                scheduled,
                births,
                unreadable,
            };
            let may_sleep = unused >= AFTER.as_secs() && counts == [0; 8];
            prop_assert_eq!(why_awake(&signs, AFTER).is_none(), may_sleep);
        }
    }

    #[test]
    fn a_mark_holds_while_every_stream_is_the_same_one_at_the_same_place() {
        let written = Mark::new(at(0), 1, None, streams(5), AsleepTotals::default());
        let mark = written.digested();
        assert!(mark.holds(&streams(5), 1));
        assert!(!mark.holds(&streams(6), 1), "something was written");
        let mut anew = streams(5);
        anew.get_mut("KV_loom-work-p").unwrap().made = 8;
        assert!(!mark.holds(&anew, 1), "it was made anew");
        let mut more = streams(5);
        more.insert("another".into(), StreamPosition { made: 7, last: 0 });
        assert!(!mark.holds(&more, 1), "there is one more");
        assert!(!mark.holds(&StreamPositions::new(), 1), "they are gone");
        assert!(!mark.holds(&streams(5), 2), "under other settings");
        for (version, whose) in [(VERSION - 1, "former"), (VERSION + 1, "later")] {
            let other = Mark {
                version,
                ..written.clone()
            };
            let other = other.digested();
            assert!(!other.holds(&streams(5), 1), "of a {whose} program");
        }
        let none = StreamPositions::new();
        let nothing = Mark::new(at(0), 1, None, none.clone(), AsleepTotals::default());
        assert!(!nothing.digested().holds(&none, 1), "there were none");
    }

    #[test]
    fn a_project_wakes_when_something_in_it_has_expired_but_not_at_once_again() {
        let hour = 3_600_000;
        let mark = |expires| {
            let written = Mark::new(at(0), 1, expires, streams(5), AsleepTotals::default());
            written.digested()
        };
        assert!(!mark(None).is_over(at(i64::MAX / 4)));
        assert!(!mark(Some(at(5 * hour))).is_over(at(5 * hour - 1)));
        assert!(mark(Some(at(5 * hour))).is_over(at(5 * hour)));
        assert!(!mark(Some(at(1))).is_over(at(hour - 1)));
        assert!(mark(Some(at(1))).is_over(at(hour)));
    }

    #[test]
    fn a_mark_can_be_read_again() {
        let mark = Mark::new(at(1), 1, Some(at(9)), streams(5), AsleepTotals::default());
        let json = serde_json::to_vec(&mark).unwrap();
        assert_eq!(serde_json::from_slice::<Mark>(&json).unwrap(), mark);
    }
}
