//! Secrets of targets: what is written but never answered, printed or logged.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use uuid::Uuid;

/// What stands in answers in the place of a secret. In an update it means: leave it as it is.
pub const MASK: &str = "***";

/// What an agent proves with that it is the one that was started. Single-use; neither printed nor serialised: who
/// hands it on says so with [`BirthTicket::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct BirthTicket(String);

impl BirthTicket {
    /// A new one: 244 bits at random, in hex digits behind [`BirthTicket::PREFIX`].
    pub fn generate() -> Self {
        let [one, other] = [Uuid::new_v4(), Uuid::new_v4()].map(Uuid::simple);
        Self(format!("{}{one}{other}", Self::PREFIX))
    }

    /// What every ticket begins with, so that it can be told from other text.
    pub const PREFIX: &str = "loom-ticket-";

    /// A text with [`MASK`] in the place of every ticket, whosever it is.
    pub fn hide_all(text: &str) -> String {
        let mut parts = text.split(Self::PREFIX);
        let mut shown = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            shown.push_str(MASK);
            shown.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
        }
        shown
    }

    /// One that was handed on before.
    pub const fn from_text(text: String) -> Self {
        Self(text)
    }

    /// The ticket itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A ticket in the one place of the wire where it is handed on: the registration of the agent that it is for.
pub(crate) mod handed_on {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::BirthTicket;

    #[allow(clippy::ref_option, reason = "serde calls it with the field as it is")]
    pub fn serialize<S: Serializer>(
        ticket: &Option<BirthTicket>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        ticket
            .as_ref()
            .map(BirthTicket::expose)
            .serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<BirthTicket>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        Ok(text.map(BirthTicket::from_text))
    }
}

impl fmt::Debug for BirthTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BirthTicket(***)")
    }
}

/// Variables or headers: names that may be seen, values that may not. Serialised, each value is [`MASK`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretMap(BTreeMap<String, String>);

impl SecretMap {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Names and values, for whoever starts something with them.
    pub fn expose(&self) -> impl Iterator<Item = (&str, &str)> {
        let entries = self.0.iter();
        entries.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The values as JSON, to be stored.
    pub(super) fn stored(&self) -> Value {
        let entries = self.expose();
        entries
            .map(|(name, value)| (name.to_owned(), Value::from(value)))
            .collect()
    }
}

impl FromIterator<(String, String)> for SecretMap {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl fmt::Debug for SecretMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.names().map(|name| (name, MASK));
        f.debug_map().entries(entries).finish()
    }
}

impl Serialize for SecretMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.names().map(|name| (name, MASK)))
    }
}

impl<'de> Deserialize<'de> for SecretMap {
    /// A number or a truth value is taken as the text that it is written as.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = BTreeMap::<String, Value>::deserialize(deserializer)?;
        let text = |(name, value): (String, Value)| match value {
            Value::String(text) => Ok((name, text)),
            Value::Number(number) => Ok((name, number.to_string())),
            Value::Bool(truth) => Ok((name, truth.to_string())),
            _ => Err(D::Error::custom(format!("{name:?} is not a text"))),
        };
        entries.into_iter().map(text).collect()
    }
}

#[cfg(any(test, feature = "schemas"))]
impl schemars::JsonSchema for SecretMap {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretMap".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        BTreeMap::<String, String>::json_schema(generator)
    }
}
