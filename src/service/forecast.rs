//! What becomes of an item that was just submitted, as far as that can be told: whether an agent is started for it, of
//! which type the one will be that takes it, and how soon. Asked of what is known, never of an actor.
//!
//! | who is there | `spinUpTriggered` | `estimatedWaitSeconds` |
//! |---|---|---|
//! | an agent that fits, online or busy | no | what items have lately waited |
//! | an agent that fits is being started | yes | what is left of the time that such starts took lately; absent where none is known |
//! | a target that may start one now | yes | the time that such starts took lately; absent where none is known |
//! | nobody, or it is not offered yet | no | what items have lately waited |

use std::collections::HashMap;
use std::time::Duration;

use loom_actors::domain::targets::Need;
use loom_actors::domain::work::WorkRecord;
use loom_actors::project::Project;
use loom_actors::target_manager::{StartAt, TargetView};
use loom_protocol::Timestamp;
use loom_protocol::work::WorkStatus;

/// The type that an item is said to wait for where nobody is there who could take it.
const USUAL_TYPE: &str = "claude-code";
/// How long an item is said to wait where none has been claimed yet.
const USUAL_WAIT: Duration = Duration::from_secs(30);

/// What is said of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forecast {
    /// The type of the agent that will take it.
    pub agent_type: String,
    /// Whether an agent is started for it.
    pub is_started_for: bool,
    /// How long it will wait; `None`: nobody knows.
    pub wait: Option<Duration>,
}

/// Who will take an item.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected<There, Start> {
    /// One who is there.
    There(There),
    /// One who is being started.
    BeingStarted(Start),
    /// One whom a target may start now.
    Startable(Start),
    /// Nobody who is known.
    Nobody,
}

/// Who will take an item: the first of these that there is; those after it are not asked for. `is_offered`: whether agents
/// may claim it now, so that it counts where agents are started.
fn expected<There, Start>(
    is_offered: bool,
    there: impl FnOnce() -> Option<There>,
    being_started: impl FnOnce() -> Option<Start>,
    startable: impl FnOnce() -> Option<Start>,
) -> Expected<There, Start> {
    if let Some(there) = there() {
        return Expected::There(there);
    }
    if !is_offered {
        return Expected::Nobody;
    }
    if let Some(start) = being_started() {
        return Expected::BeingStarted(start);
    }
    startable().map_or(Expected::Nobody, Expected::Startable)
}

/// What items with the same needs have in common.
type Key<'a> = (&'a str, &'a str, Option<&'a str>, Option<&'a str>, bool);

/// What is said of the items of one request: those with the same needs are looked at once.
pub(super) struct Forecasts<'a> {
    project: &'a Project,
    now: Timestamp,
    known: HashMap<Key<'a>, Forecast>,
}

impl<'a> Forecasts<'a> {
    pub fn new(project: &'a Project, now: Timestamp) -> Self {
        Self {
            project,
            now,
            known: HashMap::new(),
        }
    }

    /// What is said of an item.
    pub fn of(&mut self, record: &'a WorkRecord) -> Forecast {
        let is_offered = record.status == WorkStatus::Pending
            && record.not_before.is_none_or(|time| time <= self.now);
        let key = (
            record.capability.as_str(),
            record.boundary.as_str(),
            record.required_agent_type.as_deref(),
            record.preferred_agent_type.as_deref(),
            is_offered,
        );
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let forecast = self.look(key);
        self.known.insert(key, forecast.clone());
        forecast
    }

    fn look(&self, (capability, boundary, required, preferred, is_offered): Key<'_>) -> Forecast {
        let (agents, targets) = (&self.project.agents, &self.project.targets);
        let is_paused = |group: &str| agents.group_paused_until(group, self.now).is_some();
        let need = Need {
            capability: capability.into(),
            boundary: boundary.into(),
            required_agent_type: required.map(Into::into),
        };
        let expected = expected(
            is_offered,
            || agents.type_there(capability, boundary, required),
            || targets.first_birth(&need),
            || targets.startable(&need, preferred, self.now, is_paused),
        );
        let usual_wait = Some(self.project.work.usual_wait().unwrap_or(USUAL_WAIT));
        let (agent_type, is_started_for, wait) = match expected {
            Expected::There(agent_type) => (Some(agent_type), false, usual_wait),
            Expected::Nobody => (agents.type_for(capability, boundary), false, usual_wait),
            Expected::BeingStarted(start) | Expected::Startable(start) => {
                let wait = self.time_to_birth(&start);
                (Some(start.agent_type), true, wait)
            }
        };
        let named = required.or(preferred).map(str::to_owned);
        Forecast {
            agent_type: named.or(agent_type).unwrap_or_else(|| USUAL_TYPE.into()),
            is_started_for,
            wait,
        }
    }

    /// How long it is to a birth, by what starts of this target, or else of its mechanism, have taken lately. Of one that
    /// takes longer than that a second is said.
    fn time_to_birth(&self, start: &StartAt) -> Option<Duration> {
        let usual = self.project.targets.usual_time_to_birth(start)?;
        let gone = start
            .since
            .map_or(Duration::ZERO, |since| self.now.since(since));
        Some(usual.saturating_sub(gone).max(Duration::from_secs(1)))
    }
}

/// Every target with what decides whether it starts agents.
pub(super) fn views(project: &Project, now: Timestamp) -> Vec<TargetView> {
    let is_paused = |group: &str| project.agents.group_paused_until(group, now).is_some();
    project.targets.conditions(is_paused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn an_agent_is_started_where_none_is_there_and_somebody_can() {
        for (is_offered, there, born, able, outcome, asked) in [
            (true, true, true, true, Expected::There(()), "there"),
            (false, true, true, true, Expected::There(()), "there"),
            (false, false, true, true, Expected::Nobody, "there"),
            (
                true,
                false,
                true,
                true,
                Expected::BeingStarted(1),
                "there born",
            ),
            (
                true,
                false,
                false,
                true,
                Expected::Startable(2),
                "there born able",
            ),
            (
                true,
                false,
                false,
                false,
                Expected::Nobody,
                "there born able",
            ),
            (false, false, false, false, Expected::Nobody, "there"),
        ] {
            let said = RefCell::new(Vec::new());
            let ask = |name: &'static str, is: bool| {
                said.borrow_mut().push(name);
                is
            };
            let found = expected(
                is_offered,
                || ask("there", there).then_some(()),
                || ask("born", born).then_some(1),
                || ask("able", able).then_some(2),
            );
            assert_eq!(found, outcome, "{is_offered} {there} {born} {able}");
            assert_eq!(said.borrow().join(" "), asked);
        }
    }
}
