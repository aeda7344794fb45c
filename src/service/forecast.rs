//! What becomes of an item that was just submitted, as far as that can be told: whether an agent is started for it, of
//! which type the one will be that takes it, and how soon. Asked of what is known, never of an actor.
//!
//! | who is there | `spinUpTriggered` | `estimatedWaitSeconds` |
//! |---|---|---|
//! | an agent that fits, online or busy | no | what items have lately waited |
//! | an agent that fits is being started | yes | what is left of the time that such starts took lately; absent where none is known |
//! | a target that may start one now | yes | the time that such starts took lately; absent where none is known |
//! | nobody, or it is not offered yet | no | what items have lately waited |

use std::cell::OnceCell;
use std::collections::HashMap;
use std::time::Duration;

use loom_actors::domain::targets::{Need, may_start, serves};
use loom_actors::domain::work::WorkRecord;
use loom_actors::project::Project;
use loom_actors::target_manager::{OperationFilter, TargetView};
use loom_protocol::target::{ListTargetsRequest, Mechanism, SpinUpOperation, SpinUpStatus};
use loom_protocol::work::WorkStatus;
use loom_protocol::{TargetId, Timestamp};

/// The type that an item is said to wait for where nobody is there who could take it.
const USUAL_TYPE: &str = "claude-code";
/// How long an item is said to wait where none has been claimed yet.
const USUAL_WAIT: Duration = Duration::from_secs(30);
/// Of how many starts of a target, or else of its mechanism, the usual time is taken.
const STARTS_LOOKED_AT: usize = 32;
/// Among how many starts those of a mechanism are looked for.
const STARTS_OF_ALL: usize = 128;

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

/// The time that is neither among the longer nor among the shorter half; of an even number the longer of the middle two.
fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// A start at a target, done or to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StartAt {
    target: TargetId,
    agent_type: String,
    mechanism: Mechanism,
    /// Since when it is under way.
    since: Option<Timestamp>,
}

/// What items with the same needs have in common.
type Key<'a> = (&'a str, &'a str, Option<&'a str>, Option<&'a str>, bool);

/// What is said of the items of one request: those with the same needs are looked at once.
pub(super) struct Forecasts<'a> {
    project: &'a Project,
    now: Timestamp,
    views: OnceCell<Vec<TargetView>>,
    known: HashMap<Key<'a>, Forecast>,
    usual: HashMap<TargetId, Option<Duration>>,
}

impl<'a> Forecasts<'a> {
    pub fn new(project: &'a Project, now: Timestamp) -> Self {
        Self {
            project,
            now,
            views: OnceCell::new(),
            known: HashMap::new(),
            usual: HashMap::new(),
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

    fn look(
        &mut self,
        (capability, boundary, required, preferred, is_offered): Key<'_>,
    ) -> Forecast {
        let agents = &self.project.agents;
        let need = Need {
            capability: capability.into(),
            boundary: boundary.into(),
            required_agent_type: required.map(Into::into),
        };
        let expected = expected(
            is_offered,
            || agents.type_there(capability, boundary, required),
            || self.being_started(&need),
            || self.startable(&need, preferred),
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

    /// The oldest start whose agent may take what is needed.
    fn being_started(&self, need: &Need) -> Option<StartAt> {
        let targets = &self.project.targets;
        if targets.undecided() == 0 {
            return None;
        }
        let first = targets.being_born(need).into_iter().next()?;
        Some(StartAt {
            target: first.target_id,
            agent_type: targets.get(first.target_id)?.agent_type,
            mechanism: first.mechanism,
            since: Some(first.started_at),
        })
    }

    /// A target that may start an agent for it now: of the preferred type, where there is one.
    fn startable(&self, need: &Need, preferred: Option<&str>) -> Option<StartAt> {
        let targets = &self.project.targets;
        if !self.is_served(need) {
            return None;
        }
        let may_start = |view: &&TargetView| {
            serves(&view.profile, need).is_ok() && may_start(&view.condition, self.now).is_ok()
        };
        let mut able = self.views().iter().filter(may_start);
        let first = able.clone().next()?;
        let is_preferred = |view: &&TargetView| Some(&*view.profile.agent_type) == preferred;
        let chosen = able.find(is_preferred).unwrap_or(first);
        Some(StartAt {
            target: chosen.id,
            agent_type: chosen.profile.agent_type.to_string(),
            mechanism: targets.get(chosen.id)?.mechanism,
            since: None,
        })
    }

    /// Whether there may be a target that serves a need. Only a first look, which copies nothing: what it passes over
    /// serves it never, or is disabled.
    fn is_served(&self, need: &Need) -> bool {
        // Without a cursor there is none to be refused.
        let found = self.project.targets.find(&serving(need), 1);
        found.is_ok_and(|found| found.info.total > 0)
    }

    fn views(&self) -> &[TargetView] {
        self.views.get_or_init(|| views(self.project, self.now))
    }

    /// How long it is to a birth, by what starts of this target, or else of its mechanism, have taken lately. Of one that
    /// takes longer than that a second is said.
    fn time_to_birth(&mut self, start: &StartAt) -> Option<Duration> {
        let project = self.project;
        let usual = self.usual.entry(start.target);
        let usual = (*usual.or_insert_with(|| usual_time_to_birth(project, start)))?;
        let gone = start
            .since
            .map_or(Duration::ZERO, |since| self.now.since(since));
        Some(usual.saturating_sub(gone).max(Duration::from_secs(1)))
    }
}

/// The filter that every target passes that serves a need and is not disabled.
fn serving(need: &Need) -> ListTargetsRequest {
    ListTargetsRequest {
        capability: Some(need.capability.to_string()),
        boundary: Some(need.boundary.to_string()),
        agent_type: need.required_agent_type.as_deref().map(str::to_owned),
        ..ListTargetsRequest::default()
    }
}

fn usual_time_to_birth(project: &Project, start: &StartAt) -> Option<Duration> {
    let took = |operation: &SpinUpOperation| {
        let ended_at = operation.ended_at?;
        Some(ended_at.since(operation.started_at))
    };
    let lately = |target: Option<TargetId>, most: usize| {
        let filter = OperationFilter {
            status: Some(SpinUpStatus::Success),
            target,
        };
        // Without a cursor there is none to be refused.
        let found = project.targets.operations(&filter, None, most);
        found.map_or_else(|_| Vec::new(), |found| found.operations)
    };
    let own = lately(Some(start.target), STARTS_LOOKED_AT);
    median(own.iter().filter_map(took).collect()).or_else(|| {
        let of_all = lately(None, STARTS_OF_ALL);
        let alike = of_all.iter().filter(|o| o.mechanism == start.mechanism);
        median(alike.filter_map(took).take(STARTS_LOOKED_AT).collect())
    })
}

/// Every target with what decides whether it starts agents.
pub(super) fn views(project: &Project, now: Timestamp) -> Vec<TargetView> {
    let is_paused = |group: &str| project.agents.group_paused_until(group, now).is_some();
    project.targets.conditions(is_paused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom_actors::domain::targets::TargetProfile;
    use loom_protocol::target::RegisterTarget;
    use proptest::prelude::*;
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

    fn token() -> impl Strategy<Value = String> {
        prop::sample::select(&["a", "b", "c"][..]).prop_map(String::from)
    }

    proptest! {
        #[test]
        fn the_first_look_passes_over_no_target_that_serves(
            capabilities in prop::collection::vec(token(), 1..3),
            boundaries in prop::collection::vec(token(), 0..3),
            agent_type in token(),
            (capability, boundary, required) in (token(), token(), prop::option::of(token())),
        ) {
            let request: RegisterTarget = serde_json::from_value(serde_json::json!({
                "name": "here", "agentType": agent_type, "capabilities": capabilities,
                "boundaries": boundaries, "mechanism": "local", "command": "run",
            }))
            .unwrap();
            let new = request.check().unwrap();
            let target = new.into_target(TargetId::generate(), "a test".into(), Timestamp::from_millis(0));
            let need = Need {
                capability: capability.into(),
                boundary: boundary.into(),
                required_agent_type: required.map(Into::into),
            };
            let is_served = serves(&TargetProfile::from(&target), &need).is_ok();
            prop_assert_eq!(serving(&need).matches(&target), is_served);
        }
    }

    #[test]
    fn the_usual_time_is_the_middle_one_and_none_is_invented() {
        let seconds = |times: &[u64]| times.iter().map(|s| Duration::from_secs(*s)).collect();
        assert_eq!(median(Vec::new()), None);
        for (times, middle) in [
            (&[7][..], 7),
            (&[1, 9], 9),
            (&[9, 1, 2], 2),
            (&[1, 1, 1, 600], 1),
        ] {
            assert_eq!(median(seconds(times)), Some(Duration::from_secs(middle)));
        }
    }
}
