//! Streams of somebody else's over subjects of ours.

use async_nats::jetstream::{self, ErrorCode, context};

use super::error::{Cause, Resource, StoreError};

/// What a stream of somebody else took: it is not stored where it should be.
pub fn taken_by(foreign: &str, ours: &str) -> String {
    format!(
        "stream {foreign} took it, which is not Loom's {ours}; remove {foreign} or give it other subjects"
    )
}

/// Why a stream of ours with these subjects cannot be made, with the name of the stream that is in the way where there is
/// one.
pub async fn not_made(
    jetstream: &jetstream::Context,
    resource: &Resource,
    subjects: &[String],
    error: &context::CreateStreamError,
) -> StoreError {
    let made = StoreError::of("making", resource, error);
    if made.code() != Some(ErrorCode::STREAM_SUBJECT_OVERLAP.0) {
        return made;
    }
    for subject in subjects {
        if let Ok(foreign) = jetstream.stream_by_subject(subject).await {
            let why = format!(
                "its subject {subject} belongs to stream {foreign}, which is not Loom's; remove {foreign} or give it other subjects"
            );
            return made.because(Cause::OtherStream, why);
        }
    }
    // Another subject of ours is the one that overlaps, or the server does not say.
    let why = format!(
        "{}: a stream that is not Loom's has subjects of ours; remove it or give it other subjects",
        made.why()
    );
    made.because(Cause::OtherStream, why)
}

/// A stream of that name was made at the same moment, with another configuration.
pub fn is_name_in_use(error: &context::CreateStreamError) -> bool {
    matches!(error.kind(), context::CreateStreamErrorKind::JetStream(no)
        if no.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

/// There is no such stream: the server says so, which is more than that nobody answers.
pub fn is_not_found(error: &context::GetStreamError) -> bool {
    matches!(error.kind(), context::GetStreamErrorKind::JetStream(no)
        if no.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_took_a_write_is_named() {
        let text = taken_by("THEIRS", "KV_LOOM_OWNERS");
        assert!(
            text.contains("THEIRS") && text.contains("KV_LOOM_OWNERS"),
            "{text}"
        );
    }
}
