//! JSON schemas of what is not described by its fields. Built for tests, and with the feature `schemas`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::body::Body;
use crate::bounded::AtMost;
use crate::dead_letter::RawBytes;
use crate::id::{AgentGuid, SpinUpId, TargetId, WorkId};
use crate::time::Timestamp;

/// What a verb takes and what it gives.
#[derive(Debug, Clone)]
pub struct Schemas {
    /// The request, over NATS; over REST an id and filters stand in the path and the query.
    pub request: Schema,
    /// The answer, over NATS, or over REST where the verb is that one's alone.
    pub answer: Schema,
}

macro_rules! written_as_text {
    ($($type:ty, $name:literal, $format:literal;)+) => {
        $(impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format })
            }
        })+
    };
}

written_as_text! {
    WorkId, "WorkId", "uuid";
    AgentGuid, "AgentGuid", "uuid";
    TargetId, "TargetId", "uuid";
    SpinUpId, "SpinUpId", "uuid";
    Timestamp, "Timestamp", "date-time";
    RawBytes, "RawBytes", "byte";
}

impl JsonSchema for Body {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Body".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::default()
    }
}

impl<const MOST: usize, T: JsonSchema> JsonSchema for AtMost<MOST, T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("AtMost{MOST}{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Vec::<T>::json_schema(generator);
        schema.insert("maxItems".into(), MOST.into());
        schema
    }
}
