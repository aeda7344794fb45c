//! What the server says in an error of the client.

use std::fmt;

use async_nats::jetstream::stream::{ConsumerErrorKind, RawMessageErrorKind};
use async_nats::jetstream::{self, context, stream};

/// The words of the server, without the numbers that the client puts behind them.
pub(super) fn words(said: &jetstream::Error) -> String {
    let text = said.to_string();
    let numbers = format!(
        " (code {}, error code {})",
        said.code(),
        said.error_code().0
    );
    match text.strip_suffix(&numbers) {
        Some(words) => words.to_owned(),
        None => text,
    }
}

/// A request of the client's that has failed.
pub(super) trait Failed: fmt::Display {
    /// What the server says, if it has said anything.
    fn said(&self) -> Option<jetstream::Error>;
}

impl Failed for jetstream::Error {
    fn said(&self) -> Option<jetstream::Error> {
        Some(self.clone())
    }
}

/// Errors of the client that may carry what the server says.
macro_rules! may_be_said {
    ($($error:ty => $kind:path,)*) => {$(
        impl Failed for $error {
            fn said(&self) -> Option<jetstream::Error> {
                match self.kind() {
                    $kind(said) => Some(said),
                    _ => None,
                }
            }
        }
    )*};
}

may_be_said! {
    context::GetStreamError => context::GetStreamErrorKind::JetStream,
    context::CreateStreamError => context::CreateStreamErrorKind::JetStream,
    stream::RawMessageError => RawMessageErrorKind::JetStream,
    stream::PurgeError => stream::PurgeErrorKind::JetStream,
    stream::ConsumerError => ConsumerErrorKind::JetStream,
}
