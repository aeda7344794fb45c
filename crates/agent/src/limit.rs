//! Whether a program says that a usage limit is met, and until when. Pure.

use jiff::tz::TimeZone;
use loom_protocol::Timestamp;
use regex::{Regex, RegexBuilder};

use super::capture::Capture;
use super::limit_presets::LimitPreset;
use super::reset_time::reset_time;

/// How much of the end of each stream is looked at: a program that meets a limit says so last. In bytes.
const LAST_WORDS: usize = 2 * 1024;
/// How much of a last line that is longer, in bytes.
const LAST_LINE: usize = 32 * 1024;
/// A program that calls itself successful is believed, unless it says nothing but this much,
const NOTHING_ELSE: usize = 400;
/// and not more than so many words before the limit: it would be speaking about one.
const WORDS_BEFORE: usize = 3;

/// A usage limit that a program has met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitMet {
    /// Until when, if it says so and it can be understood.
    pub until: Option<Timestamp>,
    /// What it said.
    pub said: String,
}

/// The patterns that tell a usage limit. With none, nothing is told.
///
/// What the group `reset` of a pattern finds begins with the time when the limit ends, if it can be understood; a
/// pattern with a group `when` finds nothing unless it can.
#[derive(Debug, Clone, Default)]
pub struct LimitPatterns(Vec<Regex>);

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
        let own = own.iter().map(|own| read(own));
        let of_presets = presets.iter().flat_map(|preset| preset.patterns());
        let patterns = own.chain(of_presets.map(read));
        Ok(Self(patterns.collect::<Result<_, _>>()?))
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

    /// The first pattern that finds a time, or else the first that finds anything, behind so many
    /// words at the most.
    fn find(
        &self,
        text: &str,
        words_before: usize,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Option<LimitMet> {
        let mut without_time = None;
        for found in self.0.iter().filter_map(|pattern| pattern.captures(text)) {
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
                until: time.map(|(until, _)| until),
                said: text[from..end]
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" "),
            };
            if met.until.is_some() {
                return Some(met);
            }
            without_time.get_or_insert(met);
        }
        without_time
    }
}

#[cfg(test)]
mod tests;
