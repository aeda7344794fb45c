//! How much a message of the nats-server carries (`max_payload`), and what follows for items. Pure.

use loom_protocol::work::{WorkItem, limits};
use loom_protocol::{Encoding, ErrorCode, ProjectId, WireError};

use super::work::{Bodies, WorkRecord, encode, view};

/// What of a message is not an item: headers, and what an answer says beside it.
const BESIDE: usize = 64 * 1024;
/// What of a new record stays free for its result and its errors.
const RESERVE: usize = 256 * 1024;
/// What is left of a record in the worst case: names of fields, ids, times.
const FRAME: usize = 4 * 1024;
/// What the conversation and the sums of usage take at the most.
const SESSION: usize = 4 * 1024;
/// A control character is escaped as `\u0000` in JSON.
const ESCAPED: usize = 6;
/// A number of a body may take nine bytes in MessagePack that takes four in JSON.
const AS_MESSAGE_PACK: (usize, usize) = (9, 4);
/// Several items in one answer take this together at the most.
const TOGETHER: usize = 384 * 1024;

/// What fits into the messages of a nats-server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    max_payload: usize,
}

impl Room {
    /// Of a server with this limit.
    pub const fn of(max_payload: usize) -> Self {
        Self { max_payload }
    }

    /// What a record may have with all its parts, and so may a letter, or an item in an answer.
    pub const fn record(self) -> usize {
        self.max_payload.saturating_sub(BESIDE)
    }

    /// What a new record may have.
    const fn submission(self) -> usize {
        self.record().saturating_sub(RESERVE)
    }

    /// What several items of one answer may have together.
    pub fn together(self) -> usize {
        let (larger, than) = AS_MESSAGE_PACK;
        TOGETHER.min(self.record() * than / larger)
    }

    /// Why nothing can be done with such a server, if that is so.
    pub fn problem(self, shown_url: &str) -> Option<String> {
        let (limit, least) = (self.max_payload, BESIDE + RESERVE + FRAME);
        (limit < least).then(|| {
            format!(
                "max_payload of the nats-server at {shown_url} is {limit} bytes, and nothing can be taken in below {least}; set max_payload to 1MB (its default) in its configuration"
            )
        })
    }

    /// Refuses a new item that would not fit, with what may come of it.
    pub fn check(self, record: &WorkRecord, project: &ProjectId) -> Result<(), WireError> {
        let (as_record, as_answer) = bounds(record);
        if as_record > self.submission() {
            let stored = encode(record).map_or(as_record, |bytes| bytes.len());
            if stored > self.submission() {
                return Err(self.too_large("in the ledger", stored, self.submission()));
            }
        }
        if as_answer > self.record() {
            let answered = answer_size(&view(record, project, 0, Bodies::With));
            if answered > self.record() {
                return Err(self.too_large("in an answer", answered, self.record()));
            }
        }
        Ok(())
    }

    /// Whether an item can be given to an agent, in whichever encoding it asks.
    pub fn can_be_given(self, record: &WorkRecord, item: &WorkItem) -> Result<(), usize> {
        let (_, as_answer) = bounds(record);
        if as_answer <= self.record() {
            return Ok(());
        }
        match answer_size(item) {
            size if size > self.record() => Err(size),
            _ => Ok(()),
        }
    }

    fn too_large(self, place: &str, size: usize, most: usize) -> WireError {
        let limit = self.max_payload;
        WireError::new(
            ErrorCode::TooLarge,
            format!(
                "the item takes {size} bytes {place}, and at most {most} are possible: max_payload of the nats-server is {limit}, of which {BESIDE} stay free, and of a new item {RESERVE} for its result and errors; shorten description and contextData, or raise max_payload in the configuration of the nats-server"
            ),
        )
    }
}

/// What a record and its answers take at the most, without writing either.
fn bounds(record: &WorkRecord) -> (usize, usize) {
    let labels = record.labels.iter();
    let labels: usize = labels
        .map(|(name, value)| name.len() + value.len() + 8)
        .sum();
    let errors: usize = record
        .errors
        .iter()
        .map(|error| error.message.len() + error.code.as_ref().map_or(0, String::len) + 256)
        .sum();
    // What a claimed item tells of the attempts before tells it once more.
    let feedback = if record.errors.is_empty() && record.evidence.is_empty() {
        0
    } else {
        limits::FEEDBACK_TEXT + limits::FEEDBACK * 256
    };
    let (checks, checks_as_answer) = record.evidence_bytes();
    let told = errors + feedback + SESSION;
    let texts = record.description.len() + record.task_id.len() + labels + told;
    let body = record
        .context_data
        .as_ref()
        .map_or(0, loom_protocol::Body::len);
    let (larger, than) = AS_MESSAGE_PACK;
    (
        FRAME + texts + checks + body,
        FRAME + ESCAPED * texts + checks_as_answer + body * larger / than,
    )
}

fn answer_size(item: &WorkItem) -> usize {
    [Encoding::Json, Encoding::MessagePack]
        .into_iter()
        .filter_map(|encoding| encoding.encode(item).ok())
        .map(|bytes| bytes.len())
        .max()
        .unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::work::cut;
    use loom_protocol::work::WorkResult;
    use loom_protocol::{Body, Timestamp, WorkId};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn record(description: usize, context: usize) -> WorkRecord {
        WorkRecord {
            description: "d".repeat(description),
            context_data: Body::of(&"c".repeat(context.saturating_sub(2))).ok(),
            ..WorkRecord::blank(
                WorkId::generate(),
                "me",
                Timestamp::default(),
                BTreeMap::new(),
            )
        }
    }

    fn project() -> ProjectId {
        ProjectId::new("p").unwrap()
    }

    /// The limits of the wire belong to the default limit of a nats-server.
    #[test]
    fn the_largest_item_of_the_wire_fits_with_its_result_and_errors() {
        let room = Room::of(1024 * 1024);
        let mut largest = record(limits::DESCRIPTION, limits::CONTEXT_DATA);
        assert_eq!(room.check(&largest, &project()), Ok(()));
        largest.result = Some(WorkResult {
            summary: Some("r".repeat(limits::RESULT)),
            output: None,
            artifacts: None,
            completed_at: Timestamp::default(),
        });
        let error = loom_protocol::work::WorkErrorInfo {
            message: "e".repeat(limits::ERROR),
            code: None,
            recoverable: true,
            occurred_at: Timestamp::default(),
            reason: loom_protocol::work::Reason::Timeout,
            attempt: Some(1),
            agent_guid: None,
        };
        largest.errors = vec![error; limits::ERRORS];
        let size = encode(&largest).unwrap().len();
        assert!(size <= room.record(), "{size} of {}", room.record());
    }

    #[test]
    fn a_refusal_says_the_numbers_and_what_to_change() {
        let room = Room::of(400 * 1024);
        assert_eq!(room.problem("nats://x"), None);
        assert_eq!(room.check(&record(1_000, 60 * 1024), &project()), Ok(()));
        let refused = room.check(&record(1_000, 81 * 1024), &project());
        let refused = refused.unwrap_err();
        assert_eq!(refused.code, ErrorCode::TooLarge);
        for part in ["409600", "81920", "max_payload", "contextData"] {
            assert!(
                refused.message.contains(part),
                "{part}: {}",
                refused.message
            );
        }
        for limit in [0, 64, 300] {
            let problem = Room::of(limit * 1024).problem("nats://x").unwrap();
            assert!(problem.contains("max_payload"), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn what_was_taken_in_fits_whatever_comes_of_it(
            max_payload in 320_000_usize..1_100_000,
            description in 0..limits::DESCRIPTION,
            context in 2..limits::CONTEXT_DATA,
            result in 0..limits::RESULT,
        ) {
            let (room, mut record) = (Room::of(max_payload), record(description, context));
            if room.check(&record, &project()).is_ok() {
                record.result = Some(WorkResult {
                    summary: Some("s".repeat(result / 2)),
                    output: Body::of(&"o".repeat(result / 2)).ok(),
                    artifacts: None,
                    completed_at: Timestamp::default(),
                });
                let cut = cut::to(record.clone(), room.record());
                let cut = cut.expect("the item itself fits");
                prop_assert!(encode(&cut).unwrap().len() <= room.record());
                prop_assert_eq!(&cut.description, &record.description);
                prop_assert_eq!(&cut.context_data, &record.context_data);
                if encode(&record).unwrap().len() <= room.record() {
                    prop_assert_eq!(cut, record);
                }
            }
        }
    }
}
