//! The history, told item by item and agent by agent.

use std::collections::{BTreeMap, HashMap};

use loom_protocol::work::LeaseRef;
use loom_protocol::{AgentGuid, WorkId};

use super::History;
use super::final_state::{FinalItem, FinalState};
use super::operation::{Action, AgentSpec, Claim, ItemSpec, Moment, Operation, Verb};

/// Everything, in the order that the rules need.
pub(super) struct Stories<'h> {
    pub history: &'h History,
    pub at_the_end: &'h FinalState,
    items: BTreeMap<WorkId, ItemHistory<'h>>,
    agents: HashMap<AgentGuid, Vec<(&'h Operation, &'h AgentSpec)>>,
    /// When each claim was sent for the first time.
    first_sent: HashMap<(AgentGuid, &'h str), Moment>,
}

/// What happened to one item.
#[derive(Default)]
pub(super) struct ItemHistory<'h> {
    pub spec: Option<&'h ItemSpec>,
    pub submits: Vec<&'h Operation>,
    pub grants: Vec<Grant<'h>>,
    pub reports: Vec<Report<'h>>,
    pub cancels: Vec<&'h Operation>,
    pub retries: Vec<&'h Operation>,
    /// As often as it is listed.
    pub ends: Vec<&'h FinalItem>,
}

/// A claim's answer has the item in it.
pub(super) struct Grant<'h> {
    pub attempt: u32,
    pub agent: AgentGuid,
    pub claim: &'h Claim,
    pub operation: &'h Operation,
    /// Not earlier than this it was given: the first sending of that claim.
    pub from: Moment,
    /// Not later than this.
    pub known: Moment,
}

/// An agent said something about the item.
pub(super) struct Report<'h> {
    pub verb: Verb,
    pub agent: AgentGuid,
    pub attempt: u32,
    pub operation: &'h Operation,
}

impl<'h> Stories<'h> {
    pub fn of(history: &'h History, at_the_end: &'h FinalState) -> Self {
        let mut stories = Self {
            history,
            at_the_end,
            items: BTreeMap::new(),
            agents: HashMap::new(),
            first_sent: HashMap::new(),
        };
        for operation in &history.operations {
            stories.tell(operation);
        }
        for item in &at_the_end.items {
            stories.item(item.id).ends.push(item);
        }
        stories
    }

    fn tell(&mut self, operation: &'h Operation) {
        match &operation.action {
            Action::Submit(spec) => {
                let story = self.item(spec.id);
                story.spec = story.spec.or(Some(spec));
                story.submits.push(operation);
            }
            Action::Register(spec) => {
                let told = self.agents.entry(spec.guid).or_default();
                told.push((operation, spec));
            }
            Action::Claim(claim) => self.tell_claim(operation, claim),
            Action::Report { verb, agent, lease } => self.item(lease.id).reports.push(Report {
                verb: *verb,
                agent: *agent,
                attempt: lease.attempt,
                operation,
            }),
            Action::Cancel(id) => self.item(*id).cancels.push(operation),
            Action::Retry(id) => self.item(*id).retries.push(operation),
        }
    }

    fn tell_claim(&mut self, operation: &'h Operation, claim: &'h Claim) {
        let name = (claim.agent, claim.claim_id.as_str());
        let from = *self.first_sent.entry(name).or_insert(operation.sent);
        let Some(known) = operation.accepted_at() else {
            return;
        };
        for &LeaseRef { id, attempt } in operation.given() {
            self.item(id).grants.push(Grant {
                attempt,
                agent: claim.agent,
                claim,
                operation,
                from,
                known,
            });
        }
    }

    fn item(&mut self, id: WorkId) -> &mut ItemHistory<'h> {
        self.items.entry(id).or_default()
    }

    /// Every answer with a lease of an item in it, and what was said of the item.
    pub fn of_leases(&self, id: WorkId) -> impl Iterator<Item = &'h Operation> {
        let story = self.items.get(&id).into_iter();
        story.flat_map(|story| {
            let grants = story.grants.iter().map(|grant| grant.operation);
            let reports = story.reports.iter().map(|report| report.operation);
            grants.chain(reports)
        })
    }

    pub fn items(&self) -> impl Iterator<Item = (WorkId, &ItemHistory<'h>)> {
        self.items.iter().map(|(id, story)| (*id, story))
    }

    pub fn get(&self, id: WorkId) -> Option<&ItemHistory<'h>> {
        self.items.get(&id)
    }

    pub fn count(&self) -> usize {
        self.items.len()
    }

    /// What an agent may have been registered as before a moment.
    pub fn specs(&self, agent: AgentGuid, before: Moment) -> impl Iterator<Item = &'h AgentSpec> {
        let told = self.agents.get(&agent).into_iter().flatten();
        told.filter(move |(operation, _)| operation.sent <= before && !operation.is_refused())
            .map(|(_, spec)| *spec)
    }

    /// Whether it is the first sending of its claim.
    pub fn is_first(&self, operation: &Operation, claim: &Claim) -> bool {
        let name = (claim.agent, claim.claim_id.as_str());
        self.first_sent.get(&name) == Some(&operation.sent)
    }
}

impl<'h> ItemHistory<'h> {
    /// The first accepted submit.
    pub fn accepted(&self) -> Option<(&'h Operation, Moment)> {
        let accepted = |operation: &&'h Operation| Some((*operation, operation.accepted_at()?));
        self.submits
            .iter()
            .filter_map(accepted)
            .min_by_key(|(_, at)| *at)
    }

    /// Which item it is, where that was listed at the end.
    pub fn id(&self) -> Option<WorkId> {
        self.end().map(|end| end.id)
    }

    pub fn end(&self) -> Option<&'h FinalItem> {
        self.ends.first().copied()
    }

    /// The completions that were accepted.
    pub fn completions(&self) -> impl Iterator<Item = &Report<'h>> {
        self.reports.iter().filter(|report| {
            report.verb == Verb::Complete && report.operation.accepted_at().is_some()
        })
    }

    /// Not earlier than this the report took effect. A repeated end may be the answer to the first one.
    pub fn earliest(&self, report: &Report<'h>) -> Moment {
        if !report.verb.ends() {
            return report.operation.sent;
        }
        let same = self.reports.iter().filter(|other| {
            other.verb == report.verb
                && other.agent == report.agent
                && other.attempt == report.attempt
                && !other.operation.is_refused()
        });
        let sent = same.map(|other| other.operation.sent).min();
        sent.unwrap_or(report.operation.sent)
    }

    /// What proves that an agent did not hold an attempt at a moment, nor could complete it late: it is another agent's,
    /// a later one was given before, its own end was accepted before, or the item was called off before. (That its lease
    /// was taken back proves nothing: while nobody has had the item since, its completion counts.)
    pub fn disproof(
        &self,
        agent: AgentGuid,
        attempt: u32,
        moment: Moment,
        ended_by: Option<Verb>,
    ) -> Option<&'h Operation> {
        let later = self.grants.iter().find(|grant| {
            let is_later = grant.attempt > attempt;
            is_later && grant.known < moment
        });
        let ended = self.reports.iter().find(|report| {
            let same = report.agent == agent && report.attempt == attempt;
            let ends = report.verb.ends() && Some(report.verb) != ended_by;
            same && ends && report.operation.accepted_at().is_some_and(|at| at < moment)
        });
        let cancelled = self
            .cancels
            .iter()
            .find(|cancel| cancel.accepted_at().is_some_and(|at| at < moment));
        let this = || self.grants.iter().filter(|grant| grant.attempt == attempt);
        let of_another = this()
            .next()
            .filter(|_| this().all(|grant| grant.agent != agent));
        later
            .or(of_another)
            .map(|grant| grant.operation)
            .or_else(|| ended.map(|report| report.operation))
            .or_else(|| cancelled.copied())
    }
}
