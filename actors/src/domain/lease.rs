//! Whether a lease has run out. Pure: moments in, verdict out; of which clock is the caller's business.
//!
//! | clock | runs while the item is | begins anew with | at its end |
//! |---|---|---|---|
//! | start | assigned | the claim | the item goes back, no attempt spent (`not-started`) |
//! | progress | in progress | the start, any progress, even an empty one | the item goes back, the attempt is spent (`timeout`) |
//!
//! Both begin anew with every grace, too: a verdict asks for nothing that could not be heard. A
//! verdict "out of time" is carried out only after a [barrier](crate::liveness) that has passed.

use std::ops::Add;
use std::time::Duration;

use loom_protocol::work::Reason;

/// A moment on the caller's clock.
pub trait Moment: Copy + Ord + Add<Duration, Output = Self> {}

impl<M: Copy + Ord + Add<Duration, Output = M>> Moment for M {}

/// What the clocks of a lease have to go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseClock<M> {
    /// Whether the agent has started the item.
    pub started: bool,
    /// When it was last heard of about this item.
    pub heard: M,
    /// The item's own progress clock.
    pub timeout: Option<Duration>,
}

impl<M> LeaseClock<M> {
    /// The clock of a lease whose agent was heard of just now.
    pub const fn just_heard(started: bool, timeout: Option<Duration>, now: M) -> Self {
        Self {
            started,
            heard: now,
            timeout,
        }
    }
}

/// How long the clocks of a project run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseLimits {
    /// The start clock.
    pub start: Duration,
    /// The progress clock of an item that names none.
    pub progress: Duration,
}

/// How a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseVerdict<M> {
    /// It is kept; look again then.
    Keep {
        /// When its clock runs out if nothing is heard.
        until: M,
    },
    /// Its clock has run out.
    OutOfTime(Expiry),
}

/// Which clock has run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// The start clock.
    NotStarted,
    /// The progress clock.
    NoProgress,
}

impl Expiry {
    /// What it is called on the wire.
    pub const fn reason(self) -> Reason {
        match self {
            Self::NotStarted => Reason::NotStarted,
            Self::NoProgress => Reason::Timeout,
        }
    }

    /// Whether it spends the attempt.
    pub const fn spends_attempt(self) -> bool {
        matches!(self, Self::NoProgress)
    }
}

/// How long the clock that applies runs.
pub const fn patience<M>(clock: &LeaseClock<M>, limits: &LeaseLimits) -> Duration {
    match (clock.started, clock.timeout) {
        (false, _) => limits.start,
        (true, Some(own)) => own,
        (true, None) => limits.progress,
    }
}

/// When the clock runs out if nothing is heard; clocks run from `grace` at the earliest.
pub fn deadline<M: Moment>(clock: &LeaseClock<M>, limits: &LeaseLimits, grace: M) -> M {
    /// So far away that nobody waits for it.
    const NEVER: Duration = Duration::from_hours(24 * 365);
    clock.heard.max(grace) + patience(clock, limits).min(NEVER)
}

/// Judges a lease.
pub fn judge<M: Moment>(
    clock: &LeaseClock<M>,
    limits: &LeaseLimits,
    grace: M,
    now: M,
) -> LeaseVerdict<M> {
    let until = deadline(clock, limits, grace);
    if now < until {
        LeaseVerdict::Keep { until }
    } else if clock.started {
        LeaseVerdict::OutOfTime(Expiry::NoProgress)
    } else {
        LeaseVerdict::OutOfTime(Expiry::NotStarted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: LeaseLimits = LeaseLimits {
        start: Duration::from_secs(30),
        progress: Duration::from_mins(30),
    };

    fn any_clock() -> impl Strategy<Value = LeaseClock<Duration>> {
        let own = proptest::option::of((1_u64..10_000).prop_map(Duration::from_secs));
        (any::<bool>(), 0_u64..10_000, own).prop_map(|(started, heard, timeout)| LeaseClock {
            started,
            heard: Duration::from_secs(heard),
            timeout,
        })
    }

    #[test]
    fn each_clock_has_its_own_length_and_consequence() {
        let zero = Duration::from_secs(77);
        let judge_after = |started, timeout, secs| {
            let clock = LeaseClock {
                started,
                heard: zero,
                timeout,
            };
            judge(&clock, &LIMITS, zero, zero + Duration::from_secs(secs))
        };
        let own = Some(Duration::from_secs(5));
        let keep = |secs| LeaseVerdict::Keep {
            until: zero + Duration::from_secs(secs),
        };
        assert_eq!(judge_after(false, own, 29), keep(30));
        assert_eq!(
            judge_after(false, own, 30),
            LeaseVerdict::OutOfTime(Expiry::NotStarted)
        );
        assert_eq!(judge_after(true, own, 4), keep(5));
        assert_eq!(
            judge_after(true, own, 5),
            LeaseVerdict::OutOfTime(Expiry::NoProgress)
        );
        assert_eq!(judge_after(true, None, 1_799), keep(1_800));
        assert!(!Expiry::NotStarted.spends_attempt() && Expiry::NoProgress.spends_attempt());
    }

    proptest! {
        /// Whoever is heard of again before the clock runs out is never out of time, however long it goes on.
        #[test]
        fn an_agent_that_keeps_the_clock_never_loses(
            pauses in proptest::collection::vec(0_u64..60_000, 1..200), own in 60_u64..120,
        ) {
            let mut now = Duration::from_secs(77);
            let grace = now;
            let mut clock = LeaseClock { started: true, heard: now, timeout: Some(Duration::from_secs(own)) };
            for pause in pauses {
                now += Duration::from_millis(pause);
                let kept = matches!(judge(&clock, &LIMITS, grace, now), LeaseVerdict::Keep { .. });
                prop_assert!(kept);
                clock.heard = now;
            }
        }

        /// After a stall of ours everybody has the full time again.
        #[test]
        fn a_grace_is_full(
            (clock, grace) in (any_clock(), 0_u64..20_000), later in 0.0..1.0_f64,
        ) {
            let grace = clock.heard + Duration::from_secs(grace);
            let now = grace + patience(&clock, &LIMITS).mul_f64(later);
            match judge(&clock, &LIMITS, grace, now) {
                LeaseVerdict::Keep { until } => prop_assert!(until >= grace + patience(&clock, &LIMITS)),
                LeaseVerdict::OutOfTime(_) => prop_assert!(false, "out of time in the grace"),
            }
        }

        /// A later sign or a later grace never makes a verdict worse; `until` is when it changes.
        #[test]
        fn hearing_more_never_harms(clock in any_clock(), more in 0_u64..10_000, after in 0_u64..20_000) {
            let (now, grace) = (clock.heard + Duration::from_secs(after), clock.heard);
            let again = LeaseClock { heard: clock.heard + Duration::from_secs(more), ..clock };
            prop_assert!(deadline(&again, &LIMITS, grace) >= deadline(&clock, &LIMITS, grace));
            if let LeaseVerdict::Keep { until } = judge(&clock, &LIMITS, grace, now) {
                prop_assert!(until > now);
                let then = judge(&clock, &LIMITS, grace, until);
                prop_assert!(matches!(then, LeaseVerdict::OutOfTime(_)));
            }
        }
    }
}
