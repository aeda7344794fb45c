//! The NATS door: requests on `coord.{project}.{resource}.{action}`, JSON or MessagePack.
//!
//! Each request has a task of its own, so that a slow one holds up nobody. At most so many are
//! under way as [`Service::admission`] allows; the next is refused with `overloaded`. A claim that
//! waits holds no permit: waiting claims have a bound of their own. In the order of their arrival
//! requests get a ticket, which they hold until they have been applied (`loom_actors::barrier`).
//!
//! # Who answers
//! The owner, in the queue group that its lease names (`loom_actors::nats::owner`): `loom`, or `loom-{epoch}` after
//! a takeover from a coordinator that may be frozen and still in `loom`. Then the server gives each request
//! (the barrier's too) to both groups, and the one in `loom` is nobody's loss: who goes on after the lease is over
//! drops, unread, what it was given meanwhile. Where nobody else has taken over, nobody else was given it: then
//! everything is answered with `unavailable` and the reason, so that its senders try again. The door closes when the
//! ownership is won again, or when another coordinator has it.

mod actions;
mod answer;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::service::endpoint::Endpoint;
use async_nats::service::error::Error as ServiceError;
use async_nats::service::{Request, Service as MicroService, ServiceExt as _};
use async_nats::{Client, Subject};
use futures_util::{FutureExt as _, StreamExt as _};
use loom_actors::nats::owner::Ownership;
use loom_actors::work_dispatcher::Admission;
use loom_protocol::codec::CONTENT_TYPE;
use loom_protocol::{Encoding, ErrorCode, WireError, names};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::service::Service;
use answer::{Answer, Done};

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
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl NatsApi {
    /// Opens the door: from now on requests are answered, and the service `loom` is announced.
    ///
    /// # Errors
    /// The subscription cannot be made.
    pub async fn open(
        client: Client,
        service: Service,
        queue_group: &str,
        ownership: Ownership,
    ) -> Result<Self, async_nats::Error> {
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
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let (permits, retry_after) = service.admission();
        let guard = Guard {
            client,
            service,
            ownership,
            permits: Arc::new(Semaphore::new(permits)),
            refusal: WireError::overloaded(
                format!("{permits} requests are under way already; try again"),
                retry_after,
            ),
        };
        confirm_subscriptions(&guard.client).await?;
        tasks.spawn(guard.serve(requests, tasks.clone(), closing.clone()));
        Ok(Self {
            announced,
            tasks,
            closing,
        })
    }

    /// Stays open after the ownership is over, so that everybody is told why nothing can be done, until `over`, or
    /// until another coordinator owns: then requests are that one's to answer.
    pub async fn outlast(self, ownership: Ownership, over: CancellationToken) {
        let taken = async {
            while ownership.is_nobody_elses().await {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        over.run_until_cancelled(taken).await;
        if tokio::time::timeout(CLOSE_WITHIN, self.close())
            .await
            .is_err()
        {
            tracing::debug!("requests of an ownership that is over are left without an answer");
        }
    }

    /// Takes no more requests, and waits for those under way.
    pub async fn close(self) {
        self.closing.cancel();
        if let Err(error) = self.announced.stop().await {
            tracing::debug!("the service could not be withdrawn: {error}");
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
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
    async fn serve(self, mut requests: Endpoint, tasks: TaskTracker, closing: CancellationToken) {
        let guard = Arc::new(self);
        let in_flight = guard.service.projects().terms().in_flight.clone();
        loop {
            let request = tokio::select! {
                request = requests.next() => request,
                () = closing.cancelled() => None,
            };
            let Some(request) = request else {
                break;
            };
            if !guard.ownership.is_held() {
                let given = std::iter::once(request).chain(there_already(&mut requests));
                tasks.spawn(guard.clone().turn_away(given.collect()));
                continue;
            }
            if in_flight.heard(&request.message.subject) {
                continue;
            }
            let ticket = in_flight.enter(&request.message.subject);
            let permit = guard.permits.clone().try_acquire_owned().ok();
            if permit.is_none() {
                in_flight.refused(&request.message.subject);
            }
            let admission = permit.map(|permit| Admission::new(permit, ticket));
            let guard = guard.clone();
            tasks.spawn(async move { guard.answer(request, admission).await });
        }
        if !guard.ownership.is_held() {
            let given = there_already(&mut requests).collect();
            tasks.spawn(guard.turn_away(given));
        }
    }

    /// Requests that were given to somebody whose ownership is over.
    async fn turn_away(self: Arc<Self>, given: Vec<Request>) {
        if given.is_empty() || !self.ownership.is_nobody_elses().await {
            return;
        }
        let text =
            "this coordinator stood still, and has to take its projects over again; try again";
        let error = WireError::unavailable(text, TAKEN_AGAIN_WITHIN);
        let error = self.service.explained(error);
        for request in given {
            self.send(request, Err(error.clone())).await;
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
        self.send(request, outcome).await;
    }

    async fn send(&self, request: Request, outcome: Result<Done, WireError>) {
        let message = &request.message;
        let Some(reply) = message.reply.clone() else {
            return;
        };
        let encoding = encoding_of(message);
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
            let most = self.client.server_info().max_payload;
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

fn encoding_of(message: &async_nats::Message) -> Encoding {
    let content_type = message.headers.as_ref().and_then(|h| h.get(CONTENT_TYPE));
    Encoding::from_content_type(content_type.map(async_nats::HeaderValue::as_str))
}

/// What has been delivered and not been taken yet.
fn there_already(requests: &mut Endpoint) -> impl Iterator<Item = Request> {
    std::iter::from_fn(|| requests.next().now_or_never().flatten())
}

/// Counts a refusal in the statistics of the micro service (`$SRV.STATS.loom`).
///
/// The client counts only what it answers itself, and its errors have no body, as ours have. So it
/// is given no place to answer to: it counts, and sends nothing.
async fn count(mut request: Request, refusal: ServiceError) {
    request.message.reply = Some(Subject::from_static(""));
    let _nothing_was_sent = request.respond(Err(refusal)).await;
}
