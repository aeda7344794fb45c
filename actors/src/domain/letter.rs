//! Dead letters as values: from a failed record to its letter, from a letter back to a record, and
//! when a letter is put back by the schedule.

use std::time::Duration;

use bytes::Bytes;
use loom_protocol::codec::DecodeError;
use loom_protocol::dead_letter::{DeadLetter, RawBytes, RefusedSubmission};
use loom_protocol::work::Reason;
use loom_protocol::{Encoding, ProjectId, Timestamp, WorkId};
use serde::{Deserialize, Serialize};

use super::work::{Bodies, Refusal, WorkRecord, view};

/// What a letter says that could not hold everything.
const LEFT_OUT: &str =
    " [the letter is too large for a message of the nats-server: some of it was left out]";

/// What a list of letters is made from: the header of a letter, one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterHeader {
    /// The item's capability.
    pub capability: Box<str>,
    /// Why it failed.
    pub reason: Reason,
    /// When it failed.
    pub failed_at: Timestamp,
    /// How often it was put back before: which of its failures this is.
    pub retries: u32,
    /// How often the schedule did so since somebody did it by hand.
    #[serde(default)]
    pub auto_retries: u32,
}

impl DeadLetterHeader {
    /// The head of the letter of a failed record that has none yet.
    pub fn of(record: &WorkRecord) -> Self {
        Self {
            capability: record.capability.as_str().into(),
            reason: record.failure_reason(),
            failed_at: record.updated_at,
            retries: record.retries,
            auto_retries: record.auto_retries,
        }
    }

    /// Whether a letter with this head is the letter of this failure, and not of an earlier one.
    pub fn is_of(&self, record: &WorkRecord) -> bool {
        self.retries == record.retries && self.failed_at == record.updated_at
    }
}

/// The letter of a failed record that has none yet.
pub fn letter_of(record: &WorkRecord, revision: u64, project: &ProjectId) -> DeadLetter {
    let mut work_item = view(record, project, revision, Bodies::With);
    let errors = std::mem::take(&mut work_item.errors);
    work_item.context_data.clone_from(&record.context_data);
    let of_errors = errors.iter().rev().find_map(|error| error.agent_guid);
    let of_lease = record.ended_lease.as_ref().map(|ended| ended.guid);
    DeadLetter {
        id: record.id,
        reason: record.failure_reason(),
        attempts: record.attempts,
        failed_at: record.updated_at,
        errors,
        last_agent_guid: of_lease.or(of_errors),
        retries: record.retries,
        auto_retries: record.auto_retries,
        submission: record.raw.as_ref().map(|raw| RefusedSubmission {
            size: raw.size,
            base64: RawBytes(raw.bytes.clone()),
        }),
        work_item,
    }
}

/// The record of a letter whose own has expired: pending again, one above the letter's fence.
///
/// # Errors
/// The letter is a refused submission.
pub fn revived(
    letter: DeadLetter,
    reset_attempts: bool,
    automatic: bool,
    now: Timestamp,
) -> Result<WorkRecord, Refusal> {
    if letter.submission.is_some() {
        return Err(Refusal::NotAnItem { id: letter.id });
    }
    let item = letter.work_item;
    let mut record = WorkRecord {
        task_id: item.task_id,
        parent_id: item.parent_id,
        capability: item.capability,
        boundary: item.boundary,
        description: item.description,
        priority: item.priority,
        attempt: item.attempt + 1,
        attempts: letter.attempts,
        max_attempts: item.max_attempts,
        preferred_agent_type: item.preferred_agent_type,
        required_agent_type: item.required_agent_type,
        deadline: item.deadline,
        timeout_ms: item.timeout_ms,
        context_data: item.context_data,
        errors: letter.errors,
        usage_before: item.usage,
        session: item.session,
        evidence: item.evidence,
        retries: letter.retries,
        auto_retries: letter.auto_retries,
        updated_at: now,
        ..WorkRecord::blank(letter.id, &item.offered_by, item.offered_at, item.labels)
    };
    record.put_back(reset_attempts, automatic, now);
    Ok(record)
}

/// Writes a letter: JSON, for people too; MessagePack where there are bytes that JSON would blow up.
pub fn encode(letter: &DeadLetter) -> Result<Bytes, DecodeError> {
    let encoding = match letter.submission {
        Some(_) => Encoding::MessagePack,
        None => Encoding::Json,
    };
    encoding.encode(letter).map(Bytes::from)
}

/// Writes a letter in at most so many bytes. Where JSON takes more, MessagePack may take less; where that
/// does not do either, the result and the checks, the earlier errors and at last the context go, and the letter says so.
pub fn encode_within(letter: &DeadLetter, most: usize) -> Result<Bytes, DecodeError> {
    let bytes = encode(letter)?;
    if bytes.len() <= most {
        return Ok(bytes);
    }
    let smaller = |letter: &DeadLetter| {
        let packed = Encoding::MessagePack.encode(letter).map(Bytes::from)?;
        let plain = encode(letter)?;
        Ok::<_, DecodeError>(if packed.len() < plain.len() {
            packed
        } else {
            plain
        })
    };
    let cuts: [fn(&mut DeadLetter); 3] = [
        |letter| {
            letter.work_item.result = None;
            letter.work_item.evidence.clear();
        },
        |letter| {
            let earlier = letter.errors.len().saturating_sub(1);
            letter.errors.drain(..earlier);
        },
        |letter| letter.work_item.context_data = None,
    ];
    let mut cut = letter.clone();
    let mut bytes = smaller(&cut)?;
    for leave_out in cuts {
        if bytes.len() <= most {
            break;
        }
        leave_out(&mut cut);
        let mut told = cut.clone();
        if let Some(last) = told.errors.last_mut() {
            last.message.push_str(LEFT_OUT);
        }
        bytes = smaller(&told)?;
    }
    Ok(bytes)
}

/// Reads a letter.
pub fn decode(bytes: &[u8]) -> Result<DeadLetter, DecodeError> {
    match bytes.first() {
        Some(b'{') => Encoding::Json.decode(bytes),
        _ => Encoding::MessagePack.decode(bytes),
    }
}

/// The same for every copy of one letter: later copies are dropped by the server.
pub fn message_id(id: WorkId, head: &DeadLetterHeader) -> String {
    format!("{id}.{}.{}", head.retries, head.failed_at.as_millis())
}

/// Which dead letters are put back by a schedule, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoRetry {
    /// Those of these reasons.
    pub reasons: Vec<Reason>,
    /// How long after the failure for the first time; doubles with each.
    pub after: Duration,
    /// How often, at the most.
    pub max: u32,
}

impl AutoRetry {
    /// When a letter is put back; `None`: never.
    pub fn at(&self, head: &DeadLetterHeader) -> Option<Timestamp> {
        let wanted = head.auto_retries < self.max && self.reasons.contains(&head.reason);
        wanted.then(|| {
            let factor = 2_u32.saturating_pow(head.auto_retries);
            head.failed_at.after(self.after.saturating_mul(factor))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::work::{Command, Decision, RawSubmission, tests::any_record};
    use loom_protocol::work::WorkStatus;
    use proptest::prelude::*;

    fn project() -> ProjectId {
        ProjectId::new("p").unwrap()
    }

    fn failed(mut record: WorkRecord) -> WorkRecord {
        record.status = WorkStatus::Failed;
        record.result = None;
        record.raw = None;
        record.dead_letter = None;
        record
    }

    fn any_head() -> impl Strategy<Value = DeadLetterHeader> {
        (prop::sample::select(&Reason::ALL[..]), 0..10_i64, 0..40_u32).prop_map(
            |(reason, failed_at, auto_retries)| DeadLetterHeader {
                capability: "c".into(),
                reason,
                failed_at: Timestamp::from_millis(failed_at),
                retries: auto_retries,
                auto_retries,
            },
        )
    }

    proptest! {
        #[test]
        fn a_letter_tells_all_that_a_retry_needs(record in any_record(), reset in any::<bool>()) {
            let record = failed(record);
            let now = Timestamp::from_millis(50);
            let letter = decode(&encode(&letter_of(&record, 7, &project())).unwrap()).unwrap();
            let revived = revived(letter, reset, false, now).unwrap();
            let retry = Command::Retry { retries: None, reset_attempts: reset, automatic: false };
            let Ok(Decision::Write(retried)) = retry.decide(&record, now) else {
                panic!("a failed item can be retried");
            };
            let expected = WorkRecord {
                attempt: record.attempt + 1,
                created: 0,
                write_id: revived.write_id,
                ended_lease: None,
                has_run: false,
                ..*retried
            };
            prop_assert_eq!(revived, expected);
        }

        #[test]
        fn the_schedule_keeps_its_rules(head in any_head(), max in 0..40_u32) {
            let schedule = AutoRetry {
                reasons: vec![Reason::Timeout, Reason::AgentLost],
                after: Duration::from_mins(15),
                max,
            };
            let at = schedule.at(&head);
            let wanted = head.auto_retries < max
                && matches!(head.reason, Reason::Timeout | Reason::AgentLost);
            prop_assert_eq!(at.is_some(), wanted);
            if let Some(at) = at {
                prop_assert!(at.since(head.failed_at) >= schedule.after);
                let later = DeadLetterHeader { auto_retries: head.auto_retries + 1, ..head };
                let next = schedule.at(&later);
                prop_assert!(next.is_none_or(|next| next >= at), "each pause is longer");
            }
        }
    }

    #[test]
    fn refused_bytes_are_kept_exactly_and_are_no_item() {
        let bytes: Vec<u8> = (0..=255).cycle().take(700_000).collect();
        let record = WorkRecord {
            status: WorkStatus::Failed,
            raw: Some(RawSubmission {
                size: 700_000,
                bytes: bytes.clone().into(),
            }),
            ..WorkRecord::blank(
                WorkId::generate(),
                "queue",
                Timestamp::default(),
                std::collections::BTreeMap::new(),
            )
        };
        let stored = encode(&letter_of(&record, 7, &project())).unwrap();
        assert!(stored.len() < bytes.len() + 2_000, "{}", stored.len());
        let letter = decode(&stored).unwrap();
        let kept = letter.submission.clone().unwrap();
        assert_eq!((kept.size, kept.base64.0.as_ref()), (700_000, &bytes[..]));
        let refused = revived(letter, true, false, Timestamp::default());
        assert!(matches!(refused, Err(Refusal::NotAnItem { .. })));
    }
}
