//! How fast GitHub may be asked with one token, by all targets of the process: a limit that one of them meets is every
//! other one's too. Of a token only a digest is kept.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::pace::{Limit, Limits};

/// For how long after a limit of which nobody said how long it holds it is known that it was met.
const REMEMBERED: Duration = Duration::from_hours(1);

/// The limits of all tokens.
#[derive(Clone, Default)]
pub struct TokenLimits(Arc<Mutex<HashMap<TokenDigest, Arc<TokenLimit>>>>);

type TokenDigest = [u8; 32];

impl fmt::Debug for TokenLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenLimits").finish_non_exhaustive()
    }
}

impl TokenLimits {
    /// That of a token at a host.
    pub(super) fn of(&self, host: &str, token: &str) -> Arc<TokenLimit> {
        let mut digest = Sha256::new();
        digest.update(host.as_bytes());
        digest.update([0]);
        digest.update(token.as_bytes());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, limit| Arc::strong_count(limit) > 1 || limit.says_something());
        all.entry(digest.finalize().into()).or_default().clone()
    }
}

/// What is known of the limit of one token.
#[derive(Debug, Default)]
pub(super) struct TokenLimit {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing is asked before that.
    until: Option<Instant>,
    /// How often in a row a limit was met of which nobody said how long it holds.
    unsaid: u32,
    /// How many runs are watched.
    watching: u32,
}

impl State {
    /// What was met so long ago that it says nothing any more is forgotten.
    fn forget(&mut self, now: Instant) {
        let is_old = |until: Instant| now.saturating_duration_since(until) >= REMEMBERED;
        if self.until.is_some_and(is_old) {
            (self.until, self.unsaid) = (None, 0);
        }
    }
}

/// One who watches a run.
#[derive(Debug)]
pub(super) struct Watcher(Arc<TokenLimit>);

impl Watcher {
    /// How many there are, this one included.
    pub(super) fn among(&self) -> u32 {
        self.0.state().watching
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.state().watching -= 1;
    }
}

impl TokenLimit {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is to be known although nobody uses it now.
    fn says_something(&self) -> bool {
        let mut state = self.state();
        state.forget(Instant::now());
        state.until.is_some()
    }

    /// How long nothing may be asked yet.
    pub(super) fn is_reached(&self) -> Option<Duration> {
        let left = self.state().until?.checked_duration_since(Instant::now())?;
        Some(left).filter(|left| !left.is_zero())
    }

    /// A request was refused for now: how long to wait. Those that were sent at once count once.
    pub(super) fn met(&self, limit: Limit) -> Duration {
        let now = Instant::now();
        let mut state = self.state();
        state.forget(now);
        let left = state
            .until
            .and_then(|until| until.checked_duration_since(now));
        let wait = match (limit, left) {
            (Limit::Unsaid, Some(left)) if !left.is_zero() => left,
            (Limit::Unsaid, _) => {
                state.unsaid += 1;
                limit.wait(state.unsaid - 1)
            }
            (Limit::For(wait), _) => wait,
        };
        state.until = state.until.max(Some(now + wait));
        wait
    }

    /// A request was answered; `ordered`: when it was sent, where it changed something. Only those meet limits of which
    /// nobody says how long they hold: one that was sent after the last of them, and obeyed, shows that it is over. Where it
    /// was the last request that is left, the next one waits.
    pub(super) fn answered(&self, limits: Limits, ordered: Option<Instant>) {
        let mut state = self.state();
        if ordered.is_some() && ordered >= state.until {
            state.unsaid = 0;
        }
        if limits.remaining == Some(0)
            && let Some(reset_in) = limits.reset_in
        {
            state.until = state.until.max(Some(Instant::now() + reset_in));
        }
    }

    /// Somebody begins to watch a run.
    pub(super) fn watches(self: &Arc<Self>) -> Watcher {
        self.state().watching += 1;
        Watcher(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_holds_for_all_with_the_token_and_for_no_other() {
        let limits = TokenLimits::default();
        let (one, same) = (limits.of("h", "token"), limits.of("h", "token"));
        let others = [limits.of("h", "other"), limits.of("h2", "token")];
        assert_eq!(one.met(Limit::For(seconds(9))), seconds(9));
        assert_eq!(same.is_reached(), Some(seconds(9)));
        assert!(others.iter().all(|other| other.is_reached().is_none()));
        // The longest one holds, also where nobody uses the token meanwhile.
        same.met(Limit::For(seconds(5)));
        drop((one, same));
        assert_eq!(limits.of("h", "token").is_reached(), Some(seconds(9)));
        tokio::time::advance(seconds(9)).await;
        assert_eq!(limits.of("h", "token").is_reached(), None);
        assert!(!format!("{limits:?} {:?}", limits.of("h", "token")).contains("token"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_says_the_length_of_doubles_until_something_is_obeyed_or_long_after() {
        let limits = TokenLimits::default();
        let one = limits.of("h", "token");
        let minute = seconds(60);
        assert_eq!(one.met(Limit::Unsaid), minute);
        // Another one's request that was under way meets the same limit.
        tokio::time::advance(seconds(20)).await;
        assert_eq!(one.met(Limit::Unsaid), seconds(40));
        tokio::time::advance(seconds(40)).await;
        assert_eq!(one.met(Limit::Unsaid), 2 * minute);
        let before = Instant::now();
        tokio::time::advance(2 * minute).await;
        assert_eq!(one.is_reached(), None);
        // Looks are answered all the time, and what was under way when the limit was met says nothing of it.
        one.answered(Limits::default(), None);
        one.answered(Limits::default(), Some(before));
        assert_eq!(one.met(Limit::Unsaid), 4 * minute);
        tokio::time::advance(4 * minute).await;
        one.answered(Limits::default(), Some(Instant::now()));
        assert_eq!(one.met(Limit::Unsaid), minute);
        tokio::time::advance(minute).await;
        assert_eq!(one.met(Limit::Unsaid), 2 * minute);
        // Nor is it known for ever.
        tokio::time::advance(2 * minute + REMEMBERED).await;
        assert_eq!(one.met(Limit::Unsaid), minute);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_request_that_is_left_is_the_last_one() {
        let one = TokenLimits::default().of("h", "token");
        let left = |remaining| Limits {
            remaining: Some(remaining),
            reset_in: Some(seconds(30)),
            ..Limits::default()
        };
        one.answered(left(1), None);
        assert_eq!(one.is_reached(), None);
        one.answered(left(0), None);
        assert_eq!(one.is_reached(), Some(seconds(30)));
        let watcher = one.watches();
        assert_eq!(watcher.among(), 1);
        drop(one.watches());
        assert_eq!(watcher.among(), 1);
    }
}
