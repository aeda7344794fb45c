//! Why an item waits: which agents may take it, which targets may start one for it, and what is under way.

use loom_actors::project::Project;
use loom_actors::work_ledger::ReadError;
use loom_protocol::target::SAID_LAST;
use loom_protocol::work::{BeingStarted, ExplainAnswer, WorkStatus};
use loom_protocol::{Timestamp, WireError, WorkId};

use super::Service;
use super::target_verdicts::{TargetVerdicts, Unserved};
use super::verdicts::Verdicts;
use crate::access::Allowed;

/// What the sentence about an item that waits follows from.
#[derive(Debug, Clone, Copy)]
struct PendingSummary<'a> {
    /// Until when it is held back.
    held_until: Option<Timestamp>,
    /// How many agents may take it, of how many.
    agents: (usize, usize),
    /// How many targets may start one for it, of how many.
    targets: (usize, usize),
    /// What is being started for it.
    being_started: &'a [BeingStarted],
    /// Whether the targets have been read.
    knows_targets: bool,
    /// The latest start for it that failed: the target, and why.
    last_failure: Option<&'a (String, String)>,
    /// What it needs, where no target's agents can do that.
    unserved: Option<&'a Unserved>,
    /// What keeps every start waiting: the store is full, or as many are under way as may be.
    not_now: Option<&'a str>,
}

impl Service {
    /// Who may take an item, who may start an agent for it, and which rule keeps the others from it. It is looked for
    /// first, and explained in a turn. Targets that are not read yet are not waited for.
    ///
    /// # Errors
    /// There is no such item, or its project cannot be read.
    pub async fn explain(&self, caller: &Allowed, id: &str) -> Result<ExplainAnswer, WireError> {
        let (project, id) = self.find_item(caller.project(), id).await?;
        self.in_turn(caller, self.explain_item(&project, id)).await
    }

    async fn explain_item(
        &self,
        project: &Project,
        id: WorkId,
    ) -> Result<ExplainAnswer, WireError> {
        let header = project.work.header(id).ok_or(ReadError::NotFound(id))?;
        let queue_position = if header.status == WorkStatus::Pending {
            Some(project.dispatcher.queue_position(header.clone()).await?)
        } else {
            None
        };
        let Verdicts {
            agents,
            total,
            eligible,
            others,
        } = self.verdicts(project, &header, queue_position.as_ref());
        let taken = serde_json::to_vec(&agents).map_or(0, |bytes| bytes.len());
        let targets_unread = !project.targets.is_loaded();
        let of_targets = self.target_verdicts(project, &header, taken);
        let TargetVerdicts {
            targets,
            total: targets_total,
            eligible: targets_eligible,
            others: other_targets,
            being_started,
            last_failure,
            unserved,
        } = of_targets;
        let places_taken = project.target_manager.places_taken();
        let places_taken = places_taken.map(|taken| taken.to_string());
        // Where the store is full nothing can be recorded, so nothing is started.
        let store = self.projects().terms().nats.store.verdict();
        let not_now = store.sentence().map(ToOwned::to_owned).or(places_taken);
        let summary = match (header.status, header.holder) {
            (WorkStatus::Pending, _) => PendingSummary {
                held_until: header.not_before().filter(|time| *time > self.now()),
                agents: (eligible, total),
                targets: (targets_eligible, targets_total),
                being_started: &being_started,
                knows_targets: !targets_unread,
                last_failure: last_failure.as_ref(),
                unserved: unserved.as_ref(),
                not_now: not_now.as_deref(),
            }
            .sentence(),
            (status, Some(guid)) => format!("it is {status}, agent {guid}"),
            (status, None) => format!("it is {status}"),
        };
        Ok(ExplainAnswer {
            id,
            status: header.status,
            summary,
            ahead: queue_position.map(|queue_position| queue_position.ahead),
            agents,
            agents_total: total,
            eligible,
            others,
            targets,
            targets_unread,
            targets_total,
            targets_eligible,
            other_targets,
            being_started,
        })
    }
}

impl PendingSummary<'_> {
    fn sentence(&self) -> String {
        if let Some(until) = self.held_until {
            return format!("it is not offered before {until}");
        }
        let (eligible, agents) = self.agents;
        if eligible > 0 {
            return format!("{eligible} of {agents} agents may take it when they claim");
        }
        let nobody = match agents {
            0 => "no agent is registered",
            _ => "no agent may take it now",
        };
        match (self.being_started, self.targets) {
            ([first, ..], _) => format!(
                "{nobody}; one is being started by target {} (operation {}, since {}){}",
                first.target_name,
                first.operation_id,
                first.started_at,
                said(first)
            ),
            ([], (0, 0)) if !self.knows_targets => {
                format!(
                    "{nobody}; which targets may start one is not known yet, try again in a moment"
                )
            }
            ([], (0, 0)) if agents == 0 => {
                format!("{nobody}; start one with this capability and boundary")
            }
            ([], (0, 0)) => format!("{nobody}; each is rejected by a rule"),
            ([], (0, _)) if let Some(unserved) = self.unserved => {
                format!("{nobody}, and {unserved}")
            }
            ([], (0, targets)) => format!(
                "{nobody}, and none of {targets} targets may start one for it now{}; each is rejected by a rule",
                self.failure()
            ),
            ([], (startable, targets)) => {
                let failure = self.failure();
                let waits = self
                    .not_now
                    .map_or_else(String::new, |taken| format!(", but not now: {taken}"));
                format!(
                    "{nobody}; {startable} of {targets} targets may start one for it{waits}{failure}"
                )
            }
        }
    }

    fn failure(&self) -> String {
        self.last_failure.map_or_else(String::new, |(target, why)| {
            format!("; the last start failed, at target {target}: {why}")
        })
    }
}

/// What the mechanism says of a start.
fn said(start: &BeingStarted) -> String {
    let said = start.said.as_deref();
    said.map_or_else(String::new, |said| format!("{SAID_LAST}{said}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom_protocol::target::SpinUpStatus;
    use loom_protocol::{SpinUpId, TargetId};

    #[test]
    fn the_sentence_says_what_ends_the_waiting() {
        let time = Timestamp::from_millis(0);
        let birth = BeingStarted {
            operation_id: SpinUpId::generate(),
            target_id: TargetId::generate(),
            target_name: "build-2".into(),
            status: SpinUpStatus::InProgress,
            started_at: time,
            said: None,
        };
        let waiting = BeingStarted {
            said: Some("no node takes its pod: 0/3 nodes are available".into()),
            ..birth.clone()
        };
        let waiting = std::slice::from_ref(&waiting);
        let birth = std::slice::from_ref(&birth);
        let id = birth[0].operation_id;
        let being_started =
            format!("one is being started by target build-2 (operation {id}, since {time})");
        for (held_until, agents, targets, being_started, expected) in [
            (Some(time), (1, 1), (1, 1), birth, format!("it is not offered before {time}")),
            (None, (2, 3), (0, 0), &[][..], "2 of 3 agents may take it when they claim".into()),
            (None, (1, 3), (1, 1), birth, "1 of 3 agents may take it when they claim".into()),
            (
                None,
                (0, 0),
                (0, 0),
                &[],
                "no agent is registered; start one with this capability and boundary".into(),
            ),
            (
                None,
                (0, 3),
                (0, 0),
                &[],
                "no agent may take it now; each is rejected by a rule".into(),
            ),
            (None, (0, 3), (0, 2), birth, format!("no agent may take it now; {being_started}")),
            (None, (0, 0), (1, 2), birth, format!("no agent is registered; {being_started}")),
            (
                None,
                (0, 0),
                (1, 2),
                waiting,
                format!("no agent is registered; {being_started}; it said: no node takes its pod: 0/3 nodes are available"),
            ),
            (
                None,
                (0, 3),
                (0, 2),
                &[],
                "no agent may take it now, and none of 2 targets may start one for it now; each is rejected by a rule".into(),
            ),
            (
                None,
                (0, 0),
                (1, 2),
                &[],
                "no agent is registered; 1 of 2 targets may start one for it".into(),
            ),
        ] {
            let summary = PendingSummary {
                held_until,
                agents,
                targets,
                being_started,
                knows_targets: true,
                last_failure: None,
                unserved: None,
                not_now: None,
            };
            assert_eq!(summary.sentence(), expected);
        }
        let failure = ("build-2".to_owned(), "it said: no such model".to_owned());
        for startable in [0, 1] {
            let failed = PendingSummary {
                held_until: None,
                agents: (0, 0),
                targets: (startable, 2),
                being_started: &[],
                knows_targets: true,
                last_failure: Some(&failure),
                unserved: None,
                not_now: None,
            };
            let told = "the last start failed, at target build-2: it said: no such model";
            assert!(failed.sentence().contains(told), "{}", failed.sentence());
        }
        let full = PendingSummary {
            held_until: None,
            agents: (0, 0),
            targets: (1, 2),
            being_started: &[],
            knows_targets: true,
            last_failure: None,
            unserved: None,
            not_now: Some("as many starts are under way as may be"),
        };
        assert_eq!(
            full.sentence(),
            "no agent is registered; 1 of 2 targets may start one for it, but not now: as many starts are under way as may be"
        );
        let unserved = Unserved {
            capability: "rust2".into(),
            nearest: Some("rust".into()),
        };
        let mistyped = PendingSummary {
            held_until: None,
            agents: (0, 0),
            targets: (0, 24),
            being_started: &[],
            knows_targets: true,
            last_failure: None,
            unserved: Some(&unserved),
            not_now: None,
        };
        assert_eq!(
            mistyped.sentence(),
            "no agent is registered, and no target serves capability \"rust2\"; did you mean \"rust\"?"
        );
        let unread = PendingSummary {
            held_until: None,
            agents: (0, 0),
            targets: (0, 0),
            being_started: &[],
            knows_targets: false,
            last_failure: None,
            unserved: None,
            not_now: None,
        };
        assert!(unread.sentence().contains("not known yet"));
    }
}
