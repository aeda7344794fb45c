//! The three classes of what is nobody's failure.

use super::tests::NOW;
use super::*;
use clap::ValueEnum as _;

/// Every example of the three classes, as a known program says it in its result.
#[test]
fn each_class_is_told_from_what_a_known_program_says() {
    let patterns = |preset: &LimitPreset| LimitPatterns::of_program(&[], *preset).unwrap();
    let known: Vec<_> = LimitPreset::value_variants().iter().map(patterns).collect();
    let none = None;
    for (preset, text, class, until) in [
        (
            LimitPreset::Claude,
            "Claude AI usage limit reached|1785340800",
            Class::Limit,
            Some("2026-07-29T16:00:00.000Z"),
        ),
        (
            LimitPreset::Claude,
            "You've hit your session limit · resets 12:50am (America/Los_Angeles)",
            Class::Limit,
            Some("2026-07-30T07:50:00.000Z"),
        ),
        (
            LimitPreset::Claude,
            "You're out of extra usage · resets 9pm",
            Class::Limit,
            Some("2026-07-29T21:00:00.000Z"),
        ),
        (
            LimitPreset::Codex,
            "You've hit your usage limit. Visit https://x.y or try again at 7:38 PM.",
            Class::Limit,
            Some("2026-07-29T19:38:00.000Z"),
        ),
        (
            LimitPreset::Codex,
            "You've hit your usage limit, try again at Aug 20th, 2026 6:38 AM.",
            Class::Limit,
            Some("2026-08-20T06:38:00.000Z"),
        ),
        (
            LimitPreset::Codex,
            "stream disconnected before completion: Rate limit reached for gpt-5 in organization o: Please try again in 1.5s.",
            Class::Limit,
            Some("2026-07-29T14:00:01.500Z"),
        ),
        (
            LimitPreset::Copilot,
            "Sorry, you've hit a rate limit. Please try again in 15 hours 23 minutes",
            Class::Limit,
            Some("2026-07-30T05:23:00.000Z"),
        ),
        (
            LimitPreset::Gemini,
            "Quota exceeded. Please retry after 840 seconds",
            Class::Limit,
            Some("2026-07-29T14:14:00.000Z"),
        ),
        (
            LimitPreset::Gemini,
            "You have exhausted your capacity on this model. Your quota will reset after 8h44m7s.",
            Class::Limit,
            Some("2026-07-29T22:44:07.000Z"),
        ),
        (
            LimitPreset::Gemini,
            "Rate limit: Please retry in 34.07s",
            Class::Limit,
            Some("2026-07-29T14:00:34.070Z"),
        ),
        (
            LimitPreset::Copilot,
            "Too many requests. Please wait 2 minutes before trying again",
            Class::Limit,
            Some("2026-07-29T14:02:00.000Z"),
        ),
        (
            LimitPreset::Claude,
            "Your limit resets at 4pm PST",
            Class::Limit,
            Some("2026-07-30T00:00:00.000Z"),
        ),
        (
            LimitPreset::Claude,
            "API Error: 529 Overloaded",
            Class::Outage,
            none,
        ),
        (
            LimitPreset::Claude,
            "API Error: Server is temporarily limiting requests (not your usage limit)",
            Class::Outage,
            none,
        ),
        (
            LimitPreset::Codex,
            "We're currently experiencing high demand, which may cause temporary errors.",
            Class::Outage,
            none,
        ),
        (
            LimitPreset::Codex,
            "stream disconnected before completion: error sending request",
            Class::Outage,
            none,
        ),
        (
            LimitPreset::Codex,
            "unexpected status 503 Service Unavailable",
            Class::Outage,
            none,
        ),
        (
            LimitPreset::Gemini,
            "{\"error\":{\"code\":503,\"message\":\"The model is overloaded\"}}",
            Class::Outage,
            none,
        ),
        (
            LimitPreset::Claude,
            "Credit balance is too low",
            Class::Account,
            none,
        ),
        (
            LimitPreset::Codex,
            "Your workspace is out of credits. Ask your workspace owner to refill.",
            Class::Account,
            none,
        ),
        (
            LimitPreset::Claude,
            "You've hit your org's monthly usage limit",
            Class::Account,
            none,
        ),
        (
            LimitPreset::Copilot,
            "You hit your spend cap",
            Class::Account,
            none,
        ),
        (
            LimitPreset::Claude,
            "OAuth token has expired. Please obtain a new token or refresh your existing token.",
            Class::Account,
            none,
        ),
        (
            LimitPreset::Codex,
            "Your access token could not be refreshed because your refresh token was revoked",
            Class::Account,
            none,
        ),
        (
            LimitPreset::Claude,
            "Invalid API key · Please run /login",
            Class::Account,
            none,
        ),
        (
            LimitPreset::Copilot,
            "Access to Copilot is disabled by your organization",
            Class::Account,
            none,
        ),
    ] {
        let at = LimitPreset::value_variants()
            .iter()
            .position(|known| *known == preset);
        let met = known[at.unwrap()].of_result(text, NOW.parse().unwrap(), &TimeZone::UTC);
        let met = met.unwrap_or_else(|| panic!("not recognised: {text:?}"));
        let read = met.until.map(|until| until.to_string());
        assert_eq!((met.class, read.as_deref()), (class, until), "{text:?}");
    }
    for text in [
        "error_max_turns",
        "The tests fail: expected 503 lines",
        "I could not find the token in the file",
        "the server has no such route",
    ] {
        assert_eq!(
            known[0].of_result(text, NOW.parse().unwrap(), &TimeZone::UTC),
            None,
            "{text:?}"
        );
    }
}
