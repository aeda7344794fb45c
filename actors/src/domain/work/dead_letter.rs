//! The verbs of a failed item: its dead letter is noted, and it may be put back.

use loom_protocol::Timestamp;
use loom_protocol::work::{Reason, WorkStatus};

use super::command::{Decision, Refusal};
use super::record::WorkRecord;

impl WorkRecord {
    /// Failed stays Failed: its dead letter is written. From here on the record may expire.
    pub(super) fn note_dead_letter(
        &self,
        sequence: u64,
        retries: u32,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        if self.status != WorkStatus::Failed || self.retries != retries {
            return Err(self.not_failed());
        }
        if self.dead_letter == Some(sequence) {
            return Ok(Decision::Already);
        }
        Ok(self.write(now, |next| next.dead_letter = Some(sequence)))
    }

    /// Failed → Pending: its dead letter is put back. The fence stays where it is; a deadline that
    /// has passed is forgotten, or the item would fail again at once.
    pub(super) fn retry(
        &self,
        retries: Option<u32>,
        reset_attempts: bool,
        automatic: bool,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        let is_done = match retries {
            Some(before) => self.retries > before,
            None => self.status != WorkStatus::Failed && self.retries > 0,
        };
        if is_done {
            return Ok(Decision::Already);
        }
        if self.status != WorkStatus::Failed {
            return Err(self.not_failed());
        }
        if self.raw.is_some() {
            return Err(Refusal::NotAnItem { id: self.id });
        }
        Ok(self.write(now, |next| {
            next.put_back(reset_attempts, automatic, now);
        }))
    }

    /// What a retry makes of a failed item.
    pub(in crate::domain) fn put_back(
        &mut self,
        reset_attempts: bool,
        automatic: bool,
        now: Timestamp,
    ) {
        self.pending_reason = Some(self.failure_reason());
        self.status = WorkStatus::Pending;
        self.attempts = if reset_attempts {
            0
        } else {
            self.attempts.min(self.max_attempts.saturating_sub(1))
        };
        self.unstarted_returns = 0;
        self.releases = 0;
        self.retries += 1;
        self.auto_retries = if automatic { self.auto_retries + 1 } else { 0 };
        self.dead_letter = None;
        self.lease = None;
        self.loss = None;
        self.started_at = None;
        self.progress = None;
        self.progress_message = None;
        self.not_before = None;
        self.deadline = self.deadline.filter(|deadline| *deadline > now);
        self.cancel = None;
        self.result = None;
        self.close_usage();
    }

    /// Why the item failed.
    pub fn failure_reason(&self) -> Reason {
        self.errors
            .last()
            .map_or(Reason::AgentError, |error| error.reason)
    }

    fn not_failed(&self) -> Refusal {
        Refusal::NotFailed {
            id: self.id,
            status: self.status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::Command;
    use super::super::transition::tests::{any_history, fresh, play};
    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn retry(reset_attempts: bool) -> Command {
        Command::Retry {
            retries: None,
            reset_attempts,
            automatic: false,
        }
    }

    fn failed() -> WorkRecord {
        WorkRecord {
            status: WorkStatus::Failed,
            attempt: 4,
            attempts: 2,
            ..fresh(2)
        }
    }

    proptest! {
        #[test]
        fn a_retry_begins_anew_above_the_same_fence(
            first in any_history(),
            reset in any::<bool>(),
            second in any_history(),
        ) {
            let mut record = fresh(2);
            play(&mut record, &first);
            let before = record.clone();
            play(&mut record, &[retry(reset)]);
            if before.status == WorkStatus::Failed {
                prop_assert_eq!(record.status, WorkStatus::Pending);
                prop_assert_eq!(record.attempt, before.attempt);
                prop_assert!(record.attempts < record.max_attempts);
                prop_assert_eq!(record.errors.len(), before.errors.len(), "the story is kept");
                prop_assert_eq!(record.retries, before.retries + 1);
            } else {
                prop_assert_eq!(&record, &before);
            }
            play(&mut record, &second);
            prop_assert!(record.attempt >= before.attempt, "the fence never falls");
            prop_assert!(record.attempts <= record.max_attempts);
        }

        #[test]
        fn only_a_failed_item_takes_a_letter(history in any_history(), sequence in any::<u64>()) {
            let mut record = fresh(2);
            play(&mut record, &history);
            let status = record.status;
            play(&mut record, &[Command::NoteDeadLetter { sequence, retries: 0 }]);
            let noted = (status == WorkStatus::Failed).then_some(sequence);
            prop_assert_eq!((record.status, record.dead_letter), (status, noted));
        }
    }

    #[test]
    fn the_letter_of_an_earlier_failure_is_not_noted() {
        let mut record = failed();
        play(&mut record, &[retry(true)]);
        record.status = WorkStatus::Failed;
        let late = Command::NoteDeadLetter {
            sequence: 7,
            retries: 0,
        };
        let refused = late.decide(&record, at(20));
        assert!(matches!(refused, Err(Refusal::NotFailed { .. })));
    }

    #[test]
    fn asking_for_a_retry_twice_is_asking_once() {
        let command = Command::Retry {
            retries: Some(0),
            reset_attempts: true,
            automatic: true,
        };
        let mut record = failed();
        play(&mut record, std::slice::from_ref(&command));
        assert_eq!((record.retries, record.auto_retries), (1, 1));
        assert_eq!(command.decide(&record, at(20)), Ok(Decision::Already));
        record.status = WorkStatus::Failed;
        let again = command.decide(&record, at(20));
        assert_eq!(again, Ok(Decision::Already), "it failed anew meanwhile");
        let never_failed = retry(true).decide(&fresh(2), at(20));
        assert!(matches!(never_failed, Err(Refusal::NotFailed { .. })));
    }

    #[test]
    fn a_deadline_that_has_passed_is_forgotten() {
        let mut record = failed();
        record.deadline = Some(at(5));
        play(&mut record, &[retry(true)]);
        assert_eq!(record.deadline, None);
    }
}
