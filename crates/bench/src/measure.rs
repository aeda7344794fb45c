//! What the default run measures.

/// What is measured, and against what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// JetStream publishes.
    RawPublish,
    /// One request per item.
    Submit,
    /// One request per array.
    SubmitArrays,
    /// One create per item: what a submit writes.
    RawCreate,
    /// A create and two compare-and-sets per item.
    RawCycle,
    /// Submit, claim, complete: three requests per item.
    Cycle,
    /// Submit, complete and claim the next: two requests per item.
    CycleThenClaim,
    /// Two requests per array.
    CycleArrays,
}

impl Measure {
    /// In the order of the report.
    pub const ALL: [Self; 8] = [
        Self::RawPublish,
        Self::RawCreate,
        Self::Submit,
        Self::SubmitArrays,
        Self::RawCycle,
        Self::Cycle,
        Self::CycleThenClaim,
        Self::CycleArrays,
    ];

    /// The limit that it is measured against.
    pub const fn limit(self) -> Option<Self> {
        match self {
            Self::RawPublish | Self::RawCreate | Self::RawCycle => None,
            Self::Submit | Self::SubmitArrays => Some(Self::RawPublish),
            Self::Cycle | Self::CycleThenClaim | Self::CycleArrays => Some(Self::RawCycle),
        }
    }

    /// The same conditional writes without Loom: what can be reached at the most.
    pub const fn same_writes(self) -> Option<Self> {
        match self {
            Self::Submit | Self::SubmitArrays => Some(Self::RawCreate),
            _ => self.limit(),
        }
    }

    /// The ratio to the limit that is aimed at.
    pub const fn aim(self) -> Option<f64> {
        match self {
            Self::RawPublish | Self::RawCreate | Self::RawCycle | Self::CycleThenClaim => None,
            Self::Submit => Some(0.35),
            Self::SubmitArrays => Some(0.6),
            Self::Cycle => Some(0.25),
            Self::CycleArrays => Some(0.45),
        }
    }
}
