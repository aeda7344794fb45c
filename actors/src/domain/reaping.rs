//! Whom the reaper takes for dead, and whom it sends home. Nothing else decides it.

use std::time::Duration;

use loom_protocol::agent::AgentStatus;

/// How many of its own heartbeats an agent may miss.
const MISSED_BEATS: u32 = 3;

/// `[agents]`, as far as it concerns the dead.
#[derive(Debug, Clone, Copy)]
pub struct ReapTerms {
    /// How long every agent may be silent.
    pub stale_after: Duration,
    /// The same of one that never named an interval and never asked a request, where that is longer.
    pub bare_stale_after: Duration,
    /// How often an agent beats that names no interval.
    pub heartbeat_every: Duration,
    /// How old the last heartbeat of an offline agent may become before its entry goes.
    pub bury_after: Duration,
    /// The same of one that is quarantined, where that is longer.
    pub forget_quarantine_after: Duration,
}

impl ReapTerms {
    /// How long an agent with this heartbeat interval may be silent. `has_asked`: whether it has
    /// asked a request; one that has not, and names no interval, may be one that knows nothing of
    /// ours.
    pub fn allowance(&self, heartbeat_interval: Option<Duration>, has_asked: bool) -> Duration {
        match heartbeat_interval {
            None if !has_asked => self.stale_after.max(self.bare_stale_after),
            interval => {
                let interval = interval.unwrap_or(self.heartbeat_every);
                self.stale_after.max(interval.saturating_mul(MISSED_BEATS))
            }
        }
    }
}

/// What is known about the silence of an agent.
#[derive(Debug, Clone, Copy)]
pub struct Silence {
    /// How long nothing was heard of it; the time of our own stalls does not count.
    pub silent_for: Duration,
    /// How old its last sign of life is by the time of day; ours or not.
    pub unheard_for: Duration,
    /// How often it wants to beat, where it says so.
    pub heartbeat_interval: Option<Duration>,
    /// Whether it has asked a request.
    pub has_asked: bool,
    /// Whether it counts as offline already.
    pub offline: bool,
    /// Whether it has leases.
    pub has_leases: bool,
    /// Whether it is quarantined: its entry is what remembers that.
    pub quarantined: bool,
}

/// What is to be done about an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReapVerdict {
    /// Nothing; look again after this long, not earlier.
    Keep(Duration),
    /// It is dead: its leases go back.
    MarkOffline,
    /// It has been dead for so long that its entry goes.
    Bury,
}

/// Judges by the age of the last sign of life, never by the registration. An offline agent that
/// still has leases is marked again: an earlier marking was interrupted before they went back.
pub fn reap_verdict(silence: &Silence, terms: &ReapTerms) -> ReapVerdict {
    let allowance = terms.allowance(silence.heartbeat_interval, silence.has_asked);
    let heard = left(allowance, silence.silent_for);
    if !silence.offline || silence.has_leases {
        return heard.map_or(ReapVerdict::MarkOffline, ReapVerdict::Keep);
    }
    let bury_after = if silence.quarantined {
        terms.bury_after.max(terms.forget_quarantine_after)
    } else {
        terms.bury_after
    };
    // Both times have to be over: our own stalls begin the first one anew, and never shorten the second.
    let keep = heard.max(left(bury_after, silence.unheard_for));
    keep.map_or(ReapVerdict::Bury, ReapVerdict::Keep)
}

/// What is left of a limit; `None` where nothing is.
fn left(limit: Duration, used: Duration) -> Option<Duration> {
    limit.checked_sub(used).filter(|left| !left.is_zero())
}

/// What is known about the idleness of an agent.
#[derive(Debug, Clone, Copy)]
pub struct Idleness {
    /// How it is.
    pub status: AgentStatus,
    /// Whether it has leases.
    pub has_leases: bool,
    /// How long it has had nothing to do; the time of our own stalls does not count.
    pub idle_for: Duration,
    /// After how much idleness it goes home; `None`: never.
    pub limit: Option<Duration>,
    /// Whether something is pending that it may take.
    pub is_wanted: bool,
    /// The order to end that it was given.
    pub order: Option<OrderToEnd>,
    /// After how much more time its process may be ended, once it was told to end at once; `None`: nobody here can.
    pub process_ends_in: Option<Duration>,
}

/// An order to end that was given and not obeyed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderToEnd {
    /// How long ago; the time of our own stalls does not count.
    pub given_for: Duration,
    /// How long the agent may take. Zero: the order is a forced one.
    pub grace: Duration,
}

/// What is to be done about an idle agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleVerdict {
    /// Nothing; look again after this long, or when the agent changes.
    Keep(Option<Duration>),
    /// It may go: order it to end, with the usual grace.
    SendHome,
    /// It has not gone within the grace: order it to end at once.
    Insist,
    /// It was ordered to end at once and is still there: whoever started its process ends it.
    EndProcess,
}

/// Judges whether an agent has nothing to do for so long that it is better gone. One that waits for
/// a usage limit or for an operator (paused, quarantined) is not idle, and neither is one that says
/// that it is busy with something of its own.
pub fn idle_verdict(idleness: &Idleness) -> IdleVerdict {
    if let Some(order) = idleness.order {
        return match left(order.grace, order.given_for) {
            _ if order.grace.is_zero() => match idleness.process_ends_in {
                Some(Duration::ZERO) => IdleVerdict::EndProcess,
                later => IdleVerdict::Keep(later),
            },
            None => IdleVerdict::Insist,
            left => IdleVerdict::Keep(left),
        };
    }
    let Some(limit) = idleness.limit else {
        return IdleVerdict::Keep(None);
    };
    if idleness.status != AgentStatus::Online {
        return IdleVerdict::Keep(None);
    }
    if idleness.has_leases {
        // Nobody tells when the last one ends, but it cannot go home before this.
        return IdleVerdict::Keep(Some(limit));
    }
    match left(limit, idleness.idle_for) {
        // It will be given that in a moment; or it does not ask for work and is looked at again.
        None if idleness.is_wanted => IdleVerdict::Keep(Some(limit)),
        None => IdleVerdict::SendHome,
        left => IdleVerdict::Keep(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TERMS: ReapTerms = ReapTerms {
        stale_after: Duration::from_secs(30),
        bare_stale_after: Duration::from_mins(3),
        heartbeat_every: Duration::from_secs(10),
        bury_after: Duration::from_hours(24),
        forget_quarantine_after: Duration::from_hours(96),
    };

    fn span() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (0_u64..200_000).prop_map(Duration::from_millis),
            (0_u64..400_000).prop_map(Duration::from_secs),
        ]
    }

    fn silence() -> impl Strategy<Value = Silence> {
        let interval = prop::option::of(span());
        (span(), span(), interval, any::<[bool; 4]>()).prop_map(
            |(
                silent_for,
                more,
                heartbeat_interval,
                [offline, has_leases, quarantined, has_asked],
            )| Silence {
                silent_for,
                unheard_for: silent_for + more,
                heartbeat_interval,
                has_asked,
                offline,
                has_leases,
                quarantined,
            },
        )
    }

    fn idleness() -> impl Strategy<Value = Idleness> {
        let order = (span(), span()).prop_map(|(given_for, grace)| OrderToEnd { given_for, grace });
        (
            prop::sample::select(&AgentStatus::ALL[..]),
            any::<bool>(),
            span(),
            prop::option::of(span()),
            any::<bool>(),
            prop::option::of(order),
            prop::option::of(prop_oneof![Just(Duration::ZERO), span()]),
        )
            .prop_map(
                |(status, has_leases, idle_for, limit, is_wanted, order, process_ends_in)| {
                    Idleness {
                        status,
                        has_leases,
                        idle_for,
                        limit,
                        is_wanted,
                        order,
                        process_ends_in,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn nobody_is_dead_before_its_allowance_is_over(silence in silence()) {
            let allowance = TERMS.allowance(silence.heartbeat_interval, silence.has_asked);
            prop_assert!(allowance >= TERMS.stale_after);
            match silence.heartbeat_interval {
                Some(interval) => prop_assert!(allowance >= interval * 3),
                None if silence.has_asked => prop_assert_eq!(allowance, TERMS.stale_after),
                None => prop_assert_eq!(allowance, TERMS.bare_stale_after),
            }
            let verdict = reap_verdict(&silence, &TERMS);
            if silence.silent_for < allowance {
                let left = allowance.saturating_sub(silence.silent_for);
                let waits_on = silence.offline && !silence.has_leases;
                let kept = match verdict {
                    ReapVerdict::Keep(wait) => wait == left || waits_on && wait > left,
                    _ => false,
                };
                prop_assert!(kept, "{verdict:?}, and {left:?} are left");
            } else if !silence.offline {
                prop_assert_eq!(verdict, ReapVerdict::MarkOffline);
            }
        }

        #[test]
        fn only_the_long_dead_without_leases_are_buried(silence in silence()) {
            if reap_verdict(&silence, &TERMS) == ReapVerdict::Bury {
                prop_assert!(silence.offline && !silence.has_leases);
                prop_assert!(silence.unheard_for >= TERMS.bury_after);
                let is_remembered = silence.unheard_for < TERMS.forget_quarantine_after;
                prop_assert!(!(silence.quarantined && is_remembered));
            }
        }

        #[test]
        fn the_offline_are_kept_for_all_of_the_time_that_is_left_to_them(silence in silence()) {
            let silence = Silence { offline: true, has_leases: false, quarantined: false, ..silence };
            let left = TERMS.bury_after.saturating_sub(silence.unheard_for);
            if let ReapVerdict::Keep(wait) = reap_verdict(&silence, &TERMS) {
                prop_assert!(wait >= left, "kept for {wait:?}, and {left:?} are left");
            }
        }

        #[test]
        fn the_next_look_finds_something(silence in silence()) {
            if let ReapVerdict::Keep(wait) = reap_verdict(&silence, &TERMS) {
                prop_assert!(!wait.is_zero());
                let later = Silence {
                    silent_for: silence.silent_for + wait,
                    unheard_for: silence.unheard_for + wait,
                    ..silence
                };
                let earlier = Silence {
                    silent_for: later.silent_for.saturating_sub(Duration::from_nanos(1)),
                    unheard_for: later.unheard_for.saturating_sub(Duration::from_nanos(1)),
                    ..silence
                };
                prop_assert_ne!(reap_verdict(&later, &TERMS), ReapVerdict::Keep(wait));
                prop_assert!(matches!(reap_verdict(&earlier, &TERMS), ReapVerdict::Keep(_)));
            }
        }

        #[test]
        fn only_who_has_nothing_to_do_is_sent_home(idleness in idleness()) {
            let verdict = idle_verdict(&idleness);
            let may_go = idleness.status == AgentStatus::Online
                && !idleness.has_leases
                && !idleness.is_wanted
                && idleness.limit.is_some_and(|limit| idleness.idle_for >= limit);
            let sent_home = verdict == IdleVerdict::SendHome;
            prop_assert_eq!(sent_home, idleness.order.is_none() && may_go);
        }

        #[test]
        fn a_forced_order_follows_the_grace_once(idleness in idleness()) {
            let insists = idle_verdict(&idleness) == IdleVerdict::Insist;
            let over = idleness
                .order
                .is_some_and(|order| !order.grace.is_zero() && order.given_for >= order.grace);
            prop_assert_eq!(insists, over);
        }

        #[test]
        fn a_process_is_ended_only_after_a_forced_order_and_by_whoever_can(idleness in idleness()) {
            let ends = idle_verdict(&idleness) == IdleVerdict::EndProcess;
            let is_forced = idleness.order.is_some_and(|order| order.grace.is_zero());
            prop_assert_eq!(ends, is_forced && idleness.process_ends_in == Some(Duration::ZERO));
        }
    }
}
