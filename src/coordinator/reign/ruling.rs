//! Keeps the ownership of a process, and wins it again: one after the other, with the door of the former one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loom_actors::nats::owner::{OwnerError, Ownership};
use loom_actors::repetition::Repetition;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{ABANDON_WITHIN, Reign, Shell};
use crate::coordinator::UpError;
use crate::doors::nats::NatsDoor;
use crate::service::Owning;

/// How long what is in flight may take at the end.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(1);

/// The door of an ownership that is over; see [`NatsDoor::outlast`].
pub(super) struct FormerDoor {
    over: CancellationToken,
    closing: JoinHandle<()>,
}

impl FormerDoor {
    fn keep(door: NatsDoor, ownership: Ownership) -> Self {
        let over = CancellationToken::new();
        let closing = tokio::spawn(door.outlast(ownership, over.clone()));
        Self { over, closing }
    }

    pub(super) async fn close(self) {
        self.over.cancel();
        if let Err(error) = self.closing.await {
            tracing::error!("the door of an ownership that is over met a defect: {error}");
        }
    }
}

/// Keeps an ownership until `closing`, and wins it again whenever it is lost; wins the first where there is none yet.
/// `failed` is told why it can never be won again by this program: then whoever runs it ends.
pub async fn rule(
    shell: Arc<Shell>,
    first: Option<Reign>,
    closing: CancellationToken,
    failed: oneshot::Sender<UpError>,
) {
    let mut next = first;
    let mut former = None;
    loop {
        let won = if let Some(reign) = next.take() {
            Ok(reign)
        } else {
            tokio::select! {
                won = win(&shell, &mut former) => won,
                () = closing.cancelled() => break,
            }
        };
        let reign = match won {
            Ok(reign) => reign,
            Err(error) => {
                tracing::error!("{error}");
                shell.owner.send_replace(Owning::No(error.to_string()));
                // Where nobody listens the process stays, and `/ready` says why it cannot serve.
                let _ = failed.send(error);
                closing.cancelled().await;
                break;
            }
        };
        let lost = tokio::select! {
            lost = reign.lease.lost() => lost,
            () = closing.cancelled() => {
                Reign::close(reign.door, &reign.projects, DRAIN_WITHIN).await;
                let _ = tokio::time::timeout(FLUSH_WITHIN, shell.nats.client.flush()).await;
                shell.stores.remember().await;
                reign.lease.release().await;
                return;
            }
        };
        tracing::warn!("the ownership is lost ({lost}); work goes on when it is won again");
        shell.owner.send_replace(Owning::lost(&lost));
        if let Err(error) = reign.projects.shut_down(ABANDON_WITHIN).await {
            tracing::warn!("{error}");
        }
        former = Some(FormerDoor::keep(reign.door, reign.lease.ownership()));
    }
    if let Some(door) = former {
        door.close().await;
    }
}

/// Tries until the ownership is won. An error: it never can be.
async fn win(shell: &Arc<Shell>, former: &mut Option<FormerDoor>) -> Result<Reign, UpError> {
    let mut failures = Repetition::default();
    loop {
        let error = match Reign::again(shell, former).await {
            Ok(reign) => return Ok(reign),
            Err(error @ UpError::Owner(OwnerError::LaterFormat { .. })) => return Err(error),
            Err(error) => error,
        };
        if let Some(passed_over) = failures.comes(Instant::now()) {
            tracing::warn!(passed_over, "the ownership cannot be won yet: {error}");
        }
        tokio::time::sleep(RETRY).await;
    }
}
