//! What attempts use up: tokens and money.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};

/// Where an amount of money comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CostSource {
    /// Told by the agent's program or its provider.
    Reported,
    /// Reckoned from tokens and prices.
    Estimated,
    /// Not known, or not of all of it. Also what a later version may write here.
    #[serde(other)]
    Unknown,
}

impl CostSource {
    /// The source as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Estimated => "estimated",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for CostSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What was used up. In a report: all that its own attempt has used so far. Of an item: the sum over its attempts.
/// What is absent is not known.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Tokens that the model was given, without those in its cache.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "count")]
    pub input_tokens: Option<u64>,
    /// Tokens that it wrote.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "count")]
    pub output_tokens: Option<u64>,
    /// Tokens that it had in its cache.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "count")]
    pub cache_read_tokens: Option<u64>,
    /// Tokens that it put into its cache.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "count")]
    pub cache_write_tokens: Option<u64>,
    /// All tokens. Where a report does not say it, the sum of the four.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "count")]
    pub tokens: Option<u64>,
    /// Money, in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Where `costUsd` comes from. `reported` where a report with a cost does not say it; of a sum only if it is so of
    /// all its parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_source: Option<CostSource>,
    /// The model that used it; of a sum the last one that was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

impl Usage {
    /// The most tokens that one report may tell of, in each of its fields.
    pub const MOST_TOKENS: u64 = 1_000_000_000_000_000;
    /// The most money that one report may tell of, in US dollars.
    pub const MOST_COST_USD: f64 = 1e9;
    /// The longest name of a model, in bytes.
    pub const LONGEST_MODEL: usize = 128;

    /// The fields that count tokens, with their names on the wire.
    pub const fn counts(&self) -> [(&'static str, Option<u64>); 5] {
        [
            ("inputTokens", self.input_tokens),
            ("outputTokens", self.output_tokens),
            ("cacheReadTokens", self.cache_read_tokens),
            ("cacheWriteTokens", self.cache_write_tokens),
            ("tokens", self.tokens),
        ]
    }

    /// Looks whether a report may say this.
    ///
    /// # Errors
    /// A sentence that names the field and what may stand in it.
    pub fn check(&self) -> Result<(), String> {
        for (name, count) in self.counts() {
            if let Some(count) = count.filter(|count| *count > Self::MOST_TOKENS) {
                let most = Self::MOST_TOKENS;
                return Err(format!(
                    "usage.{name} is {count}; write a whole number from 0 to {most}"
                ));
            }
        }
        if let Some(cost) = self.cost_usd
            && !(0.0..=Self::MOST_COST_USD).contains(&cost)
        {
            let most = Self::MOST_COST_USD;
            return Err(format!(
                "usage.costUsd is {cost}; write a number from 0 to {most}"
            ));
        }
        if let Some(model) = &self.model
            && (model.is_empty()
                || model.len() > Self::LONGEST_MODEL
                || model.chars().any(char::is_control))
        {
            return Err(format!(
                "usage.model is to have 1 to {} bytes and no control characters",
                Self::LONGEST_MODEL
            ));
        }
        Ok(())
    }
}

/// Reads a count, also as `130.0`, as some write it. What is too large is refused later, with the name of the field.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    struct Count;

    impl Visitor<'_> for Count {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number from 0 up")
        }
        fn visit_u64<E>(self, count: u64) -> Result<u64, E> {
            Ok(count)
        }
        fn visit_i64<E: Error>(self, count: i64) -> Result<u64, E> {
            u64::try_from(count)
                .map_err(|_| E::custom(format!("{count} is no whole number from 0 up")))
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole and not below nought; what is above the largest becomes the largest"
        )]
        fn visit_f64<E: Error>(self, count: f64) -> Result<u64, E> {
            if count >= 0.0 && count.fract() == 0.0 {
                return Ok(count as u64);
            }
            Err(E::custom(format!("{count} is no whole number from 0 up")))
        }
    }

    struct Present(u64);

    impl<'de> Deserialize<'de> for Present {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(Count).map(Self)
        }
    }

    let present = Option::<Present>::deserialize(deserializer)?;
    Ok(present.map(|Present(count)| count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Encoding;
    use serde_json::json;

    #[test]
    fn counts_are_read_in_every_form_and_nothing_else_is_a_count() {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let read = |value: serde_json::Value| {
                let bytes = encoding.encode(&json!({ "tokens": value })).unwrap();
                encoding.decode::<Usage>(&bytes)
            };
            assert_eq!(read(json!(130)).unwrap().tokens, Some(130));
            assert_eq!(read(json!(130.0)).unwrap().tokens, Some(130));
            assert_eq!(read(json!(null)).unwrap().tokens, None);
            for bad in [json!(-1), json!(-1.0), json!(1.5), json!("1")] {
                let error = read(bad).unwrap_err().to_string();
                assert!(error.contains("whole number from 0 up"), "{error}");
            }
        }
    }

    #[test]
    fn amounts_that_cannot_be_are_named_with_what_may_stand_there() {
        let cost = |cost_usd| Usage {
            cost_usd: Some(cost_usd),
            ..Usage::default()
        };
        for bad in [-0.01, f64::NAN, f64::INFINITY, 2e9] {
            let told = cost(bad).check().unwrap_err();
            assert!(
                told.contains("usage.costUsd") && told.contains("from 0 to"),
                "{told}"
            );
        }
        assert_eq!(cost(0.0).check(), Ok(()));
        let many = Usage {
            cache_read_tokens: Some(u64::MAX),
            ..Usage::default()
        };
        assert!(many.check().unwrap_err().contains("usage.cacheReadTokens"));
        let model = Usage {
            model: Some("m\u{1b}[0m".into()),
            ..Usage::default()
        };
        assert!(model.check().is_err());
    }

    #[test]
    fn what_0_1_0_wrote_reads() {
        let read: Usage = serde_json::from_value(json!({"tokens": 7, "costUsd": 0.5})).unwrap();
        assert_eq!((read.tokens, read.cost_usd), (Some(7), Some(0.5)));
        assert_eq!((read.cost_source, read.model), (None, None));
    }
}
