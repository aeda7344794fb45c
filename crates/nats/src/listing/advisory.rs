//! What the server tells of streams by itself.

/// The server tells of streams that are made, changed and removed: that is not waited for.
pub(super) const TOLD: &str = "$JS.EVENT.ADVISORY.STREAM.";

/// What the server has told of a stream speaks against what is known of it.
pub(super) fn speaks_against(advisory: &str) -> Option<&str> {
    let mut tokens = advisory.strip_prefix(TOLD)?.split('.');
    let (what, stream) = (tokens.next()?, tokens.next()?);
    matches!(what, "UPDATED" | "DELETED" | "CREATED").then_some(stream)
}
