//! Parts of a request that may be written in more than one way.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::limits;
use crate::bounded::AtMost;

/// A type that a plain sentence may stand for.
pub(super) trait FromSentence {
    fn from_sentence(sentence: &str) -> Self;
}

/// Reads `"a sentence"` or `{…}`.
pub(super) fn sentence_or_map<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromSentence + Deserialize<'de>,
{
    struct Either<T>(PhantomData<T>);

    impl<'de, T: FromSentence + Deserialize<'de>> Visitor<'de> for Either<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a sentence or an object")
        }
        fn visit_str<E>(self, sentence: &str) -> Result<T, E> {
            Ok(T::from_sentence(sentence))
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_any(Either(PhantomData))
}

/// As [`sentence_or_map`], for a field that may be absent or null.
pub(super) fn optional_sentence_or_map<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromSentence + Deserialize<'de>,
{
    struct Present<T>(T);

    impl<'de, T: FromSentence + Deserialize<'de>> Deserialize<'de> for Present<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            sentence_or_map(deserializer).map(Present)
        }
    }

    Option::<Present<T>>::deserialize(deserializer)
        .map(|present| present.map(|Present(value)| value))
}

/// Reads a list of at most `MOST` `{…}`, for a field that may be absent or null. (A list in the place of an object
/// would be read by the order of its fields in our source.)
pub(super) fn optional_objects<'de, const MOST: usize, D, T>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let objects = Option::<AtMost<MOST, Object<T>>>::deserialize(deserializer)?;
    Ok(objects.map(|AtMost(objects)| {
        let objects = objects.into_iter();
        objects.map(|Object(value)| value).collect()
    }))
}

thread_local! {
    /// Whether an item of a list is being read.
    static IN_ITEMS: Cell<bool> = const { Cell::new(false) };
}

/// Reads the items of a submission. An item that has `items` itself is refused later, by itself: here it gets an empty
/// list, and what stands in it is passed over. Lists of lists would be as many items as fit.
pub(super) fn items<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Left;

    impl Drop for Left {
        fn drop(&mut self) {
            IN_ITEMS.set(false);
        }
    }

    if IN_ITEMS.get() {
        let nested = Option::<IgnoredAny>::deserialize(deserializer)?;
        return Ok(nested.map(|_| Vec::new()));
    }
    IN_ITEMS.set(true);
    let _left = Left;
    optional_objects::<{ limits::ITEMS }, _, _>(deserializer)
}

/// Reads `{…}`, for a field that may be absent or null.
pub(super) fn optional_object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let object = Option::<Object<T>>::deserialize(deserializer)?;
    Ok(object.map(|Object(value)| value))
}

/// Reads a value that a report may have beside what it is about. What cannot be read counts as absent: nobody could be
/// told, and the report would be lost with it.
pub(super) fn or_nothing<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Lenient<T> {
        Read(T),
        Not(IgnoredAny),
    }

    Ok(match Option::<Lenient<T>>::deserialize(deserializer)? {
        Some(Lenient::Read(value)) => Some(value),
        Some(Lenient::Not(_)) | None => None,
    })
}

/// A value whose fields have names.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Named<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Named<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with named fields")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Named(PhantomData)).map(Self)
    }
}
