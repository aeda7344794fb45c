//! Opaque JSON: carried as it came, never read on the way.

use bytes::Bytes;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A JSON value as text that nobody on the way parses (`contextData`, `output`, `artifacts`).
///
/// In JSON it stands as the value itself. In MessagePack it stands as the same value in
/// MessagePack; a MessagePack `bin` is taken as JSON text, so that a sender that has the text need
/// not translate it. JSON that has no counterpart there (a number out of range, half a surrogate
/// pair) goes out as such a `bin`, so that one odd body spoils no answer. Nesting is bounded by
/// [`MAX_DEPTH`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body(Bytes);

/// How many levels deep a body may nest. Whoever reads one, here or in a client, has a limit (128 in
/// many libraries) or a stack; an answer adds a few levels around it.
pub const MAX_DEPTH: usize = 100;

impl Body {
    /// Takes any value that can be written as JSON.
    pub fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::to_vec(value).map(|json| Self(json.into()))
    }

    /// Takes JSON text after checking that it is JSON.
    pub fn from_json(json: impl Into<Bytes>) -> Result<Self, serde_json::Error> {
        let json = json.into();
        serde_json::from_slice::<&RawValue>(&json)?;
        Self::of_text(json)
    }

    fn of_text<E: serde::de::Error>(json: Bytes) -> Result<Self, E> {
        if depth(&json) <= MAX_DEPTH {
            return Ok(Self(json));
        }
        Err(E::custom(format!(
            "a value nests more than {MAX_DEPTH} levels deep; send it flatter, or as text"
        )))
    }

    /// Takes bytes that [`Body::as_bytes`] gave earlier, without a second check.
    pub const fn trusted(json: Bytes) -> Self {
        Self(json)
    }

    /// The JSON text.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The size of the JSON text in bytes.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no text at all, which no valid body has.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the body as a value of the caller's own type.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0)
    }
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serde_json::from_slice::<&RawValue>(&self.0)
                .map_err(S::Error::custom)?
                .serialize(serializer)
        } else {
            match serde_json::from_slice::<serde_json::Value>(&self.0) {
                Ok(value) => value.serialize(serializer),
                Err(_) => serializer.serialize_bytes(&self.0),
            }
        }
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let raw = Box::<RawValue>::deserialize(deserializer)?;
            Self::of_text(Bytes::from(Box::<str>::from(raw).into_string()))
        } else {
            match Packed::deserialize(deserializer)? {
                Packed::Json(json) => Self::from_json(json).map_err(D::Error::custom),
                Packed::Value(value) => Self::of(&value)
                    .map_err(D::Error::custom)
                    .and_then(|body| Self::of_text(body.0)),
            }
        }
    }
}

/// How deep a JSON text nests. Costs no stack.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// What may stand for a body in MessagePack.
enum Packed {
    Json(Bytes),
    Value(serde_json::Value),
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PackedVisitor;
        impl<'de> serde::de::Visitor<'de> for PackedVisitor {
            type Value = Packed;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value that JSON can hold, or JSON text as bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Packed, E> {
                Ok(Packed::Json(Bytes::copy_from_slice(bytes)))
            }
            fn visit_unit<E>(self) -> Result<Packed, E> {
                Ok(Packed::Value(serde_json::Value::Null))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Packed, E> {
                Ok(Packed::Value(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Packed, E> {
                Ok(Packed::Value(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Packed, E> {
                Ok(Packed::Value(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Packed, E> {
                Ok(Packed::Value(value.into()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Packed, E> {
                Ok(Packed::Value(value.into()))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, seq: A) -> Result<Packed, A::Error> {
                serde_json::Value::deserialize(serde::de::value::SeqAccessDeserializer::new(seq))
                    .map(Packed::Value)
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Packed, A::Error> {
                serde_json::Value::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    .map(Packed::Value)
            }
        }
        deserializer.deserialize_any(PackedVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Encoding;
    use serde_json::json;

    #[test]
    fn json_text_is_carried_to_the_letter() {
        let text = r#"{"b":1.50,"a":[1,2 ,3],"big":123456789012345678901234567890}"#;
        let body: Body = serde_json::from_str(text).unwrap();
        assert_eq!(body.as_bytes().as_ref(), text.as_bytes());
        assert_eq!(serde_json::to_string(&body).unwrap(), text);
    }

    #[test]
    fn a_body_nests_as_deep_as_can_be_read_again() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        for levels in [MAX_DEPTH, MAX_DEPTH + 1, 500_000] {
            let (json, ok) = (nested(levels), levels <= MAX_DEPTH);
            let body = serde_json::from_str::<Body>(&json);
            assert_eq!(body.is_ok(), ok, "{levels} levels of JSON");
            assert_eq!(Body::from_json(json).is_ok(), ok);
            if let Ok(body) = body {
                rmp_serde::to_vec_named(&body).unwrap();
            }
            let packed = [vec![0x91; levels - 1], vec![0x90]].concat();
            let body = Encoding::MessagePack.decode::<Body>(&packed);
            assert_eq!(body.is_ok(), ok, "{levels} levels of MessagePack");
        }
        let brackets = r#"["[[[\"{{{", {"]": "\\"}]"#;
        assert_eq!(depth(brackets.as_bytes()), 2);
    }

    #[test]
    fn message_pack_carries_the_same_value() {
        let value = json!({"files": ["a.rs"], "n": -3, "f": 1.5, "none": null, "t": true});
        let packed = rmp_serde::to_vec_named(&value).unwrap();
        let body: Body = rmp_serde::from_slice(&packed).unwrap();
        assert_eq!(body.parse::<serde_json::Value>().unwrap(), value);
        let again = rmp_serde::to_vec_named(&body).unwrap();
        assert_eq!(
            rmp_serde::from_slice::<serde_json::Value>(&again).unwrap(),
            value
        );
    }

    #[test]
    fn json_without_a_counterpart_goes_out_as_its_text() {
        for text in ["1e999", r#""\ud800""#] {
            let body: Body = serde_json::from_str(text).unwrap();
            let packed = rmp_serde::to_vec_named(&body).unwrap();
            assert_eq!(rmp_serde::from_slice::<Body>(&packed).unwrap(), body);
        }
    }

    #[test]
    fn message_pack_bytes_are_json_text() {
        let packed = [&[0xc4, 7][..], br#"{"a":1}"#].concat();
        let body: Body = rmp_serde::from_slice(&packed).unwrap();
        assert_eq!(body.as_bytes().as_ref(), br#"{"a":1}"#);
        assert!(rmp_serde::from_slice::<Body>(&[0xc4, 1, b'{']).is_err());
    }
}
