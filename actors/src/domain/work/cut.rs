//! A record that is larger than a message of NATS carries, cut: what checks have printed first, then the oldest errors,
//! then what the agent said last of its progress, then the result from its end. What was cut is said. The item
//! itself, its description and context, is never cut here; where it alone is too large, [`short`] is
//! what is left to be written.

use loom_protocol::work::{Reason, WorkErrorInfo, WorkResult, WorkStatus};
use loom_protocol::{Body, Timestamp};

use super::codec::encode;
use super::record::{LeaseEnd, WorkRecord};

/// What stands in the place of what a check has printed.
const LEFT_OUT: &str = "[left out: the record is too large]";
/// How much of a text is left where nearly nothing is, in bytes.
const LITTLE: usize = 1024;
/// What a note takes at the most.
const NOTE: usize = 128;

/// Cuts a record so that it takes at most so many bytes. `None`: the item itself is too large.
pub fn to(mut record: WorkRecord, most: usize) -> Option<WorkRecord> {
    if surplus(&record, most) > 0 {
        for check in &mut record.evidence {
            check.output_tail = LEFT_OUT.into();
        }
    }
    let mut left_out = 0;
    // The note on what was left out takes room too.
    let room = |left_out: u32| most.saturating_sub(if left_out == 0 { 0 } else { NOTE });
    while surplus(&record, room(left_out)) > 0 && record.errors.len() > 1 {
        record.errors.remove(0);
        left_out += 1;
    }
    if left_out > 0
        && let Some(oldest) = record.errors.first_mut()
    {
        let note = format!("[{left_out} earlier errors were left out: the record is too large] ");
        oldest.message.insert_str(0, &note);
    }
    if surplus(&record, most) > 0 {
        record.progress_message = None;
        for error in &mut record.errors {
            cut_error(error);
        }
    }
    let over = surplus(&record, most);
    if over > 0
        && let Some(result) = &mut record.result
    {
        cut_result(result, over);
    }
    // The note on the cut takes room too, and so does what was escaped in a body.
    let over = surplus(&record, most);
    if over > 0
        && let Some(result) = &mut record.result
    {
        result.output = None;
        cut_text(result.summary.get_or_insert_default(), LITTLE);
    }
    (surplus(&record, most) == 0).then_some(record)
}

fn cut_error(error: &mut WorkErrorInfo) {
    cut_text(&mut error.message, LITTLE);
    if let Some(code) = &mut error.code {
        cut_text(code, LITTLE);
    }
}

fn surplus(record: &WorkRecord, most: usize) -> usize {
    encode(record).map_or(usize::MAX, |bytes| bytes.len().saturating_sub(most))
}

fn cut_result(result: &mut WorkResult, over: usize) {
    let size = |body: &Option<Body>| body.as_ref().map_or(0, Body::len);
    let (output, artifacts) = (size(&result.output), size(&result.artifacts));
    let all = output + artifacts + result.summary.as_ref().map_or(0, String::len);
    let mut left = all.saturating_sub(over + LITTLE);
    if artifacts > 0 && left < all {
        result.artifacts = None;
    }
    left = left.min(all - artifacts);
    let summary = result.summary.get_or_insert_default();
    if output > 0 && summary.len() + output > left {
        let for_output = left.saturating_sub(summary.len());
        // Only text can be cut anywhere.
        let text = result.output.take();
        let text = text.and_then(|body| serde_json::from_slice::<String>(body.as_bytes()).ok());
        result.output = text.filter(|_| for_output > LITTLE).and_then(|mut text| {
            // As JSON, in its quotes, it may be longer than it is.
            let escaped = output.saturating_sub(text.len());
            cut_text(&mut text, for_output.saturating_sub(escaped));
            Body::of(&text).ok()
        });
    }
    cut_text(summary, left.max(LITTLE));
    let note = format!(
        "\n[the result was cut: it had {all} bytes, and the record would not fit into a message of the nats-server]"
    );
    summary.push_str(&note);
}

fn cut_text(text: &mut String, most: usize) {
    const MARK: &str = "…";
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most.saturating_sub(MARK.len())));
        text.push_str(MARK);
    }
}

/// What is written instead of a record that no message carries: without its bodies, and failed, unless
/// it has ended anyway.
pub fn short(record: &WorkRecord, why: &str, now: Timestamp) -> WorkRecord {
    let mut short = record.clone();
    short.context_data = None;
    short.progress_message = None;
    cut_text(&mut short.description, LITTLE);
    short.errors.drain(..short.errors.len().saturating_sub(1));
    for error in &mut short.errors {
        cut_error(error);
    }
    if let Some(result) = &mut short.result {
        (result.output, result.artifacts) = (None, None);
        let summary = result.summary.get_or_insert_default();
        cut_text(summary, LITTLE);
    }
    short.evidence.clear();
    if let Some(raw) = &mut short.raw {
        raw.bytes = raw.bytes.slice(..raw.bytes.len().min(LITTLE));
    }
    if !short.status.is_terminal() {
        short.fail_for_size(why, now);
    }
    short
}

impl WorkRecord {
    /// Any → Failed: nobody can be given it, or it cannot be written as it is.
    pub(super) fn fail_for_size(&mut self, why: &str, now: Timestamp) {
        let holder = self.lease.as_ref().map(|lease| lease.holder.guid);
        self.end_lease(LeaseEnd::Revoked);
        self.push_error(WorkErrorInfo {
            message: why.into(),
            code: Some("too-large".into()),
            recoverable: false,
            occurred_at: now,
            reason: Reason::Rejected,
            attempt: holder.map(|_| self.attempt),
            agent_guid: holder,
        });
        self.give_up();
        self.status = WorkStatus::Failed;
        self.updated_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::super::transition::tests::{any_record, at};
    use super::*;
    use proptest::prelude::*;

    fn error(message: &str) -> WorkErrorInfo {
        WorkErrorInfo {
            message: message.into(),
            code: None,
            recoverable: true,
            occurred_at: at(1),
            reason: Reason::AgentError,
            attempt: Some(1),
            agent_guid: None,
        }
    }

    proptest! {
        #[test]
        fn the_oldest_goes_first_and_it_is_said(record in any_record(), most in 2_500_usize..9_000) {
            let mut record = record;
            record.raw = None;
            record.errors = (0..5).map(|n| error(&format!("{n}{}", "e".repeat(900)))).collect();
            record.result = Some(WorkResult {
                summary: Some("s".repeat(2_000)),
                output: Body::of(&"o".repeat(3_000)).ok(),
                artifacts: None,
                completed_at: at(2),
            });
            let cut = to(record.clone(), most);
            let Some(cut) = cut else {
                return Ok(());
            };
            prop_assert!(encode(&cut).unwrap().len() <= most);
            let newest = cut.errors.last().unwrap();
            prop_assert!(newest.message.contains('4'), "the newest error stays");
            if cut.errors.len() < 5 {
                prop_assert!(cut.errors[0].message.contains("left out"));
            }
            if cut.result != record.result {
                prop_assert_eq!(cut.errors.len(), 1, "the result goes last");
            }
        }

        #[test]
        fn a_short_record_is_an_end_that_is_kept(record in any_record()) {
            let short = short(&record, "too large", at(30));
            prop_assert!(short.status.is_terminal());
            prop_assert_eq!((short.id, short.attempt), (record.id, record.attempt));
            if record.status.is_terminal() {
                prop_assert_eq!(short.status, record.status);
            } else {
                prop_assert_eq!(short.failure_reason(), Reason::Rejected);
                prop_assert_eq!(&short.loss, &None);
            }
            prop_assert!(encode(&short).unwrap().len() < 16 * 1024);
        }
    }
}
