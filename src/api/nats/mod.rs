//! The NATS door: requests on `coord.{project}.{resource}.{action}`, JSON or MessagePack.
//!
//! Each request has a task of its own, so that a slow one holds up nobody. At most so many are
//! under way as [`Service::admission`] allows; the next is refused with `overloaded`. A claim that
//! waits holds no permit: waiting claims have a bound of their own. In the order of their arrival
//! requests get a ticket, which they hold until they have been applied (`loom_actors::barrier`), and work
//! that is given and what agents say is handed to its project: each goes on in its task from the first thing on that it has to wait for.
//!
//! # Who answers
//! The owner, in the queue group of its ownership, `loom-{epoch}` (`loom_actors::nats::owner`). A former owner that is
//! frozen is still in its own: the server gives each request (the barrier's too) to both, and a copy is nobody's loss:
//! who goes on after the lease is over drops, unread, what it was given meanwhile. Where nobody else has taken over,
//! nobody else was given it: then everything is answered with `unavailable` and the reason, so that its senders try again.
//! The API closes when another coordinator owns; when the ownership is won again, the next one takes over from it
//! (`handover.rs`).

mod actions;
mod answer;
mod handover;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::service::endpoint::Endpoint;
use async_nats::service::error::Error as ServiceError;
use async_nats::service::{Request, Service as MicroService, ServiceExt as _};
use async_nats::{Client, Message, Subject};
use futures_util::{FutureExt as _, StreamExt as _};
use loom_actors::nats::owner::Ownership;
use loom_actors::work_dispatcher::Admission;
use loom_protocol::codec::CONTENT_TYPE;
use loom_protocol::verbs::{Addressed, Role};
use loom_protocol::{Encoding, ErrorCode, WireError, names};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, unconstrained};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::service::{LARGE_BODY, Service};
use answer::{Answer, Done};
pub use handover::FormerApi;
use handover::Requests;

const CONFIRM_WITHIN: Duration = Duration::from_secs(5);
/// How often a door whose ownership is over looks whether another coordinator owns.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long what is under way may take when a door closes whose ownership is over.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// How long it takes to win an ownership again that nobody else has.
const TAKEN_AGAIN_WITHIN: Duration = Duration::from_millis(100);

/// The open door.
pub struct NatsApi {
    announced: MicroService,
    guard: Arc<Guard>,
    tasks: TaskTracker,
    closing: CancellationToken,
    serving: JoinHandle<Requests<Endpoint>>,
}

impl NatsApi {
    /// Opens the door: from now on requests are answered, and the service `loom` is announced. What a former one of this
    /// process was given and has not read is answered too.
    ///
    /// # Errors
    /// The subscription cannot be made. The former one is closed then.
    pub async fn open(
        client: Client,
        service: Service,
        queue_group: &str,
        ownership: Ownership,
        former: Option<FormerApi>,
    ) -> Result<Self, async_nats::Error> {
        let former = match former {
            Some(former) => Some(former.withdrawn().await),
            None => None,
        };
        let (announced, own) = match subscribe(&client, queue_group).await {
            Ok(subscribed) => subscribed,
            Err(error) => {
                if let Some(former) = former {
                    former.close().await;
                }
                return Err(error);
            }
        };
        let left = match former {
            Some(former) => former.unsubscribe().await,
            None => Vec::new(),
        };
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let (permits, retry_after) = service.admission();
        let guard = Arc::new(Guard {
            client,
            service,
            ownership,
            permits: Arc::new(Semaphore::new(permits)),
            refusal: WireError::overloaded(
                format!("{permits} requests are under way already; try again"),
                retry_after,
            ),
        });
        let requests = Requests::new(own, left);
        let serving = guard
            .clone()
            .serve(requests, tasks.clone(), closing.clone());
        Ok(Self {
            announced,
            guard,
            serving: tasks.spawn(serving),
            tasks,
            closing,
        })
    }

    /// Stays open after the ownership is over, so that everybody is told why nothing can be done, until `over`: then it
    /// is there for the next one. `None`: another coordinator owns, whose the requests are now, and it has closed.
    pub async fn outlast(self, ownership: Ownership, over: CancellationToken) -> Option<FormerApi> {
        let taken = async {
            while ownership.is_nobody_elses().await {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if over.run_until_cancelled(taken).await.is_none() {
            return Some(self.stop_reading().await);
        }
        self.stop_reading().await.close_soon().await;
        None
    }

    /// Takes no more requests, and waits for those under way.
    pub async fn close(self) {
        self.stop_reading().await.close().await;
    }

    async fn stop_reading(self) -> FormerApi {
        self.closing.cancel();
        let requests = self.serving.await;
        if let Err(error) = &requests {
            tracing::error!("the reading of requests met a defect: {error}");
        }
        FormerApi {
            announced: Some(self.announced),
            guard: self.guard,
            tasks: self.tasks,
            requests: requests.ok(),
        }
    }
}

async fn subscribe(
    client: &Client,
    queue_group: &str,
) -> Result<(MicroService, Endpoint), async_nats::Error> {
    let announced = client
        .service_builder()
        .description("Loom coordinates fleets of AI coding agents")
        .queue_group(queue_group)
        .start("loom", env!("CARGO_PKG_VERSION"))
        .await?;
    let requests = announced
        .endpoint_builder()
        .name("coord")
        .queue_group(queue_group)
        .add(names::ALL_REQUESTS)
        .await?;
    confirm_subscriptions(client).await?;
    Ok((announced, requests))
}

/// Waits until the server has taken over what was subscribed to before: a message to oneself comes back after that.
async fn confirm_subscriptions(client: &Client) -> Result<(), async_nats::Error> {
    let inbox = client.new_inbox();
    let mut own = client.subscribe(inbox.clone()).await?;
    client.publish(inbox, "".into()).await?;
    tokio::time::timeout(CONFIRM_WITHIN, own.next()).await?;
    Ok(())
}

/// Lets requests in.
struct Guard {
    client: Client,
    service: Service,
    ownership: Ownership,
    permits: Arc<Semaphore>,
    refusal: WireError,
}

impl Guard {
    async fn serve(
        self: Arc<Self>,
        mut requests: Requests<Endpoint>,
        tasks: TaskTracker,
        closing: CancellationToken,
    ) -> Requests<Endpoint> {
        let in_flight = self.service.projects().terms().in_flight.clone();
        loop {
            let request = tokio::select! {
                request = requests.next() => request,
                () = closing.cancelled() => None,
            };
            let Some(request) = request else {
                return requests;
            };
            if !self.ownership.is_held() {
                let given = std::iter::once(request).chain(requests.there_already());
                let given = given.map(|request| request.message).collect();
                tasks.spawn(self.clone().turn_away(given));
                continue;
            }
            if in_flight.heard(&request.message.subject) {
                continue;
            }
            let ticket = in_flight.enter(&request.message.subject);
            let permit = self.permits.clone().try_acquire_owned().ok();
            if permit.is_none() {
                in_flight.refused(&request.message.subject);
            }
            let admission = permit.map(|permit| Admission::new(permit, ticket));
            let (guard, in_order) = (self.clone(), keeps_its_place(&request));
            let mut answering = Box::pin(async move { guard.answer(request, admission).await });
            let answered = in_order && unconstrained(answering.as_mut()).now_or_never().is_some();
            if !answered {
                tasks.spawn(answering);
            }
        }
    }

    /// Requests that were given to an API that takes none any more: its ownership is over, or its process ends.
    async fn turn_away(self: Arc<Self>, given: Vec<Message>) {
        if given.is_empty() {
            return;
        }
        let text = if self.ownership.is_held() {
            "this coordinator ends and takes no more requests; try again"
        } else if self.ownership.is_nobody_elses().await {
            "this coordinator stood still, and has to take its projects over again; try again"
        } else {
            return;
        };
        let error = WireError::unavailable(text, TAKEN_AGAIN_WITHIN);
        let error = self.service.explained(error);
        for message in given {
            let Answer { headers, payload } = Answer::of(Err(error.clone()), encoding_of(&message));
            let Some(reply) = message.reply else {
                continue;
            };
            let sent = self.client.publish_with_headers(reply, headers, payload);
            if let Err(error) = sent.await {
                tracing::debug!("a request was not turned away: {error}");
            }
        }
    }

    async fn answer(&self, request: Request, admission: Option<Admission>) {
        let message = &request.message;
        if message.reply.is_none() {
            tracing::debug!(subject = %message.subject, "a request without a reply subject is dropped");
            return;
        }
        let encoding = encoding_of(message);
        let outcome = match admission {
            None => Err(self.refusal.clone()),
            Some(admission) => {
                let work =
                    actions::carry_out(&self.service, &self.client, message, encoding, admission);
                AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
                    Err(WireError::new(
                        ErrorCode::Internal,
                        "the coordinator met a defect of its own with this request; please report it",
                    ))
                })
            }
        };
        let outcome = outcome.map_err(|error| self.service.explained(error));
        self.send(request, encoding, outcome).await;
    }

    async fn send(&self, request: Request, encoding: Encoding, outcome: Result<Done, WireError>) {
        let message = &request.message;
        let Some(reply) = message.reply.clone() else {
            return;
        };
        let refusal = outcome.as_ref().err().map(|error| ServiceError {
            status: error.code.to_string(),
            code: usize::from(error.code.status()),
        });
        let Answer { headers, payload } = Answer::of(outcome, encoding);
        let size = payload.len();
        let mut sent = if refusal.is_none() {
            request.respond_with_headers(Ok(payload), headers).await
        } else {
            let sending = self
                .client
                .publish_with_headers(reply.clone(), headers, payload);
            sending.await
        };
        if let Err(error) = &sent
            && error.kind() == PublishErrorKind::MaxPayloadExceeded
        {
            let most = self.client.max_payload();
            let Answer { headers, payload } = Answer::too_large(size, most, encoding);
            sent = self
                .client
                .publish_with_headers(reply, headers, payload)
                .await;
        }
        if let Err(error) = sent {
            tracing::debug!(subject = %message.subject, "an answer was not sent: {error}");
        }
        if let Some(refusal) = refusal {
            count(request, refusal).await;
        }
    }
}

fn encoding_of(message: &Message) -> Encoding {
    let content_type = message.headers.as_ref().and_then(|h| h.get(CONTENT_TYPE));
    Encoding::from_content_type(content_type.map(async_nats::HeaderValue::as_str))
}

/// Whether a request is handed to its project before the next one is looked at: work that is given, and what agents say.
/// Listings, sums and what is done to many things at once take long, as does the reading of a large body.
fn keeps_its_place(request: &Request) -> bool {
    let message = &request.message;
    let addressed = Addressed::read(&message.subject);
    let role = addressed.map(|addressed| addressed.verb.row().role);
    let changes = matches!(role, Some(Role::Submit | Role::Work));
    changes && message.payload.len() < LARGE_BODY
}

/// Counts a refusal in the statistics of the micro service (`$SRV.STATS.loom`).
///
/// The client counts only what it answers itself, and its errors have no body, as ours have. So it
/// is given no place to answer to: it counts, and sends nothing.
async fn count(mut request: Request, refusal: ServiceError) {
    request.message.reply = Some(Subject::from_static(""));
    let _nothing_was_sent = request.respond(Err(refusal)).await;
}
