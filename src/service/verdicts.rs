//! Which agents may take an item, and which rule keeps the others from it: the answer of `work.explain`, whose size does
//! not grow with the fleet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use loom_actors::agent_registry::AgentEntry;
use loom_actors::domain::matching::{AgentProfile, Rule, may_take};
use loom_actors::project::Project;
use loom_actors::work_dispatcher::QueuePosition;
use loom_actors::work_ledger::Header;
use loom_protocol::AgentGuid;
use loom_protocol::agent::{Agent, AgentStatus};
use loom_protocol::work::AgentVerdict;

use super::Service;

/// The rule that keeps every agent from an item that does not wait for one.
pub(super) const NOT_PENDING: &str = "not-pending";
/// How many agents an answer names, and how many targets.
pub(super) const NAMED: usize = 100;

/// What is to be said of a project's agents about one item.
pub(super) struct Verdicts {
    /// The nearest ones, nearest first.
    pub agents: Vec<AgentVerdict>,
    /// How many agents there are.
    pub total: usize,
    /// How many of them may take it now.
    pub eligible: usize,
    /// How many of those that are not named each rule has rejected.
    pub others: BTreeMap<String, usize>,
}

/// How far an agent is from an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Eligible,
    /// The item waits for nobody; whether the agent has it, or had it last.
    NotPending {
        holder: bool,
    },
    Rejected(Rule),
}

impl Verdict {
    const fn rule(self) -> Option<&'static str> {
        match self {
            Self::Eligible => None,
            Self::NotPending { .. } => Some(NOT_PENDING),
            Self::Rejected(rule) => Some(rule.as_str()),
        }
    }

    /// The less, the nearer. What people can change soon comes before what never changes for this pair, and of agents
    /// whose status is in the way those that are there come before those that are not.
    fn distance(self, agent: &Agent) -> u8 {
        match self {
            Self::Eligible | Self::NotPending { holder: true } => 0,
            Self::Rejected(Rule::HeldOff) => 1,
            Self::Rejected(Rule::Slots) => 2,
            Self::Rejected(Rule::Status) if agent.status != AgentStatus::Offline => 3,
            Self::Rejected(Rule::Status) => 4,
            Self::Rejected(Rule::AgentType) => 5,
            Self::Rejected(Rule::Boundary) => 6,
            Self::Rejected(Rule::Capability) | Self::NotPending { holder: false } => 7,
        }
    }
}

impl Service {
    /// Judges every agent, and names the nearest ones. `queue_position`: of a pending item; any other is nobody's to take.
    pub(super) fn verdicts(
        &self,
        project: &Project,
        header: &Header,
        queue_position: Option<&QueuePosition>,
    ) -> Verdicts {
        let judge = Judge::new(header, queue_position);
        let mut judged: Vec<(u8, Verdict, Arc<AgentEntry>)> = project
            .agents
            .all()
            .into_iter()
            .map(|entry| {
                let verdict = judge.verdict(&entry);
                (verdict.distance(entry.agent()), verdict, entry)
            })
            .collect();
        judged.sort_by_key(|(distance, ..)| *distance);
        let total = judged.len();
        let is_eligible = |(_, verdict, _): &&(u8, Verdict, _)| *verdict == Verdict::Eligible;
        let eligible = judged.iter().filter(is_eligible).count();
        let named = judged.iter().take(NAMED);
        let mut agents: Vec<AgentVerdict> = named
            .map(|(_, verdict, entry)| judge.said(*verdict, entry))
            .collect();
        if !agents.is_empty() {
            agents.truncate(self.how_many_fit(&agents));
        }
        let mut others: BTreeMap<String, usize> = BTreeMap::new();
        for (_, verdict, _) in &judged[agents.len()..] {
            if let Some(rule) = verdict.rule() {
                *others.entry(rule.into()).or_default() += 1;
            }
        }
        Verdicts {
            agents,
            total,
            eligible,
            others,
        }
    }
}

/// One item, against which agents are judged.
struct Judge<'a> {
    header: &'a Header,
    is_pending: bool,
    taken: HashMap<AgentGuid, u32>,
    cooling_down: HashSet<AgentGuid>,
}

impl<'a> Judge<'a> {
    fn new(header: &'a Header, queue_position: Option<&QueuePosition>) -> Self {
        Self {
            header,
            is_pending: queue_position.is_some(),
            taken: queue_position.map_or_else(HashMap::new, |queue_position| {
                queue_position.taken.iter().copied().collect()
            }),
            cooling_down: queue_position.map_or_else(HashSet::new, |queue_position| {
                queue_position.cooling_down.iter().copied().collect()
            }),
        }
    }

    fn verdict(&self, entry: &AgentEntry) -> Verdict {
        let guid = entry.agent().guid;
        if !self.is_pending {
            return Verdict::NotPending {
                holder: self.header.holder == Some(guid),
            };
        }
        match may_take(&self.candidate(entry), &self.header.needs) {
            Ok(()) => Verdict::Eligible,
            Err(rule) => Verdict::Rejected(rule),
        }
    }

    fn candidate<'e>(&self, entry: &'e AgentEntry) -> AgentProfile<'e> {
        let guid = entry.agent().guid;
        let mut candidate = entry.candidate(self.cooling_down.contains(&guid));
        candidate.leases += self.taken.get(&guid).copied().unwrap_or_default();
        candidate
    }

    fn said(&self, verdict: Verdict, entry: &AgentEntry) -> AgentVerdict {
        let agent = entry.agent();
        let status = self.header.status;
        let message = match verdict {
            Verdict::Eligible => "may take it".into(),
            Verdict::NotPending { holder: true } if status.is_leased() => {
                format!("it has it; the item is {status}")
            }
            Verdict::NotPending { holder: true } => {
                format!("it had it last; the item is {status}")
            }
            Verdict::NotPending { holder: false } => format!("the item is {status}"),
            Verdict::Rejected(Rule::Status) => standing(agent),
            Verdict::Rejected(rule) => rule.sentence(&self.candidate(entry), &self.header.needs),
        };
        AgentVerdict {
            guid: agent.guid,
            handle: agent.handle.clone(),
            agent_type: agent.agent_type.clone(),
            status: agent.status,
            eligible: verdict == Verdict::Eligible,
            rule: verdict.rule().map(Into::into),
            message,
        }
    }
}

/// Why an agent takes nothing in its present status, until when, and what ends that.
fn standing(agent: &Agent) -> String {
    let guid = agent.guid;
    match (&agent.quarantine, agent.paused_until) {
        (Some(quarantine), _) => format!(
            "it is quarantined since {}: {}; `loom agents resume {guid}` lets it take work again",
            quarantine.since, quarantine.reason
        ),
        (None, Some(until)) => format!(
            "it is paused until {until}: {}; `loom agents resume {guid}` ends that sooner",
            agent.pause_reason.as_deref().unwrap_or("no reason given")
        ),
        (None, None) => match &agent.status_reason {
            Some(why) => format!("it is {} and takes no work for now: {why}", agent.status),
            None => format!("it is {} and takes no work", agent.status),
        },
    }
}
