//! Reads whose answer may be lost: a fault swallows the question or the answer, and the one who asked would wait for it
//! as long as for one that is slow. To read twice changes nothing, so it is asked again, and the first answer counts.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;

/// How long the answer to a read is waited for before it is asked again, beside the question that is still open.
pub const READ_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Asks, and asks again after each [`READ_AGAIN_AFTER`] until one of the questions is answered. How long that may take in
/// all is the bound of the first question, which is to have one: its end without an answer is an answer too.
pub(crate) async fn asked_again<Asked: Future>(mut ask: impl FnMut() -> Asked) -> Asked::Output {
    let mut open = FuturesUnordered::new();
    loop {
        open.push(ask());
        if let Ok(Some(answer)) = timeout(READ_AGAIN_AFTER, open.next()).await {
            return answer;
        }
    }
}
