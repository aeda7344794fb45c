//! `GET /ready`: whether the coordinator can serve, and if not, why.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What kind of thing keeps the coordinator from serving. Programs match on this, never on the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// NATS cannot be reached.
    NatsAway,
    /// NATS answers, but its cluster has no majority: nothing can be written.
    NoLeader,
    /// The store of NATS is full, or refuses to write for another reason.
    StoreFull,
    /// The store of NATS was removed while its server runs.
    StoreMissing,
    /// The store of NATS is not the one that was there before.
    StoreChanged,
    /// The messages of NATS carry so little that no item can be taken in.
    MaxPayload,
    /// A stream of somebody else has subjects of one of Loom's.
    SubjectsTaken,
    /// This process is not the owner just now.
    NotOwner,
    /// The project that was asked about crashed too often and is given up for now.
    ProjectParked,
    /// The project that was asked about is being started, restarted or stopped.
    ProjectDown,
    /// A kind that this version does not know.
    #[serde(other)]
    Other,
}

impl ProblemKind {
    /// The kind as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NatsAway => "nats-away",
            Self::NoLeader => "no-leader",
            Self::StoreFull => "store-full",
            Self::StoreMissing => "store-missing",
            Self::StoreChanged => "store-changed",
            Self::MaxPayload => "max-payload",
            Self::SubjectsTaken => "subjects-taken",
            Self::NotOwner => "not-owner",
            Self::ProjectParked => "project-parked",
            Self::ProjectDown => "project-down",
            Self::Other => "other",
        }
    }

    /// What may be said of it to anybody: no names, no addresses, no reasons.
    pub const fn in_general(self) -> &'static str {
        match self {
            Self::NatsAway => "NATS cannot be reached",
            Self::NoLeader => "the cluster of NATS has no majority",
            Self::StoreFull => "the store of NATS is full or refuses to write",
            Self::StoreMissing => "the store of NATS was removed",
            Self::StoreChanged => "the store of NATS is not the one that was there before",
            Self::MaxPayload => "the messages of NATS carry too little (`max_payload`)",
            Self::SubjectsTaken => "a stream of somebody else has subjects of Loom",
            Self::NotOwner => "this coordinator is not the owner just now",
            Self::ProjectParked => "the project is parked",
            Self::ProjectDown => "the project is not up just now",
            Self::Other => "something else is wrong",
        }
    }
}

/// One thing that keeps the coordinator from serving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind of thing.
    pub kind: ProblemKind,
    /// What has happened, to which thing, and what to do.
    pub sentence: String,
}

impl Problem {
    /// A problem with its sentence.
    pub fn new(kind: ProblemKind, sentence: impl Into<String>) -> Self {
        let sentence = sentence.into();
        Self { kind, sentence }
    }
}

/// The body of `GET /ready`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Readiness {
    /// Whether it can serve: there is no problem.
    pub ready: bool,
    /// NATS is reachable.
    pub nats: bool,
    /// This process is the owner.
    pub owner: bool,
    /// Parked projects and their reasons: no problem of the whole, all other projects go on.
    pub parked: BTreeMap<String, String>,
    /// Projects that are there and have not been up since this process owns, or whose actors are being started again after a
    /// failure, with the reason. They keep nobody else from working.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub starting: BTreeMap<String, String>,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
    /// The kind of each of `problems`, in the same order.
    pub kinds: Vec<ProblemKind>,
}

impl Readiness {
    /// Adds a problem: it is not ready any more.
    pub fn add(&mut self, problem: Problem) {
        self.ready = false;
        self.kinds.push(problem.kind);
        self.problems.push(problem.sentence);
    }

    /// The problems, one by one.
    pub fn each(&self) -> impl Iterator<Item = Problem> {
        let kinds = self.kinds.iter().copied();
        let kinds = kinds.chain(std::iter::repeat(ProblemKind::Other));
        let sentences = self.problems.iter().cloned();
        sentences
            .zip(kinds)
            .map(|(sentence, kind)| Problem { kind, sentence })
    }

    /// A sentence for each parked project: why, and what to do.
    pub fn parked_projects(&self) -> impl Iterator<Item = String> {
        self.parked.iter().map(|(project, reason)| {
            format!("project {project} is parked, it crashed too often: {reason}; mend the cause, the log of the coordinator says more")
        })
    }

    /// A sentence for each project that is not up: why.
    pub fn starting_projects(&self) -> impl Iterator<Item = String> {
        let starting = self.starting.iter();
        starting.map(|(project, why)| format!("project {project} is there and is not up: {why}"))
    }

    /// What may be said of it to anybody: which kinds of things are wrong, each once.
    #[must_use]
    pub fn in_general(&self) -> Self {
        let mut kinds = self.kinds.clone();
        kinds.sort_unstable();
        kinds.dedup();
        Self {
            ready: self.ready,
            nats: self.nats,
            owner: self.owner,
            parked: BTreeMap::new(),
            starting: BTreeMap::new(),
            problems: kinds.iter().map(|kind| kind.in_general().into()).collect(),
            kinds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ProblemKind; 11] = [
        ProblemKind::NatsAway,
        ProblemKind::NoLeader,
        ProblemKind::StoreFull,
        ProblemKind::StoreMissing,
        ProblemKind::StoreChanged,
        ProblemKind::MaxPayload,
        ProblemKind::SubjectsTaken,
        ProblemKind::NotOwner,
        ProblemKind::ProjectParked,
        ProblemKind::ProjectDown,
        ProblemKind::Other,
    ];

    #[test]
    fn as_str_and_serde_agree() {
        for kind in ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        let later: ProblemKind = serde_json::from_str("\"moon-phase\"").unwrap();
        assert_eq!(later, ProblemKind::Other);
    }

    #[test]
    fn in_general_nothing_is_said_but_the_kinds() {
        let mut whole = Readiness {
            ready: true,
            parked: [("secret-project".to_owned(), "secret reason".to_owned())].into(),
            ..Readiness::default()
        };
        for kind in ALL.into_iter().rev().chain(ALL) {
            whole.add(Problem::new(kind, format!("secret of {kind:?}")));
        }
        let said = serde_json::to_string(&whole.in_general()).unwrap();
        assert!(!said.contains("secret"), "{said}");
        assert_eq!(whole.in_general().kinds.len(), ALL.len(), "each once");
        assert!(!whole.in_general().ready);
    }

    #[test]
    fn an_answer_without_kinds_has_problems_all_the_same() {
        let old: Readiness =
            serde_json::from_str(r#"{"ready":false,"problems":["something"]}"#).unwrap();
        let problems: Vec<Problem> = old.each().collect();
        assert_eq!(problems, [Problem::new(ProblemKind::Other, "something")]);
    }
}
