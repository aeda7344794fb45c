//! Kept from work for a while: paused by a usage limit, quarantined after too many failures.
//!
//! Both outlast silence: an agent that comes back from `offline` comes back as what it was.

use std::time::Duration;

use loom_protocol::Timestamp;
use loom_protocol::agent::{Agent, AgentStatus, Quarantine};

use super::on_heartbeat;

pub use loom_protocol::agent::MAX_PAUSE;

/// The pause of an agent that does not say when its limit ends.
pub const DEFAULT_PAUSE: Duration = Duration::from_mins(5);
/// The pause of one that names a time that has passed: its clock may be wrong, and to go on at once would
/// take one item after the other for nothing.
pub const PASSED_PAUSE: Duration = Duration::from_mins(1);
/// The shortest pause.
pub const MIN_PAUSE: Duration = Duration::from_millis(500);

/// When the pause of an agent ends that has met a limit and names this time.
pub fn pause_end(named: Option<Timestamp>, now: Timestamp) -> Timestamp {
    match named {
        None => now.after(DEFAULT_PAUSE),
        Some(until) if until <= now => now.after(PASSED_PAUSE),
        Some(until) => until.clamp(now.after(MIN_PAUSE), now.after(MAX_PAUSE)),
    }
}

/// The status that a sign of life finds: an agent that fell silent is still what it was kept for.
pub fn effective_status(agent: &Agent, now: Timestamp) -> AgentStatus {
    match agent.status {
        AgentStatus::Offline | AgentStatus::Unknown if agent.quarantine.is_some() => {
            AgentStatus::Quarantined
        }
        AgentStatus::Offline | AgentStatus::Unknown
            if agent.paused_until.is_some_and(|until| until > now) =>
        {
            AgentStatus::Paused
        }
        status => status,
    }
}

/// Takes work → paused, until then. `None` where it is paused for as long already. One that takes
/// no work anyway (draining, quarantined, offline) stays what it is, with the pause noted.
pub fn pause(agent: &Agent, until: Timestamp, reason: &str) -> Option<Agent> {
    if agent.paused_until.is_some_and(|before| before >= until) {
        return None;
    }
    let status = match agent.status {
        AgentStatus::Online | AgentStatus::Busy => AgentStatus::Paused,
        status => status,
    };
    Some(Agent {
        status,
        paused_until: Some(until),
        pause_reason: Some(reason.to_owned()),
        ..agent.clone()
    })
}

/// Paused → takes work, or draining where it is to end. `None` where it is not paused.
pub fn resume(agent: &Agent, leaving: bool) -> Option<Agent> {
    agent.paused_until?;
    let status = match agent.status {
        AgentStatus::Paused => on_heartbeat(AgentStatus::Offline, None, leaving),
        status => status,
    };
    Some(Agent {
        status,
        paused_until: None,
        pause_reason: None,
        ..agent.clone()
    })
}

/// Any → quarantined; an offline one when it comes back. `None` where it is already.
pub fn quarantine(agent: &Agent, reason: &str, now: Timestamp) -> Option<Agent> {
    if agent.quarantine.is_some() {
        return None;
    }
    let status = match agent.status {
        AgentStatus::Offline => AgentStatus::Offline,
        _ => AgentStatus::Quarantined,
    };
    Some(Agent {
        status,
        quarantine: Some(Quarantine {
            since: now,
            reason: reason.to_owned(),
        }),
        ..agent.clone()
    })
}

/// Quarantined → takes work, or whatever else keeps it from that. `None` where it is not.
pub fn release_from_quarantine(agent: &Agent, leaving: bool, now: Timestamp) -> Option<Agent> {
    agent.quarantine.as_ref()?;
    let free = Agent {
        quarantine: None,
        ..agent.clone()
    };
    let status = match free.status {
        AgentStatus::Quarantined => {
            let asleep = Agent {
                status: AgentStatus::Offline,
                ..free.clone()
            };
            on_heartbeat(effective_status(&asleep, now), None, leaving)
        }
        status => status,
    };
    Some(Agent { status, ..free })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::agent::mark_offline;
    use loom_protocol::{AgentGuid, ProjectId};
    use proptest::prelude::*;

    fn agent(status: AgentStatus) -> Agent {
        let request = loom_protocol::agent::RegisterRequest {
            handle: "a".into(),
            agent_type: "t".into(),
            capabilities: vec!["c".into()],
            ..Default::default()
        };
        let project = ProjectId::new("p").unwrap();
        let terms = super::super::Terms {
            project: &project,
            heartbeat_every: Duration::from_secs(10),
            now: at(0),
        };
        let guid = AgentGuid::generate();
        let agent = super::super::register(&request, guid, None, false, &terms).unwrap();
        Agent { status, ..agent }
    }

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Pause(i64),
        Resume,
        Quarantine,
        LetIn,
        FallSilent,
        Beat,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1_i64..100).prop_map(Step::Pause),
            Just(Step::Resume),
            Just(Step::Quarantine),
            Just(Step::LetIn),
            Just(Step::FallSilent),
            Just(Step::Beat),
        ]
    }

    proptest! {
        /// Whatever an agent says of its limit, it rests, and not for ever.
        #[test]
        fn no_limit_means_going_on_at_once(named in prop::option::of(any::<i32>()), now in 0_i64..10_000) {
            let (named, now) = (named.map(|seconds| at(i64::from(seconds))), at(now));
            let until = pause_end(named, now);
            prop_assert!(until >= now.after(MIN_PAUSE) && until <= now.after(MAX_PAUSE));
            match named {
                Some(named) if named > now.after(MIN_PAUSE) => prop_assert!(until <= named),
                Some(named) if named <= now => prop_assert_eq!(until, now.after(PASSED_PAUSE)),
                _ => {}
            }
        }

        /// Whatever happens in between: nobody takes work who is kept from it, and whoever is let
        /// go and beats takes work again.
        #[test]
        fn silence_ends_neither_a_pause_nor_a_quarantine(steps in prop::collection::vec(step(), 0..20)) {
            let mut agent = agent(AgentStatus::Online);
            for step in steps {
                let next = match step {
                    Step::Pause(until) => pause(&agent, at(until), "limit"),
                    Step::Resume => resume(&agent, false),
                    Step::Quarantine => quarantine(&agent, "failures", at(0)),
                    Step::LetIn => release_from_quarantine(&agent, false, at(0)),
                    Step::FallSilent => mark_offline(&agent),
                    Step::Beat => {
                        let status = on_heartbeat(effective_status(&agent, at(0)), Some(AgentStatus::Online), false);
                        Some(Agent { status, ..agent.clone() })
                    }
                };
                agent = next.unwrap_or(agent);
                let is_kept = agent.quarantine.is_some() || agent.paused_until.is_some();
                let takes_work = matches!(agent.status, AgentStatus::Online | AgentStatus::Busy);
                prop_assert!(!(is_kept && takes_work), "{:?}", agent);
                let is_silent = agent.status == AgentStatus::Offline;
                prop_assert!(is_kept || takes_work || is_silent, "{:?}", agent);
            }
        }
    }

    #[test]
    fn a_pause_is_only_ever_prolonged_until_it_is_over() {
        let paused = pause(&agent(AgentStatus::Online), at(60), "limit").unwrap();
        assert_eq!(paused.status, AgentStatus::Paused);
        assert_eq!(pause(&paused, at(30), "shorter"), None);
        let longer = pause(&paused, at(90), "longer").unwrap();
        assert_eq!(longer.pause_reason.as_deref(), Some("longer"));
        let over = resume(&longer, false).unwrap();
        assert_eq!(
            (over.status, over.paused_until),
            (AgentStatus::Online, None)
        );
        assert_eq!(resume(&over, false), None);
    }

    #[test]
    fn who_was_sent_home_meanwhile_goes() {
        let paused = pause(&agent(AgentStatus::Online), at(60), "limit").unwrap();
        assert_eq!(resume(&paused, true).unwrap().status, AgentStatus::Draining);
        let draining = pause(&agent(AgentStatus::Draining), at(60), "limit").unwrap();
        assert_eq!(draining.status, AgentStatus::Draining);
    }
}
