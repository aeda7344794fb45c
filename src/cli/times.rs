//! Times as people write and read them: `3m ago` in tables, the time itself beside it elsewhere.

use std::time::Duration;

use loom_actors::clock::Clock;
use loom_protocol::Timestamp;

/// How long ago something was, in one unit: `12s ago`, `5m ago`, `3h ago`, `9d ago`.
pub fn ago(at: Timestamp) -> String {
    format!("{} ago", short(Clock::system().now().since(at)))
}

/// A time, and how long ago it was.
pub fn at(time: Option<Timestamp>) -> String {
    time.map(|time| format!("{time} ({})", ago(time)))
        .unwrap_or_default()
}

/// A length of time in one unit.
pub fn short(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A time to come: one like `2026-01-31T12:00:00Z`, a day, or from now like `2h`.
pub fn to_come(text: &str) -> Result<Timestamp, String> {
    if let Ok(from_now) = humantime::parse_duration(text) {
        return Ok(Clock::system().now().after(from_now));
    }
    absolute(text).map_err(|error| format!("{error}, or from now like 2h"))
}

/// A time that has been: one like `2026-01-31T12:00:00Z`, a day, or before now like `2h`.
pub fn past(text: &str) -> Result<Timestamp, String> {
    if let Ok(before_now) = humantime::parse_duration(text) {
        return Ok(Clock::system().now().before(before_now));
    }
    absolute(text).map_err(|error| format!("{error}, a day like 2026-01-31, or before now like 2h"))
}

/// A day begins at midnight, UTC.
fn absolute(text: &str) -> Result<Timestamp, String> {
    let is_day = text.parse::<jiff::civil::Date>().is_ok() && !text.contains(['T', 't', ' ']);
    if is_day && let Ok(time) = format!("{text}T00:00:00Z").parse() {
        return Ok(time);
    }
    text.parse().map_err(|error| format!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_one_unit() {
        for (seconds, text) in [(0, "0s"), (61, "1m"), (7200, "2h"), (200_000, "2d")] {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn times_are_written_in_three_ways() {
        let now = Clock::system().now();
        assert!(to_come("2h").unwrap() > to_come("1h").unwrap());
        assert!(past("2h").unwrap() < past("1h").unwrap());
        assert!(past("1h").unwrap() < now && to_come("1h").unwrap() > now);
        for read in [to_come, past] {
            assert_eq!(
                read("1970-01-01T00:00:01Z"),
                Ok(Timestamp::from_millis(1000))
            );
            assert_eq!(read("1970-01-02"), Ok(Timestamp::from_millis(86_400_000)));
            assert!(read("soon").unwrap_err().contains("2h"));
            assert!(read("2026-02-31").is_err());
        }
    }
}
