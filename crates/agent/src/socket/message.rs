//! What is said over the socket. Pure.

use std::collections::BTreeMap;

use loom_protocol::{Body, WireError, WorkId};
use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// How far the work is.
    Progress,
    /// It is done.
    Complete,
    /// It failed.
    Fail,
    /// What is the item like?
    Show,
    /// Work beside it.
    Submit,
    /// Has such work ended?
    Await,
}

/// A request: its verb, and what that takes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What is asked.
    pub verb: Verb,
    /// The rest of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request: Option<Body>,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer<T> {
    /// It was done.
    Ok(T),
    /// It was refused.
    Error(WireError),
}

/// `progress`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Progress {
    /// 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// A sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// `complete`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Complete {
    /// A sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Whatever there is to give.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Body>,
    /// A list of things made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Body>,
}

/// `fail`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fail {
    /// What went wrong.
    pub message: String,
    /// The program's own code for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// No other attempt will help.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub permanent: bool,
    /// No other attempt before this much time has passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// `submit`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Submit {
    /// What is to be done.
    pub description: String,
    /// What an agent must be able to do.
    pub capability: String,
    /// 1 to 10; 5 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Marks of its own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What the agent needs to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_data: Option<Body>,
    /// The program means to wait for its end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub wait: bool,
}

/// `await`
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Await {
    /// An item that this one has submitted.
    pub id: WorkId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: &Value) -> Result<Request, serde_json::Error> {
        serde_json::from_str(&value.to_string())
    }

    #[test]
    fn a_request_names_no_item_and_no_boundary() {
        let request = read(&json!({"verb": "progress", "request": {"progress": 40}})).unwrap();
        assert_eq!(request.verb, Verb::Progress);
        let told: Progress = request.request.unwrap().parse().unwrap();
        assert_eq!(told.progress, Some(40.0));
        assert!(read(&json!({"verb": "show", "id": WorkId::generate()})).is_err());
        assert!(read(&json!({"verb": "cancel"})).is_err());
        for (field, value) in [
            ("boundary", json!("other")),
            ("id", json!(WorkId::generate())),
            ("parentId", json!(WorkId::generate())),
            ("requiredAgentType", json!("x")),
        ] {
            let mut submit = json!({"description": "d", "capability": "c"});
            submit[field] = value;
            let error = serde_json::from_value::<Submit>(submit).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let bodies = Complete {
            output: Some(Body::of(&json!({"n": [1.5]})).unwrap()),
            ..Complete::default()
        };
        let text = serde_json::to_string(&Answer::Ok(&bodies)).unwrap();
        assert_eq!(text, r#"{"ok":{"output":{"n":[1.5]}}}"#);
        let Answer::Ok(read) = serde_json::from_str::<Answer<Complete>>(&text).unwrap() else {
            panic!("{text}");
        };
        assert_eq!(read.output, bodies.output);
        let refused = Answer::<()>::Error(WireError::invalid("no"));
        let text = serde_json::to_string(&refused).unwrap();
        assert!(text.starts_with(r#"{"error":{"error":"no""#), "{text}");
    }
}
