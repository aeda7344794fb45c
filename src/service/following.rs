//! Listening to what happens, for as long as somebody wants to.
//!
//! Who listens stays while the ownership is lost and won again, and while actors start again; he is told that something
//! may have happened meanwhile, and looks.

use loom_actors::events::{EventListener, Heard};
use loom_protocol::WireError;
use tokio::sync::OwnedSemaphorePermit;

use super::{RETRY_AFTER, Service};
use crate::access::Allowed;

/// How many may listen at a time.
pub(super) const MAX_LISTENERS: usize = 256;

/// One who listens, until it is dropped.
#[derive(Debug)]
pub struct Following {
    events: EventListener,
    _place: OwnedSemaphorePermit,
}

impl Service {
    /// Listens to what happens in the caller's project, or in all where none is named, from now on.
    ///
    /// # Errors
    /// `overloaded`: too many listen already.
    pub fn follow(&self, caller: &Allowed) -> Result<Following, WireError> {
        let place = self.0.listeners.clone().try_acquire_owned();
        let place = place.map_err(|_| {
            let message = "too many listen to events already; try again later";
            WireError::overloaded(message, RETRY_AFTER)
        })?;
        Ok(Following {
            events: self.0.options.events.listen(caller.project().cloned()),
            _place: place,
        })
    }

    /// The ownership was won again: those who listen look again.
    pub fn owns_again(&self) {
        self.0.options.events.gap(None);
    }
}

impl Following {
    /// What comes next; `None` when the process ends.
    pub async fn next(&mut self) -> Option<Heard> {
        self.events.next().await
    }
}
