//! When a usage limit ends, as programs say it to people. Pure.
//!
//! | said | meant |
//! |---|---|
//! | `2026-01-31T15:00:00Z` | that instant |
//! | `1766502000`, `1766502000000` | seconds, or milliseconds, since the epoch |
//! | `45`, `2 days 17 hours 14 minutes`, `8h44m7s`, `in 1.5s` | so long from now; a bare number means seconds |
//! | `3pm`, `2:51 PM`, `18:44`, `5:10pm (Europe/Paris)` | the next time that the clock shows this |
//! | `Jul 31, 2am (UTC)`, `Sep 15 at 7pm`, `Aug 20th, 2026 6:38 AM` | then; without a year the next one |

use std::sync::LazyLock;
use std::time::Duration;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp as Instant, ToSpan as _};
use loom_protocol::Timestamp;
use regex::Regex;

/// A time of day that has just passed means now, and not tomorrow: the message was on its way.
const JUST_NOW: Duration = Duration::from_mins(15);
/// How long to wait where the time has just passed.
const A_MOMENT: Duration = Duration::from_mins(1);

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

/// The patterns are constants, and a test reads with each of them.
fn pattern(text: &str) -> Option<Regex> {
    Regex::new(text).ok()
}

static SPAN: LazyLock<Option<Regex>> = LazyLock::new(|| {
    pattern(
        r"^(\d+(?:\.\d+)?)\s*(weeks?|w|days?|d|hours?|hrs?|h|minutes?|mins?|ms|m|seconds?|secs?|s)\b?[\s,]*(?:and\s+)?",
    )
});
static CLOCK: LazyLock<Option<Regex>> = LazyLock::new(|| {
    pattern(
        r"(?x)^
        (?:(?<month>[a-z]{3})[a-z]*\.?\s+(?<day>\d{1,2})(?:st|nd|rd|th)?(?:,?\s+(?<year>\d{4}))?,?\s+(?:at\s+)?)?
        (?<hour>\d{1,2})(?::(?<minute>\d{2}))?(?::\d{2})?\s*(?<half>[ap]\.?m)?\.?
        \s*(?:\(?(?<zone>utc|gmt|[a-z_]+/[a-z_/+-]+)\)?)?\.?$",
    )
});

/// The instant that a text means; `zone` is that of times that name none.
pub fn reset_time(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = text.trim_end_matches(['.', ',', ';']);
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Some(instant);
    }
    let text = text.to_ascii_lowercase();
    number(&text, now)
        .or_else(|| span(&text).map(|span| now.after(span)))
        .or_else(|| clock(&text, now, zone))
}

fn number(text: &str, now: Timestamp) -> Option<Timestamp> {
    let number: i64 = text.parse().ok()?;
    match text.len() {
        10 => Some(Timestamp::from_millis(number * 1000)),
        13 => Some(Timestamp::from_millis(number)),
        1..=6 => Some(now.after(Duration::from_secs(number.try_into().ok()?))),
        _ => None,
    }
}

fn span(text: &str) -> Option<Duration> {
    let mut rest = text.trim_start_matches("in ").trim();
    match rest.trim_start_matches("less than ") {
        "a minute" => return Some(Duration::from_mins(1)),
        "an hour" => return Some(Duration::from_hours(1)),
        _ => {}
    }
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let found = SPAN.as_ref()?.captures(rest)?;
        let count: f64 = found[1].parse().ok()?;
        let unit = match &found[2] {
            "ms" => 0.001,
            unit => match unit.as_bytes().first()? {
                b'w' => 7.0 * 86_400.0,
                b'd' => 86_400.0,
                b'h' => 3_600.0,
                b'm' => 60.0,
                _ => 1.0,
            },
        };
        total += Duration::try_from_secs_f64(count * unit).ok()?;
        rest = &rest[found[0].len()..];
    }
    Some(total)
}

fn clock(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let found = CLOCK.as_ref()?.captures(text)?;
    let part = |name: &str| found.name(name).map(|part| part.as_str());
    let zone = match part("zone") {
        None => zone.clone(),
        Some("utc" | "gmt") => TimeZone::UTC,
        Some(name) => TimeZone::get(name).ok()?,
    };
    let here = Instant::from_millisecond(now.as_millis())
        .ok()?
        .to_zoned(zone.clone());
    let time = time_of_day(part("hour")?, part("minute"), part("half"))?;
    let at = |date: Date| -> Option<Timestamp> {
        let then = zone.to_zoned(DateTime::from_parts(date, time)).ok()?;
        Some(Timestamp::from_millis(then.timestamp().as_millisecond()))
    };
    let Some(month) = part("month") else {
        let today = at(here.date())?;
        return match now.since(today) {
            Duration::ZERO => Some(today),
            passed if passed < JUST_NOW => Some(now.after(A_MOMENT)),
            _ => at(here.date().checked_add(1.day()).ok()?),
        };
    };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let day = part("day")?.parse().ok()?;
    let in_year = |year: i16| at(Date::new(year, i8::try_from(month).ok()?, day).ok()?);
    if let Some(year) = part("year") {
        return in_year(year.parse().ok()?);
    }
    let this_year = in_year(here.year())?;
    if now.since(this_year) < Duration::from_hours(24) {
        return Some(this_year.max(now.after(A_MOMENT)));
    }
    in_year(here.year() + 1)
}

fn time_of_day(hour: &str, minute: Option<&str>, half: Option<&str>) -> Option<Time> {
    let hour: i8 = hour.parse().ok()?;
    let hour = match half.and_then(|half| half.chars().next()) {
        None if minute.is_none() => return None,
        None => hour,
        Some(_) if !(1..=12).contains(&hour) => return None,
        Some('p') => hour % 12 + 12,
        Some(_) => hour % 12,
    };
    Time::new(hour, minute.unwrap_or("0").parse().ok()?, 0, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A Wednesday afternoon in UTC.
    const NOW: &str = "2026-07-29T14:00:00.000Z";

    fn read(text: &str) -> Option<String> {
        let now = NOW.parse().unwrap();
        reset_time(text, now, &TimeZone::UTC).map(|time| time.to_string())
    }

    #[test]
    fn what_programs_say_is_understood() {
        for (said, meant) in [
            ("2026-07-29T17:00:00+02:00", "2026-07-29T15:00:00.000Z"),
            ("1785340800", "2026-07-29T16:00:00.000Z"),
            ("1785340800000", "2026-07-29T16:00:00.000Z"),
            ("45", "2026-07-29T14:00:45.000Z"),
            ("2 days 17 hours 14 minutes", "2026-08-01T07:14:00.000Z"),
            ("5 days 22 hours 11\nminutes.", "2026-08-04T12:11:00.000Z"),
            ("2 hours", "2026-07-29T16:00:00.000Z"),
            ("in 2 hours", "2026-07-29T16:00:00.000Z"),
            ("8h44m7s", "2026-07-29T22:44:07.000Z"),
            ("1.5s", "2026-07-29T14:00:01.500Z"),
            ("250ms", "2026-07-29T14:00:00.250Z"),
            ("less than a minute", "2026-07-29T14:01:00.000Z"),
            ("3pm", "2026-07-29T15:00:00.000Z"),
            ("3pm (America/Bogota)", "2026-07-29T20:00:00.000Z"),
            ("12:50am", "2026-07-30T00:50:00.000Z"),
            ("10am (Asia/Seoul)", "2026-07-30T01:00:00.000Z"),
            ("5:10pm (Europe/Paris)", "2026-07-29T15:10:00.000Z"),
            ("2:51 PM", "2026-07-29T14:51:00.000Z"),
            ("18:44", "2026-07-29T18:44:00.000Z"),
            ("12pm", "2026-07-30T12:00:00.000Z"),
            ("1:55 PM", "2026-07-29T14:01:00.000Z"),
            ("Jul 31, 2am (UTC)", "2026-07-31T02:00:00.000Z"),
            ("Sep 15 at 7pm", "2026-09-15T19:00:00.000Z"),
            (
                "Feb 20, 5pm (Africa/Libreville)",
                "2027-02-20T16:00:00.000Z",
            ),
            ("Aug 20th, 2026 6:38 AM", "2026-08-20T06:38:00.000Z"),
            ("Jul 29 at 1:30pm", "2026-07-29T14:01:00.000Z"),
        ] {
            assert_eq!(read(said).as_deref(), Some(meant), "{said:?}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for said in [
            "",
            "soon",
            "3",
            "25:00",
            "13pm",
            "Foo 3 at 4pm",
            "3 apples",
            "Feb 30, 5pm",
        ] {
            let read = read(said);
            assert!(said == "3" || read.is_none(), "{said:?}: {read:?}");
        }
        assert_eq!(read("9pm (Nowhere/City)"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,40}") {
            let _ = read(&text);
        }

        #[test]
        fn a_time_of_day_is_the_next_one(hour in 1_i64..=12, minute in 0_i64..60, pm in any::<bool>()) {
            let half = if pm { "pm" } else { "am" };
            let now: Timestamp = NOW.parse().unwrap();
            let time = reset_time(&format!("{hour}:{minute:02}{half}"), now, &TimeZone::UTC);
            let wait = time.unwrap().since(now);
            prop_assert!(time.unwrap() >= now && wait <= Duration::from_hours(24));
        }
    }
}
