//! How agent programs say that a usage limit is met. Data: each text was seen in public reports.

use clap::ValueEnum;

/// A family of agent programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LimitPreset {
    /// Claude Code
    Claude,
    /// OpenAI Codex
    Codex,
    /// GitHub Copilot
    Copilot,
    /// Gemini CLI
    Gemini,
    /// All of them
    Any,
}

/// The patterns of one family, the more particular first. Case is passed over, `.` is any character.
struct Family {
    preset: LimitPreset,
    patterns: &'static [&'static str],
}

const FAMILIES: [Family; 5] = [
    Family {
        preset: LimitPreset::Claude,
        patterns: &[
            r"usage limit reached\|(?<reset>\d{10,13})",
            r"\b(?:usage|session|weekly|daily|opus|sonnet|haiku|[0-9]-hour) limit reached.{0,40}?resets?(?: at)? (?<reset>.{1,90})",
            r"(?:hit|reached) your [a-z0-9 -]{0,40}limit[^.\n]{0,40}?resets? (?:at )?(?<reset>.{1,90})",
            r"limits? will reset at (?<reset>.{1,90})",
            r"You.re out of (?:extra )?usage.{0,60}?resets? (?<reset>.{1,90})",
            r"You.re out of extra usage",
            r"\b(?:usage|session|weekly|5-hour) limit reached",
            r"You.ve (?:hit|reached) your [a-z0-9 -]{0,40}limit",
        ],
    },
    Family {
        preset: LimitPreset::Codex,
        patterns: &[
            r"hit your usage limit.{0,300}?try again in (?<reset>.{1,90})",
            r"hit your usage limit.{0,300}?try again at (?<reset>.{1,90})",
            r"rate limit reached for .{0,200}?try again in (?<reset>.{1,90})",
            r"You.ve hit (?:your usage limit|the rate limit for your plan)",
        ],
    },
    Family {
        preset: LimitPreset::Copilot,
        patterns: &[
            r"hit a rate limit.{0,200}?try again in (?<reset>.{1,90})",
            r"you have been rate-limited",
            r"you have exceeded your [a-z ]{0,40}(?:token usage|premium request)",
            r#""code": ?"rate_limited""#,
        ],
    },
    Family {
        preset: LimitPreset::Gemini,
        patterns: &[
            r"quota will reset after (?<reset>.{1,90})",
            r"exhausted your (?:capacity|daily quota) on this model",
            r"reached your daily quota limit",
            r"quota exceeded for quota metric",
            r"exceeded your current quota",
            r"\bstatus\W{1,6}RESOURCE_EXHAUSTED\b",
        ],
    },
    // What any program may say, with a time only.
    Family {
        preset: LimitPreset::Any,
        patterns: &[
            r"\b(?:limits?|quota|usage|rate[- ]limited|too many requests)\b.{0,300}?\b(?:resets?|(?:try|available) again|retry|wait) (?<when>.{1,90})",
        ],
    },
];

/// How known programs say that a person has to act, whichever they are.
pub const ACCOUNT: [&str; 12] = [
    r"credit balance is too low",
    r"\bout of credits\b",
    r"hit your org(?:anization|anisation)?.s monthly (?:usage|spend) limit",
    r"\bhit your spend(?:ing)? (?:cap|limit)",
    r"\b(?:insufficient_quota|billing_hard_limit_reached|billing_not_active)\b",
    r"\b(?:o?auth(?:entication|orization)?|access|refresh|api)[ _-]?(?:token|key)\b.{0,40}\b(?:expired|revoked|invalid)\b",
    r"\b(?:expired|revoked|invalid)\b.{0,20}\b(?:api key|access token|auth token|credentials)\b",
    r"\binvalid (?:x-)?api[ -]key\b",
    r"\bplease (?:run|use) [`'\x22]?/?(?:[a-z]+ )?(?:/)?login\b",
    r"\b(?:not logged in|please (?:log|sign) in)\b",
    r"\bdisabled (?:by|for) your organi[sz]ation\b|\borgani[sz]ation has (?:been )?disabled\b",
    r"\b(?:payment required|subscription (?:has )?(?:expired|ended|been canceled|been cancelled))\b",
];

/// How they say that their provider is in trouble.
pub const OUTAGE: [&str; 8] = [
    r"\bAPI Error:? \(?(?:500|502|503|504|520|522|524|529)\b",
    r"\b(?:status|code|http(?:/[0-9.]+)?)\W{0,8}(?:500|502|503|504|529)\b",
    r"\b(?:500 internal server error|502 bad gateway|503 service unavailable|504 gateway time-?out|529 overloaded)",
    r"\boverloaded(?:_error)?\b",
    r"server is temporarily limiting requests",
    r"experiencing (?:very )?high (?:demand|load)",
    r"stream disconnected before completion",
    r"\bmodel is (?:temporarily )?(?:overloaded|unavailable)|service (?:is )?temporarily unavailable",
];

impl LimitPreset {
    /// The patterns of this family.
    pub fn patterns(self) -> impl Iterator<Item = &'static str> {
        let meant = move |family: &&Family| self == Self::Any || family.preset == self;
        let families = FAMILIES.iter().filter(meant);
        families.flat_map(|family| family.patterns.iter().copied())
    }
}
