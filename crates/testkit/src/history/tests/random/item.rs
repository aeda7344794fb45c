//! One item of the model: who has it, and what its attempts have cost.

use loom_protocol::work::{LeaseRef, WorkStatus};

use crate::history::{FinalItem, ItemSpec, Verb};

const MAX_ATTEMPTS: u32 = 2;
const FREE_RETURNS: u32 = 5;

pub(super) struct Item {
    pub spec: ItemSpec,
    pub status: WorkStatus,
    pub attempt: u32,
    pub costs: Costs,
    /// The lease that was taken back, while nobody has had the item since, and what had been spent before.
    pub lost: Option<(usize, Costs)>,
    pub holder: Option<usize>,
    /// The holder knows that it holds it.
    pub told: bool,
    /// Who released it last.
    pub released_by: Option<usize>,
}

/// What attempts that came to nothing have cost.
#[derive(Clone, Copy, Default)]
pub(super) struct Costs {
    pub spent: u32,
    pub unstarted: u32,
    pub releases: u32,
}

#[derive(Clone, Copy)]
pub(super) struct Luck {
    pub before: u64,
    pub after: u64,
    pub answered: bool,
}

impl Item {
    pub fn lease(&self) -> LeaseRef {
        LeaseRef {
            id: self.spec.id,
            attempt: self.attempt,
        }
    }

    pub fn take_report(&mut self, verb: Verb) {
        let holder = self.holder;
        match verb {
            Verb::Start | Verb::Progress => self.begin(),
            Verb::Complete => {
                self.status = WorkStatus::Completed;
                self.holder = None;
                self.lost = None;
            }
            Verb::Fail { spends } => {
                self.costs.releases += u32::from(!spends);
                self.give_back(spends || self.costs.releases > FREE_RETURNS);
            }
            Verb::Release { .. } => {
                self.costs.releases += 1;
                self.give_back(self.costs.releases > FREE_RETURNS);
                self.released_by = holder;
            }
        }
    }

    /// Started or not, as luck will have it.
    pub fn give_to(&mut self, agent: usize, luck: Luck) -> LeaseRef {
        self.attempt += 1;
        self.status = WorkStatus::Assigned;
        if luck.after.is_multiple_of(2) {
            self.begin();
        }
        self.holder = Some(agent);
        self.told = luck.answered;
        self.lost = None;
        self.released_by = None;
        self.lease()
    }

    fn begin(&mut self) {
        self.status = WorkStatus::InProgress;
        self.costs.unstarted = 0;
    }

    /// The coordinator takes the lease back.
    pub fn lose(&mut self, spends: bool) {
        let (agent, before) = (self.holder, self.costs);
        let returns = if self.status == WorkStatus::Assigned {
            &mut self.costs.unstarted
        } else {
            &mut self.costs.releases
        };
        *returns += u32::from(!spends);
        let is_one_too_many = *returns > FREE_RETURNS && !spends;
        self.give_back(spends || is_one_too_many);
        if self.status == WorkStatus::Pending {
            self.lost = agent.map(|agent| (agent, before));
        }
    }

    fn give_back(&mut self, spends: bool) {
        self.status = WorkStatus::Pending;
        self.holder = None;
        self.costs.spent += u32::from(spends);
        if self.costs.spent >= MAX_ATTEMPTS {
            self.status = WorkStatus::Failed;
        }
    }

    pub fn at_the_end(&self) -> FinalItem {
        FinalItem {
            id: self.spec.id,
            status: self.status,
            attempt: self.attempt,
            attempts: self.costs.spent,
            max_attempts: MAX_ATTEMPTS,
            assigned_to: None,
        }
    }
}
