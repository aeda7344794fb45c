//! Instants of the wire: RFC 3339, written in UTC with milliseconds and `Z`, read with any offset.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The last instant that can be written as a text, in milliseconds since the Unix epoch.
const LAST: i64 = 253_402_207_200_000;

static PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

/// An instant, in milliseconds since the Unix epoch. Reading the clock is not this crate's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// An instant from milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The instant `duration` later, at the most the last one that can be written as a text.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)).min(LAST))
    }

    /// The instant `duration` earlier.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; WRITTEN];
        if let Some(text) = self.usual_text(&mut buffer) {
            return f.write_str(text);
        }
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => f.write_str(&PRINTER.timestamp_to_string(&instant)),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// How many bytes an instant has as a text.
const WRITTEN: usize = "2026-01-31T12:00:00.000Z".len();

impl Timestamp {
    /// The text of an instant after 1970, into a buffer: there are a dozen in the messages of one item, and the printer takes
    /// 900 instructions for each.
    fn usual_text(self, buffer: &mut [u8; WRITTEN]) -> Option<&str> {
        const MILLIS_OF_DAY: u64 = 24 * 3_600_000;
        /// From the first of March of the year 0 to the first of January 1970: leap days are the last of such a year.
        const DAYS_BEFORE: u64 = 719_468;
        const DAYS_OF_FOUR_CENTURIES: u64 = 146_097;
        let millis = u64::try_from(self.0).ok().filter(|_| self.0 <= LAST)?;
        let (days, of_day) = (millis / MILLIS_OF_DAY + DAYS_BEFORE, millis % MILLIS_OF_DAY);
        let (centuries, day) = (days / DAYS_OF_FOUR_CENTURIES, days % DAYS_OF_FOUR_CENTURIES);
        // Without the leap days before it every year has 365 days: one in 4 years, none in 100, one in 400.
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        // From March on the months have 153 days in five.
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, is_next) = if month < 10 {
            (month + 3, 0)
        } else {
            (month - 9, 1)
        };
        let year = 400 * centuries + year + is_next;
        *buffer = *b"0000-00-00T00:00:00.000Z";
        let (seconds, minutes) = (of_day / 1_000, of_day / 60_000);
        for (place, value) in [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, minutes / 60),
            (14..16, minutes % 60),
            (17..19, seconds % 60),
            (20..23, of_day % 1_000),
        ] {
            let mut left = value;
            for digit in buffer[place].iter_mut().rev() {
                *digit += u8::try_from(left % 10).unwrap_or_default();
                left /= 10;
            }
        }
        std::str::from_utf8(buffer).ok()
    }
}

/// A text that is no RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {what}")]
pub struct TimeError {
    text: String,
    what: &'static str,
}

const NO_TIME: &str = "is not an RFC 3339 time; write it like 2026-01-31T12:00:00.000Z";
/// In any offset the last instant must still have a year of four digits.
const TOO_LATE: &str = "is beyond the last time that can be kept, 9999-12-30T22:00:00.000Z";

/// Whether there is such a date and time of day, whatever the offset.
fn is_civil(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.parse::<DateTime>().is_ok())
}

impl FromStr for Timestamp {
    type Err = TimeError;
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let refused = || TimeError {
            text: text.chars().take(64).collect(),
            what: if text.starts_with("9999-12-3") && is_civil(text.get(..19)) {
                TOO_LATE
            } else {
                NO_TIME
            },
        };
        let read = text.parse::<jiff::Timestamp>().ok();
        read.map(jiff::Timestamp::as_millisecond)
            .filter(|millis| *millis <= LAST)
            .map(Self)
            .ok_or_else(refused)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut buffer = [0; WRITTEN];
        match self.usual_text(&mut buffer) {
            Some(text) => serializer.serialize_str(text),
            None => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time as text")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn written_in_utc_with_milliseconds() {
        let read: Timestamp = "2026-01-31T13:00:00.5+01:00".parse().unwrap();
        assert_eq!(read.to_string(), "2026-01-31T12:00:00.500Z");
        assert_eq!(read.to_string().parse::<Timestamp>(), Ok(read));
    }

    proptest! {
        /// As the printer writes it, whatever the year; around every turn of a month as well.
        #[test]
        fn an_instant_is_written_as_the_printer_writes_it(
            millis in -2_000_000_000_000..LAST,
            days in 0..2_932_000_i64,
        ) {
            let turn = days * 24 * 3_600_000;
            for millis in [millis, turn, turn - 1, turn + 1, LAST, LAST + 1] {
                let instant = jiff::Timestamp::from_millisecond(millis.min(LAST)).unwrap();
                let expected = PRINTER.timestamp_to_string(&instant);
                let at = Timestamp(millis.min(LAST));
                prop_assert_eq!(at.to_string(), &*expected);
                prop_assert_eq!(serde_json::to_string(&at).unwrap(), format!("\"{expected}\""));
            }
        }
    }

    #[test]
    fn what_is_no_time_is_named() {
        let error = "tomorrow".parse::<Timestamp>().unwrap_err().to_string();
        assert!(error.contains("tomorrow") && error.contains("RFC 3339"));
    }

    #[test]
    fn the_last_time_that_can_be_kept_is_named() {
        let last = "9999-12-30T22:00:00.000Z";
        assert_eq!(last.parse::<Timestamp>().unwrap().to_string(), last);
        for late in [
            "9999-12-30T22:00:00.001Z",
            "9999-12-31T23:59:59Z",
            "9999-12-31T00:00:00.000-08:00",
        ] {
            let error = late.parse::<Timestamp>().unwrap_err().to_string();
            assert!(error.contains(last), "{error}");
        }
        assert_eq!(LAST, jiff::Timestamp::MAX.as_second() * 1_000);
        let error = "9999-12-39T00:00:00Z".parse::<Timestamp>().unwrap_err();
        assert!(error.to_string().contains("RFC 3339"), "{error}");
    }

    #[test]
    fn arithmetic_stays_in_range() {
        let now = Timestamp::from_millis(1_000);
        assert_eq!(
            now.after(Duration::from_secs(2)).since(now),
            Duration::from_secs(2)
        );
        assert_eq!(now.since(now.after(Duration::from_secs(2))), Duration::ZERO);
        let end = now.after(Duration::MAX);
        assert_eq!(end.to_string().parse(), Ok(end));
    }
}
