//! One target as it is kept: what it is, its agents, and its *births*, the operations that are not decided yet.
//!
//! Each verb takes a record and gives the next one, or says why not; the next one is written by one compare-and-set. So a
//! target never has more births and agents than it may, whichever coordinator writes, and a ticket is used once.
//! An operation that is decided leaves the record: its end is [written elsewhere](DecidedBirth) before that.

mod cause;

use std::time::Duration;

use loom_protocol::target::{LastSpinUp, SpinUpOperation, SpinUpStatus, Target, TargetStatus};
use loom_protocol::{AgentGuid, SpinUpId, Timestamp};
use serde::{Deserialize, Serialize};

use self::cause::cause;
use super::tickets::{Newborn, TicketDigest, TicketRefusal, TicketTerms};
use super::{BornRun, TargetCondition, TargetRule, may_start};

/// By how many doublings the rest of a target that fails grows at the most: 16 times `targets.cooldown`.
const MOST_DOUBLINGS: u32 = 4;

/// An operation that is not decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Birth<R> {
    /// As clients see it.
    pub operation: SpinUpOperation,
    /// What its agent proves itself with.
    pub ticket: TicketTerms,
    /// What the mechanism finds the start again by; `None`: it has not said yet that it began.
    pub reference: Option<R>,
    /// Where whoever recorded it begins it, if that is not to be seen from everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// When it was begun again last. As clients see it, it started when it was decided on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_again_at: Option<Timestamp>,
}

/// An operation that is decided, with what is needed to recognise a late birth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecidedBirth<R> {
    /// As clients see it.
    pub operation: SpinUpOperation,
    /// What its agent would prove itself with.
    pub ticket: TicketTerms,
    /// What the mechanism finds the start again by.
    pub reference: Option<R>,
    /// The run of the agent that was born.
    pub instance_id: Option<String>,
}

/// An agent that was born from the target and lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkedAgent<R> {
    /// Its id.
    pub guid: AgentGuid,
    /// The run of it that was born; the same again is the same birth.
    pub instance_id: Option<String>,
    /// By which operation.
    pub operation_id: SpinUpId,
    /// The ticket that it used.
    pub ticket: TicketTerms,
    /// What its end is ordered by.
    pub reference: Option<R>,
    /// When it registered first.
    pub born_at: Timestamp,
}

impl<R> LinkedAgent<R> {
    /// The run of it that was born.
    pub fn run(&self) -> BornRun<'_> {
        BornRun {
            instance_id: self.instance_id.as_deref(),
            born_at: self.born_at,
        }
    }
}

/// One target as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetRecord<R> {
    /// The target, with its secrets.
    pub target: Target,
    /// The operations that are not decided, oldest first.
    pub births: Vec<Birth<R>>,
    /// The agents that were born from it and live, oldest first.
    pub agents: Vec<LinkedAgent<R>>,
    /// How many starts failed in a row.
    pub failures: u32,
    /// Until when it rests after the last of them.
    pub cools_until: Option<Timestamp>,
}

impl<R: Clone> TargetRecord<R> {
    /// A target that was just registered.
    pub const fn new(target: Target) -> Self {
        Self {
            target,
            births: Vec::new(),
            agents: Vec::new(),
            failures: 0,
            cools_until: None,
        }
    }

    /// How it is: what is in the record, and what only others know.
    pub fn condition(&self, is_group_paused: bool) -> TargetCondition {
        use loom_protocol::target::HealthStatus;
        let agents = self.births.len() + self.agents.len();
        TargetCondition {
            is_enabled: self.target.status != TargetStatus::Disabled,
            is_group_paused,
            is_unhealthy: self.target.health_status == HealthStatus::Unhealthy,
            agents: u32::try_from(agents).unwrap_or(u32::MAX),
            max_agents: self.target.max_agents,
            cools_until: self.cools_until,
        }
    }

    /// (none) → Pending: a start is decided. `is_asked_for`: by a person, who need not wait for health and rest.
    ///
    /// # Errors
    /// The rule against it.
    pub fn begin(
        &self,
        birth: Birth<R>,
        is_group_paused: bool,
        is_asked_for: bool,
        now: Timestamp,
    ) -> Result<Self, TargetRule> {
        let mut condition = self.condition(is_group_paused);
        if is_asked_for {
            condition.is_unhealthy = false;
            condition.cools_until = None;
        }
        may_start(&condition, now)?;
        Ok(self.with(now, |next| {
            next.target.last_used_at = Some(now);
            next.births.push(birth);
        }))
    }

    /// Pending → InProgress: the mechanism has begun, and says by what the start is found again. An agent that was
    /// quicker to register than that is found by it too.
    pub fn started(&self, id: SpinUpId, reference: R, now: Timestamp) -> Option<Self> {
        let Some(at) = self.place_of(id) else {
            let mut agents = self.agents.iter();
            let at = agents.position(|a| a.operation_id == id && a.reference.is_none())?;
            return Some(self.with(now, |next| next.agents[at].reference = Some(reference)));
        };
        Some(self.with(now, |next| {
            let birth = &mut next.births[at];
            birth.operation.status = SpinUpStatus::InProgress;
            birth.reference = Some(reference);
        }))
    }

    /// Pending → Pending: the mechanism says that it surely never began; it is begun again with another ticket.
    pub fn begin_again(&self, id: SpinUpId, digest: TicketDigest, now: Timestamp) -> Option<Self> {
        let at = self.place_of(id)?;
        let is_begun = self.births[at].reference.is_some();
        (!is_begun).then(|| {
            self.with(now, |next| {
                next.births[at].ticket.digest = digest;
                next.births[at].begun_again_at = Some(now);
            })
        })
    }

    /// Pending, InProgress → Success: the agent registers with its ticket. The record and the decided operation; both
    /// `None` where it is the same birth again.
    ///
    /// # Errors
    /// It may not be born by this ticket.
    pub fn redeem(
        &self,
        digest: &TicketDigest,
        newborn: &Newborn<'_>,
        now: Timestamp,
    ) -> Result<Option<(Self, DecidedBirth<R>)>, TicketRefusal> {
        if let Some(linked) = self.agents.iter().find(|a| a.ticket.digest == *digest) {
            let is_the_same =
                linked.guid == newborn.guid && linked.instance_id.as_deref() == newborn.instance_id;
            return if is_the_same {
                linked.ticket.check(newborn)?;
                Ok(None)
            } else {
                Err(TicketRefusal::Used(linked.guid))
            };
        }
        let at = self.births.iter().position(|b| b.ticket.digest == *digest);
        let birth = at
            .map(|at| &self.births[at])
            .ok_or(TicketRefusal::Unknown)?;
        self.check_is_new(newborn)?;
        birth.ticket.check(newborn)?;
        let decided = birth.decided_with(newborn, now);
        let id = birth.operation.operation_id;
        let next = self.with(now, |next| {
            next.births
                .retain(|other| other.operation.operation_id != id);
            next.link(&decided, newborn, now);
        });
        Ok(Some((next, decided)))
    }

    /// Pending, InProgress → Failed or Timeout: there will be no agent. Its `error` ends with what was said last, so that
    /// it is told wherever the error is. The target rests, twice as long after each failure in a row, from `cooldown` on.
    pub fn given_up(
        &self,
        id: SpinUpId,
        (status, error, output): (SpinUpStatus, &str, Option<String>),
        cooldown: Duration,
        now: Timestamp,
    ) -> Option<(Self, DecidedBirth<R>)> {
        let birth = &self.births[self.place_of(id)?];
        let mut decided = birth.decided(status, now);
        let error = cause(error, output.as_deref());
        decided.operation.error = Some(error.clone());
        decided.operation.output = output;
        let next = self.with(now, |next| {
            next.births
                .retain(|other| other.operation.operation_id != id);
            next.cools_until = Some(now.after(rest_after(next.failures, cooldown)));
            next.failures = next.failures.saturating_add(1);
            next.target.last_error = Some(error);
            next.target.last_spin_up = Some(last_spin_up(&decided.operation, now));
        });
        Some((next, decided))
    }

    /// A crash came between the end of an operation that was written and its leaving the record: it leaves now, with
    /// what follows from that end. `None`: it has left.
    pub fn settled(
        &self,
        end: &DecidedBirth<R>,
        cooldown: Duration,
        now: Timestamp,
    ) -> Option<Self> {
        let id = end.operation.operation_id;
        let at = self.place_of(id)?;
        let born = end.operation.agent_guid;
        let born = born.filter(|_| end.operation.status == SpinUpStatus::Success);
        let Some(guid) = born else {
            let error = end.operation.error.as_deref().unwrap_or_default();
            let end = (end.operation.status, error, None);
            return self.given_up(id, end, cooldown, now).map(|(next, _)| next);
        };
        let newborn = Newborn {
            guid,
            instance_id: end.instance_id.as_deref(),
            agent_type: &end.ticket.agent_type,
            capabilities: &end.ticket.capabilities,
            boundaries: &end.ticket.boundaries,
        };
        let is_new = self.check_is_new(&newborn).is_ok();
        Some(self.with(now, |next| {
            next.births.remove(at);
            if is_new {
                next.link(end, &newborn, now);
            }
        }))
    }

    /// An agent is gone: it has deregistered, was buried, or never came back.
    pub fn unlink(&self, guid: AgentGuid, now: Timestamp) -> Option<Self> {
        let is_linked = self.agents.iter().any(|agent| agent.guid == guid);
        is_linked.then(|| self.with(now, |next| next.agents.retain(|agent| agent.guid != guid)))
    }

    /// Switched on or off by a person. Switched on, it rests no longer. `None`: it is so already.
    pub fn switched(&self, on: bool, now: Timestamp) -> Option<Self> {
        let is_on = self.target.status != TargetStatus::Disabled;
        (is_on != on).then(|| {
            self.with(now, |next| {
                next.target.updated_at = now;
                if on {
                    next.target.status = TargetStatus::Available;
                    (next.failures, next.cools_until) = (0, None);
                } else {
                    next.target.status = TargetStatus::Disabled;
                }
            })
        })
    }

    pub(super) fn check_is_new(&self, newborn: &Newborn<'_>) -> Result<(), TicketRefusal> {
        if self.agents.iter().any(|agent| agent.guid == newborn.guid) {
            return Err(TicketRefusal::Twice(newborn.guid));
        }
        Ok(())
    }

    fn place_of(&self, id: SpinUpId) -> Option<usize> {
        self.births
            .iter()
            .position(|birth| birth.operation.operation_id == id)
    }

    pub(super) fn link(
        &mut self,
        decided: &DecidedBirth<R>,
        newborn: &Newborn<'_>,
        now: Timestamp,
    ) {
        (self.failures, self.cools_until) = (0, None);
        self.target.use_count += 1;
        self.target.last_error = None;
        self.target.last_spin_up = Some(last_spin_up(&decided.operation, now));
        self.agents.push(LinkedAgent {
            guid: newborn.guid,
            instance_id: newborn.instance_id.map(ToOwned::to_owned),
            operation_id: decided.operation.operation_id,
            ticket: decided.ticket.clone(),
            reference: decided.reference.clone(),
            born_at: now,
        });
    }

    /// The next record, with what follows from its other fields.
    pub(super) fn with(&self, now: Timestamp, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        let target = &mut next.target;
        target.current_agent_guids = next.agents.iter().map(|agent| agent.guid).collect();
        if target.status != TargetStatus::Disabled {
            target.status = if !next.agents.is_empty() {
                TargetStatus::InUse
            } else if next.cools_until.is_some_and(|until| until > now) {
                TargetStatus::Error
            } else {
                TargetStatus::Available
            };
        }
        next
    }
}

impl<R> Birth<R> {
    /// When it was begun last: since then it takes a place among the starts that may be under way at once.
    pub fn begun_at(&self) -> Timestamp {
        self.begun_again_at.unwrap_or(self.operation.started_at)
    }
}

impl<R: Clone> Birth<R> {
    fn decided(&self, status: SpinUpStatus, now: Timestamp) -> DecidedBirth<R> {
        let mut operation = self.operation.clone();
        operation.status = status;
        operation.ended_at = Some(now);
        DecidedBirth {
            operation,
            ticket: self.ticket.clone(),
            reference: self.reference.clone(),
            instance_id: None,
        }
    }

    fn decided_with(&self, newborn: &Newborn<'_>, now: Timestamp) -> DecidedBirth<R> {
        let mut decided = self.decided(SpinUpStatus::Success, now);
        decided.operation.agent_guid = Some(newborn.guid);
        decided.instance_id = newborn.instance_id.map(ToOwned::to_owned);
        decided
    }
}

/// How long a target rests after so many failures before this one.
fn rest_after(failures_before: u32, cooldown: Duration) -> Duration {
    cooldown.saturating_mul(1 << failures_before.min(MOST_DOUBLINGS))
}

fn last_spin_up(operation: &SpinUpOperation, now: Timestamp) -> LastSpinUp {
    LastSpinUp {
        time: now,
        outcome: operation.status,
        agent: operation.agent_guid,
        work_item_id: operation.work_item_id,
        error: operation.error.clone(),
    }
}
