//! Streams of somebody else's over subjects of ours.

use async_nats::jetstream::{self, ErrorCode, context};

/// What a stream of somebody else took: it is not stored where it should be.
pub fn taken_by(foreign: &str, ours: &str) -> String {
    format!(
        "stream {foreign} took it, which is not Loom's {ours}; remove {foreign} or give it other subjects"
    )
}

/// Why a stream of ours cannot be made, with the name of the stream that is in the way where there is one.
pub async fn why_not_made(
    jetstream: &jetstream::Context,
    subject: &str,
    error: &context::CreateStreamError,
) -> String {
    let overlaps = matches!(error.kind(), context::CreateStreamErrorKind::JetStream(no)
        if no.error_code() == ErrorCode::STREAM_SUBJECT_OVERLAP);
    if !overlaps {
        return error.to_string();
    }
    match jetstream.stream_by_subject(subject).await {
        Ok(foreign) => format!(
            "its subject {subject} belongs to stream {foreign}, which is not Loom's; remove {foreign} or give it other subjects"
        ),
        // Another subject of ours is the one that overlaps, or the server does not say.
        Err(_) => format!(
            "{error}: a stream that is not Loom's has subjects of ours; remove it or give it other subjects"
        ),
    }
}

/// A stream of that name was made at the same moment, with another configuration.
pub fn is_name_in_use(error: &context::CreateStreamError) -> bool {
    matches!(error.kind(), context::CreateStreamErrorKind::JetStream(no)
        if no.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

/// The server says that the stream cannot be made. Where it says nothing in time, it may have made it.
pub fn is_refused(error: &context::CreateStreamError) -> bool {
    matches!(error.kind(), context::CreateStreamErrorKind::JetStream(_))
}

/// There is no such stream: the server says so, which is more than that nobody answers.
pub fn is_not_found(error: &context::GetStreamError) -> bool {
    matches!(error.kind(), context::GetStreamErrorKind::JetStream(no)
        if no.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Another write came first, as one server says it or another.
pub fn is_wrong_sequence(code: u64) -> bool {
    [10_071, 10_164].contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_sequence_is_a_conflict_whichever_way_the_server_says_it() {
        let conflicts = [10_070, 10_071, 10_072, 10_163, 10_164, 10_165].map(is_wrong_sequence);
        assert_eq!(conflicts, [false, true, false, false, true, false]);
    }

    #[test]
    fn a_stream_that_took_a_write_is_named() {
        let text = taken_by("THEIRS", "KV_LOOM_OWNERS");
        assert!(
            text.contains("THEIRS") && text.contains("KV_LOOM_OWNERS"),
            "{text}"
        );
    }
}
