//! How a request ended that did not succeed, and which number of the server means what.

use async_nats::jetstream::ErrorCode;

use crate::verdicts::store::{RefusalKind, refusal_in};

/// More than a message of the stream may have.
const TOO_LARGE: u64 = 10_054;

/// How a request ended that did not succeed.
///
/// | kind | means of a write | means of anything else | do |
/// |---|---|---|---|
/// | [`Conflict`](Self::Conflict) | somebody wrote in between; nothing stored | does not happen | read again from the leader, decide again |
/// | [`Unknown`](Self::Unknown) | may be stored, now or at the next reconnect | may have been done | read again before writing, or ask the same again |
/// | [`Refused`](Self::Refused) | not stored, or in a store that is not worked with | not done | by its [`Cause`] |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The last sequence of the subject is another one than expected.
    Conflict,
    /// No answer, or none that can be read: it may have been done, or may be done later.
    Unknown,
    /// It was not done, or not where it should be.
    Refused(Cause),
}

/// Who refuses, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The server, for a reason that it says.
    Server,
    /// The server, whose store is full or does not write.
    Full(RefusalKind),
    /// The server, for good: no message carries so much.
    TooLarge,
    /// The server, which has no leader for the stream just now.
    NotNow,
    /// There is no stream, or nobody listens on the subject: no stream, or no JetStream just now.
    NoStream,
    /// A stream of somebody else's took the write, or has subjects of ours.
    OtherStream,
    /// The stream is there, and is made so that it cannot be used.
    Unsuited,
    /// We: the ownership may be over. Nothing was sent.
    NotOwner,
    /// We: whether the store is still the same is being looked at. Nothing was sent, or the answer is not believed.
    StoreInDoubt,
    /// We: the store is another one. Nothing was sent, or the answer came from that one.
    OtherStore,
}

impl StoreErrorKind {
    /// What whoever asked can do, where the text does not say it.
    pub const fn remedy(self) -> Option<&'static str> {
        match self {
            Self::Conflict
            | Self::Unknown
            | Self::Refused(Cause::NotNow | Cause::NoStream | Cause::NotOwner) => {
                Some("try again in a moment")
            }
            Self::Refused(Cause::Full(_)) => Some("give JetStream room, and try again"),
            Self::Refused(Cause::TooLarge) => {
                Some("make it smaller, or let NATS take more (max_payload, max_msg_size)")
            }
            Self::Refused(
                Cause::Server
                | Cause::OtherStream
                | Cause::Unsuited
                | Cause::StoreInDoubt
                | Cause::OtherStore,
            ) => None,
        }
    }
}

/// What a refusal of this number, in these words, is about.
pub(super) fn cause_of(code: u64, said: &str) -> Cause {
    match ErrorCode(code) {
        ErrorCode(TOO_LARGE) => Cause::TooLarge,
        ErrorCode::CLUSTER_NOT_AVAILABLE => Cause::NotNow,
        ErrorCode::STREAM_NOT_FOUND => Cause::NoStream,
        _ => refusal_in(said).map_or(Cause::Server, Cause::Full),
    }
}

/// Another write came first, as one server says it or another.
pub(super) fn is_wrong_sequence(code: u64) -> bool {
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
}
