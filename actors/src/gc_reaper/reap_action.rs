//! What can be done to an agent.

use loom_protocol::gc::GcAction;

/// What is being done to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReapAction {
    MarkOffline,
    Bury,
    SendHome,
    Insist,
    EndProcess,
}

impl ReapAction {
    pub const fn of(action: GcAction) -> Option<Self> {
        match action {
            GcAction::MarkOffline => Some(Self::MarkOffline),
            GcAction::Bury => Some(Self::Bury),
            GcAction::SendHome => Some(Self::SendHome),
            GcAction::Insist => Some(Self::Insist),
            GcAction::EndProcess => Some(Self::EndProcess),
            GcAction::Unknown => None,
        }
    }

    pub const fn action(self) -> GcAction {
        match self {
            Self::MarkOffline => GcAction::MarkOffline,
            Self::Bury => GcAction::Bury,
            Self::SendHome => GcAction::SendHome,
            Self::Insist => GcAction::Insist,
            Self::EndProcess => GcAction::EndProcess,
        }
    }
}
