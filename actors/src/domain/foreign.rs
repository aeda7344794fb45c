//! Work streams and consumers that somebody else has made: what they mean for us.

use std::collections::BTreeMap;
use std::time::Duration;

use super::subjects::{overlap, takes_of};

/// How long a submission waits on a stream of somebody else before nobody seems to come for it.
pub const NOBODY_CAME: Duration = Duration::from_secs(10);
/// How many looks in a row have to find a stream without a consumer: a client that makes its consumer anew has none for
/// a moment.
pub const LOOKS_WITHOUT_CONSUMER: u32 = 2;
/// Of how many consumers it is remembered how far they came.
const REMEMBERED: usize = 64;

/// A work stream of a project that is not awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSight {
    /// Its metadata says that it is Loom's, and of which project.
    pub ours: bool,
    /// How many consumers it has, whoever made them.
    pub consumers: usize,
    /// How many looks in a row, this one included, have found no consumer.
    pub looks_without_consumer: u32,
    /// The submission that has lain there longest.
    pub oldest: Option<Waiting>,
}

/// How long a submission has been waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// By the clocks of NATS alone: its time now, less the message's.
    pub by_server: Duration,
    /// Since a look found it first, by our monotonic clock: a clock of NATS that was set back delays nothing for ever.
    pub since_seen: Duration,
}

/// What is to be done about a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamVerdict {
    /// It is a sign of life of its project.
    Wake,
    /// Nobody comes for what may lie there: it is looked at again soon.
    LookAgain,
    /// Somebody serves it: it is looked at with all the others, now and then.
    LeaveAlone,
}

/// Whether a stream wakes its project. Our own clock is never held against one of NATS.
pub fn stream_verdict(sight: &StreamSight) -> StreamVerdict {
    if sight.ours {
        return StreamVerdict::Wake;
    }
    if sight.consumers > 0 {
        return StreamVerdict::LeaveAlone;
    }
    let waited = sight
        .oldest
        .is_some_and(|waiting| waiting.by_server.max(waiting.since_seen) >= NOBODY_CAME);
    if waited && sight.looks_without_consumer >= LOOKS_WITHOUT_CONSUMER {
        StreamVerdict::Wake
    } else {
        StreamVerdict::LookAgain
    }
}

/// A consumer of a work stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSight {
    /// Its name.
    pub name: String,
    /// Which subjects it gets; none: all of the stream.
    pub filters: Vec<String>,
    /// Whether it is of this kind and of ours, of whichever ownership.
    pub ours: bool,
    /// Whether it takes nothing from anybody: it acknowledges nothing, and goes with whoever made it.
    pub only_watches: bool,
    /// Up to which sequence everything is dealt with that it gets; `None`: it did not begin with the first message, so
    /// that this says nothing.
    pub dealt_up_to: Option<u64>,
}

/// How long a stream keeps what lies in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// Until it is acknowledged: two consumers never get the same.
    UntilAcknowledged,
    /// Until each consumer has acknowledged it: one that nobody reads makes it grow.
    UntilAllAcknowledged,
    /// Up to limits, whoever has acknowledged it.
    UpToLimits,
}

/// The consumer of somebody else that holds `subjects`, the first by name; `None`: they are ours to take.
pub fn holder<'a>(
    consumers: &'a [ConsumerSight],
    subjects: &[String],
    keeps: Keeps,
) -> Option<&'a ConsumerSight> {
    // Without ours, what only ours gets would be dropped by the server; with ours and without a reader it would grow.
    if keeps == Keeps::UntilAllAcknowledged && consumers.iter().any(|consumer| consumer.ours) {
        return None;
    }
    overlapping(consumers, subjects).min_by(|one, other| one.name.cmp(&other.name))
}

/// The consumers of somebody else that get some of `subjects`.
pub fn overlapping<'a>(
    consumers: &'a [ConsumerSight],
    subjects: &[String],
) -> impl Iterator<Item = &'a ConsumerSight> {
    consumers.iter().filter(move |consumer| {
        !consumer.ours && !consumer.only_watches && takes_of(&consumer.filters, subjects)
    })
}

/// The sequence with which our next consumer begins, after those of ours that there were; 1: with the first message.
pub fn begins_at(former_floors: impl Iterator<Item = u64>) -> u64 {
    former_floors.max().unwrap_or_default().saturating_add(1)
}

/// How far consumers of somebody else came while ours stood aside, on a stream that keeps what was acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DealtWith(BTreeMap<String, (Vec<String>, u64)>);

impl DealtWith {
    /// Takes over what a look found. The 65th consumer and later ones are not remembered.
    pub fn note<'a>(&mut self, consumers: impl Iterator<Item = &'a ConsumerSight>) {
        for consumer in consumers {
            let Some(up_to) = consumer.dealt_up_to else {
                continue;
            };
            if let Some((filters, known)) = self.0.get_mut(&consumer.name) {
                filters.clone_from(&consumer.filters);
                *known = up_to.max(*known);
            } else if self.0.len() < REMEMBERED {
                let remembered = (consumer.filters.clone(), up_to);
                self.0.insert(consumer.name.clone(), remembered);
            }
        }
    }

    /// Whether one of them has dealt with this message.
    pub fn covers(&self, subject: &str, sequence: u64) -> bool {
        self.0.values().any(|(filters, up_to)| {
            sequence <= *up_to
                && (filters.is_empty() || filters.iter().any(|filter| overlap(filter, subject)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn durations() -> impl Strategy<Value = Duration> {
        (0_u64..20_000).prop_map(Duration::from_millis)
    }

    fn sights() -> impl Strategy<Value = StreamSight> {
        let oldest = (durations(), durations()).prop_map(|(by_server, since_seen)| Waiting {
            by_server,
            since_seen,
        });
        let oldest = prop::option::of(oldest);
        (any::<bool>(), 0_usize..3, 0_u32..5, oldest).prop_map(
            |(ours, consumers, looks_without_consumer, oldest)| StreamSight {
                ours,
                consumers,
                looks_without_consumer,
                oldest,
            },
        )
    }

    fn consumers() -> impl Strategy<Value = Vec<ConsumerSight>> {
        let filters = prop::collection::vec(
            prop::sample::select(vec!["q.a", "q.*", "r", ">"]).prop_map(str::to_owned),
            0..3,
        );
        let one = ("[a-d]", filters, any::<bool>(), any::<bool>(), 0_u64..9).prop_map(
            |(name, filters, ours, only_watches, floor)| ConsumerSight {
                name,
                filters,
                ours,
                only_watches,
                dealt_up_to: (floor > 0).then_some(floor),
            },
        );
        prop::collection::vec(one, 0..5)
    }

    proptest! {
        #[test]
        fn a_foreign_stream_is_a_sign_of_life_only_when_a_submission_waited_and_nobody_consumes(sight in sights()) {
            let waited = sight.oldest.is_some_and(|w| w.by_server >= NOBODY_CAME || w.since_seen >= NOBODY_CAME);
            let wakes = stream_verdict(&sight) == StreamVerdict::Wake;
            let expected = sight.ours
                || (sight.consumers == 0 && waited && sight.looks_without_consumer >= LOOKS_WITHOUT_CONSUMER);
            prop_assert_eq!(wakes, expected);
        }

        #[test]
        fn waiting_longer_never_takes_a_sign_of_life_back(sight in sights(), more in durations()) {
            let mut later = sight;
            later.looks_without_consumer += 1;
            if let Some(waiting) = &mut later.oldest {
                waiting.by_server += more;
                waiting.since_seen += more;
            }
            if stream_verdict(&sight) == StreamVerdict::Wake {
                prop_assert_eq!(stream_verdict(&later), StreamVerdict::Wake);
            }
        }

        #[test]
        fn subjects_are_held_by_nobody_but_a_foreign_consumer_that_gets_some_of_them(all in consumers()) {
            let subjects = ["q.*".to_owned()];
            for keeps in [Keeps::UntilAcknowledged, Keeps::UntilAllAcknowledged, Keeps::UpToLimits] {
                let foreign = |c: &&ConsumerSight| !c.ours && !c.only_watches
                    && (c.filters.is_empty() || c.filters.iter().any(|f| f != "r"));
                let we_came_first = keeps == Keeps::UntilAllAcknowledged && all.iter().any(|c| c.ours);
                let expected = all.iter().filter(foreign).map(|c| &c.name).min().filter(|_| !we_came_first);
                prop_assert_eq!(holder(&all, &subjects, keeps).map(|c| &c.name), expected);
            }
        }

        #[test]
        fn what_a_consumer_dealt_with_stays_so_when_it_is_gone(all in consumers(), sequence in 1_u64..9) {
            let mut dealt = DealtWith::default();
            dealt.note(all.iter());
            let is_covered = |subject: &str| all.iter().any(|c| {
                c.dealt_up_to.is_some_and(|floor| sequence <= floor)
                    && takes_of(&c.filters, &[subject.to_owned()])
            });
            // Consumers of one name are one consumer, with the filters that it had last.
            let mut names: Vec<_> = all.iter().map(|c| &c.name).collect();
            names.sort();
            names.dedup();
            prop_assume!(names.len() == all.len());
            for subject in ["q.a", "q.b", "r"] {
                prop_assert_eq!(dealt.covers(subject, sequence), is_covered(subject));
            }
            let before = dealt.clone();
            dealt.note([].into_iter());
            prop_assert_eq!(dealt, before);
        }

        #[test]
        fn our_next_consumer_begins_after_what_the_former_ones_acknowledged(floors in prop::collection::vec(0_u64..99, 0..4)) {
            let begin = begins_at(floors.iter().copied());
            prop_assert!(begin >= 1);
            prop_assert!(floors.iter().all(|floor| *floor < begin));
            prop_assert!(begin == 1 || floors.contains(&(begin - 1)));
        }
    }
}
