//! The answer to `work.complete`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::item::WorkItem;
use super::lease::ClaimedItem;
use super::submit::ItemAnswer;

/// The answer to a completion: the item without its bodies, or several, and what was claimed next.
/// `T` is as much of an item as a reader wants to know.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum CompleteAnswer<T = WorkItem> {
    /// To `items`.
    Many {
        /// One for each item.
        items: Vec<ItemAnswer<T>>,
        /// What `thenClaim` gave.
        #[serde(skip_serializing_if = "Option::is_none")]
        claimed: Option<Vec<ClaimedItem>>,
    },
    /// To one item.
    One {
        /// The item.
        #[serde(flatten)]
        item: Box<T>,
        /// What `thenClaim` gave.
        #[serde(skip_serializing_if = "Option::is_none")]
        claimed: Option<Vec<ClaimedItem>>,
    },
}

/// By hand: what a derived one would keep aside until it knows the kind of the answer loses the
/// bodies of the claimed items, which are opaque.
impl<'de, T: DeserializeOwned> Deserialize<'de> for CompleteAnswer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnswerVisitor<T>(PhantomData<T>);

        impl<'de, T: DeserializeOwned> Visitor<'de> for AnswerVisitor<T> {
            type Value = CompleteAnswer<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the answer to a completion")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut items, mut claimed) = (None, None);
                let mut item = Map::new();
                while let Some(field) = map.next_key::<String>()? {
                    match field.as_str() {
                        "items" => items = Some(map.next_value()?),
                        "claimed" => claimed = map.next_value()?,
                        _ => {
                            item.insert(field, map.next_value()?);
                        }
                    }
                }
                if let Some(items) = items {
                    return Ok(CompleteAnswer::Many { items, claimed });
                }
                let item = serde_json::from_value(Value::Object(item)).map_err(A::Error::custom)?;
                Ok(CompleteAnswer::One { item, claimed })
            }
        }

        deserializer.deserialize_map(AnswerVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Encoding, WireError};
    use serde_json::json;

    #[test]
    fn it_is_read_as_it_was_written() {
        let item = |more: Value| -> WorkItem {
            let mut item = json!({
                "id": crate::WorkId::generate(), "taskId": "t", "projectId": "p", "capability": "c",
                "boundary": "b", "description": "d", "priority": 5, "status": "completed",
                "terminal": true, "attempt": 1, "attempts": 0, "maxAttempts": 3, "offeredBy": "me",
                "offeredAt": "2026-01-01T00:00:00.000Z", "updatedAt": "2026-01-01T00:00:00.000Z",
                "revision": 7,
            });
            for (field, value) in more.as_object().into_iter().flatten() {
                item[field] = value.clone();
            }
            serde_json::from_value(item).unwrap()
        };
        let next = json!({"contextData": {"deep": [1, {"n": 1.5}]}, "status": "assigned"});
        let lease = json!({
            "attempt": 1, "expiresAt": "2026-01-01T00:00:00.000Z", "expiresInMs": 1, "timeoutMs": 1,
        });
        let claimed = Some(vec![ClaimedItem {
            work_item: item(next),
            lease: serde_json::from_value(lease).unwrap(),
        }]);
        let refused = WireError::invalid("no");
        for answer in [
            CompleteAnswer::One {
                item: Box::new(item(json!({"labels": {"team": "a"}}))),
                claimed: claimed.clone(),
            },
            CompleteAnswer::One {
                item: Box::new(item(json!({}))),
                claimed: None,
            },
            CompleteAnswer::Many {
                items: vec![
                    ItemAnswer::Done(item(json!({}))),
                    ItemAnswer::Refused(refused),
                ],
                claimed,
            },
            CompleteAnswer::Many {
                items: Vec::new(),
                claimed: Some(Vec::new()),
            },
        ] {
            for encoding in [Encoding::Json, Encoding::MessagePack] {
                let bytes = encoding.encode(&answer).unwrap();
                let read: CompleteAnswer = encoding.decode(&bytes).unwrap();
                assert_eq!(read, answer);
            }
        }
    }
}
