//! UUIDs of the wire. They are text in JSON and in MessagePack alike.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A text that is no UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a UUID; write 8-4-4-4-12 hex digits")]
pub struct IdError(String);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// Takes any UUID.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// A new id that sorts by the time of its making (UUID version 7).
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id as a UUID.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| IdError(text.chars().take(64).collect()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut buffer = Uuid::encode_buffer();
                serializer.serialize_str(self.0.as_hyphenated().encode_lower(&mut buffer))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a UUID as text")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

uuid_id! {
    /// The id of a work item.
    WorkId
}
uuid_id! {
    /// The id of an agent: the key of its entry, and its name in every request.
    AgentGuid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_text_in_both_encodings() {
        let id = WorkId::generate();
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
        let packed = rmp_serde::to_vec_named(&id).unwrap();
        assert_eq!(packed.len(), 2 + 36);
        assert_eq!(rmp_serde::from_slice::<WorkId>(&packed).unwrap(), id);
    }

    #[test]
    fn what_is_no_uuid_is_named() {
        let error = "nope".parse::<AgentGuid>().unwrap_err();
        assert!(error.to_string().contains("\"nope\""));
    }
}
