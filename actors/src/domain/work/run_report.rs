//! What an agent says of its run beside how the item stands: what it used up, where it was said, what was checked.

use loom_protocol::text::without_end;
use loom_protocol::work::{Evidence, ReportedEvidence, Session, Usage, limits};
use loom_protocol::{AgentGuid, ErrorCode, Timestamp, WireError};

use super::record::WorkRecord;
use super::usage;

/// The room for saying how much of an output is left out, in bytes.
const NOTE: usize = 48;

/// What a report says of the run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunReport {
    /// What its attempt has used up, all in all.
    pub usage: Option<Usage>,
    /// The conversation.
    pub session: Option<Session>,
    /// What was checked; only with an end. The attempt in it is the one that the report is about, whatever it says.
    pub evidence: Vec<Evidence>,
}

impl RunReport {
    /// One that tells of nothing else.
    pub fn of_usage(usage: Usage) -> Self {
        Self {
            usage: Some(usage),
            ..Self::default()
        }
    }

    /// Whether it says anything.
    pub const fn is_empty(&self) -> bool {
        self.usage.is_none() && self.session.is_none() && self.evidence.is_empty()
    }

    /// Checks what a request of this agent says.
    ///
    /// # Errors
    /// `invalid-request` or `too-large`, with the field.
    pub fn accept(
        sender: AgentGuid,
        usage: Option<Usage>,
        session: Option<Session>,
        evidence: Option<Vec<ReportedEvidence>>,
        now: Timestamp,
    ) -> Result<Self, WireError> {
        if let Some(usage) = &usage {
            usage.check().map_err(WireError::invalid)?;
        }
        if let Some(session) = &session {
            session.check(sender).map_err(WireError::invalid)?;
        }
        let evidence = evidence.unwrap_or_default();
        if evidence.len() > limits::EVIDENCE {
            return Err(WireError::new(
                ErrorCode::TooLarge,
                format!(
                    "evidence has {} entries; at most {} are kept: leave out those that say least. The lease stays yours",
                    evidence.len(),
                    limits::EVIDENCE
                ),
            ));
        }
        for (n, check) in evidence.iter().enumerate() {
            let named = |why| WireError::invalid(format!("evidence[{n}].{why}"));
            check.check().map_err(named)?;
        }
        Ok(Self {
            usage,
            session: session.map(|session| of_sender(session, sender)),
            evidence: evidence.into_iter().map(|check| kept(check, now)).collect(),
        })
    }

    /// The same of a published report: what is not as it should be is left out, since nobody could be told.
    pub fn accept_published(
        sender: AgentGuid,
        usage: Option<Usage>,
        session: Option<Session>,
        evidence: Option<Vec<ReportedEvidence>>,
        now: Timestamp,
    ) -> Self {
        let evidence = evidence.unwrap_or_default().into_iter();
        Self {
            usage: usage.filter(|usage| usage.check().is_ok()),
            session: session
                .filter(|session| session.check(sender).is_ok())
                .map(|session| of_sender(session, sender)),
            evidence: evidence
                .filter(|check| check.check().is_ok())
                .take(limits::EVIDENCE)
                .map(|check| kept(check, now))
                .collect(),
        }
    }
}

fn of_sender(session: Session, sender: AgentGuid) -> Session {
    Session {
        agent_guid: Some(sender),
        ..session
    }
}

/// A check as it is kept: within its bounds, and without what would command a terminal.
fn kept(check: ReportedEvidence, now: Timestamp) -> Evidence {
    Evidence {
        name: check.name,
        command: printable(&without_end(&check.command, limits::CHECK_COMMAND)),
        exit_code: check.exit_code,
        duration_ms: check.duration_ms,
        output_tail: printable(&tail(&check.output_tail, limits::OUTPUT_TAIL)),
        at: check.at.unwrap_or(now),
        attempt: 0,
        commit: check.commit,
        dirty: check.dirty,
    }
}

fn tail(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.into();
    }
    let from = text.ceil_char_boundary(text.len() - (most - NOTE));
    format!("[… {from} bytes left out]\n{}", &text[from..])
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            c if c.is_control() => ' ',
            c => c,
        })
        .collect()
}

impl WorkRecord {
    /// What the checks take at the most, as text and as JSON. They have no control characters that would take more.
    pub(crate) fn evidence_bytes(&self) -> (usize, usize) {
        const FRAME: usize = 256;
        let texts = self.evidence.iter().map(|check| {
            let names = check.name.len() + check.command.len();
            names + check.output_tail.len() + FRAME
        });
        let texts = texts.sum::<usize>();
        (texts, 2 * texts)
    }

    /// What the present attempt says of its run.
    pub(super) fn note_run(&mut self, report: &RunReport) {
        if report.usage.is_some() {
            self.usage = usage::within_attempt(self.usage.take(), report.usage.clone());
        }
        if let Some(session) = &report.session {
            self.session = Some(session.clone());
        }
    }

    /// The same with the end that the agent reports of it: the checks are those of this attempt.
    pub(super) fn note_end(&mut self, report: &RunReport) {
        self.note_run(report);
        let attempt = self.attempt;
        let checks = report.evidence.iter().cloned();
        self.evidence = checks.map(|check| Evidence { attempt, ..check }).collect();
    }

    /// What the attempt before has used belongs to the past: another one begins to count.
    pub(super) fn close_usage(&mut self) {
        self.usage_before = usage::over_attempts(self.usage_before.take(), self.usage.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, output_tail: String) -> ReportedEvidence {
        ReportedEvidence {
            name: name.into(),
            command: "c".repeat(5_000),
            exit_code: 1,
            duration_ms: 3,
            output_tail,
            at: None,
            commit: None,
            dirty: None,
        }
    }

    fn accepted(checks: Vec<ReportedEvidence>) -> Result<RunReport, WireError> {
        let now = Timestamp::from_millis(5);
        RunReport::accept(AgentGuid::generate(), None, None, Some(checks), now)
    }

    #[test]
    fn long_outputs_keep_their_end_and_nothing_commands_a_terminal() {
        let long = format!("first {}\u{1b}[2Jlast\n", "ü".repeat(5_000));
        let kept = accepted(vec![check("t", long)]).unwrap().evidence.remove(0);
        assert!(kept.output_tail.len() <= limits::OUTPUT_TAIL);
        assert!(kept.output_tail.starts_with("[… ") && kept.output_tail.ends_with(" [2Jlast\n"));
        assert!(kept.command.len() <= limits::CHECK_COMMAND);
        assert_eq!(kept.at, Timestamp::from_millis(5));
    }

    #[test]
    fn too_many_checks_and_bad_names_are_refused_by_a_request_and_left_out_of_a_publication() {
        let many = vec![check("t", String::new()); limits::EVIDENCE + 1];
        let refused = accepted(many.clone()).unwrap_err();
        assert_eq!(refused.code, ErrorCode::TooLarge);
        assert!(
            refused.message.contains("17 entries"),
            "{}",
            refused.message
        );
        let mut checks = vec![check("a", String::new()), check("b\n", String::new())];
        let refused = accepted(checks.clone()).unwrap_err();
        assert!(
            refused.message.contains("evidence[1].name"),
            "{}",
            refused.message
        );
        checks.extend(many);
        let published = RunReport::accept_published(
            AgentGuid::generate(),
            Some(Usage {
                cost_usd: Some(f64::NAN),
                ..Usage::default()
            }),
            None,
            Some(checks),
            Timestamp::default(),
        );
        assert_eq!(published.usage, None);
        let names: Vec<&str> = published.evidence.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names[..2], ["a", "t"]);
        assert_eq!(names.len(), limits::EVIDENCE);
    }
}
