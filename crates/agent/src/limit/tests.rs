use super::*;
use crate::testing::job;
use clap::ValueEnum as _;

pub(super) const NOW: &str = "2026-07-29T14:00:00.000Z";

fn captured(text: &str) -> Capture {
    let mut capture = Capture::default();
    capture.feed(text.as_bytes(), &job());
    capture.finish(&job());
    capture
}

fn met(presets: &[LimitPreset], text: &str) -> Option<LimitMet> {
    met_by(&LimitPatterns::new(&[], presets).unwrap(), text)
}

fn met_by(limits: &LimitPatterns, text: &str) -> Option<LimitMet> {
    let (stdout, stderr) = (captured(""), captured(text));
    limits.of_failure(&stdout, &stderr, NOW.parse().unwrap(), &TimeZone::UTC)
}

/// Texts as the programs wrote them, and when the limit ends by them.
const SEEN: &[(LimitPreset, &str, Option<&str>)] = &[
    (
        LimitPreset::Claude,
        "Claude AI usage limit reached|1785340800",
        Some("2026-07-29T16:00:00.000Z"),
    ),
    (
        LimitPreset::Claude,
        "Claude usage limit reached. Your limit will reset at 3pm (America/Bogota).",
        Some("2026-07-29T20:00:00.000Z"),
    ),
    (
        LimitPreset::Claude,
        "You've hit your session limit · resets 12:50am (America/Los_Angeles)",
        Some("2026-07-30T07:50:00.000Z"),
    ),
    (
        LimitPreset::Claude,
        "You’ve hit your limit for Claude messages. Limits will reset at 9:30 PM.",
        Some("2026-07-29T21:30:00.000Z"),
    ),
    (
        LimitPreset::Claude,
        "You've hit your weekly limit · resets Jul 31, 2am (UTC)",
        Some("2026-07-31T02:00:00.000Z"),
    ),
    (
        LimitPreset::Claude,
        "You've hit your weekly limit · resets Sep 15 at 7pm",
        Some("2026-09-15T19:00:00.000Z"),
    ),
    (
        LimitPreset::Claude,
        "Weekly limit reached · resets 10am (Asia/Seoul) · /upgrade to Max or turn on /extra-usage",
        Some("2026-07-30T01:00:00.000Z"),
    ),
    (
        LimitPreset::Claude,
        "{\"type\":\"result\",\"is_error\":true,\"result\":\"Claude AI usage limit reached|1785340800\"}",
        Some("2026-07-29T16:00:00.000Z"),
    ),
    (
        LimitPreset::Claude,
        "You've hit your Sonnet limit · resets 3:45pm",
        Some("2026-07-29T15:45:00.000Z"),
    ),
    (
        LimitPreset::Claude,
        "You're out of extra usage · resets 9pm",
        Some("2026-07-29T21:00:00.000Z"),
    ),
    (
        LimitPreset::Claude,
        "You've hit your weekly limit · resets tomorrow at 10am (Etc/GMT-3)",
        Some("2026-07-30T07:00:00.000Z"),
    ),
    (
        LimitPreset::Claude,
        "You've hit your limit · resets Monday",
        Some("2026-08-03T00:00:00.000Z"),
    ),
    (
        LimitPreset::Claude,
        "You've hit your session limit · resets 4pm GMT+1",
        Some("2026-07-29T15:00:00.000Z"),
    ),
    (
        LimitPreset::Codex,
        "■ You've hit your usage limit. Upgrade to Pro (https://openai.com/chatgpt/pricing) or try again in 5 days 22 hours 11\nminutes.",
        Some("2026-08-04T12:11:00.000Z"),
    ),
    (
        LimitPreset::Codex,
        "You've hit your usage limit. Visit https://chatgpt.com/codex/settings/usage to purchase more credits or try again at Aug 20th, 2026 6:38 AM.",
        Some("2026-08-20T06:38:00.000Z"),
    ),
    (
        LimitPreset::Codex,
        "You’ve hit your usage limit for codex. Switch to another model now, or try again at 7:38 PM.",
        Some("2026-07-29T19:38:00.000Z"),
    ),
    (
        LimitPreset::Codex,
        "> 🖐 You've hit your usage limit. Upgrade to Pro (https://openai.com/chatgpt/pricing), or wait for limits to reset (every 5h and every week.).",
        None,
    ),
    (
        LimitPreset::Codex,
        "Rate limit reached for gpt-5 in organization org-x on tokens per min (TPM): Please try again in 1.5s.",
        Some("2026-07-29T14:00:01.500Z"),
    ),
    (
        LimitPreset::Copilot,
        "✗ Sorry, you've hit a rate limit that restricts the number of Copilot model requests you can make within a specific time\n  period. Please try again in 15 hours 23 minutes. Please review our Terms",
        Some("2026-07-30T05:23:00.000Z"),
    ),
    (
        LimitPreset::Copilot,
        "Model call failed: {\"message\":\"rate limit exceeded\",\"code\":\"rate_limited\"}",
        None,
    ),
    (
        LimitPreset::Copilot,
        "Sorry, you have been rate-limited. Please wait a moment before trying again.",
        None,
    ),
    (
        LimitPreset::Gemini,
        "You have exhausted your capacity on this model. Your quota will reset after 8h44m7s.",
        Some("2026-07-29T22:44:07.000Z"),
    ),
    (
        LimitPreset::Gemini,
        "✕ [API Error: You have exhausted your daily quota on this model.]",
        None,
    ),
    (
        LimitPreset::Gemini,
        "\"status\": \"RESOURCE_EXHAUSTED\"",
        None,
    ),
];

#[test]
fn the_texts_of_each_program_are_recognised() {
    let patterns = |preset: &LimitPreset| LimitPatterns::new(&[], &[*preset]).unwrap();
    let known: Vec<_> = LimitPreset::value_variants().iter().map(patterns).collect();
    for (preset, text, until) in SEEN {
        for preset in [*preset, LimitPreset::Any] {
            let at = LimitPreset::value_variants()
                .iter()
                .position(|known| *known == preset);
            let met = met_by(&known[at.unwrap()], &format!("Working…\n{text}\n"));
            let met = met.unwrap_or_else(|| panic!("not recognised: {text:?}"));
            let read = met.until.map(|until| until.to_string());
            assert_eq!(read.as_deref(), *until, "{text:?}: {met:?}");
        }
    }
}

#[test]
fn what_any_program_says_of_a_limit_is_recognised_where_it_names_a_time() {
    for (text, until) in [
        (
            "Too many requests. Please retry after 840 seconds",
            "14:14:00.000Z",
        ),
        ("Quota exceeded, please retry in 34.07s.", "14:00:34.070Z"),
        (
            "rate limit: Please wait 2 minutes before trying again",
            "14:02:00.000Z",
        ),
        (
            "The limit is used up and resets at 4pm PDT",
            "23:00:00.000Z",
        ),
    ] {
        let met = met(&[LimitPreset::Any], text).unwrap_or_else(|| panic!("{text:?}"));
        let read = met.until.unwrap().to_string();
        assert!(read.ends_with(until), "{text:?}: {read}");
    }
}

#[test]
fn what_is_said_behind_the_time_makes_no_other_limit() {
    let said = |text: &str| met(&[LimitPreset::Claude], text).unwrap().said;
    let text = "Weekly limit reached · resets 10am";
    assert_eq!(said(&format!("{text} · build 7f3e failed")), text);
    assert_eq!(said(&format!("{text}\nbye")), text);
}

#[test]
fn other_failures_are_none() {
    for text in [
        "error: expected `;`",
        "the limit of the array is reached",
        "test usage_limit ... FAILED",
        "429 is not the answer",
        "time limit exceeded",
        "error: recursion limit reached, reset the counter before the next call",
        "test failed: connection limit reached\nhint: it resets after each test",
        "status = StatusCode.RESOURCE_EXHAUSTED, details = \"received message larger than max\"",
    ] {
        assert_eq!(met(&[LimitPreset::Any], text), None, "{text:?}");
    }
    assert_eq!(met(&[], "Claude AI usage limit reached|1785340800"), None);
}

#[test]
fn only_the_last_words_count() {
    let long_ago = format!(
        "You've hit your usage limit.\n{}",
        "compiling\n".repeat(1000)
    );
    assert_eq!(met(&[LimitPreset::Any], &long_ago), None);
}

#[test]
fn a_limit_at_the_end_of_a_long_line_is_seen() {
    for length in [2_051, 40_000, 500_000] {
        let text = format!("{} usage limit reached|1785340800", "x".repeat(length));
        assert!(met(&[LimitPreset::Claude], &text).is_some(), "{length}");
    }
    // One line of JSON that speaks of much else behind it.
    let json = format!(
        "{{\"is_error\":true,\"result\":\"Claude AI usage limit reached|1785340800\",\"models\":\"{}\"}}",
        "m".repeat(9_000)
    );
    assert!(met(&[LimitPreset::Claude], &json).is_some());
}

#[test]
fn a_success_is_believed_unless_it_says_nothing_else() {
    let limits = LimitPatterns::new(&[], &[LimitPreset::Claude]).unwrap();
    let read =
        |text: &str| limits.of_success(&captured(text), NOW.parse().unwrap(), &TimeZone::UTC);
    assert!(read("Claude AI usage limit reached|1785340800").is_some());
    let report = format!(
        "{}\nThe bug was in `usage limit reached|1785340800`.",
        "x".repeat(500)
    );
    assert_eq!(read(&report), None);
    let short = "Fixed: users are told \"Weekly limit reached\" before they submit.";
    assert_eq!(read(short), None, "it speaks of a limit, and has met none");
    let last = format!("{}\nusage limit reached", "x".repeat(5_000));
    assert_eq!(read(&last), None, "it has said more before");
}

#[test]
fn a_pattern_of_ones_own_comes_first_and_a_bad_one_is_explained() {
    let own = ["out of fuel until (?<reset>.+)".to_owned()];
    let limits = LimitPatterns::new(&own, &[]).unwrap();
    let met = limits.of_failure(
        &captured("OUT OF FUEL until 4pm"),
        &captured(""),
        NOW.parse().unwrap(),
        &TimeZone::UTC,
    );
    let until = met.unwrap().until.map(|until| until.to_string());
    assert_eq!(until.as_deref(), Some("2026-07-29T16:00:00.000Z"));
    let error = LimitPatterns::new(&["(".to_owned()], &[]).unwrap_err();
    assert!(error.contains("--limit-pattern"), "{error}");
}

#[test]
fn every_preset_has_patterns_that_can_be_read() {
    for preset in LimitPreset::value_variants() {
        assert!(preset.patterns().count() > 2);
        LimitPatterns::new(&[], &[*preset]).unwrap();
    }
}
