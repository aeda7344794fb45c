//! A coordinator of a few lines that keeps every promise, and the clients around it, some of them without luck.

use std::time::Duration;

use loom_protocol::work::{LeaseRef, WorkStatus};
use loom_protocol::{AgentGuid, ErrorCode, WorkId};
use proptest::sample::Index;

use super::item::{Costs, Item, Luck};
use crate::history::{
    Action, AgentSpec, Answer, Claim, FinalState, History, ItemSpec, Moment, Operation, Outcome,
    Verb,
};

const CAPABILITIES: [&str; 2] = ["rust", "python"];
const BOUNDARIES: [&str; 2] = ["default", "corporate"];

/// One thing that happens, and the luck that it has.
#[derive(Debug, Clone)]
pub struct Step {
    pub ask: Ask,
    /// After the last one, in milliseconds.
    pub pause: u64,
    /// It is sent so long before it takes effect.
    pub before: u64,
    /// It is answered so long after.
    pub after: u64,
    pub answered: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Ask {
    Submit {
        kind: usize,
        priority: u8,
        special: u8,
    },
    Claim {
        agent: usize,
        max: usize,
    },
    Report {
        which: Index,
        how: u8,
    },
    Repeat(Index),
    ReportLate(Index),
    Cancel(Index),
    Revoke {
        which: Index,
        spends: bool,
    },
    Resume(Index),
    Retry(Index),
}

/// What an agent was told to hold once.
#[derive(Clone, Copy)]
struct Past {
    agent: usize,
    lease: LeaseRef,
    /// What ended it, if the agent did.
    ended: Option<Verb>,
}

pub struct Model {
    now: u64,
    agents: Vec<AgentSpec>,
    items: Vec<Item>,
    past: Vec<Past>,
    operations: Vec<Operation>,
}

impl Model {
    /// Six agents: two of three are steady, the first knows everything and is everywhere.
    pub fn new() -> Self {
        let mut model = Self {
            now: 1_000,
            agents: Vec::new(),
            items: Vec::new(),
            past: Vec::new(),
            operations: Vec::new(),
        };
        for place in 0..6 {
            let kind = if place % 2 == 0 { "fake" } else { "codex" };
            let mut spec = AgentSpec::new(AgentGuid::generate(), kind, &["rust", "python"]);
            spec.boundaries = BOUNDARIES.map(Into::into).to_vec();
            spec.steady = place % 3 != 0;
            if place > 1 {
                spec.capabilities = vec![CAPABILITIES[place % 2].into()];
            }
            if place > 3 {
                spec.boundaries = vec![BOUNDARIES[0].into()];
            }
            model.agents.push(spec.clone());
            let luck = Luck {
                before: 0,
                after: 0,
                answered: true,
            };
            model.record(Action::Register(spec), Some(Outcome::Accepted), luck);
        }
        model
    }

    pub fn take(&mut self, step: &Step) {
        self.now += step.pause;
        let luck = Luck {
            before: step.before,
            after: step.after,
            answered: step.answered,
        };
        match step.ask {
            Ask::Submit {
                kind,
                priority,
                special,
            } => self.submit(kind, priority, special, luck),
            Ask::Claim { agent, max } => self.claim(agent, max, luck),
            Ask::Report { which, how } => self.report(which, how, luck),
            Ask::Repeat(which) => self.repeat(which, luck),
            Ask::ReportLate(which) => self.report_late(which, luck),
            Ask::Cancel(which) => self.cancel(which, luck),
            Ask::Revoke { which, spends } => self.revoke(which, spends),
            Ask::Resume(which) => self.resume(which, luck),
            Ask::Retry(which) => self.retry(which, luck),
        }
    }

    fn submit(&mut self, kind: usize, priority: u8, special: u8, luck: Luck) {
        let mut spec = ItemSpec::new(WorkId::generate(), CAPABILITIES[kind % 2]);
        spec.boundary = BOUNDARIES[kind / 2].into();
        spec.priority = priority;
        spec.plain = special != 1;
        spec.required_agent_type = (special == 2).then(|| "fake".into());
        self.items.push(Item {
            spec: spec.clone(),
            status: WorkStatus::Pending,
            attempt: 0,
            costs: Costs::default(),
            lost: None,
            holder: None,
            told: false,
            released_by: None,
        });
        self.record(Action::Submit(spec), Some(Outcome::Accepted), luck);
    }

    /// The best that the agent may take, at this moment.
    fn claim(&mut self, agent: usize, max: usize, luck: Luck) {
        let agent = agent % self.agents.len();
        let mut given = Vec::new();
        while given.len() < max {
            let may = |item: &&mut Item| {
                let spec = &self.agents[agent];
                let required = item.spec.required_agent_type.as_ref();
                item.status == WorkStatus::Pending
                    && item.released_by != Some(agent)
                    && spec.capabilities.contains(&item.spec.capability)
                    && spec.boundaries.contains(&item.spec.boundary)
                    && required.is_none_or(|required| *required == spec.agent_type)
            };
            // The first of the highest is the oldest.
            let pending = self.items.iter_mut().rev().filter(may);
            let Some(item) = pending.max_by_key(|item| item.spec.priority) else {
                break;
            };
            let lease = item.give_to(agent, luck);
            given.push(lease);
            self.note_given(agent, lease, luck);
        }
        let claim = Claim::new(self.agents[agent].guid);
        self.record(Action::Claim(claim), Some(Outcome::Given(given)), luck);
    }

    fn note_given(&mut self, agent: usize, lease: LeaseRef, luck: Luck) {
        if luck.answered {
            self.past.push(Past {
                agent,
                lease,
                ended: None,
            });
        }
    }

    /// Whoever lost an item has it again.
    fn resume(&mut self, which: Index, luck: Luck) {
        let lost: Vec<usize> = (0..self.items.len())
            .filter(|&place| self.items[place].lost.is_some())
            .collect();
        if lost.is_empty() {
            return;
        }
        let item = &mut self.items[*which.get(&lost)];
        let before = item.lease();
        let Some((agent, costs)) = item.lost else {
            return;
        };
        item.costs = costs;
        let lease = item.give_to(agent, luck);
        self.note_given(agent, lease, luck);
        let claim = Claim::new(self.agents[agent].guid).to_resume(&[before]);
        let given = Some(Outcome::Given(vec![lease]));
        self.record(Action::Claim(claim), given, luck);
    }

    fn report(&mut self, which: Index, how: u8, luck: Luck) {
        let told: Vec<usize> = (0..self.items.len())
            .filter(|&place| self.items[place].told && self.items[place].holder.is_some())
            .collect();
        if told.is_empty() {
            return;
        }
        let place = *which.get(&told);
        let verb = match how {
            0..=1 => Verb::Start,
            2..=3 => Verb::Progress,
            4..=8 => Verb::Complete,
            9..=12 => Verb::Fail { spends: true },
            13 => Verb::Release { delayed: true },
            _ => Verb::Release { delayed: false },
        };
        let item = &mut self.items[place];
        let (agent, lease) = (item.holder.unwrap_or(0), item.lease());
        item.take_report(verb);
        if verb.ends() {
            let mine = |past: &&mut Past| past.agent == agent && past.lease == lease;
            if let Some(past) = self.past.iter_mut().find(mine) {
                past.ended = Some(verb);
            }
        }
        self.record_report(agent, lease, verb, Outcome::Accepted, luck);
    }

    /// A completion again: the same answer.
    fn repeat(&mut self, which: Index, luck: Luck) {
        let completed: Vec<Past> = self.past_where(|past| past.ended == Some(Verb::Complete));
        if !completed.is_empty() {
            let past = which.get(&completed);
            self.record_report(
                past.agent,
                past.lease,
                Verb::Complete,
                Outcome::Accepted,
                luck,
            );
        }
    }

    /// A completion of a lease that was lost or given back. Where nobody has had the item since it was lost, it counts.
    fn report_late(&mut self, which: Index, luck: Luck) {
        let over: Vec<Past> = self.past_where(|past| past.ended != Some(Verb::Complete));
        let over: Vec<Past> = over
            .into_iter()
            .filter(|past| {
                let held =
                    |item: &Item| item.lease() == past.lease && item.holder == Some(past.agent);
                !self.items.iter().any(held)
            })
            .collect();
        if !over.is_empty() {
            let past = which.get(&over);
            let loss = self.items.iter_mut().find_map(|item| {
                let (agent, costs) = item.lost?;
                (item.lease() == past.lease && agent == past.agent).then_some((item, costs))
            });
            let outcome = match loss {
                Some((item, costs)) => {
                    item.costs = costs;
                    item.take_report(Verb::Complete);
                    Outcome::Accepted
                }
                None => Outcome::Refused(ErrorCode::StaleLease),
            };
            if outcome == Outcome::Accepted {
                let mine =
                    |other: &&mut Past| other.agent == past.agent && other.lease == past.lease;
                if let Some(past) = self.past.iter_mut().find(mine) {
                    past.ended = Some(Verb::Complete);
                }
            }
            self.record_report(past.agent, past.lease, Verb::Complete, outcome, luck);
        }
    }

    fn cancel(&mut self, which: Index, luck: Luck) {
        if self.items.is_empty() {
            return;
        }
        let count = self.items.len();
        let item = &mut self.items[which.index(count)];
        let id = item.spec.id;
        let outcome = if item.status.is_terminal() {
            Outcome::Refused(ErrorCode::TerminalState)
        } else {
            item.status = WorkStatus::Cancelled;
            item.holder = None;
            item.lost = None;
            Outcome::Accepted
        };
        self.record(Action::Cancel(id), Some(outcome), luck);
    }

    /// The coordinator takes a lease back: of an agent that is not steady, or that was never told of it.
    fn revoke(&mut self, which: Index, spends: bool) {
        let may: Vec<usize> = (0..self.items.len())
            .filter(|&place| {
                let item = &self.items[place];
                let holder = item.holder;
                holder.is_some_and(|agent| !self.agents[agent].steady || !item.told)
            })
            .collect();
        if !may.is_empty() {
            self.items[*which.get(&may)].lose(spends);
        }
    }

    fn retry(&mut self, which: Index, luck: Luck) {
        let failed: Vec<usize> = (0..self.items.len())
            .filter(|&place| self.items[place].status == WorkStatus::Failed)
            .collect();
        if failed.is_empty() {
            return;
        }
        let item = &mut self.items[*which.get(&failed)];
        item.status = WorkStatus::Pending;
        item.costs = Costs::default();
        let id = item.spec.id;
        self.record(Action::Retry(id), Some(Outcome::Accepted), luck);
    }

    /// Everything ends: what is told is completed, what nobody knows of is given back and done by the first agent.
    pub fn finish(mut self) -> (History, FinalState) {
        let luck = Luck {
            before: 0,
            after: 0,
            answered: true,
        };
        for place in 0..self.items.len() {
            let item = &mut self.items[place];
            item.released_by = None;
            if item.holder.is_some() && !item.told {
                item.lose(false);
            }
        }
        while self
            .items
            .iter()
            .any(|item| item.status == WorkStatus::Pending)
        {
            self.now += 1;
            self.claim(0, 100, luck);
        }
        for place in 0..self.items.len() {
            self.now += 1;
            if let Some(agent) = self.items[place].holder {
                let lease = self.items[place].lease();
                self.items[place].take_report(Verb::Complete);
                self.record_report(agent, lease, Verb::Complete, Outcome::Accepted, luck);
            }
        }
        let mut history = History::default();
        self.operations.sort_by_key(|operation| operation.sent);
        for (number, operation) in self.operations.iter_mut().enumerate() {
            operation.number = number;
        }
        history.operations = self.operations;
        let failed = self
            .items
            .iter()
            .filter(|item| item.status == WorkStatus::Failed);
        let letters = failed.map(|item| item.spec.id).collect();
        let at_the_end = FinalState {
            items: self.items.iter().map(Item::at_the_end).collect(),
            dead_letters: Some(letters),
        };
        (history, at_the_end)
    }

    fn past_where(&self, is: impl Fn(&Past) -> bool) -> Vec<Past> {
        self.past.iter().copied().filter(|past| is(past)).collect()
    }

    fn record_report(
        &mut self,
        agent: usize,
        lease: LeaseRef,
        verb: Verb,
        outcome: Outcome,
        luck: Luck,
    ) {
        let agent = self.agents[agent].guid;
        self.record(Action::Report { verb, agent, lease }, Some(outcome), luck);
    }

    fn record(&mut self, action: Action, outcome: Option<Outcome>, luck: Luck) {
        let at = |millis| Moment::new(Duration::from_millis(millis));
        let answer = outcome.filter(|_| luck.answered).map(|outcome| Answer {
            at: at(self.now + luck.after),
            outcome,
        });
        self.operations.push(Operation {
            number: 0,
            sent: at(self.now - luck.before),
            action,
            run: None,
            answer,
        });
    }
}
