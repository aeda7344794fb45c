//! The list of all streams, page by page, as far as it matters: names, where each stands, and a digest of its configuration.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use async_nats::jetstream;
use loom_protocol::Timestamp;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What is written into the metadata of a stream by the server itself, and said by some answers only.
const OF_THE_SERVER: &str = "_nats.";

/// How long the server may take for one page. In a cluster it waits 4 s for the leaders of the streams before it names those
/// of which it has not heard.
const PAGE_WITHIN: Duration = Duration::from_secs(5);

/// Why there is no list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the streams cannot be listed: {0}")]
pub struct ListError(String);

impl ListError {
    pub(super) fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

/// Asks for all streams, page by page, and gives each to `each`, some perhaps twice. Gives the names of those of which
/// nothing is known just now; `None`: there are more than `most`, and few were asked for. One that is made or removed
/// meanwhile may hide another one.
///
/// # Errors
/// The server does not answer a page in time, or refuses.
pub async fn list(
    jetstream: &jetstream::Context,
    most: usize,
    mut each: impl FnMut(&str, Listed) + Send,
) -> Result<Option<Vec<String>>, ListError> {
    let mut jetstream = jetstream.clone();
    jetstream.set_timeout(PAGE_WITHIN);
    let (mut offset, mut unknown) = (0, Vec::new());
    loop {
        let question = Question { offset };
        let asked = jetstream.request("STREAM.LIST", &question);
        let answer: Box<RawValue> = asked.await.map_err(ListError::new)?;
        let page: Page<'_> = serde_json::from_str(answer.get()).map_err(unreadable)?;
        if let Some(error) = page.error {
            return Err(ListError::new(error));
        }
        if page.total > most {
            return Ok(None);
        }
        let streams = page.streams.unwrap_or_default();
        for stream in &streams {
            let (name, listed) = stream.read().map_err(unreadable)?;
            each(&name, listed);
        }
        let missing = page.missing.unwrap_or_default();
        // Those of which nothing is known have their places among the others.
        let listed = streams.len() + missing.len();
        unknown.extend(missing);
        offset += listed.max(page.limit);
        if listed == 0 || offset >= page.total {
            return Ok(Some(unknown));
        }
    }
}

fn unreadable(error: impl fmt::Display) -> ListError {
    ListError(format!("the answer cannot be read: {error}"))
}

/// Which streams are asked for.
#[derive(Serialize)]
struct Question {
    /// How many were listed before.
    offset: usize,
}

/// What the server answers.
#[derive(Deserialize)]
struct Page<'a> {
    error: Option<jetstream::Error>,
    /// How many streams there are.
    #[serde(default)]
    total: usize,
    /// At most so many are on a page.
    #[serde(default)]
    limit: usize,
    /// `null` where there are none.
    #[serde(borrow, default)]
    streams: Option<Vec<Entry<'a>>>,
    /// Those of a cluster of which nothing is known just now.
    #[serde(default)]
    missing: Option<Vec<String>>,
}

/// One stream.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    config: &'a RawValue,
    #[serde(borrow)]
    created: Cow<'a, str>,
    state: State,
}

#[derive(Deserialize)]
struct State {
    #[serde(default)]
    messages: u64,
    #[serde(default)]
    last_seq: u64,
}

/// The first field of a configuration.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// A stream as a list of all streams tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Which stream it is, and how it is configured.
    pub identity: StreamIdentity,
    /// When it was made.
    pub made: Timestamp,
    /// The sequence of the last message that it was given.
    pub last: u64,
    /// How many messages are in it.
    pub messages: u64,
}

/// Which stream it is, and how it is configured: two that are equal need no second look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamIdentity(u64);

impl StreamIdentity {
    /// Of a stream that was made then (in the server's words) and has this configuration, without what the server adds
    /// to it.
    ///
    /// # Errors
    /// It is no JSON.
    pub(crate) fn of<'de, D: Deserializer<'de>>(made: &str, config: D) -> Result<Self, D::Error> {
        let config = Digest.deserialize(config)?;
        Ok(Self(digest((made, config))))
    }
}

impl Entry<'_> {
    /// Its name, and how it is.
    ///
    /// # Errors
    /// The configuration has no name, or the time cannot be read.
    fn read(&self) -> Result<(Cow<'_, str>, Listed), serde_json::Error> {
        let Named { name } = serde_json::from_str(self.config.get())?;
        let mut config = serde_json::Deserializer::from_str(self.config.get());
        let listed = Listed {
            identity: StreamIdentity::of(&self.created, &mut config)?,
            made: serde_json::from_value(self.created.as_ref().into())?,
            last: self.state.last_seq,
            messages: self.state.messages,
        };
        Ok((name, listed))
    }
}

/// Makes a number of a JSON value, whatever the order of the fields is.
struct Digest;

fn digest(value: impl std::hash::Hash) -> u64 {
    // The same in every process and at every time: it is compared within one only.
    BuildHasherDefault::<DefaultHasher>::default().hash_one(value)
}

impl<'de> DeserializeSeed<'de> for Digest {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<u64, D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Digest {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<u64, E> {
        Ok(digest(()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<u64, E> {
        Ok(digest(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<u64, E> {
        Ok(digest(i128::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<u64, E> {
        Ok(digest(i128::from(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<u64, E> {
        Ok(digest(value.to_bits()))
    }

    fn visit_str<E>(self, value: &str) -> Result<u64, E> {
        Ok(digest(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<u64, A::Error> {
        let mut all = digest("[");
        while let Some(value) = values.next_element_seed(Self)? {
            all = digest((all, value));
        }
        Ok(all)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<u64, A::Error> {
        let mut all = digest("{");
        while let Some(key) = fields.next_key::<Cow<'de, str>>()? {
            if key.starts_with(OF_THE_SERVER) {
                fields.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = fields.next_value_seed(Self)?;
            all = all.wrapping_add(digest((key, value)));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn identity(config: &Value) -> StreamIdentity {
        StreamIdentity::of("then", config).unwrap()
    }

    #[test]
    fn the_order_of_fields_and_what_the_server_adds_say_nothing_and_all_else_does() {
        let text = r#"{"name":"S","subjects":["a","b"],"max_age":0,"metadata":{"x":"1"}}"#;
        let turned = r#"{"metadata":{"_nats.ver":"2.15.1","x":"1"},"max_age":0,"subjects":["a","b"],"name":"S"}"#;
        let of = |text: &str| {
            StreamIdentity::of("then", &mut serde_json::Deserializer::from_str(text)).unwrap()
        };
        assert_eq!(of(text), of(turned));
        let value: Value = serde_json::from_str(turned).unwrap();
        assert_eq!(of(text), identity(&value), "as text and as a value");
        for (field, other) in [
            ("name", json!("T")),
            ("subjects", json!(["b", "a"])),
            ("max_age", json!(1)),
            ("metadata", json!({"x": "2"})),
            ("more", json!(null)),
        ] {
            let mut changed = value.clone();
            changed[field] = other;
            assert_ne!(identity(&changed), identity(&value), "{field}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "[a-z_.]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,4}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_configuration_is_the_same_exactly_where_its_values_are(one in any_json(), other in any_json()) {
            let text = one.to_string();
            let mut read = serde_json::Deserializer::from_str(&text);
            prop_assert_eq!(StreamIdentity::of("then", &mut read).unwrap(), identity(&one));
            prop_assert_eq!(one == other, identity(&one) == identity(&other));
        }
    }
}
