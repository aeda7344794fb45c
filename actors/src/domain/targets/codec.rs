//! A target's record as the bucket keeps it, and the end of a start: a version byte, then JSON. A field that is not there
//! has its default; one that this program does not know is passed over.

use loom_protocol::Timestamp;
use loom_protocol::target::Target;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::{Birth, DecidedBirth, LinkedAgent, TargetRecord};

/// The version that this program writes and reads.
const VERSION: u8 = 1;

/// Why bytes are no record of a target. Says nothing of what is in them: there are secrets among it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotARecord {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// Another program wrote it.
    #[error("its version is {0}, and this program reads {VERSION}")]
    Version(u8),
    /// It has no such fields.
    #[error("it is no record of a target from column {column} on")]
    Form {
        /// Where the reading ended.
        column: usize,
    },
    /// It lies under the key of another name.
    #[error("it is the record of another target than its key says")]
    OtherName,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a, R> {
    target: Value,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    births: &'a [Birth<R>],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    agents: &'a [LinkedAgent<R>],
    #[serde(skip_serializing_if = "is_zero")]
    failures: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    cools_until: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read<R> {
    target: Target,
    #[serde(default = "Vec::new")]
    births: Vec<Birth<R>>,
    #[serde(default = "Vec::new")]
    agents: Vec<LinkedAgent<R>>,
    #[serde(default)]
    failures: u32,
    #[serde(default)]
    cools_until: Option<Timestamp>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde gives the field by reference"
)]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The record as it is kept, with the secrets of its target.
///
/// # Errors
/// None that is known: every field can be written.
pub fn encode<R: Serialize>(record: &TargetRecord<R>) -> Result<Vec<u8>, serde_json::Error> {
    let written = Written {
        target: record.target.stored()?,
        births: &record.births,
        agents: &record.agents,
        failures: record.failures,
        cools_until: record.cools_until,
    };
    versioned(&written)
}

/// The end of a start as it is kept.
///
/// # Errors
/// None that is known: every field can be written.
pub fn encode_end<R: Serialize>(end: &DecidedBirth<R>) -> Result<Vec<u8>, serde_json::Error> {
    versioned(end)
}

fn versioned(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, value)?;
    Ok(bytes)
}

/// Reads a record.
///
/// # Errors
/// It is none, or one of a later program.
pub fn decode<R: DeserializeOwned>(bytes: &[u8]) -> Result<TargetRecord<R>, NotARecord> {
    let read: Read<R> = of_version(bytes)?;
    Ok(TargetRecord {
        target: read.target,
        births: read.births,
        agents: read.agents,
        failures: read.failures,
        cools_until: read.cools_until,
    })
}

/// Reads the end of a start.
///
/// # Errors
/// It is none, or one of a later program.
pub fn decode_end<R: DeserializeOwned>(bytes: &[u8]) -> Result<DecidedBirth<R>, NotARecord> {
    of_version(bytes)
}

fn of_version<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, NotARecord> {
    let (version, json) = bytes.split_first().ok_or(NotARecord::Empty)?;
    if *version != VERSION {
        return Err(NotARecord::Version(*version));
    }
    serde_json::from_slice(json).map_err(|error| NotARecord::Form {
        column: error.column(),
    })
}

#[cfg(test)]
mod tests {
    use loom_protocol::TargetId;
    use loom_protocol::target::RegisterTarget;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn record() -> TargetRecord<Value> {
        let request: RegisterTarget = serde_json::from_value(json!({
            "name": "Big.Host", "agentType": "claude-code", "capabilities": ["rust"], "mechanism": "local",
            "config": {"mechanism": "local", "local": {"command": "run", "env": {"TOKEN": "hunter2"}}},
        }))
        .unwrap();
        let now = Timestamp::from_millis(7);
        let new = request.check().unwrap();
        TargetRecord::new(new.into_target(TargetId::generate(), "a test".into(), now))
    }

    #[test]
    fn a_record_is_read_as_it_was_written_with_its_secrets() {
        let record = record();
        let bytes = encode(&record).unwrap();
        assert_eq!(bytes[0], VERSION);
        assert!(String::from_utf8_lossy(&bytes).contains("hunter2"));
        assert_eq!(decode(&bytes), Ok(record));
    }

    #[test]
    fn an_end_is_read_as_it_was_written() {
        let digest = [7_u8; 32];
        let end: DecidedBirth<Value> = serde_json::from_value(json!({
            "operation": {
                "operationId": "01890a5d-ac96-474b-bcce-b302099a8057", "targetId": TargetId::generate(),
                "targetName": "t", "mechanism": "local", "status": "timeout",
                "startedAt": Timestamp::from_millis(7), "endedAt": Timestamp::from_millis(9),
            },
            "ticket": {"digest": digest, "agentType": "t", "capabilities": ["c"], "boundaries": ["b"]},
            "reference": {"pid": 7}, "instanceId": null,
        }))
        .unwrap();
        let bytes = encode_end(&end).unwrap();
        assert_eq!(bytes[0], VERSION);
        assert_eq!(decode_end(&bytes), Ok(end));
        for bytes in [&b""[..], b"\x07{}", b"\x01{"] {
            assert!(decode_end::<Value>(bytes).is_err());
        }
    }

    #[test]
    fn fields_of_later_programs_are_passed_over_and_missing_ones_have_defaults() {
        let mut json: Value = serde_json::from_slice(&encode(&record()).unwrap()[1..]).unwrap();
        json["colour"] = "red".into();
        json["target"]["colour"] = "red".into();
        for optional in ["status", "currentAgentGuids", "healthStatus", "useCount"] {
            json["target"].as_object_mut().unwrap().remove(optional);
        }
        let bytes = [vec![VERSION], serde_json::to_vec(&json).unwrap()].concat();
        assert_eq!(decode(&bytes), Ok(record_of(&json)));
    }

    /// A birth as programs before this one wrote it, with the time when it is given up.
    #[test]
    fn a_birth_with_a_time_that_nobody_reads_any_more_is_read() {
        let digest = [7_u8; 32];
        let birth = json!({
            "operation": {
                "operationId": "01890a5d-ac96-474b-bcce-b302099a8057", "targetId": TargetId::generate(),
                "targetName": "Big.Host", "mechanism": "local", "status": "pending",
                "startedAt": Timestamp::from_millis(7),
            },
            "ticket": {"digest": digest, "agentType": "t", "capabilities": ["c"], "boundaries": ["b"]},
            "reference": null, "until": Timestamp::from_millis(9),
        });
        let mut json: Value = serde_json::from_slice(&encode(&record()).unwrap()[1..]).unwrap();
        json["births"] = json!([birth]);
        let bytes = [vec![VERSION], serde_json::to_vec(&json).unwrap()].concat();
        let read: TargetRecord<Value> = decode(&bytes).unwrap();
        assert_eq!(read.births[0].begun_at(), Timestamp::from_millis(7));
        let again = String::from_utf8(encode(&read).unwrap()[1..].to_vec()).unwrap();
        assert!(
            !again.contains("until") && !again.contains("begunAgainAt"),
            "{again}"
        );
    }

    fn record_of(json: &Value) -> TargetRecord<Value> {
        TargetRecord::new(serde_json::from_value(json["target"].clone()).unwrap())
    }

    #[test]
    fn what_is_no_record_says_so_without_repeating_it() {
        assert_eq!(decode::<Value>(b""), Err(NotARecord::Empty));
        assert_eq!(decode::<Value>(b"\x02{}"), Err(NotARecord::Version(2)));
        let broken = [&[VERSION][..], br#"{"target": "hunter2"}"#].concat();
        let why = decode::<Value>(&broken).unwrap_err();
        assert!(!why.to_string().contains("hunter2"), "{why}");
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_crash(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _record_or_reason = decode::<Value>(&bytes);
        }

        #[test]
        fn a_record_that_is_cut_is_none(at in 0_usize..400) {
            let bytes = encode(&record()).unwrap();
            prop_assume!(at < bytes.len());
            prop_assert!(decode::<Value>(&bytes[..at]).is_err());
        }
    }
}
