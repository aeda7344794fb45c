//! When a usage limit ends, as programs say it to people. Pure.
//!
//! | said | meant |
//! |---|---|
//! | `2026-01-31T15:00:00Z`, `2026-01-31 15:00` | that instant |
//! | `1766502000`, `1766502000000` | seconds, or milliseconds, since the epoch |
//! | `45`, `2 days 17 hours 14 minutes`, `8h44m7s`, `in 1.5s`, `half an hour` | so long from now; a bare number means seconds |
//! | `3pm`, `2:51 p.m.`, `18:44`, `noon`, `5:10pm (Europe/Paris)`, `4pm PST`, `9:00 GMT+1` | the next time that the clock shows this |
//! | `tomorrow at 10am`, `today 5pm`, `Monday`, `next Fri 9:00` | then; a day alone means its first minute |
//! | `Jul 31, 2am (UTC)`, `Sep 15 at 7pm`, `Aug 20th, 2026 6:38 AM`, `20th of August` | then; without a year the next one |
//!
//! The text may go on behind the time. A zone that does not exist means the agent's own.

mod day;
mod scan;
mod zone;

use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use loom_protocol::Timestamp;

use day::{Day, Moment};
use scan::Scan;

/// Words and marks that may stand before a time and within one, and mean nothing.
const FILLERS: [&str; 24] = [
    "in",
    "at",
    "on",
    "after",
    "until",
    "till",
    "by",
    "for",
    "the",
    "next",
    "this",
    "of",
    "about",
    "around",
    "approximately",
    "another",
    "within",
    "less",
    "than",
    "up",
    "to",
    "only",
    "be",
    "again",
];
/// What separates the parts of a time.
const MARKS: [char; 12] = [',', ':', '=', '"', '\'', '~', '(', ')', '[', ']', '|', '.'];

/// The instant that a text begins with, and how many bytes of the text say so; `zone` is that of times that
/// name none. It is never before `now`: a time that has passed is `now`.
pub fn reset_time(text: &str, now: Timestamp, zone: &TimeZone) -> Option<(Timestamp, usize)> {
    let lower = text.to_ascii_lowercase();
    let mut scan = Scan::new(&lower);
    skip_fillers(&mut scan);
    let then = epoch(&mut scan)
        .or_else(|| span(&mut scan).map(|span| now.after(span)))
        .or_else(|| moment(&mut scan).and_then(|moment| moment.next(now, zone)))
        .or_else(|| bare_seconds(&mut scan).map(|span| now.after(span)))?;
    Some((then.max(now), lower.len() - scan.rest().len()))
}

fn skip_fillers(scan: &mut Scan<'_>) {
    loop {
        scan.skip(|c| c.is_whitespace() || MARKS.contains(&c));
        let filler = scan.try_word(|word| FILLERS.contains(&word).then_some(()));
        if filler.is_none() {
            return;
        }
    }
}

/// Seconds or milliseconds since 1970: ten or thirteen digits.
fn epoch(scan: &mut Scan<'_>) -> Option<Timestamp> {
    scan.attempt(|scan| {
        let digits = scan.digits()?;
        let number: i64 = digits.parse().ok()?;
        let millis = match digits.len() {
            10 => number.checked_mul(1000)?,
            13 => number,
            _ => return None,
        };
        Some(Timestamp::from_millis(millis))
    })
}

/// A number with nothing behind it.
fn bare_seconds(scan: &mut Scan<'_>) -> Option<Duration> {
    scan.attempt(|scan| {
        let digits = scan.digits().filter(|digits| digits.len() <= 6)?;
        let is_end = |c: char| c.is_whitespace() || c.is_ascii_punctuation();
        scan.rest()
            .chars()
            .all(is_end)
            .then(|| digits.parse().ok().map(Duration::from_secs))?
    })
}

/// Numbers with units, added up.
fn span(scan: &mut Scan<'_>) -> Option<Duration> {
    let mut total = None;
    while let Some(part) = scan.attempt(part_of_span) {
        total = Some(total.unwrap_or(Duration::ZERO).checked_add(part)?);
    }
    total
}

fn part_of_span(scan: &mut Scan<'_>) -> Option<Duration> {
    scan.skip(|c| c.is_whitespace() || matches!(c, ',' | '&' | '-'));
    scan.try_word(|word| (word == "and").then_some(()));
    scan.spaces();
    let count = scan.number().or_else(|| count_in_words(scan))?;
    scan.skip(|c| c.is_whitespace() || c == '-');
    let unit = scan.try_word(unit)?;
    let halves = scan.attempt(|scan| {
        let said = ["and", "a", "half"];
        said.into_iter().try_for_each(|said| {
            scan.spaces();
            scan.try_word(|word| (word == said).then_some(()))
        })
    });
    let count = count + if halves.is_some() { 0.5 } else { 0.0 };
    Duration::try_from_secs_f64(count * unit).ok()
}

/// The length of a unit of time, in seconds.
fn unit(word: &str) -> Option<f64> {
    Some(match word {
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => 0.001,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "wk" | "wks" | "week" | "weeks" => 7.0 * 86_400.0,
        _ => return None,
    })
}

/// `an`, `two`, `twenty-four`, `half a`, `a few`, `a couple of`.
fn count_in_words(scan: &mut Scan<'_>) -> Option<f64> {
    let mut count: Option<f64> = None;
    loop {
        let word = scan.attempt(|scan| {
            scan.skip(|c| c.is_whitespace() || c == '-');
            scan.try_word(number_word)
        });
        match (count, word) {
            (found, None) => return found,
            // An article behind or before a number adds nothing to it.
            (Some(_), Some(0.0)) => {}
            (None, Some(0.0)) => count = Some(1.0),
            (Some(known), Some(more)) if known >= 20.0 => count = Some(known + more),
            (_, Some(number)) => count = Some(number),
        }
    }
}

/// A number as a word; zero for an article.
fn number_word(word: &str) -> Option<f64> {
    const SMALL: [&str; 20] = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
        "twenty",
    ];
    Some(match word {
        "a" | "an" | "of" => 0.0,
        "half" => 0.5,
        "couple" => 2.0,
        "few" => 3.0,
        "thirty" => 30.0,
        "forty" => 40.0,
        "fifty" => 50.0,
        "sixty" => 60.0,
        "ninety" => 90.0,
        small => (1_u8..)
            .zip(SMALL)
            .find(|(_, name)| *name == small)
            .map(|(number, _)| f64::from(number))?,
    })
}

/// A day, a time of day and a zone, in any order; one of the first two at least.
fn moment(scan: &mut Scan<'_>) -> Option<Moment> {
    let mut moment = Moment::default();
    // Behind the last part that was understood.
    let mut end = *scan;
    loop {
        skip_fillers(scan);
        let before = *scan;
        if moment.time.is_none() {
            moment.time = scan.attempt(clock);
        }
        if moment.day.is_none() && scan.is_at(before) {
            moment.day = scan.attempt(Day::scan);
        }
        if moment.zone.is_none() && scan.is_at(before) {
            moment.zone = scan.attempt(zone::scan);
        }
        if scan.is_at(before) {
            *scan = end;
            return (moment.time.is_some() || moment.day.is_some()).then_some(moment);
        }
        end = *scan;
    }
}

/// `3pm`, `2:51 p.m.`, `18:44`, `18:44:10.5`, `noon`, `midnight`.
fn clock(scan: &mut Scan<'_>) -> Option<Time> {
    let named = scan.try_word(|word| match word {
        "noon" | "midday" => Some(Time::constant(12, 0, 0, 0)),
        "midnight" => Some(Time::midnight()),
        _ => None,
    });
    if named.is_some() {
        return named;
    }
    // Between the date and the time of an instant.
    scan.attempt(|scan| scan.mark('t').filter(|()| scan.at_digit()));
    let hour: i8 = scan
        .digits()
        .filter(|digits| digits.len() <= 2)?
        .parse()
        .ok()?;
    let two_digits = |scan: &mut Scan<'_>| -> Option<i8> {
        scan.attempt(|scan| {
            scan.mark(':')?;
            scan.digits()
                .filter(|digits| digits.len() == 2)?
                .parse()
                .ok()
        })
    };
    let minute = two_digits(scan);
    let second = minute.and_then(|_| two_digits(scan));
    if second.is_some() {
        scan.attempt(|scan| scan.mark('.').and_then(|()| scan.digits()));
    }
    let hour = match (scan.attempt(half_of_day), minute) {
        (None, None) => return None,
        (None, Some(_)) => hour,
        (Some(_), _) if !(1..=12).contains(&hour) => return None,
        (Some(is_afternoon), _) => hour % 12 + if is_afternoon { 12 } else { 0 },
    };
    Time::new(hour, minute.unwrap_or(0), second.unwrap_or(0), 0).ok()
}

/// Whether a time is in the afternoon.
fn half_of_day(scan: &mut Scan<'_>) -> Option<bool> {
    scan.spaces();
    let is_afternoon = scan
        .mark('p')
        .map(|()| true)
        .or_else(|| scan.mark('a').map(|()| false))?;
    let is_dotted = scan.mark('.').is_some();
    scan.mark('m')?;
    if is_dotted {
        scan.mark('.');
    }
    (!scan.at_word()).then_some(is_afternoon)
}

#[cfg(test)]
mod tests;
