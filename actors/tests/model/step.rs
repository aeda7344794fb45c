//! The steps of the model: what is asked of an item, by whom, and when the ledger dies.

use loom_actors::domain::work::{Command, FailureReport, Fence, Holder, RunReport, WorkRecord};
use loom_actors::settings::RetrySettings;
use loom_protocol::work::{Reason, Usage, WorkResult};
use loom_protocol::{AgentGuid, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

use crate::ITEMS;

fn used() -> RunReport {
    RunReport::of_usage(Usage {
        tokens: Some(7),
        ..Usage::default()
    })
}

/// One command to one item.
#[derive(Debug, Clone)]
pub struct Step {
    pub item: usize,
    pub kind: Kind,
    /// Which of two agents.
    pub agent: u128,
    /// The present attempt, the one before, the next one, or none.
    pub attempt: Option<i8>,
    /// Seconds since the step before.
    pub later: u64,
    pub death: Death,
}

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Assign { start: bool },
    Resume { start: bool },
    Start,
    Progress,
    Complete,
    Fail { recoverable: bool, spends: bool },
    Release,
    Revoke { reason: Reason },
    Cancel,
    CancelDelivered,
    Stopped,
    Retry { reset: bool },
}

/// When the ledger is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Death {
    None,
    Before,
    Meanwhile,
}

pub fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        5 => any::<bool>().prop_map(|start| Kind::Assign { start }),
        2 => any::<bool>().prop_map(|start| Kind::Resume { start }),
        2 => Just(Kind::Start),
        2 => Just(Kind::Progress),
        2 => Just(Kind::Complete),
        3 => any::<(bool, bool)>().prop_map(|(recoverable, spends)| Kind::Fail { recoverable, spends }),
        2 => Just(Kind::Release),
        4 => prop::sample::select(vec![Reason::Timeout, Reason::AgentLost, Reason::NotStarted, Reason::Released])
            .prop_map(|reason| Kind::Revoke { reason }),
        1 => Just(Kind::Cancel),
        1 => Just(Kind::CancelDelivered),
        1 => Just(Kind::Stopped),
        1 => any::<bool>().prop_map(|reset| Kind::Retry { reset }),
    ];
    let attempt =
        prop_oneof![8 => Just(Some(0)), 1 => Just(Some(-1)), 1 => Just(Some(1)), 2 => Just(None)];
    let death =
        prop_oneof![20 => Just(Death::None), 1 => Just(Death::Before), 2 => Just(Death::Meanwhile)];
    (0..ITEMS, kind, 1..3_u128, attempt, 0..20_u64, death).prop_map(
        |(item, kind, agent, attempt, later, death)| Step {
            item,
            kind,
            agent,
            attempt,
            later,
            death,
        },
    )
}

impl Step {
    /// The command that this step means for an item as it stands.
    pub fn command(&self, record: &WorkRecord, now: Timestamp) -> Command {
        let guid = AgentGuid::new(Uuid::from_u128(self.agent));
        let attempt = self
            .attempt
            .map(|off| record.attempt.saturating_add_signed(off.into()));
        let by = Fence {
            guid,
            attempt,
            reported_at: now,
        };
        let holder = Holder {
            guid,
            handle: "a".into(),
            agent_type: "t".into(),
            hostname: None,
        };
        let backoff = RetrySettings::default().backoff(0.5);
        match self.kind {
            Kind::Assign { start } => Command::Assign {
                holder,
                claim_id: Some("claim".into()),
                start,
            },
            Kind::Resume { start } => Command::Resume {
                holder,
                attempt: attempt.unwrap_or(record.attempt),
                claim_id: Some("claim".into()),
                start,
            },
            Kind::Start => Command::Start(by),
            Kind::Progress => Command::Progress {
                by,
                progress: Some(40.0),
                message: None,
                report: used(),
            },
            Kind::Complete => Command::Complete {
                by,
                result: WorkResult {
                    summary: Some("done".into()),
                    output: None,
                    artifacts: None,
                    completed_at: now,
                },
                report: if self.agent == 1 {
                    used()
                } else {
                    RunReport::default()
                },
            },
            Kind::Fail {
                recoverable,
                spends,
            } => Command::Fail {
                by,
                failure: FailureReport {
                    message: "broken".into(),
                    code: None,
                    recoverable,
                    occurred_at: now,
                    reason: Reason::AgentError,
                    spends_attempt: spends,
                    not_before: None,
                    backoff,
                },
                report: RunReport::default(),
            },
            Kind::Release => Command::Release {
                by,
                message: None,
                reason: Reason::Released,
                not_before: None,
                report: RunReport::default(),
            },
            Kind::Revoke { reason } => Command::Revoke {
                guid,
                attempt: attempt.unwrap_or(record.attempt),
                reason,
                spends_attempt: matches!(reason, Reason::Timeout | Reason::AgentLost),
                backoff: (reason == Reason::Timeout).then_some(backoff),
            },
            Kind::Cancel => Command::Cancel {
                by: "somebody".into(),
                reason: None,
                again: false,
            },
            Kind::CancelDelivered => Command::CancelDelivered(by),
            Kind::Stopped => Command::Stopped {
                by,
                result: None,
                report: RunReport::default(),
            },
            Kind::Retry { reset } => Command::Retry {
                retries: Some(record.retries),
                reset_attempts: reset,
                automatic: false,
            },
        }
    }
}
