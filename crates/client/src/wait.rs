//! Awaiting the end of work.
//!
//! Events tell at once, but may be lost; asking is sure, but slow. So both are done.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::stream::{self, SelectAll};
use futures_util::{FutureExt, StreamExt};
use loom_protocol::event::{Event, WorkEventKind};
use loom_protocol::work::{WorkItem, WorkResult, WorkStatus};
use loom_protocol::{Encoding, WorkId, names};
use tokio::time::Instant;

use crate::client::Client;
use crate::error::{ClientError, ErrorKind};

/// How an item ended, with the item.
#[derive(Debug, Clone)]
pub enum WorkOutcome {
    /// It is done; the item has the result.
    Completed(Box<WorkItem>),
    /// It was given up; the item has the error.
    Failed(Box<WorkItem>),
    /// It was called off.
    Cancelled(Box<WorkItem>),
}

impl WorkOutcome {
    /// The outcome of an item that has ended; `None` for another one.
    pub fn of(item: WorkItem) -> Option<Self> {
        match item.status {
            WorkStatus::Completed => Some(Self::Completed(Box::new(item))),
            WorkStatus::Failed => Some(Self::Failed(Box::new(item))),
            WorkStatus::Cancelled => Some(Self::Cancelled(Box::new(item))),
            _ => None,
        }
    }

    /// The item.
    pub const fn item(&self) -> &WorkItem {
        match self {
            Self::Completed(item) | Self::Failed(item) | Self::Cancelled(item) => item,
        }
    }

    /// Whether it is done.
    pub const fn is_completed(&self) -> bool {
        matches!(self, Self::Completed(_))
    }

    /// What it came to, if it is done.
    pub const fn result(&self) -> Option<&WorkResult> {
        self.item().result.as_ref()
    }
}

const POLL_FIRST: Duration = Duration::from_millis(200);
const POLL_MAX: Duration = Duration::from_secs(5);
const POLLS_IN_FLIGHT: usize = 16;

impl Client {
    /// Waits until an item has ended.
    ///
    /// # Errors
    /// [`ErrorKind::Deadline`] if it has not ended within `deadline`; `not-found` if there is no such
    /// item (any more).
    pub async fn wait(&self, id: WorkId, deadline: Duration) -> Result<WorkOutcome, ClientError> {
        let mut outcome = None;
        self.wait_all([id], deadline, |ended| outcome = Some(ended))
            .await?;
        outcome.ok_or_else(|| deadline_passed(1, deadline))
    }

    /// Waits until all of several items have ended, telling of each when it does.
    ///
    /// # Errors
    /// As [`Client::wait`]; what has ended by then has been told.
    pub async fn wait_all(
        &self,
        ids: impl IntoIterator<Item = WorkId>,
        deadline: Duration,
        mut on_end: impl FnMut(WorkOutcome),
    ) -> Result<(), ClientError> {
        let until = Instant::now() + deadline;
        let mut awaited: HashSet<WorkId> = ids.into_iter().collect();
        let mut endings = self.endings().await?;
        let mut pause = POLL_FIRST;
        loop {
            self.look_at(&mut awaited, None, until, &mut on_end).await?;
            let next_poll = (Instant::now() + pause).min(until);
            pause = (pause * 2).min(POLL_MAX);
            while !awaited.is_empty() {
                let told = tokio::select! {
                    told = endings.next() => told.flatten(),
                    () = tokio::time::sleep_until(next_poll) => break,
                };
                // One look for everything that was told in the meantime.
                let mut ended: Vec<WorkId> = told.into_iter().collect();
                while let Some(Some(told)) = endings.next().now_or_never() {
                    ended.extend(told);
                }
                ended.retain(|id| awaited.contains(id));
                if !ended.is_empty() {
                    self.look_at(&mut awaited, Some(ended), until, &mut on_end)
                        .await?;
                }
            }
            if awaited.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(deadline_passed(awaited.len(), deadline));
            }
        }
    }

    /// Asks for some of the awaited items, or all, and takes those that have ended off the list. An
    /// answer that does not come now will come with the next look.
    async fn look_at(
        &self,
        awaited: &mut HashSet<WorkId>,
        only: Option<Vec<WorkId>>,
        until: Instant,
        on_end: &mut impl FnMut(WorkOutcome),
    ) -> Result<(), ClientError> {
        let ids = only.unwrap_or_else(|| awaited.iter().copied().collect());
        let mut answers = stream::iter(ids)
            .map(|id| self.get(id))
            .buffer_unordered(POLLS_IN_FLIGHT);
        while let Ok(Some(answer)) = tokio::time::timeout_at(until, answers.next()).await {
            match answer {
                Ok(item) => {
                    let id = item.id;
                    if let Some(outcome) = WorkOutcome::of(item)
                        && awaited.remove(&id)
                    {
                        on_end(outcome);
                    }
                }
                Err(error) if error.is_transient() => {
                    tracing::debug!(%error, "awaiting work");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The ids of items as the events tell of their ends; `None` for an event that can't be read.
    async fn endings(
        &self,
    ) -> Result<SelectAll<impl futures_util::Stream<Item = Option<WorkId>> + Unpin>, ClientError>
    {
        let mut endings = SelectAll::new();
        for kind in [
            WorkEventKind::Completed,
            WorkEventKind::Failed,
            WorkEventKind::Cancelled,
        ] {
            let subject = names::event(self.project(), kind.as_str());
            let subscriber = self
                .nats()
                .subscribe(subject)
                .await
                .map_err(|e| ClientError::new(ErrorKind::Disconnected, e.to_string()))?;
            endings.push(subscriber.map(|message| {
                let encoding = Encoding::from_content_type(header_of(&message));
                match encoding.decode::<Event>(&message.payload) {
                    Ok(Event::Work(event)) => Some(event.work_id),
                    Ok(Event::Agent(_) | Event::Target(_) | Event::SpinUp(_)) | Err(_) => None,
                }
            }));
        }
        Ok(endings)
    }
}

fn header_of(message: &async_nats::Message) -> Option<&str> {
    crate::client::header(message, loom_protocol::codec::CONTENT_TYPE)
}

fn deadline_passed(left: usize, deadline: Duration) -> ClientError {
    let items = if left == 1 { "item has" } else { "items have" };
    ClientError::new(
        ErrorKind::Deadline,
        format!("{left} {items} not ended within {deadline:?}"),
    )
}
