//! Which targets may start an agent for an item, and which rule keeps the others from it: the second half of the answer of
//! `work.explain`, bounded like the first. Whether a target may is decided where the TargetManager asks, too.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::{self, Write as _};

use loom_actors::domain::targets::{Need, TargetRule, may_start, serves};
use loom_actors::project::Project;
use loom_actors::target_manager::TargetView;
use loom_actors::work_ledger::Header;
use loom_protocol::target::{SpinUpOperation, Target};
use loom_protocol::work::{BeingStarted, TargetVerdict, WorkStatus};
use loom_protocol::{TargetId, Timestamp};

use super::Service;
use super::forecast::views;
use super::verdicts::{NAMED, NOT_PENDING};
use crate::settings::keys::nearest;

/// How many agents that are being started an answer names.
const STARTS_NAMED: usize = 10;

/// What is to be said of a project's targets about one item.
pub(super) struct TargetVerdicts {
    /// The nearest ones, nearest first.
    pub targets: Vec<TargetVerdict>,
    /// How many targets there are.
    pub total: usize,
    /// How many of them may start an agent for it now.
    pub eligible: usize,
    /// How many of those that are not named each rule has rejected.
    pub others: BTreeMap<String, usize>,
    /// The agents that are being started and may take it.
    pub being_started: Vec<BeingStarted>,
    /// The latest start that failed, of those targets that would serve it and have not succeeded since: the target's name,
    /// and why.
    pub last_failure: Option<(String, String)>,
    /// What the item needs, where there are targets and none has agents that can do it.
    pub unserved: Option<Unserved>,
}

/// A capability that no target serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unserved {
    /// The capability.
    pub capability: String,
    /// The one that was probably meant, of those that are served.
    pub nearest: Option<String>,
}

impl fmt::Display for Unserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no target serves capability {:?}", self.capability)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean {nearest:?}?"),
            None => Ok(()),
        }
    }
}

impl Unserved {
    fn of<'a>(needed: &str, served: impl Iterator<Item = &'a str>) -> Option<Self> {
        let served: BTreeSet<&str> = served.collect();
        if served.is_empty() || served.contains(needed) {
            return None;
        }
        let served: Vec<&str> = served.into_iter().collect();
        Some(Self {
            capability: needed.to_owned(),
            nearest: nearest(needed, &served).map(ToOwned::to_owned),
        })
    }
}

/// How far a target is from starting an agent for an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Eligible,
    /// The item waits for nobody.
    NotPending,
    Rejected(TargetRule),
}

impl Verdict {
    /// The same two questions, in the same order, as where one is started.
    fn of(view: &TargetView, need: Option<&Need>, now: Timestamp) -> Self {
        let Some(need) = need else {
            return Self::NotPending;
        };
        let may = serves(&view.profile, need).and_then(|()| may_start(&view.condition, now));
        may.map_or_else(Self::Rejected, |()| Self::Eligible)
    }

    const fn rule(self) -> Option<&'static str> {
        match self {
            Self::Eligible => None,
            Self::NotPending => Some(NOT_PENDING),
            Self::Rejected(rule) => Some(rule.as_str()),
        }
    }

    /// Whether its agents could take the item, now or later.
    const fn serves(self) -> bool {
        !matches!(
            self,
            Self::NotPending
                | Self::Rejected(
                    TargetRule::AgentType | TargetRule::Boundary | TargetRule::Capability
                )
        )
    }

    /// The less, the nearer: what passes by itself, what people can change, what never changes for this pair.
    const fn distance(self) -> u8 {
        match self {
            Self::Eligible => 0,
            Self::Rejected(TargetRule::CoolingDown) => 1,
            Self::Rejected(TargetRule::Full) => 2,
            Self::Rejected(TargetRule::Paused) => 3,
            Self::Rejected(TargetRule::Unhealthy) => 4,
            Self::Rejected(TargetRule::Disabled) => 5,
            Self::Rejected(TargetRule::AgentType) => 6,
            Self::Rejected(TargetRule::Boundary) => 7,
            Self::Rejected(TargetRule::Capability) | Self::NotPending => 8,
        }
    }
}

impl Service {
    /// Judges every target, and names the nearest ones. `taken`: how much of the answer is taken, in bytes.
    pub(super) fn target_verdicts(
        &self,
        project: &Project,
        header: &Header,
        taken: usize,
    ) -> TargetVerdicts {
        let need = (header.status == WorkStatus::Pending).then(|| Need::from(&*header.needs));
        let now = self.now();
        let births = need.as_ref().map(|need| project.targets.being_born(need));
        let births = births.unwrap_or_default();
        let starting: HashSet<TargetId> = births.iter().map(|birth| birth.target_id).collect();
        let mut judged: Vec<(Verdict, TargetView)> = views(project, now)
            .into_iter()
            .map(|view| (Verdict::of(&view, need.as_ref(), now), view))
            .collect();
        // One that starts an agent for it is what people want to see first.
        judged.sort_by_key(|(verdict, view)| {
            (Reverse(starting.contains(&view.id)), verdict.distance())
        });
        let is_eligible = |(verdict, _): &&(Verdict, TargetView)| *verdict == Verdict::Eligible;
        let eligible = judged.iter().filter(is_eligible).count();
        let named = judged.iter().take(NAMED).filter_map(|(verdict, view)| {
            let target = project.targets.get(view.id)?;
            let mut message = message(*verdict, view, need.as_ref(), header.status, &births);
            add_cause(&mut message, *verdict, &target);
            Some(said(*verdict, target, message))
        });
        let mut targets: Vec<TargetVerdict> = named.collect();
        if !targets.is_empty() {
            targets.truncate(self.how_many_fit_beside(taken, &targets));
        }
        let mut others: BTreeMap<String, usize> = BTreeMap::new();
        let is_named: HashSet<TargetId> = targets.iter().map(|target| target.id).collect();
        for (verdict, _) in judged
            .iter()
            .filter(|(_, view)| !is_named.contains(&view.id))
        {
            if let Some(rule) = verdict.rule() {
                *others.entry(rule.into()).or_default() += 1;
            }
        }
        TargetVerdicts {
            targets,
            total: judged.len(),
            eligible,
            others,
            last_failure: last_failure(project, &judged),
            unserved: need.as_ref().and_then(|need| {
                let served = judged
                    .iter()
                    .flat_map(|(_, view)| &view.profile.capabilities);
                Unserved::of(&need.capability, served.map(|served| &**served))
            }),
            being_started: births
                .iter()
                .take(STARTS_NAMED)
                .map(being_started)
                .collect(),
        }
    }
}

/// The latest start that failed, of targets that would serve the item.
fn last_failure(project: &Project, judged: &[(Verdict, TargetView)]) -> Option<(String, String)> {
    let serving = judged.iter().filter(|(verdict, _)| verdict.serves());
    let failed = serving.filter_map(|(_, view)| {
        let target = project.targets.get(view.id)?;
        let last = target.last_spin_up?;
        Some((last.time, target.name, last.error?))
    });
    let (_, name, error) = failed.max_by_key(|(time, ..)| *time)?;
    Some((name, first_line(&error)))
}

/// Adds what was wrong at last, where it says why nobody is there: the cause of the last start, or what a look has found.
fn add_cause(message: &mut String, verdict: Verdict, target: &Target) {
    let failed = target.last_spin_up.as_ref();
    let failed = failed.and_then(|last| last.error.as_deref());
    let name = &target.name;
    let _ = match (verdict, failed, target.last_error.as_deref()) {
        (Verdict::Rejected(TargetRule::CoolingDown), _, Some(error)) => {
            let line = first_line(error);
            write!(message, ": {line}; see `loom spin-up list --target {name}`")
        }
        (Verdict::Rejected(TargetRule::Unhealthy), _, Some(error)) => {
            write!(message, ": {}", first_line(error))
        }
        (Verdict::Eligible, Some(error), _) => {
            let line = first_line(error);
            write!(
                message,
                "; its last start failed: {line}; see `loom spin-up list --target {name}`"
            )
        }
        _ => Ok(()),
    };
}

/// At most a line of it.
fn first_line(text: &str) -> String {
    const SHOWN: usize = 300;
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(SHOWN).collect()
}

fn said(verdict: Verdict, target: Target, message: String) -> TargetVerdict {
    TargetVerdict {
        id: target.id,
        name: target.name,
        agent_type: target.agent_type,
        mechanism: target.mechanism,
        status: target.status,
        eligible: verdict == Verdict::Eligible,
        rule: verdict.rule().map(Into::into),
        message,
    }
}

fn message(
    verdict: Verdict,
    view: &TargetView,
    need: Option<&Need>,
    status: WorkStatus,
    births: &[SpinUpOperation],
) -> String {
    let sentence = match (verdict, need) {
        (Verdict::Rejected(rule), Some(need)) => {
            rule.sentence(&view.profile, &view.condition, need)
        }
        (Verdict::Eligible, _) => "may start an agent for it".into(),
        _ => format!("the item is {status}"),
    };
    let mut own = births.iter().filter(|birth| birth.target_id == view.id);
    let Some(first) = own.next() else {
        return sentence;
    };
    match own.count() {
        0 => format!(
            "is starting an agent for it (operation {}); {sentence}",
            first.operation_id
        ),
        more => format!(
            "is starting {} agents for it (operation {}, …); {sentence}",
            more + 1,
            first.operation_id
        ),
    }
}

fn being_started(operation: &SpinUpOperation) -> BeingStarted {
    BeingStarted {
        operation_id: operation.operation_id,
        target_id: operation.target_id,
        target_name: operation.target_name.clone(),
        status: operation.status,
        started_at: operation.started_at,
        said: operation.output.as_deref().map(first_line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_that_no_target_serves_is_said_with_the_one_that_was_meant() {
        let served = ["go", "rust", "sql-review"];
        for (needed, expected) in [
            ("rust", None),
            ("rust2", Some(Some("rust"))),
            ("sqlreview", Some(Some("sql-review"))),
            ("painting", Some(None)),
        ] {
            let unserved = Unserved::of(needed, served.iter().copied());
            let nearest = unserved.map(|unserved| unserved.nearest);
            let expected = expected.map(|nearest: Option<&str>| nearest.map(ToOwned::to_owned));
            assert_eq!(nearest, expected, "{needed}");
        }
        assert_eq!(
            Unserved::of("rust", [].into_iter()),
            None,
            "there are no targets"
        );
    }
}
