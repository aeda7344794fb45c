//! How fast GitHub may be asked: what its answers say of limits, and how long to wait then. Pure.

use std::time::Duration;

use jiff::fmt::rfc2822;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;

/// How long to wait where a limit is reached and nobody says for how long; twice as long each time.
const UNSAID: Duration = Duration::from_mins(1);
/// The longest that a wait is doubled to.
const LONGEST: Duration = Duration::from_mins(15);
/// The longest that is waited whatever an answer says: no limit of GitHub holds for longer, and all targets wait for it.
const LONGEST_SAID: Duration = Duration::from_hours(1);

/// How much of what is left of a limit one may use who looks again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// All of it: who waits for something that comes soon.
    Whole,
    /// A fourth among so many that watch for long, since others ask with the same token.
    Watch(u32),
}

/// What an answer says of limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// How long to wait, where it says so itself.
    pub(super) retry_after: Option<Duration>,
    /// How many requests are left.
    pub(super) remaining: Option<u64>,
    /// When there are more again. By GitHub's own clock, so that ours does not matter.
    pub(super) reset_in: Option<Duration>,
}

impl Limits {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
        let number = |name: &str| text(name)?.parse::<u64>().ok();
        let now = text("date").and_then(|date| rfc2822::parse(date).ok());
        let now = now.and_then(|now| u64::try_from(now.timestamp().as_second()).ok());
        let reset = number("x-ratelimit-reset").zip(now);
        let bounded = |seconds| Duration::from_secs(seconds).min(LONGEST_SAID);
        Self {
            retry_after: number("retry-after").map(bounded),
            remaining: number("x-ratelimit-remaining"),
            // The second that it names has to be over.
            reset_in: reset.map(|(at, now)| bounded(at.saturating_sub(now).saturating_add(1))),
        }
    }
}

/// Why a request was refused for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// For so long.
    For(Duration),
    /// Nobody says for how long.
    Unsaid,
}

impl Limit {
    /// How long to wait when it is met for the `times`th time in a row, from 0.
    pub(super) fn wait(self, times: u32) -> Duration {
        match self {
            Self::For(wait) => wait,
            Self::Unsaid => UNSAID.saturating_mul(1 << times.min(8)).min(LONGEST),
        }
    }
}

/// The limit by which a request was refused; none where it was refused for good, or was not.
pub(super) fn limit(status: StatusCode, limits: Limits, message: &str) -> Option<Limit> {
    if !matches!(status.as_u16(), 403 | 429) {
        return None;
    }
    if let Some(wait) = limits.retry_after {
        return Some(Limit::For(wait));
    }
    if limits.remaining == Some(0) {
        return Some(limits.reset_in.map_or(Limit::Unsaid, Limit::For));
    }
    let message = message.to_ascii_lowercase();
    let is_told = message.contains("rate limit") || message.contains("abuse detection");
    (is_told || status == StatusCode::TOO_MANY_REQUESTS).then_some(Limit::Unsaid)
}

/// When a run is looked at next: `base` later, or so much later that what is left of the limit lasts until there is more.
pub(super) fn next_look(base: Duration, limits: Limits, share: Share) -> Duration {
    let (Some(remaining), Some(reset_in)) = (limits.remaining, limits.reset_in) else {
        return base;
    };
    let ours = match share {
        Share::Whole => remaining,
        Share::Watch(among) => remaining / 4 / u64::from(among.max(1)),
    };
    let spread = u32::try_from(ours)
        .ok()
        .and_then(|ours| reset_in.checked_div(ours));
    match (ours, spread) {
        // Nothing is left for this one until then.
        (0, _) => base.max(reset_in),
        (_, Some(spread)) => base.max(spread),
        // More than anybody uses.
        (_, None) => base,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    fn limits(retry_after: Option<u64>, remaining: Option<u64>, reset: Option<u64>) -> Limits {
        Limits {
            retry_after: retry_after.map(Duration::from_secs),
            remaining,
            reset_in: reset.map(Duration::from_secs),
        }
    }

    #[test]
    fn what_an_answer_says_is_read_by_its_own_clock() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("date", "Mon, 30 Nov 2026 08:00:00 GMT"),
            ("x-ratelimit-reset", "1796025690"),
            ("x-ratelimit-remaining", "0"),
            ("retry-after", "7"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        assert_eq!(Limits::of(&headers), limits(Some(7), Some(0), Some(91)));
        headers.insert("x-ratelimit-reset", "1".parse().unwrap());
        headers.insert("retry-after", "soon".parse().unwrap());
        assert_eq!(Limits::of(&headers), limits(None, Some(0), Some(1)));
        let endless: HeaderValue = u64::MAX.to_string().parse().unwrap();
        headers.insert("date", "Thu, 01 Jan 1970 00:00:00 GMT".parse().unwrap());
        headers.insert("x-ratelimit-reset", endless.clone());
        headers.insert("retry-after", endless);
        let hour = Some(3600);
        assert_eq!(Limits::of(&headers), limits(hour, Some(0), hour));
        assert_eq!(Limits::of(&HeaderMap::new()), Limits::default());
    }

    #[test]
    fn a_limit_is_told_from_a_refusal() {
        let of = |status: u16, limits: Limits, message: &str| {
            limit(StatusCode::from_u16(status).unwrap(), limits, message)
        };
        let seconds = |seconds| Some(Limit::For(Duration::from_secs(seconds)));
        let none = Limits::default();
        assert_eq!(of(403, limits(Some(3), Some(0), Some(9)), ""), seconds(3));
        assert_eq!(of(403, limits(None, Some(0), Some(9)), ""), seconds(9));
        assert_eq!(
            of(429, limits(None, Some(0), None), ""),
            Some(Limit::Unsaid)
        );
        let secondary = "You have exceeded a secondary rate limit. Please wait a few minutes.";
        assert_eq!(
            of(403, limits(None, Some(9), Some(9)), secondary),
            Some(Limit::Unsaid)
        );
        assert_eq!(of(429, none, "slow down"), Some(Limit::Unsaid));
        let refusal = "Resource not accessible by personal access token";
        assert_eq!(of(403, limits(None, Some(9), Some(9)), refusal), None);
        for status in [200, 401, 404, 422, 500, 503] {
            assert_eq!(
                of(status, limits(Some(3), Some(0), Some(9)), secondary),
                None
            );
        }
        assert_eq!(Limit::Unsaid.wait(0), Duration::from_mins(1));
        assert_eq!(Limit::Unsaid.wait(1), Duration::from_mins(2));
        assert_eq!(Limit::Unsaid.wait(u32::MAX), LONGEST);
    }

    proptest! {
        #[test]
        fn whoever_waits_for_something_soon_uses_all_that_is_left(base in 1..60_u64, remaining: u64, reset in 1..4000_u64) {
            let limits = limits(None, Some(remaining), Some(reset));
            let (soon, watch) = (Share::Whole, Share::Watch(1));
            let base = Duration::from_secs(base);
            prop_assert!(next_look(base, limits, soon) <= next_look(base, limits, watch));
            prop_assert_eq!(next_look(base, limits, soon) == base.max(Duration::from_secs(reset)), remaining <= 1 || base >= Duration::from_secs(reset));
        }

        #[test]
        fn all_watches_leave_most_of_a_limit_to_others(base in 1..60_u64, remaining: u64, reset in 1..4000_u64, among in 1..100_u32) {
            let share = Share::Watch(among);
            let wait = next_look(Duration::from_secs(base), limits(None, Some(remaining), Some(reset)), share);
            prop_assert!(wait >= Duration::from_secs(base));
            prop_assert!(wait <= Duration::from_secs(base.max(reset)));
            // As many looks as come until there is more again.
            let looks = Duration::from_secs(reset).as_nanos().div_ceil(wait.as_nanos());
            let all = (looks - 1) * u128::from(among);
            prop_assert!(all <= u128::from(remaining / 4), "{all} of {remaining}");
        }
    }
}
