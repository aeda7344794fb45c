//! From a submit request to a record: every check that needs nothing but the request.

use std::time::Duration;

use loom_protocol::token::{MAX_TASK_ID, check_label, check_token};
use loom_protocol::work::{DEFAULT_BOUNDARY, PRIORITY, SubmitRequest, limits};
use loom_protocol::{ErrorCode, Timestamp, WireError, WorkId};

use super::record::WorkRecord;

/// What a submission that names none gets.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// `maxAttempts`.
    pub max_attempts: u32,
}

/// The shortest progress clock that a submission may ask for: with a shorter one no report comes in time.
const MIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest progress clock and the most attempts that a submission may ask for.
const MAX_TIMEOUT: Duration = Duration::from_hours(720);
const MAX_ATTEMPTS: u32 = 1_000;

/// An accepted submission.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The record to create.
    pub record: WorkRecord,
    /// Whether the sender chose the id, so that it may be there already.
    pub id_was_given: bool,
}

impl Submission {
    /// That its deadline has not passed yet at `now`: nobody could ever take it. Not part of [`accept`], because one
    /// that is repeated is answered as it was the first time.
    pub fn check_deadline(&self, now: Timestamp) -> Result<(), WireError> {
        match self.record.deadline {
            Some(deadline) if deadline <= now => Err(WireError::invalid(format!(
                "deadline is {deadline}, which has passed at {now}; write a later time, or leave it out"
            ))),
            _ => Ok(()),
        }
    }
}

/// Checks a submission and makes its record.
pub fn accept(
    request: SubmitRequest,
    defaults: Defaults,
    offered_by: &str,
    now: Timestamp,
) -> Result<Submission, WireError> {
    check_text("description", &request.description, limits::DESCRIPTION)?;
    check_label("capability", &request.capability)?;
    let boundary = request.boundary.unwrap_or_else(|| DEFAULT_BOUNDARY.into());
    check_label("boundary", &boundary)?;
    for (field, value) in [
        ("preferredAgentType", &request.preferred_agent_type),
        ("requiredAgentType", &request.required_agent_type),
    ] {
        if let Some(agent_type) = value {
            check_token(field, agent_type)?;
        }
    }
    if request.labels.len() > limits::LABELS {
        return Err(WireError::invalid(format!(
            "labels has {} entries; at most {} are allowed",
            request.labels.len(),
            limits::LABELS
        )));
    }
    for (label, value) in &request.labels {
        check_token("label", label)?;
        if !value.is_empty() {
            check_token("label value", value)?;
        }
    }
    check_size(
        "contextData",
        request
            .context_data
            .as_ref()
            .map_or(0, loom_protocol::Body::len),
        limits::CONTEXT_DATA,
    )?;
    let priority = priority(request.priority.as_ref())?;
    let max_attempts = within(
        "maxAttempts",
        u64::from(request.max_attempts.unwrap_or(defaults.max_attempts)),
        1,
        u64::from(MAX_ATTEMPTS),
    )?;
    if let Some(timeout) = request.timeout_ms {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        within(
            "timeoutMs",
            timeout,
            millis(MIN_TIMEOUT),
            millis(MAX_TIMEOUT),
        )?;
    }
    if let (Some(not_before), Some(deadline)) = (request.not_before, request.deadline)
        && not_before >= deadline
    {
        return Err(WireError::invalid(format!(
            "notBefore is {not_before} and deadline is {deadline}: it could never be offered; write a later deadline"
        )));
    }
    let (id, id_was_given) = match request.id.as_deref() {
        Some(text) => {
            let id: WorkId = text
                .parse()
                .map_err(|e| WireError::invalid(format!("id {e}")))?;
            (id, true)
        }
        None => (WorkId::generate(), false),
    };
    let parent_id = match request.parent_id.as_deref().map(str::parse) {
        None => None,
        Some(Ok(parent)) if parent != id => Some(parent),
        Some(Ok(_)) => return Err(WireError::invalid("parentId is the id of the item itself")),
        Some(Err(error)) => return Err(WireError::invalid(format!("parentId {error}"))),
    };
    let task_id = match request.task_id {
        Some(task) => {
            check_text("taskId", &task, MAX_TASK_ID)?;
            task
        }
        None => WorkId::generate().to_string(),
    };
    let offered_by = match request.offered_by {
        Some(name) => {
            check_text("offeredBy", &name, MAX_TASK_ID)?;
            name
        }
        None => offered_by.into(),
    };
    Ok(Submission {
        id_was_given,
        record: WorkRecord {
            task_id,
            parent_id,
            capability: request.capability,
            boundary,
            description: request.description,
            priority,
            max_attempts: u32::try_from(max_attempts).unwrap_or(MAX_ATTEMPTS),
            preferred_agent_type: request.preferred_agent_type,
            required_agent_type: request.required_agent_type,
            deadline: request.deadline,
            not_before: request.not_before,
            timeout_ms: request.timeout_ms,
            context_data: request.context_data,
            offered_at: request.offered_at.unwrap_or(now),
            ..WorkRecord::blank(id, &offered_by, now, request.labels)
        },
    })
}

fn check_text(field: &str, text: &str, limit: usize) -> Result<(), WireError> {
    if text.trim().is_empty() {
        return Err(WireError::invalid(format!("{field} is missing or empty")));
    }
    check_size(field, text.len(), limit)
}

fn check_size(field: &str, size: usize, limit: usize) -> Result<(), WireError> {
    if size > limit {
        return Err(WireError::new(
            ErrorCode::TooLarge,
            format!("{field} has {size} bytes; at most {limit} are allowed"),
        ));
    }
    Ok(())
}

fn within(field: &str, value: u64, least: u64, most: u64) -> Result<u64, WireError> {
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(WireError::invalid(format!(
            "{field} is {value}; write a whole number from {least} to {most}"
        )))
    }
}

fn priority(given: Option<&serde_json::Number>) -> Result<u8, WireError> {
    let (lowest, usual, highest) = PRIORITY;
    let Some(number) = given else {
        return Ok(usual);
    };
    number
        .as_u64()
        .and_then(|value| u8::try_from(value).ok())
        .filter(|value| (lowest..=highest).contains(value))
        .ok_or_else(|| {
            WireError::invalid(format!(
                "priority is {number}; write a whole number from {lowest} to {highest}, higher is served first"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom_protocol::work::WorkStatus;
    use serde_json::json;

    fn submit(value: serde_json::Value) -> Result<Submission, WireError> {
        let request = serde_json::from_value(value).unwrap();
        accept(
            request,
            Defaults { max_attempts: 3 },
            "test",
            Timestamp::from_millis(7),
        )
    }

    #[test]
    fn defaults_are_filled_in() {
        let record = submit(json!({"description": "d", "capability": "c++"}))
            .unwrap()
            .record;
        assert_eq!((record.priority, record.max_attempts), (5, 3));
        assert_eq!(record.boundary, "default");
        assert_eq!(record.offered_at, Timestamp::from_millis(7));
        assert_eq!(record.status, WorkStatus::Pending);
    }

    #[test]
    fn a_deadline_has_passed_from_its_moment_on() {
        let mut submission = submit(json!({"description": "d", "capability": "c"})).unwrap();
        let at = Timestamp::from_millis;
        submission.check_deadline(at(i64::MAX)).unwrap();
        submission.record.deadline = Some(at(1_000));
        submission.check_deadline(at(999)).unwrap();
        for late in [1_000, 1_001] {
            let error = submission.check_deadline(at(late)).unwrap_err();
            assert!(error.message.contains("deadline"), "{error}");
        }
    }

    #[test]
    fn each_bad_field_is_named() {
        let big = "x".repeat(400 * 1024);
        for (patch, code, word) in [
            (
                json!({"description": " "}),
                ErrorCode::InvalidRequest,
                "description",
            ),
            (
                json!({"description": &big}),
                ErrorCode::TooLarge,
                "description",
            ),
            (
                json!({"contextData": {"x": &big}}),
                ErrorCode::TooLarge,
                "contextData",
            ),
            (
                json!({"capability": "a b "}),
                ErrorCode::InvalidToken,
                "capability",
            ),
            (
                json!({"boundary": "ü\t"}),
                ErrorCode::InvalidToken,
                "boundary",
            ),
            (
                json!({"requiredAgentType": ">"}),
                ErrorCode::InvalidToken,
                "requiredAgentType",
            ),
            (
                json!({"labels": {"a b": ""}}),
                ErrorCode::InvalidToken,
                "label",
            ),
            (
                json!({"priority": 0}),
                ErrorCode::InvalidRequest,
                "priority is 0",
            ),
            (
                json!({"priority": 11}),
                ErrorCode::InvalidRequest,
                "priority is 11",
            ),
            (
                json!({"priority": 5.5}),
                ErrorCode::InvalidRequest,
                "priority is 5.5",
            ),
            (
                json!({"priority": -1}),
                ErrorCode::InvalidRequest,
                "priority is -1",
            ),
            (
                json!({"maxAttempts": 0}),
                ErrorCode::InvalidRequest,
                "maxAttempts",
            ),
            (
                json!({"timeoutMs": 0}),
                ErrorCode::InvalidRequest,
                "timeoutMs",
            ),
            (
                json!({"timeoutMs": 999}),
                ErrorCode::InvalidRequest,
                "timeoutMs is 999",
            ),
            (
                json!({"notBefore": "2030-01-01T00:00:00Z", "deadline": "2030-01-01T00:00:00Z"}),
                ErrorCode::InvalidRequest,
                "notBefore",
            ),
            (json!({"id": "x"}), ErrorCode::InvalidRequest, "UUID"),
            (json!({"taskId": ""}), ErrorCode::InvalidRequest, "taskId"),
            (
                json!({"parentId": "x"}),
                ErrorCode::InvalidRequest,
                "parentId \"x\" is not a UUID",
            ),
            (
                json!({"id": WorkId::from_digest([1; 16]), "parentId": WorkId::from_digest([1; 16])}),
                ErrorCode::InvalidRequest,
                "parentId is the id of the item itself",
            ),
        ] {
            let mut request = json!({"description": "d", "capability": "c"});
            for (key, value) in patch.as_object().unwrap() {
                request[key] = value.clone();
            }
            let error = submit(request).unwrap_err();
            assert_eq!(error.code, code, "{error}");
            assert!(error.message.contains(word), "{error}");
        }
    }
}
