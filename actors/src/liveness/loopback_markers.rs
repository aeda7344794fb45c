//! Messages to ourselves: when one comes back, everything that was sent before it has come.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// LoopbackMarkers on their way through one subscription; each arrives with what was known then.
#[derive(Debug)]
pub(super) struct LoopbackMarkers<T> {
    /// The subjects of markers begin with this; no other message has such a subject.
    prefix: String,
    waited_for: Arc<Mutex<Waiting<T>>>,
}

type Waiting<T> = HashMap<String, oneshot::Sender<T>>;

impl<T> LoopbackMarkers<T> {
    /// LoopbackMarkers under a subject that ends with a dot.
    pub fn under(subject: &str) -> Self {
        let process = fastrand::u64(..);
        Self {
            prefix: format!("{subject}marker-{process:016x}-"),
            waited_for: Arc::default(),
        }
    }

    pub fn expect(&self) -> Expected<T> {
        let (sender, arrived) = oneshot::channel();
        let subject = format!("{}{:016x}", self.prefix, fastrand::u64(..));
        self.waited_for.lock().insert(subject.clone(), sender);
        Expected {
            subject,
            arrived,
            waited_for: self.waited_for.clone(),
        }
    }

    /// The marker behind a subject, taken out; dropping the sender without sending is no arrival.
    pub fn take(&self, subject: &str) -> Option<oneshot::Sender<T>> {
        if !subject.starts_with(&self.prefix) {
            return None;
        }
        self.waited_for.lock().remove(subject)
    }
}

/// A marker that somebody waits for.
pub(super) struct Expected<T> {
    subject: String,
    arrived: oneshot::Receiver<T>,
    waited_for: Arc<Mutex<Waiting<T>>>,
}

impl<T> Expected<T> {
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Ends when the marker has arrived; never if it got lost.
    pub async fn arrived(mut self) -> T {
        match (&mut self.arrived).await {
            Ok(known) => known,
            Err(_) => pending().await,
        }
    }
}

impl<T> Drop for Expected<T> {
    fn drop(&mut self) {
        self.waited_for.lock().remove(&self.subject);
    }
}
