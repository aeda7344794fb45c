//! Tells histories by hand: each step takes 10 ms, from its sending to its answer.

use std::time::Duration;

use loom_protocol::work::{LeaseRef, WorkStatus};
use loom_protocol::{AgentGuid, ErrorCode, WorkId};

use crate::history::{
    Action, AgentSpec, Answer, Claim, FinalItem, FinalState, History, ItemSpec, Moment, Operation,
    Outcome, Verb, Verdict,
};

const STEP: u64 = 10;
const MAX_ATTEMPTS: u32 = 3;

/// A history with two agents of capability `rust`.
pub(super) struct Tale {
    pub history: History,
    pub agents: Vec<AgentGuid>,
    pub items: Vec<FinalItem>,
    pub letters: Vec<WorkId>,
    /// Which run asks from now on.
    pub run: Option<String>,
    now: u64,
}

impl Tale {
    pub fn new() -> Self {
        let mut tale = Self {
            history: History::default(),
            agents: Vec::new(),
            items: Vec::new(),
            letters: Vec::new(),
            run: None,
            now: 0,
        };
        for _ in 0..2 {
            tale.agent(false);
        }
        tale
    }

    /// One more agent; gives its place.
    pub fn agent(&mut self, steady: bool) -> usize {
        let place = self.unknown_agent();
        let mut spec = AgentSpec::new(self.agents[place], "fake", &["rust"]);
        spec.steady = steady;
        self.answered(Action::Register(spec), Outcome::Accepted);
        place
    }

    /// A run of an agent registers, and asks from now on; unanswered where `is_heard` is false.
    pub fn registers_as(&mut self, agent: usize, run: &str, is_heard: bool) {
        self.run = Some(run.into());
        let spec = AgentSpec::new(self.agents[agent], "fake", &["rust"]);
        let number = self.open(Action::Register(spec));
        if is_heard {
            self.answer(number, Outcome::Accepted);
        }
    }

    /// This run asks from now on.
    pub fn asks_as(&mut self, run: &str) {
        self.run = Some(run.into());
    }

    /// An agent that never registers.
    pub fn unknown_agent(&mut self) -> usize {
        self.agents.push(AgentGuid::generate());
        self.agents.len() - 1
    }

    pub fn unknown_item() -> WorkId {
        WorkId::generate()
    }

    pub fn submit(&mut self, priority: u8) -> WorkId {
        self.submit_where(|spec| spec.priority = priority)
    }

    pub fn submit_where(&mut self, change: impl FnOnce(&mut ItemSpec)) -> WorkId {
        let mut spec = ItemSpec::new(WorkId::generate(), "rust");
        change(&mut spec);
        let id = spec.id;
        self.answered(Action::Submit(spec), Outcome::Accepted);
        id
    }

    pub fn submit_unanswered(&mut self) -> WorkId {
        let spec = ItemSpec::new(WorkId::generate(), "rust");
        let id = spec.id;
        self.open(Action::Submit(spec));
        id
    }

    pub fn claim(&mut self, agent: usize, given: &[(WorkId, u32)]) {
        let claim = Claim::new(self.agents[agent]);
        let given = given.iter().map(|&(id, attempt)| LeaseRef { id, attempt });
        self.answered(Action::Claim(claim), Outcome::Given(given.collect()));
    }

    /// A claim that names a lost lease.
    pub fn resume(&mut self, agent: usize, (id, attempt): (WorkId, u32), given: &[(WorkId, u32)]) {
        let claim = Claim::new(self.agents[agent]).to_resume(&[LeaseRef { id, attempt }]);
        let given = given.iter().map(|&(id, attempt)| LeaseRef { id, attempt });
        self.answered(Action::Claim(claim), Outcome::Given(given.collect()));
    }

    pub fn report(&mut self, agent: usize, id: WorkId, attempt: u32, verb: Verb) {
        let number = self.open_report(agent, id, attempt, verb);
        self.close(number);
    }

    pub fn unanswered(&mut self, agent: usize, id: WorkId, attempt: u32, verb: Verb) {
        self.open_report(agent, id, attempt, verb);
    }

    pub fn refused(&mut self, agent: usize, id: WorkId, attempt: u32, verb: Verb, code: ErrorCode) {
        let number = self.open_report(agent, id, attempt, verb);
        self.answer(number, Outcome::Refused(code));
    }

    /// Sent, and not answered yet: its number.
    pub fn open_report(&mut self, agent: usize, id: WorkId, attempt: u32, verb: Verb) -> usize {
        self.open(Action::Report {
            verb,
            agent: self.agents[agent],
            lease: LeaseRef { id, attempt },
        })
    }

    pub fn close(&mut self, number: usize) {
        self.answer(number, Outcome::Accepted);
    }

    pub fn cancel(&mut self, id: WorkId) {
        self.answered(Action::Cancel(id), Outcome::Accepted);
    }

    /// Everything up to now happened while something was broken.
    pub fn disturbed_so_far(&mut self) {
        let until = self.moment();
        self.history.disturbances.push((Moment::default(), until));
    }

    /// How an item stands at the end; a failed one has its dead letter.
    pub fn end(&mut self, id: WorkId, status: WorkStatus, attempt: u32) {
        if status == WorkStatus::Failed {
            self.letters.push(id);
        }
        self.items.push(FinalItem {
            id,
            status,
            attempt,
            attempts: 0,
            max_attempts: MAX_ATTEMPTS,
            assigned_to: None,
        });
    }

    pub fn at_the_end(&self) -> FinalState {
        FinalState {
            items: self.items.clone(),
            dead_letters: Some(self.letters.clone()),
        }
    }

    pub fn check(&self) -> Verdict {
        self.history.check(&self.at_the_end())
    }

    fn moment(&mut self) -> Moment {
        self.now += STEP / 2;
        Moment::new(Duration::from_millis(self.now))
    }

    fn open(&mut self, action: Action) -> usize {
        let (number, sent) = (self.history.operations.len(), self.moment());
        self.history.operations.push(Operation {
            number,
            sent,
            action,
            run: self.run.clone(),
            answer: None,
        });
        number
    }

    fn answer(&mut self, number: usize, outcome: Outcome) {
        let at = self.moment();
        self.history.operations[number].answer = Some(Answer { at, outcome });
    }

    fn answered(&mut self, action: Action, outcome: Outcome) {
        let number = self.open(action);
        self.answer(number, outcome);
    }
}
