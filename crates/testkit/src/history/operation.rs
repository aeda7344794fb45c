//! What somebody asked, and what came of it.

use std::fmt;
use std::time::Duration;

use loom_protocol::work::LeaseRef;
use loom_protocol::{AgentGuid, ErrorCode, WorkId};

/// A moment on the recorder's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(Duration);

impl Moment {
    /// So long after the recorder began.
    pub const fn new(since_begin: Duration) -> Self {
        Self(since_begin)
    }

    /// So much later.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// How long after the recorder began.
    pub const fn since_begin(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.0.as_secs_f64())
    }
}

/// What the submitter asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemSpec {
    /// The item.
    pub id: WorkId,
    /// What an agent must be able to do.
    pub capability: String,
    /// Where an agent must be.
    pub boundary: String,
    /// The only type that may take it.
    pub required_agent_type: Option<String>,
    /// 1 to 10; higher first.
    pub priority: u8,
    /// Not given to anybody before.
    pub not_before: Option<Moment>,
    /// It fails where nobody has finished it by then. Nothing is concluded from it.
    pub deadline: Option<Moment>,
    /// Whether it is in the queue as soon as the submit is answered: not so where it was published, is held back by
    /// `notBefore`, ends by a `deadline`, or prefers a type of agents.
    pub plain: bool,
}

impl ItemSpec {
    /// A plain item of boundary `default` and priority 5.
    pub fn new(id: WorkId, capability: &str) -> Self {
        Self {
            id,
            capability: capability.into(),
            boundary: "default".into(),
            required_agent_type: None,
            priority: 5,
            not_before: None,
            deadline: None,
            plain: true,
        }
    }
}

/// What an agent registers as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSpec {
    /// The agent.
    pub guid: AgentGuid,
    /// Its type.
    pub agent_type: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Where it is.
    pub boundaries: Vec<String>,
    /// Whether it keeps both clocks of every lease whatever happens: then none may be taken from it.
    pub steady: bool,
}

impl AgentSpec {
    /// An agent of boundary `default` that promises nothing.
    pub fn new(guid: AgentGuid, agent_type: &str, capabilities: &[&str]) -> Self {
        Self {
            guid,
            agent_type: agent_type.into(),
            capabilities: capabilities.iter().map(|&name| name.into()).collect(),
            boundaries: vec!["default".into()],
            steady: false,
        }
    }
}

/// What a claim asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// By whom.
    pub agent: AgentGuid,
    /// Its name for the claim; the same one again is the same claim.
    pub claim_id: String,
    /// Only these of its capabilities.
    pub capabilities: Option<Vec<String>>,
    /// Leases that were taken from it, whose items it wants again before anything else.
    pub resume: Vec<LeaseRef>,
}

impl Claim {
    /// A claim under a new name.
    pub fn new(agent: AgentGuid) -> Self {
        Self {
            agent,
            claim_id: WorkId::generate().to_string(),
            capabilities: None,
            resume: Vec::new(),
        }
    }

    /// The same, for what the agent has lost.
    #[must_use]
    pub fn to_resume(mut self, lost: &[LeaseRef]) -> Self {
        self.resume = lost.to_vec();
        self
    }

    /// Whether this lease is what it asked to have again.
    pub(super) fn resumes(&self, given: LeaseRef) -> bool {
        let before = |lost: &LeaseRef| lost.id == given.id && lost.attempt + 1 == given.attempt;
        self.resume.iter().any(before)
    }
}

/// What an agent says about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// It begins.
    Start,
    /// It goes on.
    Progress,
    /// It has finished.
    Complete,
    /// It has failed.
    Fail {
        /// Whether that counts as an attempt.
        spends: bool,
    },
    /// It gives the item back.
    Release {
        /// Whether the item is to be held back for a while.
        delayed: bool,
    },
}

impl Verb {
    /// Whether the lease is over with it.
    pub const fn ends(self) -> bool {
        matches!(
            self,
            Self::Complete | Self::Fail { .. } | Self::Release { .. }
        )
    }
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Somebody submits an item. A publish that the stream has acknowledged is an accepted submit.
    Submit(ItemSpec),
    /// An agent registers.
    Register(AgentSpec),
    /// An agent claims.
    Claim(Claim),
    /// An agent reports. A published report has no answer.
    Report {
        /// What.
        verb: Verb,
        /// By whom.
        agent: AgentGuid,
        /// About which lease.
        lease: LeaseRef,
    },
    /// Somebody calls an item off.
    Cancel(WorkId),
    /// Somebody puts a dead letter back into the queue.
    Retry(WorkId),
}

/// A definite answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, or had been done before.
    Accepted,
    /// The answer to a claim.
    Given(Vec<LeaseRef>),
    /// It was not done.
    Refused(ErrorCode),
}

/// When an answer came, and what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// When it came.
    pub at: Moment,
    /// What it was.
    pub outcome: Outcome,
}

/// One request of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its place in the history.
    pub number: usize,
    /// When it was sent.
    pub sent: Moment,
    /// What was asked.
    pub action: Action,
    /// Which run of its agent asked, where the request said so.
    pub run: Option<String>,
    /// What came of it; `None` where nobody knows.
    pub answer: Option<Answer>,
}

impl Operation {
    /// When it was answered with yes.
    pub fn accepted_at(&self) -> Option<Moment> {
        match &self.answer {
            Some(Answer {
                at,
                outcome: Outcome::Accepted | Outcome::Given(_),
            }) => Some(*at),
            _ => None,
        }
    }

    /// Whether it was certainly not done.
    pub fn is_refused(&self) -> bool {
        let outcome = self.answer.as_ref().map(|answer| &answer.outcome);
        matches!(outcome, Some(Outcome::Refused(_)))
    }

    /// What a claim was given.
    pub fn given(&self) -> &[LeaseRef] {
        match &self.answer {
            Some(Answer {
                outcome: Outcome::Given(leases),
                ..
            }) => leases,
            _ => &[],
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "#{} {}, sent at {}, ",
            self.number, self.action, self.sent
        )?;
        if let Some(run) = &self.run {
            write!(f, "by the run {run}, ")?;
        }
        match &self.answer {
            None => f.write_str("without a definite answer"),
            Some(Answer { at, outcome }) => match outcome {
                Outcome::Accepted => write!(f, "accepted at {at}"),
                Outcome::Refused(code) => write!(f, "refused with {code} at {at}"),
                Outcome::Given(leases) => {
                    write!(f, "given at {at}:")?;
                    leases
                        .iter()
                        .try_for_each(|lease| write!(f, " {} attempt {}", lease.id, lease.attempt))
                }
            },
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submit(spec) => {
                write!(f, "submit of {} with priority {}", spec.id, spec.priority)
            }
            Self::Register(spec) => write!(f, "registration of {}", spec.guid),
            Self::Claim(claim) => write!(f, "claim {} by {}", claim.claim_id, claim.agent),
            Self::Report { verb, agent, lease } => {
                let (id, attempt) = (lease.id, lease.attempt);
                write!(f, "{verb:?} of {id} attempt {attempt} by {agent}")
            }
            Self::Cancel(id) => write!(f, "cancel of {id}"),
            Self::Retry(id) => write!(f, "retry of the dead letter of {id}"),
        }
    }
}
