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

            /// A new id at random (UUID version 4: existing clients check for it). Nothing may sort by it.
            pub fn generate() -> Self {
                Self(Uuid::new_v4())
            }

            /// The id that follows from a digest, with the version and variant of UUID version 4.
            pub const fn from_digest(digest: [u8; 16]) -> Self {
                Self(uuid::Builder::from_random_bytes(digest).into_uuid())
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
uuid_id! {
    /// The id of a spin-up target.
    TargetId
}
uuid_id! {
    /// The id of one start of an agent: the operation that it is, and the mark by which it is found again.
    SpinUpId
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
    fn every_id_of_ours_is_a_uuid_of_version_4() {
        for id in [
            AgentGuid::generate(),
            AgentGuid::from_digest([0xff; 16]),
            AgentGuid::from_digest([0; 16]),
        ] {
            assert_eq!(id.uuid().get_version_num(), 4, "{id}");
            assert_eq!(id.uuid().get_variant(), uuid::Variant::RFC4122, "{id}");
        }
    }

    #[test]
    fn ids_made_together_differ_in_their_first_digits() {
        let short = |id: WorkId| id.to_string()[..8].to_owned();
        let all: std::collections::HashSet<String> =
            (0..100).map(|_| short(WorkId::generate())).collect();
        assert!(all.len() >= 99, "{} of 100 are apart", all.len());
    }

    #[test]
    fn ids_of_version_7_in_old_stores_are_read() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(id.parse::<WorkId>().unwrap().to_string(), id);
    }

    #[test]
    fn what_is_no_uuid_is_named() {
        let error = "nope".parse::<AgentGuid>().unwrap_err();
        assert!(error.to_string().contains("\"nope\""));
    }
}
