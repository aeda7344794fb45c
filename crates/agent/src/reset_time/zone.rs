//! Zones as people write them. Pure.

use jiff::tz::{Offset, TimeZone};

use super::scan::Scan;

/// What is said of a zone.
#[derive(Debug, Clone)]
pub(super) enum Zone {
    /// One that exists.
    Known(TimeZone),
    /// One that does not: that of the agent.
    Own,
}

/// Abbreviations, with their offsets in minutes. What several zones share means the one with most people who use such programs.
const ABBREVIATIONS: [(&str, i32); 41] = [
    ("z", 0),
    ("utc", 0),
    ("gmt", 0),
    ("wet", 0),
    ("bst", 60),
    ("west", 60),
    ("cet", 60),
    ("cest", 120),
    ("eet", 120),
    ("sast", 120),
    ("eest", 180),
    ("msk", 180),
    ("trt", 180),
    ("gst", 240),
    ("pkt", 300),
    ("ist", 330),
    ("npt", 345),
    ("ict", 420),
    ("wib", 420),
    ("sgt", 480),
    ("hkt", 480),
    ("pht", 480),
    ("awst", 480),
    ("jst", 540),
    ("kst", 540),
    ("acst", 570),
    ("aest", 600),
    ("acdt", 630),
    ("aedt", 660),
    ("nzst", 720),
    ("nzdt", 780),
    ("brt", -180),
    ("art", -180),
    ("ast", -240),
    ("edt", -240),
    ("est", -300),
    ("cdt", -300),
    ("cst", -360),
    ("mdt", -360),
    ("mst", -420),
    ("pdt", -420),
];
/// The same where the offset is that of a season, by their names.
const BY_NAME: [(&str, &str); 8] = [
    ("pst", "Etc/GMT+8"),
    ("akdt", "Etc/GMT+8"),
    ("akst", "Etc/GMT+9"),
    ("hst", "Pacific/Honolulu"),
    ("pt", "America/Los_Angeles"),
    ("mt", "America/Denver"),
    ("ct", "America/Chicago"),
    ("et", "America/New_York"),
];

/// A zone: `utc`, `gmt+1`, `utc-05:30`, `pst`, `europe/paris`, `etc/gmt-3`, `+02:00`.
pub(super) fn scan(scan: &mut Scan<'_>) -> Option<Zone> {
    let name = scan.name_of_zone()?;
    if let Some(offset) = name.strip_prefix(['+', '-']) {
        let digits = offset.chars().filter(char::is_ascii_digit).count();
        return (digits == 4).then(|| offset_of(name).map(fixed))?;
    }
    if let Some(minutes) = of_abbreviation(name) {
        return Some(fixed(minutes));
    }
    if let Some((_, iana)) = BY_NAME.into_iter().find(|(short, _)| *short == name) {
        return Some(TimeZone::get(iana).map_or(Zone::Own, Zone::Known));
    }
    let behind = name
        .strip_prefix("utc")
        .or_else(|| name.strip_prefix("gmt"));
    if let Some(offset) = behind {
        return Some(offset_of(offset).map_or(Zone::Own, fixed));
    }
    let is_name = name.contains('/') && name.starts_with(|c: char| c.is_ascii_alphabetic());
    is_name.then(|| TimeZone::get(name).map_or(Zone::Own, Zone::Known))
}

fn of_abbreviation(name: &str) -> Option<i32> {
    let mut known = ABBREVIATIONS.into_iter();
    known
        .find(|(short, _)| *short == name)
        .map(|(_, minutes)| minutes)
}

fn fixed(minutes: i32) -> Zone {
    Offset::from_seconds(minutes * 60)
        .map_or(Zone::Own, |offset| Zone::Known(TimeZone::fixed(offset)))
}

/// `+1`, `-05:30`, `+0530`, in minutes; at most 14 hours and 59 minutes.
fn offset_of(text: &str) -> Option<i32> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let digits = text.strip_prefix(['+', '-'])?;
    let (hours, minutes) = match digits.split_once(':') {
        Some(parts) => parts,
        None if digits.len() == 4 => digits.split_at(2),
        None => (digits, "0"),
    };
    let part = |text: &str, most: i32| {
        let is_number = (1..=2).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
        let number = text.parse::<i32>().ok().filter(|_| is_number)?;
        (number <= most).then_some(number)
    };
    Some(sign * (part(hours, 14)? * 60 + part(minutes, 59)?))
}
