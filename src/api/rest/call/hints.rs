//! What in a body belongs to the door and not to the request: which project is meant, and an old word.

use axum::body::Bytes;
use loom_protocol::work::limits;
use loom_protocol::{AtMost, Encoding, WireError};
use serde::Deserialize;

use super::CLASSIFICATION;

/// Fields of a body that belong to the door and not to the request.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Hints {
    pub project_id: Option<String>,
    pub classification: Option<String>,
}

/// What belongs to the door in the items of a submission.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HintsOfItems {
    items: Option<AtMost<{ limits::ITEMS }, ItemHints>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ItemHints {
    pub classification: Option<String>,
}

/// What belongs to the door in a body, and why that is not known.
pub(super) fn hints_of(body: &Bytes) -> (Hints, Option<WireError>, Vec<ItemHints>) {
    // A body that is no object has no hints; whoever reads it says what is wrong with it.
    let (hints, unread) = match Encoding::Json.decode_request::<Hints>(body) {
        Ok(hints) => (hints, None),
        Err(error) => (Hints::default(), Some(error.into())),
    };
    if !says(body, CLASSIFICATION) {
        return (hints, unread, Vec::new());
    }
    let items = Encoding::Json.decode_request::<HintsOfItems>(body);
    let items = items.unwrap_or_default().items.unwrap_or_default().0;
    (hints, unread, items)
}

/// Whether a word stands anywhere in a text.
fn says(text: &[u8], word: &str) -> bool {
    text.windows(word.len()).any(|part| part == word.as_bytes())
}
