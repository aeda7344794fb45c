//! Whether a program says that a usage limit is met, and until when; for known programs also, whether it is their
//! provider's trouble or a matter for a person. Pure.

use jiff::tz::TimeZone;
use loom_protocol::Timestamp;
use regex::{Regex, RegexBuilder};

use super::capture::Capture;
pub use super::limit_met::{Class, LimitMet};
use super::limit_presets::{self, LimitPreset};
use super::reset_time::reset_time;

/// How much of the end of each stream is looked at: a program that meets a limit says so last. In bytes.
const LAST_WORDS: usize = 2 * 1024;
/// How much of a last line that is longer, in bytes.
const LAST_LINE: usize = 32 * 1024;
/// A program that calls itself successful is believed, unless it says nothing but this much,
const NOTHING_ELSE: usize = 400;
/// and not more than so many words before the limit: it would be speaking about one.
const WORDS_BEFORE: usize = 3;

/// The patterns that tell a usage limit. With none, nothing is told.
///
/// What the group `reset` of a pattern finds begins with the time when the limit ends, if it can be understood; a
/// pattern with a group `when` finds nothing unless it can.
#[derive(Debug, Clone, Default)]
pub struct LimitPatterns(Vec<(Class, Regex)>);

impl LimitPatterns {
    /// Patterns of one's own come first, then those of the presets.
    ///
    /// # Errors
    /// A pattern that is none, with what is wrong with it.
    pub fn new(own: &[String], presets: &[LimitPreset]) -> Result<Self, String> {
        let read = |pattern: &str| {
            let mut builder = RegexBuilder::new(pattern);
            let regex = builder.case_insensitive(true).dot_matches_new_line(true);
            regex
                .build()
                .map_err(|error| format!("--limit-pattern {pattern:?} is no pattern: {error}"))
        };
        let of_presets = presets.iter().flat_map(|preset| preset.patterns());
        let own = own.iter().map(|own| read(own));
        let patterns = own.chain(of_presets.map(read));
        let limits = patterns.map(|pattern| Ok((Class::Limit, pattern?)));
        Ok(Self(limits.collect::<Result<_, String>>()?))
    }

    /// What a known program says: patterns of one's own first, then what is a matter for a person, then that the
    /// program's own limit is met, then that its provider is in trouble, and at last limits in general.
    ///
    /// # Errors
    /// As [`LimitPatterns::new`].
    pub fn of_program(own: &[String], preset: LimitPreset) -> Result<Self, String> {
        let mut all = Self::new(own, &[])?.0;
        let known = |class, patterns: &[&str]| -> Result<Vec<(Class, Regex)>, String> {
            let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
            let read = Self::new(&patterns, &[])?.0.into_iter();
            Ok(read.map(|(_, regex)| (class, regex)).collect())
        };
        all.extend(known(Class::Account, &limit_presets::ACCOUNT)?);
        all.extend(Self::new(&[], &[preset])?.0);
        all.extend(known(Class::Outage, &limit_presets::OUTAGE)?);
        all.extend(Self::new(&[], &[LimitPreset::Any])?.0);
        Ok(Self(all))
    }

    /// What a known program says that it came to; that is nothing else than its own word.
    pub fn of_result(&self, text: &str, now: Timestamp, zone: &TimeZone) -> Option<LimitMet> {
        let end = text.ceil_char_boundary(text.len().saturating_sub(LAST_LINE));
        self.find(&text[end..], usize::MAX, now, zone)
    }

    /// What a program that has failed said of a limit.
    pub fn of_failure(
        &self,
        stdout: &Capture,
        stderr: &Capture,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Option<LimitMet> {
        let streams = [stderr, stdout];
        streams
            .iter()
            .map(|stream| stream.tail().last_words(LAST_WORDS, LAST_LINE))
            .find_map(|words| self.find(&words, usize::MAX, now, zone))
    }

    /// What a program said of a limit that calls itself successful and says nothing else.
    pub fn of_success(
        &self,
        stdout: &Capture,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Option<LimitMet> {
        let tail = stdout.tail();
        let text = tail.whole().filter(|text| text.len() <= NOTHING_ELSE)?;
        self.find(&text, WORDS_BEFORE, now, zone)
    }

    /// The first pattern that finds anything, behind so many words at the most; of those of a limit the first that
    /// finds a time.
    fn find(
        &self,
        text: &str,
        words_before: usize,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Option<LimitMet> {
        let mut without_time = None;
        let found = |(class, pattern): &(Class, Regex)| Some((*class, pattern.captures(text)?));
        for (class, found) in self.0.iter().filter_map(found) {
            let (from, to) = found.get(0).map_or((0, 0), |all| (all.start(), all.end()));
            if text[..from].split_whitespace().count() > words_before {
                continue;
            }
            let needed = found.name("when");
            let named = needed.or_else(|| found.name("reset"));
            let time = named.and_then(|named| reset_time(named.as_str(), now, zone));
            if needed.is_some() && time.is_none() {
                continue;
            }
            // What stands behind the time is not about the limit.
            let end = match (named, time) {
                (Some(named), Some((_, length))) => named.start() + length,
                (Some(named), None) => named.start(),
                (None, _) => to,
            };
            let met = LimitMet {
                class,
                until: time.map(|(until, _)| until),
                said: text[from..end]
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" "),
            };
            match (class, &without_time) {
                (Class::Limit, _) if met.until.is_some() => return Some(met),
                (Class::Limit, None) => without_time = Some(met),
                (Class::Outage | Class::Account, None) => return Some(met),
                (_, Some(_)) => {}
            }
        }
        without_time
    }
}

#[cfg(test)]
mod class_tests;
#[cfg(test)]
mod tests;
