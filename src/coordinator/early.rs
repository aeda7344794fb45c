//! The API before the coordinator serves: it answers from the moment that its port is taken, and says what is waited
//! for. The doors of the coordinator take its place on the same port.

use std::net::SocketAddr;

use axum::Router;
use loom_actors::nats::owner::OwnerError;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::UpError;
use crate::doors::rest::{self, Replaceable};
use crate::settings::ApiSettings;

/// An API that answers and can do nothing yet. Dropped, it ends.
pub(super) struct Early {
    address: SocketAddr,
    doors: Replaceable,
    why: watch::Sender<Option<OwnerError>>,
    closing: CancellationToken,
    serving: AbortOnDropHandle<()>,
}

impl Early {
    /// Takes the address, and answers.
    pub async fn open(settings: &ApiSettings) -> Result<Self, UpError> {
        let listener = rest::bind(settings).await?;
        let address = listener.local_addr().map_err(UpError::Socket)?;
        let (why, asked) = watch::channel(None);
        let doors = Replaceable::new(rest::waiting::router(settings, asked));
        let closing = CancellationToken::new();
        let ended = closing.clone().cancelled_owned();
        let serving = tokio::spawn(rest::serve(listener, doors.router(), ended));
        Ok(Self {
            address,
            doors,
            why,
            closing,
            serving: AbortOnDropHandle::new(serving),
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Is to be told why there is no ownership yet.
    pub fn why(&self) -> watch::Sender<Option<OwnerError>> {
        self.why.clone()
    }

    /// Why there is no ownership yet; `None` while nobody has asked for it.
    pub fn watch(&self) -> watch::Receiver<Option<OwnerError>> {
        self.why.subscribe()
    }

    /// From now on `doors` answer, until the token is cancelled: then what is under way comes to its end.
    pub fn replaced_by(self, doors: Router) -> (CancellationToken, JoinHandle<()>) {
        self.doors.replace(doors);
        (self.closing, self.serving.detach())
    }
}
