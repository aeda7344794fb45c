//! Lists of a request, read up to their limit: of one that is longer nothing but its beginning costs anything.
//!
//! An element may take a few bytes to write and hundreds to hold (`{}` in the place of an item), so a list is counted
//! while it is read, not after.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};

/// Says that a list is too long; by it the code of the refusal is chosen.
pub(crate) const TOO_MANY: &str = "are allowed in one request; send them in several";

/// A list of at most `MOST` elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtMost<const MOST: usize, T>(pub Vec<T>);

impl<const MOST: usize, T> Default for AtMost<MOST, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, const MOST: usize, T: Deserialize<'de>> Deserialize<'de> for AtMost<MOST, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<const MOST: usize, T>(PhantomData<T>);

        impl<'de, const MOST: usize, T: Deserialize<'de>> Visitor<'de> for Elements<MOST, T> {
            type Value = AtMost<MOST, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(MOST));
                while let Some(element) = seq.next_element()? {
                    if elements.len() == MOST {
                        return Err(A::Error::custom(format!("at most {MOST} {TOO_MANY}")));
                    }
                    elements.push(element);
                }
                Ok(AtMost(elements))
            }
        }

        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorCode, WireError};
    use crate::work::{CompleteRequest, SubmitRequest, limits};
    use crate::{Encoding, WorkId};
    use proptest::prelude::*;
    use serde_json::json;
    use std::cell::Cell;

    thread_local! {
        static READ: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts how many of its kind were read.
    #[derive(Debug)]
    struct Counted;

    impl<'de> Deserialize<'de> for Counted {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            READ.set(READ.get() + 1);
            serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
        }
    }

    #[derive(Debug, Deserialize)]
    struct Request {
        list: Option<AtMost<3, Counted>>,
    }

    proptest! {
        #[test]
        fn a_list_is_read_up_to_the_first_element_too_many(
            length in 0..50_usize, packed: bool, null: bool,
        ) {
            let encoding = if packed { Encoding::MessagePack } else { Encoding::Json };
            let list = if null { json!(null) } else { json!(vec![json!({}); length]) };
            let payload = encoding.encode(&json!({ "list": list })).unwrap();
            READ.set(0);
            let mut reading = encoding.decode::<Request>(&payload);
            if null {
                prop_assert!(reading.unwrap().list.is_none());
            } else if length <= 3 {
                prop_assert_eq!(reading.as_mut().unwrap().list.take().unwrap().0.len(), length);
            } else {
                let error = WireError::from(reading.unwrap_err());
                prop_assert_eq!(error.code, ErrorCode::TooLarge);
                prop_assert!(error.message.contains("list"), "{}", error.message);
            }
            // Once for the value, once to learn which field is at fault.
            prop_assert!(READ.get() <= 2 * 4, "{} elements were read", READ.get());
        }
    }

    #[test]
    fn an_item_among_items_is_not_a_list_of_its_own() {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let inner = json!({"items": vec![json!({"items": vec![json!({}); 1_000]}); 1_000]});
            let outer = encoding.encode(&json!({"items": [inner, {}]})).unwrap();
            let read: SubmitRequest = encoding.decode_request(&outer).unwrap();
            let items = read.items.unwrap();
            // It is told from an item without one, and nothing of it is held.
            assert_eq!(items[0].items.as_ref().map(Vec::len), Some(0));
            assert!(items[1].items.is_none());
        }
    }

    #[test]
    fn the_lists_of_requests_have_their_limits() {
        let end = json!({"id": WorkId::generate(), "attempt": 1});
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let submit = |count| json!({"items": vec![json!({}); count]});
            let complete =
                |count| json!({"guid": WorkId::generate(), "items": vec![end.clone(); count]});
            let submitted = |count| {
                let payload = encoding.encode(&submit(count)).unwrap();
                encoding.decode_request::<SubmitRequest>(&payload).is_ok()
            };
            let completed = |count| {
                let payload = encoding.encode(&complete(count)).unwrap();
                encoding.decode_request::<CompleteRequest>(&payload).is_ok()
            };
            assert!(submitted(limits::ITEMS) && !submitted(limits::ITEMS + 1));
            assert!(completed(limits::COMPLETIONS) && !completed(limits::COMPLETIONS + 1));
        }
    }
}
