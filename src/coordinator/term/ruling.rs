//! Keeps the ownership of a process, and wins it again: one after the other, with the door of the former one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loom_actors::nats::owner::{OwnerError, Ownership};
use loom_actors::repetition::Repetition;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{ABANDON_WITHIN, OwnershipTerm, Runtime};
use crate::api::nats::{FormerApi, NatsApi};
use crate::coordinator::UpError;
use crate::service::Owning;

/// How long what is in flight may take at the end.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(1);

/// The API of an ownership that is over; see [`NatsApi::outlast`].
pub(super) struct Outlasting {
    over: CancellationToken,
    api: JoinHandle<Option<FormerApi>>,
}

impl Outlasting {
    fn keep(api: NatsApi, ownership: Ownership) -> Self {
        let over = CancellationToken::new();
        let api = tokio::spawn(api.outlast(ownership, over.clone()));
        Self { over, api }
    }

    /// It reads no more. What it was given is to be answered by the next one, where it has not closed by itself.
    pub(super) async fn stop(self) -> Option<FormerApi> {
        self.over.cancel();
        self.api.await.unwrap_or_else(|error| {
            tracing::error!("the door of an ownership that is over met a defect: {error}");
            None
        })
    }
}

/// Keeps an ownership until `closing`, and wins it again whenever it is lost; wins the first where there is none yet.
/// `failed` is told why it can never be won again by this program: then whoever runs it ends.
pub async fn run_ownership(
    runtime: Arc<Runtime>,
    first: Option<OwnershipTerm>,
    closing: CancellationToken,
    failed: oneshot::Sender<UpError>,
) {
    let mut next = first;
    let mut former = None;
    loop {
        let won = if let Some(term) = next.take() {
            Ok(term)
        } else {
            tokio::select! {
                won = win(&runtime, &mut former) => won,
                () = closing.cancelled() => break,
            }
        };
        let term = match won {
            Ok(term) => term,
            Err(error) => {
                tracing::error!("{error}");
                runtime.owner.send_replace(Owning::No(error.to_string()));
                // Where nobody listens the process stays, and `/ready` says why it cannot serve.
                let _ = failed.send(error);
                closing.cancelled().await;
                break;
            }
        };
        let lost = tokio::select! {
            lost = term.lease.lost() => lost,
            () = closing.cancelled() => {
                OwnershipTerm::close(term.api, &term.projects, DRAIN_WITHIN).await;
                let _ = tokio::time::timeout(FLUSH_WITHIN, runtime.nats.client.flush()).await;
                runtime.stores.remember().await;
                term.lease.release().await;
                return;
            }
        };
        tracing::warn!("the ownership is lost ({lost}); work goes on when it is won again");
        runtime.owner.send_replace(Owning::lost(&lost));
        if let Err(error) = term.projects.shut_down(ABANDON_WITHIN).await {
            tracing::warn!("{error}");
        }
        former = Some(Outlasting::keep(term.api, term.lease.ownership()));
    }
    if let Some(former) = former
        && let Some(api) = former.stop().await
    {
        api.close_soon().await;
    }
}

/// Tries until the ownership is won. An error: it never can be.
async fn win(
    runtime: &Arc<Runtime>,
    former: &mut Option<Outlasting>,
) -> Result<OwnershipTerm, UpError> {
    let mut failures = Repetition::default();
    loop {
        let error = match OwnershipTerm::again(runtime, former).await {
            Ok(term) => return Ok(term),
            Err(error @ UpError::Owner(OwnerError::LaterFormat { .. })) => return Err(error),
            Err(error) => error,
        };
        if let Some(passed_over) = failures.comes(Instant::now()) {
            tracing::warn!(passed_over, "the ownership cannot be won yet: {error}");
        }
        tokio::time::sleep(RETRY).await;
    }
}
