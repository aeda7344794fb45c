//! Days as people name them, and the instants that they mean. Pure.

use std::time::Duration;

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp as Instant, ToSpan as _};
use loom_protocol::Timestamp;

use super::scan::Scan;
use super::zone::Zone;

/// A time of day that has just passed means now, and not tomorrow: the message was on its way.
const JUST_NOW: Duration = Duration::from_mins(15);
const A_DAY: Duration = Duration::from_hours(24);

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [(&str, Weekday); 7] = [
    ("monday", Weekday::Monday),
    ("tuesday", Weekday::Tuesday),
    ("wednesday", Weekday::Wednesday),
    ("thursday", Weekday::Thursday),
    ("friday", Weekday::Friday),
    ("saturday", Weekday::Saturday),
    ("sunday", Weekday::Sunday),
];

/// A day.
#[derive(Debug, Clone, Copy)]
pub(super) enum Day {
    Today,
    Tomorrow,
    /// The next one of that name.
    Of(Weekday),
    /// That date; of the next year that has it where none is named.
    On {
        year: Option<i16>,
        month: i8,
        day: i8,
    },
}

/// What is said of an instant.
#[derive(Debug, Default)]
pub(super) struct Moment {
    pub(super) day: Option<Day>,
    pub(super) time: Option<Time>,
    pub(super) zone: Option<Zone>,
}

impl Day {
    /// `tomorrow`, `monday`, `aug 20th, 2026`, `20 august`, `2026-08-20`.
    pub(super) fn scan(scan: &mut Scan<'_>) -> Option<Self> {
        let named = scan.try_word(|word| match word {
            "today" | "tonight" => Some(Self::Today),
            "tomorrow" => Some(Self::Tomorrow),
            _ => weekday(word).map(Self::Of),
        });
        if named.is_some() {
            return named;
        }
        if let Some(date) = scan.attempt(iso_date) {
            return Some(date);
        }
        let (month, day) = if let Some(month) = scan.try_word(month) {
            scan.skip(|c| c.is_whitespace() || c == '.');
            (month, day_of_month(scan)?)
        } else {
            let day = day_of_month(scan)?;
            scan.spaces();
            scan.try_word(|word| (word == "of").then_some(()));
            scan.spaces();
            (scan.try_word(month)?, day)
        };
        Some(Self::On {
            year: scan.attempt(year),
            month,
            day,
        })
    }
}

fn iso_date(scan: &mut Scan<'_>) -> Option<Day> {
    let year = scan.number_of(4)?;
    scan.mark('-')?;
    let month = i8::try_from(scan.number_of(2)?).ok()?;
    scan.mark('-')?;
    let day = i8::try_from(scan.number_of(2)?).ok()?;
    Some(Day::On {
        year: Some(year),
        month,
        day,
    })
}

fn year(scan: &mut Scan<'_>) -> Option<i16> {
    scan.skip(|c| c.is_whitespace() || c == ',' || c == '.');
    scan.number_of(4)
}

fn day_of_month(scan: &mut Scan<'_>) -> Option<i8> {
    let digits = scan.digits().filter(|digits| digits.len() <= 2)?;
    scan.try_word(|word| matches!(word, "st" | "nd" | "rd" | "th").then_some(()));
    // `3pm` and `20:15` are times.
    (!scan.at_word() && !scan.rest().starts_with(':'))
        .then(|| digits.parse().ok())
        .flatten()
}

/// A name of at least three letters, cut short or not.
fn is_short_for(word: &str, name: &str) -> bool {
    word.len() >= 3 && name.starts_with(word)
}

fn month(word: &str) -> Option<i8> {
    let mut months = (1_i8..).zip(MONTHS);
    months
        .find(|(_, name)| is_short_for(word, name))
        .map(|(number, _)| number)
}

fn weekday(word: &str) -> Option<Weekday> {
    let mut days = WEEKDAYS.into_iter();
    days.find(|(name, _)| is_short_for(word, name))
        .map(|(_, day)| day)
}

impl Moment {
    /// The next such instant; one that has passed where it is not long ago, or the date says its year.
    pub(super) fn next(self, now: Timestamp, own: &TimeZone) -> Option<Timestamp> {
        let zone = match self.zone {
            Some(Zone::Known(zone)) => zone,
            Some(Zone::Own) | None => own.clone(),
        };
        let instant = Instant::from_millisecond(now.as_millis()).ok()?;
        let today = instant.to_zoned(zone.clone()).date();
        let time = self.time.unwrap_or_default();
        let at = |date: Date| -> Option<Timestamp> {
            let then = zone.to_zoned(DateTime::from_parts(date, time)).ok()?;
            Some(Timestamp::from_millis(then.timestamp().as_millisecond()))
        };
        let in_days = |days: i64| at(today.checked_add(days.days()).ok()?);
        let is_past = |then: Timestamp, since: Duration| then <= now && now.since(then) >= since;
        // The first of two that is not long past.
        let first_of = |one: Timestamp, other: Option<Timestamp>, since: Duration| {
            if is_past(one, since) {
                other
            } else {
                Some(one)
            }
        };
        match self.day {
            None => {
                self.time?;
                first_of(in_days(0)?, in_days(1), JUST_NOW)
            }
            Some(Day::Today) => {
                self.time?;
                in_days(0)
            }
            Some(Day::Tomorrow) => in_days(1),
            Some(Day::Of(weekday)) => {
                let ahead = i64::from(today.weekday().until(weekday));
                // Without a time it is not the day that has begun.
                let since = self.time.map_or(Duration::ZERO, |_| JUST_NOW);
                first_of(in_days(ahead)?, in_days(ahead + 7), since)
            }
            Some(Day::On { year, month, day }) => {
                let in_year = |year: i16| at(Date::new(year, month, day).ok()?);
                if let Some(year) = year {
                    return in_year(year);
                }
                match in_year(today.year()) {
                    Some(then) => first_of(then, in_year(today.year() + 1), A_DAY),
                    None => in_year(today.year() + 1),
                }
            }
        }
    }
}
