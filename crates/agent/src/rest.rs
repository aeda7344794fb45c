//! How long an agent rests when its program has met a usage limit. Pure.
//!
//! | the program says | the first time | each time that it says the same again |
//! |---|---|---|
//! | a time to come | until then | until then, and at least 1, 2, 4 … 60 minutes |
//! | a time that has passed | 1 minute | 2, 4 … 60 minutes |
//! | no time | 5 minutes | 10, 20 … 60 minutes |
//! | that its provider is in trouble | 1 minute, or until the time that it names | 2, 4 … 15 minutes |
//! | that a person has to act | the longest pause there is, ended by a person | the same |
//!
//! Only a program that was started after the last such rest was told says it again: of several that ran
//! side by side, each has met the same limit once.

use std::time::Duration;

use loom_protocol::Timestamp;
use loom_protocol::agent::MAX_PAUSE;

use super::limit::{Class, LimitMet};

/// After a time that has passed, and after a limit that was met again.
const LEAST: Duration = Duration::from_mins(1);
/// Where nothing is said of a time.
const UNKNOWN: Duration = Duration::from_mins(5);
/// What doubling ends at.
const MOST: Duration = Duration::from_hours(1);
/// The same of a provider's trouble.
const MOST_OF_OUTAGE: Duration = Duration::from_mins(15);
/// How many different texts are remembered; the one told longest ago is forgotten.
const REMEMBERED: usize = 32;

/// The limits that were met lately, by what the program said of them.
#[derive(Debug, Default)]
pub struct Rests(Vec<Rest>);

#[derive(Debug)]
struct Rest {
    said: String,
    told_at: Timestamp,
    until: Timestamp,
    repeated: u32,
}

impl Rests {
    /// Until when to rest, when a program that was started at `started` has met a limit.
    pub fn until(&mut self, met: &LimitMet, started: Timestamp, now: Timestamp) -> Timestamp {
        let said = without_numbers(&met.said);
        let at = self.0.iter().position(|rest| rest.said == said);
        let known = at.map(|at| self.0.remove(at));
        let (repeated, since) = match &known {
            Some(rest) if started < rest.told_at => (rest.repeated, Some(rest)),
            Some(rest) => (rest.repeated.saturating_add(1), None),
            None => (0, None),
        };
        let until = match since {
            // Beside one that has told of it already.
            Some(rest) => rest.until.max(met.until.unwrap_or(rest.until)),
            None => rest_until(met, repeated, now),
        };
        let told_at = since.map_or(now, |rest| rest.told_at);
        self.0.push(Rest {
            said,
            told_at,
            until,
            repeated,
        });
        if self.0.len() > REMEMBERED {
            self.0.remove(0);
        }
        until
    }

    /// A program that was started at `started` has done its work: no limit stands that was told before.
    pub fn over(&mut self, started: Timestamp) {
        self.0.retain(|rest| rest.told_at > started);
    }
}

/// The table above.
fn rest_until(met: &LimitMet, repeated: u32, now: Timestamp) -> Timestamp {
    let (most, unknown) = match met.class {
        Class::Limit => (MOST, UNKNOWN),
        Class::Outage => (MOST_OF_OUTAGE, LEAST),
        Class::Account => return now.after(MAX_PAUSE),
    };
    let doubled = |first: Duration, times: u32| {
        let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
        now.after(first.saturating_mul(factor).min(most))
    };
    match met.until {
        Some(until) if until > now => match repeated.checked_sub(1) {
            Some(times) => until.max(doubled(LEAST, times)),
            None => until,
        },
        Some(_) => doubled(LEAST, repeated),
        None => doubled(unknown, repeated),
    }
}

/// A text whose times differ is the same text.
fn without_numbers(said: &str) -> String {
    said.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1_000)
    }

    fn met(said: &str, until: Option<Timestamp>) -> LimitMet {
        LimitMet {
            class: Class::Limit,
            until,
            said: said.into(),
        }
    }

    /// The rests in minutes of a program that says this again and again, at once after each rest.
    fn rests(until: impl Fn(Timestamp) -> Option<Timestamp>) -> Vec<u64> {
        let (mut rests, mut now) = (Rests::default(), at(0));
        let mut minutes = Vec::new();
        for _ in 0..9 {
            let rest = rests.until(&met("limit at 12", until(now)), now, now);
            minutes.push(rest.since(now).as_secs() / 60);
            now = rest;
        }
        minutes
    }

    #[test]
    fn a_time_that_has_passed_is_a_minute_and_doubles_to_an_hour() {
        assert_eq!(rests(|_| Some(at(-9))), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(rests(Some), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn no_time_is_five_minutes_and_doubles_to_an_hour() {
        assert_eq!(rests(|_| None), [5, 10, 20, 40, 60, 60, 60, 60, 60]);
    }

    #[test]
    fn a_time_to_come_is_taken_and_not_believed_for_ever() {
        let soon = |now: Timestamp| Some(now.after(Duration::from_secs(2)));
        assert_eq!(rests(soon), [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        let late = |now: Timestamp| Some(now.after(Duration::from_mins(90)));
        assert_eq!(rests(late), [90; 9]);
    }

    #[test]
    fn an_outage_rests_from_one_to_fifteen_minutes_and_an_account_until_a_person_acts() {
        let (mut rests, mut now) = (Rests::default(), at(0));
        for minutes in [1, 2, 4, 8, 15, 15] {
            let met = LimitMet {
                class: Class::Outage,
                ..met("529", None)
            };
            let rest = rests.until(&met, now, now);
            assert_eq!(rest.since(now), Duration::from_mins(minutes));
            now = rest;
        }
        let met = LimitMet {
            class: Class::Account,
            ..met("no money", None)
        };
        assert_eq!(rests.until(&met, now, now), now.after(MAX_PAUSE));
    }

    #[test]
    fn programs_side_by_side_meet_a_limit_once() {
        let mut rests = Rests::default();
        let first = rests.until(&met("limit", None), at(0), at(10));
        for started in [0, 5, 9] {
            assert_eq!(rests.until(&met("limit", None), at(started), at(20)), first);
        }
        let later = rests.until(&met("limit", None), at(400), at(410));
        assert_eq!(later, at(410).after(UNKNOWN * 2));
        rests.over(at(300));
        assert_eq!(rests.0.len(), 1, "it was started before that");
        rests.over(at(420));
        let anew = rests.until(&met("limit", None), at(500), at(510));
        assert_eq!(anew, at(510).after(UNKNOWN));
    }

    #[test]
    fn other_texts_are_other_limits_but_other_numbers_are_not() {
        let mut rests = Rests::default();
        let passed = |said: &str| met(said, Some(at(-1)));
        rests.until(&passed("reached|1766502000"), at(0), at(0));
        let again = rests.until(&passed("reached|1766509999"), at(60), at(60));
        assert_eq!(again, at(180));
        assert_eq!(rests.until(&passed("weekly"), at(60), at(60)), at(120));
        for n in 0..100_u8 {
            let said = char::from(b'a' + n % 26).to_string().repeat(usize::from(n));
            rests.until(&passed(&said), at(60), at(60));
        }
        assert!(rests.0.len() <= REMEMBERED);
    }

    proptest! {
        /// Whatever is said and when: what is repeated rests for a minute at the least, and doubling never
        /// goes beyond an hour.
        #[test]
        fn nobody_goes_on_at_once(
            said in prop::collection::vec(prop::option::of(-1_000_i64..1_000), 1..40),
        ) {
            let (mut rests, mut now) = (Rests::default(), at(0));
            for (n, offset) in said.into_iter().enumerate() {
                let until = offset.map(|seconds| at(0).max(now).after(Duration::ZERO).max(at(seconds)));
                let rest = rests.until(&met("limit", until), now, now);
                let is_first_to_come = n == 0 && until.is_some_and(|until| until > now);
                prop_assert!(is_first_to_come || rest >= now.after(LEAST));
                prop_assert!(rest <= now.after(MOST).max(until.unwrap_or(now)));
                now = rest;
            }
        }
    }
}
