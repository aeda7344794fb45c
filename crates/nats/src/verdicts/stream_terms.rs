//! How a stream of ours must be configured so that nothing that was acknowledged goes by itself, and how one that is found
//! differs.
//!
//! A stream can be changed by anybody who may use JetStream: a limit of age or number takes records away without a word.
//! What keeps records is ours and is set back. What an operator may choose stays: more copies, a limit of bytes (a budget:
//! new writes are refused when it is used up, so that nothing goes), placement, compression, description, metadata,
//! subjects beside ours.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

/// What a stream must be like. What is not said here is the same for each, see [`verdict`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamTerms {
    /// How many messages of one subject are kept; `None`: all.
    pub per_subject: Option<u32>,
    /// How long a message is kept; zero: for ever.
    pub max_age: Duration,
    /// Whether messages go when they are acknowledged.
    pub is_queue: bool,
    /// Whether it is a bucket: rolled up, read directly, single keys expire, and full before it drops anything.
    pub is_bucket: bool,
    /// Whether clients make it too, for purposes of their own: all but what would take records away by itself is theirs.
    pub is_shared: bool,
    /// How many copies there are at the least.
    pub replicas: usize,
}

impl StreamTerms {
    /// Of a bucket that keeps the last record of each key for ever.
    pub const fn of_bucket(replicas: usize) -> Self {
        Self {
            per_subject: Some(1),
            max_age: Duration::ZERO,
            is_queue: false,
            is_bucket: true,
            is_shared: false,
            replicas,
        }
    }

    /// Of a bucket that clients make too.
    pub const fn of_shared_bucket() -> Self {
        Self {
            is_shared: true,
            ..Self::of_bucket(0)
        }
    }
}

/// What a bucket cannot be used without: single keys that expire.
pub const NEEDED: &str = "allow_msg_ttl";
/// What is ours of a bucket that clients make too.
const OURS_OF_SHARED: [&str; 3] = [NEEDED, "max_age", "discard"];

/// A field that is to be set back.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// As the server calls it.
    pub field: &'static str,
    /// What it is.
    pub found: Value,
    /// What it must be; null: nothing.
    pub wanted: Value,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            found,
            wanted,
        } = self;
        write!(f, "{field} {found} to {wanted}")
    }
}

/// How a stream differs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TermsVerdict {
    /// What can be set back.
    pub changes: Vec<Change>,
    /// What no change mends, and what comes of it.
    pub lasting: Vec<String>,
}

/// How a stream of this configuration, as the server says it, differs from what it must be like.
pub fn verdict(config: &Map<String, Value>, terms: &StreamTerms) -> TermsVerdict {
    let number = |field: &str| config.get(field).and_then(Value::as_i64).unwrap_or(0);
    let is = |field: &str| config.get(field).and_then(Value::as_bool) == Some(true);
    let text = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or("");
    let mut changes = Vec::new();
    let mut change = |field: &'static str, wanted: Value| {
        let found = config.get(field).cloned().unwrap_or(Value::Null);
        changes.push(Change {
            field,
            found,
            wanted,
        });
    };
    // To the server nothing and less than nothing are no limit.
    let limit = |field: &str| Some(number(field)).filter(|limit| *limit > 0);
    for field in ["max_msgs", "max_msg_size"] {
        if limit(field).is_some() {
            change(field, json!(-1));
        }
    }
    let per_subject = terms.per_subject.map(i64::from);
    if limit("max_msgs_per_subject") != per_subject {
        change("max_msgs_per_subject", json!(per_subject.unwrap_or(-1)));
    }
    let max_age = i64::try_from(terms.max_age.as_nanos()).unwrap_or(i64::MAX);
    if number("max_age").max(0) != max_age {
        change("max_age", json!(max_age));
        if max_age > 0 && number("duplicate_window") > max_age {
            change("duplicate_window", json!(max_age));
        }
    }
    if (terms.is_bucket || limit("max_bytes").is_some()) && text("discard") != "new" {
        change("discard", json!("new"));
    }
    let retention = if terms.is_queue {
        "workqueue"
    } else {
        "limits"
    };
    if text("retention") != retention {
        change("retention", json!(retention));
    }
    for field in ["discard_new_per_subject", "no_ack"] {
        if is(field) {
            change(field, json!(false));
        }
    }
    if terms.is_bucket {
        for field in ["allow_direct", "allow_rollup_hdrs", NEEDED] {
            if !is(field) {
                change(field, json!(true));
            }
        }
    }
    for field in ["republish", "subject_transform", "sources"] {
        let is_nothing =
            |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if config.get(field).is_some_and(|value| !is_nothing(value)) {
            change(field, Value::Null);
        }
    }
    if limit("subject_delete_marker_ttl").is_some() {
        change("subject_delete_marker_ttl", Value::Null);
    }
    let replicas = i64::try_from(terms.replicas).unwrap_or(i64::MAX);
    if number("num_replicas").max(1) < replicas {
        change("num_replicas", json!(replicas));
    }
    if terms.is_shared {
        changes.retain(|change| OURS_OF_SHARED.contains(&change.field));
        let lasting = Vec::new();
        return TermsVerdict { changes, lasting };
    }

    let mut lasting = Vec::new();
    if text("storage") == "memory" {
        lasting.push("it is kept in memory: all in it is gone when nats-server ends".to_owned());
    }
    if text("persist_mode") == "async" {
        lasting.push("it is written later than it is acknowledged (persist_mode async): a crash of nats-server loses what was acknowledged last".to_owned());
    }
    if is("sealed") {
        lasting.push("it is sealed: nothing can be written".to_owned());
    }
    if config.get("mirror").is_some_and(|mirror| !mirror.is_null()) {
        lasting.push("it is a mirror of another stream: nothing can be written".to_owned());
    }
    if limit("max_consumers").is_some() {
        lasting.push(
            "it allows few readers at a time (max_consumers): it may not be readable".to_owned(),
        );
    }
    TermsVerdict { changes, lasting }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn bucket() -> StreamTerms {
        StreamTerms::of_bucket(1)
    }

    fn ours() -> Map<String, Value> {
        let config = json!({
            "name": "KV_a", "subjects": ["$KV.a.>"], "retention": "limits", "max_consumers": -1, "max_msgs": -1,
            "max_bytes": -1, "max_age": 0, "max_msgs_per_subject": 1, "max_msg_size": -1, "discard": "new",
            "storage": "file", "num_replicas": 1, "duplicate_window": 120_000_000_000_i64, "allow_direct": true,
            "allow_rollup_hdrs": true, "allow_msg_ttl": true, "metadata": {"loom.stamp": "s"},
        });
        config.as_object().cloned().unwrap()
    }

    fn set_back(mut config: Map<String, Value>, verdict: &TermsVerdict) -> Map<String, Value> {
        for change in &verdict.changes {
            match &change.wanted {
                Value::Null => drop(config.remove(change.field)),
                wanted => drop(config.insert(change.field.to_owned(), wanted.clone())),
            }
        }
        config
    }

    proptest! {
        #[test]
        fn whatever_was_changed_is_ours_again_in_one_step_and_what_is_the_operators_stays(
            max_age in -1..3_i64, max_msgs in -1..3_i64, size in -1..3_i64, per_subject in -1..3_i64,
            max_bytes in -1..3_i64, old: bool, flags: u8, replicas in 0..4_i64, wanted in 1..4_usize, queue: bool,
        ) {
            let mut config = ours();
            let flag = |at: u8| flags >> at & 1 == 1;
            let mut set = |field: &str, value: Value| drop(config.insert(field.to_owned(), value));
            set("max_age", json!(max_age));
            set("max_msgs", json!(max_msgs));
            set("max_msg_size", json!(size));
            set("max_msgs_per_subject", json!(per_subject));
            set("max_bytes", json!(max_bytes));
            set("discard", json!(if old { "old" } else { "new" }));
            set("no_ack", json!(flag(0)));
            set("discard_new_per_subject", json!(flag(1)));
            set("allow_direct", json!(flag(2)));
            set("republish", if flag(3) { json!({"dest": "x"}) } else { Value::Null });
            set("sources", if flag(4) { json!([{"name": "S"}]) } else { json!([]) });
            set("num_replicas", json!(replicas));
            let terms = StreamTerms {
                is_queue: queue,
                replicas: wanted,
                per_subject: flag(5).then_some(1),
                max_age: Duration::from_nanos(u64::from(flag(6))),
                ..bucket()
            };
            let found = verdict(&config, &terms);
            let after = set_back(config.clone(), &found);
            prop_assert_eq!(verdict(&after, &terms), TermsVerdict::default());
            for field in ["name", "subjects", "metadata", "max_bytes", "storage"] {
                prop_assert_eq!(after.get(field), config.get(field));
            }
            prop_assert!(after["num_replicas"].as_i64() >= Some(replicas), "more copies stay");
        }
    }

    #[test]
    fn a_stream_as_we_make_it_does_not_differ_and_a_budget_of_bytes_is_the_operators() {
        assert_eq!(verdict(&ours(), &bucket()), TermsVerdict::default());
        let mut config = ours();
        config.insert("max_bytes".into(), json!(1 << 30));
        config.insert("num_replicas".into(), json!(3));
        assert_eq!(verdict(&config, &bucket()), TermsVerdict::default());
        config.insert("discard".into(), json!("old"));
        let found = verdict(&config, &bucket());
        assert_eq!(found.changes.len(), 1);
        assert_eq!(found.changes[0].to_string(), r#"discard "old" to "new""#);
    }

    #[test]
    fn of_a_bucket_that_clients_make_only_what_takes_records_away_is_ours() {
        let mut config = ours();
        for (field, theirs) in [
            ("max_age", json!(1)),
            ("discard", json!("old")),
            ("allow_msg_ttl", json!(false)),
            ("max_msgs", json!(9)),
            ("max_msgs_per_subject", json!(5)),
            ("subject_delete_marker_ttl", json!(1)),
            ("allow_direct", json!(false)),
            ("storage", json!("memory")),
        ] {
            config.insert(field.into(), theirs);
        }
        let shared = StreamTerms::of_shared_bucket();
        let found = verdict(&config, &shared);
        let fields: Vec<_> = found.changes.iter().map(|change| change.field).collect();
        assert_eq!(fields, ["max_age", "discard", "allow_msg_ttl"]);
        assert_eq!(found.lasting, Vec::<String>::new());
        let after = set_back(config, &found);
        assert_eq!(verdict(&after, &shared), TermsVerdict::default());
        assert_eq!(after["max_msgs"], 9);
    }

    #[test]
    fn what_no_change_mends_is_told() {
        let mut config = ours();
        config.insert("storage".into(), json!("memory"));
        config.insert("sealed".into(), json!(true));
        let found = verdict(&config, &bucket());
        assert_eq!((found.changes.len(), found.lasting.len()), (0, 2));
        assert!(found.lasting[0].contains("memory"), "{:?}", found.lasting);
    }
}
