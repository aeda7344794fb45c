//! JSON and MessagePack, the two encodings of a request and its answer.

use serde::Deserializer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bounded::TOO_MANY;
use crate::error::{ErrorCode, WireError};

/// The header that names the encoding of a payload.
pub const CONTENT_TYPE: &str = "Content-Type";
/// The value of [`CONTENT_TYPE`] for MessagePack; anything else means JSON.
pub const MSGPACK: &str = "application/msgpack";
/// The value of [`CONTENT_TYPE`] for JSON.
pub const JSON: &str = "application/json";

/// How deep MessagePack may be nested, as in JSON: reading costs stack, and a stack that runs out
/// ends the whole process.
const MAX_DEPTH: usize = 128;

/// What the payload of one item usually has, in bytes: it is written without being moved.
const USUAL_SIZE: usize = 1024;

/// How many characters of an unknown field's name an error repeats.
const MAX_SHOWN: usize = 64;

/// How a payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// JSON: the default.
    #[default]
    Json,
    /// MessagePack with named fields.
    MessagePack,
}

/// A payload that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(String);

impl From<DecodeError> for WireError {
    fn from(error: DecodeError) -> Self {
        let code = if error.0.contains(TOO_MANY) {
            ErrorCode::TooLarge
        } else {
            ErrorCode::InvalidRequest
        };
        Self::new(code, error.0)
    }
}

impl Encoding {
    /// The encoding that a `Content-Type` header asks for.
    pub fn from_content_type(header: Option<&str>) -> Self {
        match header.map(|value| value.split(';').next().unwrap_or(value).trim()) {
            Some(value) if value.eq_ignore_ascii_case(MSGPACK) => Self::MessagePack,
            _ => Self::Json,
        }
    }

    /// The value of `Content-Type` for this encoding.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::MessagePack => MSGPACK,
        }
    }

    /// Writes a payload.
    ///
    /// # Errors
    /// Only for values whose own `Serialize` fails.
    pub fn encode(self, value: &impl Serialize) -> Result<Vec<u8>, DecodeError> {
        let mut payload = Vec::with_capacity(USUAL_SIZE);
        match self {
            Self::Json => {
                serde_json::to_writer(&mut payload, value).map_err(|e| DecodeError(e.to_string()))
            }
            Self::MessagePack => rmp_serde::encode::write_named(&mut payload, value)
                .map_err(|e| DecodeError(e.to_string())),
        }?;
        Ok(payload)
    }

    /// Reads an answer; an empty one reads as an empty object. Unknown fields are passed over.
    pub fn decode<T: DeserializeOwned>(self, payload: &[u8]) -> Result<T, DecodeError> {
        self.read(payload, &mut |_| {})
    }

    /// Reads a request or a report: as [`decode`](Self::decode), but its fields must have names. (An
    /// array would be read by their order in our source, which is no promise.)
    pub fn decode_request<T: DeserializeOwned>(self, payload: &[u8]) -> Result<T, DecodeError> {
        self.decode_noting(payload, &mut |_| {})
    }

    /// Reads a request and names each field that it did not use, as a path (`items.0.colour`).
    pub fn decode_noting<T: DeserializeOwned>(
        self,
        payload: &[u8],
        ignored: &mut dyn FnMut(String),
    ) -> Result<T, DecodeError> {
        if self.is_array(payload) {
            let (name, whole) = match self {
                Self::Json => ("JSON", "an object"),
                Self::MessagePack => ("MessagePack", "a map"),
            };
            return Err(DecodeError(format!(
                "the body is not the {name} expected: it is an array; write {whole} with named fields"
            )));
        }
        self.read(payload, ignored)
    }

    /// Reads a request about many things at once: a field that nobody reads is refused by its name, since a filter
    /// that is misspelt would mean everything. `besides`: fields that somebody else reads.
    pub fn decode_strictly<T: DeserializeOwned>(
        self,
        payload: &[u8],
        besides: &[&str],
    ) -> Result<T, DecodeError> {
        let mut unknown = None;
        let request = self.decode_noting(payload, &mut |path| {
            if !besides.contains(&path.as_str()) && unknown.is_none() {
                unknown = Some(path);
            }
        })?;
        match unknown {
            None => Ok(request),
            Some(field) => Err(DecodeError(format!(
                "this request has no field {}; correct it or leave it out (nothing was done)",
                shown(&field)
            ))),
        }
    }

    fn is_array(self, payload: &[u8]) -> bool {
        match self {
            Self::Json => payload.trim_ascii_start().first() == Some(&b'['),
            Self::MessagePack => matches!(payload.first(), Some(0x90..=0x9f | 0xdc | 0xdd)),
        }
    }

    fn read<T: DeserializeOwned>(
        self,
        payload: &[u8],
        ignored: &mut dyn FnMut(String),
    ) -> Result<T, DecodeError> {
        let mut note = |path: serde_ignored::Path<'_>| ignored(as_sender_wrote(&path));
        match self {
            Self::Json => {
                let text = if payload.is_empty() { b"{}" } else { payload };
                let mut reader = serde_json::Deserializer::from_slice(text);
                serde_ignored::deserialize(&mut reader, &mut note)
                    .and_then(|value| reader.end().map(|()| value))
                    .map_err(|e| {
                        let field =
                            field_at_fault::<T, _>(&mut serde_json::Deserializer::from_slice(text));
                        DecodeError(format!("the body is not the JSON expected: {field}{e}"))
                    })
            }
            Self::MessagePack => {
                let bytes = if payload.is_empty() { &[0x80] } else { payload };
                let bounded = || {
                    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
                    reader.set_max_depth(MAX_DEPTH);
                    reader
                };
                let mut reader = bounded();
                let value = serde_ignored::deserialize(&mut reader, &mut note).map_err(|e| {
                    let field = field_at_fault::<T, _>(&mut bounded());
                    DecodeError(format!(
                        "the body is not the MessagePack expected: {field}{e}"
                    ))
                })?;
                // The reader does not tell what is left: only at the end is there no next marker.
                match bool::deserialize(&mut reader) {
                    Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
                    _ => Err(DecodeError(
                        "the body goes on after the end of its MessagePack value".into(),
                    )),
                }
            }
        }
    }
}

/// Reads once more, to learn in which field it goes wrong: `items[0].priority: `, or nothing where it is no field's
/// fault. Only what cannot be read pays for that.
fn field_at_fault<'de, T: DeserializeOwned, D: Deserializer<'de>>(reader: D) -> String {
    match serde_path_to_error::deserialize::<D, T>(reader) {
        Err(error) if error.path().iter().next().is_some() => format!("{}: ", error.path()),
        _ => String::new(),
    }
}

/// The name of a field as an error repeats it.
fn shown(field: &str) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    field.chars().take(MAX_SHOWN).map(plain).collect()
}

/// The path without the steps that only Rust sees (`Some`, newtypes).
fn as_sender_wrote(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    let below = |parent: &Path<'_>, step: &dyn std::fmt::Display| {
        let parent = as_sender_wrote(parent);
        if parent.is_empty() {
            step.to_string()
        } else {
            format!("{parent}.{step}")
        }
    };
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => below(parent, index),
        Path::Map { parent, key } => below(parent, key),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => as_sender_wrote(parent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Thing {
        #[serde(default)]
        a: u8,
        body: Option<crate::Body>,
    }

    #[test]
    fn both_encodings_note_what_they_pass_over() {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let payload = encoding
                .encode(&json!({"a": 1, "colour": "red", "body": {"x": [1]}}))
                .unwrap();
            let mut ignored = Vec::new();
            let thing: Thing = encoding
                .decode_noting(&payload, &mut |path| ignored.push(path))
                .unwrap();
            assert_eq!(thing.a, 1);
            assert_eq!(thing.body.unwrap().as_bytes().as_ref(), br#"{"x":[1]}"#);
            assert_eq!(ignored, ["colour"]);
        }
    }

    #[test]
    fn a_deep_payload_is_refused_and_costs_no_stack() {
        for levels in [130, 500_000] {
            let json = format!(
                r#"{{"colour":{}{}}}"#,
                "[".repeat(levels),
                "]".repeat(levels)
            );
            let _passed_over = Encoding::Json.decode::<Thing>(json.as_bytes());
            let packed = [&b"\x81\xa6colour"[..], &vec![0x91; levels], &[0xc0]].concat();
            assert!(Encoding::MessagePack.decode::<Thing>(&packed).is_err());
        }
    }

    #[test]
    fn paths_are_written_as_the_sender_wrote_them() {
        #[derive(Deserialize)]
        struct Many {
            #[allow(dead_code, reason = "only its path matters")]
            items: Option<Vec<Thing>>,
        }
        let mut ignored = Vec::new();
        Encoding::Json
            .decode_noting::<Many>(br#"{"items":[{"a":1},{"colour":1}]}"#, &mut |path| {
                ignored.push(path);
            })
            .unwrap();
        assert_eq!(ignored, ["items.1.colour"]);
    }

    #[test]
    fn half_a_document_and_a_trailing_one_are_refused() {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let whole = encoding.encode(&json!({"a": 1})).unwrap();
            assert!(encoding.decode::<Thing>(&whole[..whole.len() - 1]).is_err());
            let twice = [&whole[..], &whole[..]].concat();
            assert!(encoding.decode::<Thing>(&twice).is_err());
        }
        let whole = Encoding::MessagePack.encode(&json!({"a": 1})).unwrap();
        for trailing in 0..=u8::MAX {
            let more = [&whole[..], &[trailing]].concat();
            assert!(
                Encoding::MessagePack.decode::<Thing>(&more).is_err(),
                "{trailing}"
            );
        }
    }

    #[test]
    fn message_pack_that_is_nested_too_deep_is_refused_and_costs_no_stack() {
        for field in [&b"\xa4body"[..], b"\xa6colour"] {
            let nested = |depth| [&[0x81], field, &vec![0x91; depth], &[0xc0]].concat();
            let read = |depth| Encoding::MessagePack.decode::<Thing>(&nested(depth));
            assert!(read(100).is_ok());
            assert!(read(1_000).is_err());
            assert!(read(1_000_000).is_err());
        }
    }

    #[test]
    fn the_field_that_cannot_be_read_is_named() {
        #[derive(Debug, Deserialize)]
        #[allow(dead_code, reason = "only its fields' names matter")]
        struct Many {
            items: Vec<Thing>,
        }
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let payload = encoding.encode(&json!({"items": [{"a": "high"}]})).unwrap();
            let error = encoding.decode::<Many>(&payload).unwrap_err().to_string();
            assert!(error.contains("items[0].a: "), "{error}");
            let error = encoding.decode::<Many>(b"").unwrap_err().to_string();
            assert!(error.contains("expected: missing field"), "{error}");
        }
    }

    #[test]
    fn a_request_has_named_fields_and_an_answer_may_be_a_list() {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            for list in [json!([1, null]), json!([]), json!(vec![1; 20])] {
                let payload = encoding.encode(&list).unwrap();
                let error = encoding.decode_request::<Thing>(&payload).unwrap_err();
                assert!(error.to_string().contains("named fields"), "{error}");
                assert!(encoding.decode::<Vec<Option<u8>>>(&payload).is_ok());
            }
        }
        assert!(
            Encoding::Json
                .decode_request::<Thing>(b" \n[1, null]")
                .is_err()
        );
    }

    #[test]
    fn a_request_about_many_things_names_no_field_in_vain() {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let payload = encoding.encode(&json!({"a": 1, "aa": 2})).unwrap();
            let error = encoding.decode_strictly::<Thing>(&payload, &[]);
            let error = error.unwrap_err().to_string();
            assert!(error.contains("no field aa;"), "{error}");
            let thing = encoding.decode_strictly::<Thing>(&payload, &["aa"]);
            assert_eq!(thing.unwrap().a, 1);
        }
    }

    #[test]
    fn nothing_reads_as_an_empty_object() {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            assert_eq!(
                encoding.decode::<Thing>(b"").unwrap(),
                Thing { a: 0, body: None }
            );
        }
    }

    #[test]
    fn content_types() {
        let read = |value| Encoding::from_content_type(Some(value));
        assert_eq!(read("application/msgpack"), Encoding::MessagePack);
        assert_eq!(read("Application/MsgPack; v=1"), Encoding::MessagePack);
        assert_eq!(read("application/json"), Encoding::Json);
        assert_eq!(Encoding::from_content_type(None), Encoding::Json);
    }
}
