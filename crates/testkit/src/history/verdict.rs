//! What the checker found.

use std::fmt;

use loom_protocol::WorkId;

use super::operation::Operation;

/// What must hold in every history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// An item that was accepted ends.
    NoEnd,
    /// Each item is there once, and somebody submitted it.
    Phantom,
    /// The end that was answered is the end that is recorded, and somebody brought it about.
    WrongEnd,
    /// At any time at most one attempt of an item is valid.
    Overlap,
    /// A completion is accepted from the valid attempt only.
    StaleCompletion,
    /// An item is completed once.
    DoubleCompletion,
    /// No more attempts are spent than are allowed.
    TooManyAttempts,
    /// Work reaches only agents of its boundary, its capability and its required type.
    WrongAgent,
    /// Nobody is given an item before its time.
    TooEarly,
    /// Higher priority is served first, then the older item.
    Order,
    /// A failed item has exactly one dead letter, and no other item has one.
    DeadLetter,
    /// An agent that keeps both clocks loses no lease.
    LostLease,
    /// Of two runs of one agent the later one counts.
    ReplacedRun,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEnd => "no end",
            Self::Phantom => "phantom",
            Self::WrongEnd => "wrong end",
            Self::Overlap => "overlapping attempts",
            Self::StaleCompletion => "stale completion",
            Self::DoubleCompletion => "double completion",
            Self::TooManyAttempts => "too many attempts",
            Self::WrongAgent => "wrong agent",
            Self::TooEarly => "too early",
            Self::Order => "order",
            Self::DeadLetter => "dead letter",
            Self::LostLease => "lost lease",
            Self::ReplacedRun => "replaced run",
        })
    }
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// Of which item.
    pub item: WorkId,
    /// What happened, as a sentence.
    pub says: String,
    /// What it is concluded from.
    pub events: Vec<String>,
}

impl Violation {
    pub(super) fn new(rule: Rule, item: WorkId, says: String, events: &[&Operation]) -> Self {
        Self {
            rule,
            item,
            says,
            events: events.iter().map(ToString::to_string).collect(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: work item {} {}", self.rule, self.item, self.says)?;
        let mut events = self.events.iter();
        events.try_for_each(|event| write!(f, "\n    {event}"))
    }
}

/// What the checker says of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    operations: usize,
    items: usize,
    violations: Vec<Violation>,
}

impl Verdict {
    pub(super) fn new(operations: usize, items: usize, violations: Vec<Violation>) -> Self {
        Self {
            operations,
            items,
            violations,
        }
    }

    /// Whether every rule held.
    pub fn is_sound(&self) -> bool {
        self.violations.is_empty()
    }

    /// Every broken rule.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operations, items) = (self.operations, self.items);
        let found = match self.violations.len() {
            0 => "every rule held".to_owned(),
            1 => "1 violation".to_owned(),
            count => format!("{count} violations"),
        };
        write!(f, "{items} items, {operations} operations: {found}")?;
        let mut violations = self.violations.iter();
        violations.try_for_each(|violation| write!(f, "\n{violation}"))
    }
}
