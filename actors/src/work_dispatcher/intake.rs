//! Published work and published reports, taken over from the stream into the ledger.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, AckKind};
use futures_util::{FutureExt as _, StreamExt as _};
use loom_protocol::work::{
    CompletedReport, ErrorReport, RESERVED_FIELDS, Reason, SubmitRequest, Usage,
};
use loom_protocol::{Encoding, ErrorCode, ProjectId, Timestamp, WireError, WorkId, names};
use tokio::task::JoinSet;

use super::actor::WorkDispatcherArgs;
use super::consumers::{Access, Consumers};
use super::fate::{Fate, fate_of, is_hopeless};
use super::message_id::message_id;
use super::refused::Refused;
use super::standing::{Foreign, Standing};
use super::stream::REPORTS;
use crate::agent_registry::{AgentDirectory, AgentRegistryHandle};
use crate::barrier::Barrier;
use crate::clock::Clock;
use crate::domain::foreign::DealtWith;
use crate::domain::retry::Backoff;
use crate::domain::work::{self, Command, Defaults, Fence, WorkRecord};
use crate::nats::connection::Nats;
use crate::settings::RetrySettings;
use crate::supervision::Jitter;
use crate::work_ledger::{Operation, WorkLedgerHandle};

/// The kind of what is submitted by publishing.
const QUEUE: &str = "queue";
/// How many messages are taken over together.
const BATCH: usize = 128;
const RETRY: Duration = Duration::from_secs(1);
/// How long the agents may take to be read before that is waited for anew.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How much of a message that is given up stands in the log, in bytes.
const SHOWN_OF_POISON: usize = 1_024;

/// Takes messages over, one kind after the other in its own task.
#[derive(Clone)]
pub(super) struct Intake {
    project: ProjectId,
    nats: Nats,
    ledger: WorkLedgerHandle,
    agents: Arc<AgentDirectory>,
    registry: AgentRegistryHandle,
    clock: Clock,
    defaults: Defaults,
    retry: RetrySettings,
    jitter: Jitter,
    consumers: Consumers,
    barrier: Barrier,
}

/// Why no more is taken over for now.
enum End {
    /// The consumer gives nothing any more.
    Interrupted,
    /// Somebody else takes it.
    LeftTo(Foreign),
}

impl Intake {
    pub fn new(args: &WorkDispatcherArgs) -> Self {
        Self {
            project: args.read.project().clone(),
            nats: args.nats.clone(),
            ledger: args.ledger.clone(),
            agents: args.agents.clone(),
            registry: args.registry.clone(),
            clock: args.clock.clone(),
            defaults: Defaults {
                max_attempts: args.settings.max_attempts,
            },
            retry: args.settings.retry.clone(),
            jitter: args.jitter.clone(),
            consumers: Consumers::new(args),
            barrier: args.barrier.clone(),
        }
    }

    pub fn spawn_into(self, tasks: &mut JoinSet<()>) {
        let reports = vec![
            names::work_completed(&self.project),
            names::work_errors(&self.project),
        ];
        let queue = vec![names::queue_filter(&self.project)];
        tasks.spawn(self.consumers.clone().keep_stream());
        tasks.spawn(self.clone().run(REPORTS, reports));
        tasks.spawn(self.run(QUEUE, queue));
    }

    async fn run(self, kind: &'static str, filters: Vec<String>) {
        let mut standing = Standing::new(self.project.clone(), kind);
        loop {
            let consuming = AssertUnwindSafe(self.consume(kind, &filters, &mut standing));
            match consuming.catch_unwind().await {
                Ok(Ok(End::Interrupted)) => {}
                Ok(Ok(End::LeftTo(foreign))) => {
                    if kind == REPORTS {
                        self.barrier.leave_reports(true);
                    }
                    let stream = foreign.stream.clone();
                    standing.leave_to(foreign);
                    standing.listen(&self.nats.client, &stream).await;
                    standing.until_look().await;
                    continue;
                }
                Ok(Err(error)) => standing.failed(&error),
                // Nobody else would hear of it, and nothing published would be taken over any more.
                Err(_) => {
                    tracing::error!(project = %self.project, "taking over published {kind} met a defect, and begins anew; please report this");
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn consume(
        &self,
        kind: &str,
        filters: &[String],
        standing: &mut Standing,
    ) -> Result<End, async_nats::Error> {
        if kind == REPORTS {
            // Which runs of an agent were replaced is known by then.
            self.registry.ready(READY_WITHIN).await?;
        }
        let (consumer, shared) = match self.consumers.own(kind, filters, standing).await? {
            Access::Ours { consumer, shared } => (consumer, shared),
            Access::LeftTo(foreign) => return Ok(End::LeftTo(foreign)),
        };
        if kind == REPORTS {
            self.barrier.leave_reports(false);
        }
        if shared {
            let stream = names::work_stream(&self.project);
            standing.listen(&self.nats.client, &stream).await;
        }
        let mut messages = consumer
            .stream()
            .max_messages_per_batch(BATCH)
            .messages()
            .await?
            .ready_chunks(BATCH);
        standing.is_ours();
        loop {
            // What is submitted waits in the stream while the store is short, so that ends can be written.
            if kind == QUEUE {
                self.nats.store.until_sound().await;
            }
            let chunk = tokio::select! {
                chunk = messages.next() => chunk,
                () = standing.until_look(), if shared => {
                    match self.consumers.given_way(kind, filters, standing).await? {
                        Some(foreign) => return Ok(End::LeftTo(foreign)),
                        None => continue,
                    }
                }
            };
            let Some(chunk) = chunk else {
                return Ok(End::Interrupted);
            };
            let mut batch = Vec::with_capacity(chunk.len());
            for message in chunk {
                match message {
                    Ok(message) => batch.push(message),
                    Err(error) => tracing::debug!("published {kind}: {error}"),
                }
            }
            self.take_over(batch, &standing.dealt).await;
        }
    }

    async fn take_over(&self, messages: Vec<jetstream::Message>, dealt: &DealtWith) {
        let (mut operations, mut places) = (Vec::with_capacity(messages.len()), Vec::new());
        for message in &messages {
            let is_dealt_with = dealt.covers(&message.subject, self.origin(message).1);
            let operation = (!is_dealt_with).then(|| self.operation(message)).flatten();
            places.push(operation.is_some().then_some(operations.len()));
            operations.extend(operation);
        }
        let outcomes = self.ledger.carry_out(operations).await;
        for (place, message) in places.into_iter().zip(&messages) {
            let delivered = message.info().map_or(0, |info| info.delivered);
            let fate = match &outcomes {
                _ if place.is_none() => Fate::Ack,
                Ok(outcomes) => match place.and_then(|place| outcomes.get(place)) {
                    Some(Err(error)) => fate_of(error, &message.subject, delivered),
                    Some(Ok(_)) => Fate::Ack,
                    None => Fate::Later,
                },
                Err(error) => fate_of(error, &message.subject, delivered),
            };
            let fate = match fate {
                Fate::GiveUp(why) => self.give_up(message, &why).await,
                fate => fate,
            };
            let kind = match fate {
                Fate::Ack => AckKind::Ack,
                Fate::Later | Fate::GiveUp(_) => AckKind::Nak(Some(RETRY)),
            };
            if let Err(error) = message.ack_with(kind).await {
                tracing::debug!(
                    "an acknowledgement was not sent, the message comes again: {error}"
                );
            }
        }
    }

    /// A message that no repetition mends stays as a failed item with its bytes.
    async fn give_up(&self, message: &jetstream::Message, why: &str) -> Fate {
        let subject = message.subject.as_str();
        let shown = String::from_utf8_lossy(&message.payload);
        let shown = &shown[..shown.floor_char_boundary(SHOWN_OF_POISON)];
        tracing::error!(
            subject,
            bytes = message.payload.len(),
            payload = shown,
            "a published message cannot be dealt with and is given up: {why}"
        );
        let error = WireError::new(ErrorCode::Internal, why);
        let record = self.refused(message, Reason::Poison, error);
        let kept = self
            .ledger
            .carry_out(vec![Operation::Create(Arc::new(record))])
            .await
            .and_then(|outcomes| outcomes.into_iter().collect::<Result<Vec<_>, _>>());
        match kept {
            Err(error) if !is_hopeless(&error) => Fate::Later,
            _ => Fate::Ack,
        }
    }

    /// The failed item that keeps a message as it came.
    fn refused(
        &self,
        message: &jetstream::Message,
        reason: Reason,
        error: WireError,
    ) -> WorkRecord {
        let (published, sequence) = self.origin(message);
        let refused = Refused {
            id: message_id(&self.project, published, sequence),
            subject: &message.subject,
            reason,
            error,
        };
        refused.record(&message.payload, self.nats.room().record(), published)
    }

    /// When a message was published, and its place in the stream.
    fn origin(&self, message: &jetstream::Message) -> (Timestamp, u64) {
        message.info().map_or((self.clock.now(), 0), |info| {
            let nanos = info.published.unix_timestamp_nanos() / 1_000_000;
            let millis = i64::try_from(nanos).unwrap_or_default();
            (Timestamp::from_millis(millis), info.stream_sequence)
        })
    }

    /// What a message asks for; of one that is unreadable or breaks a rule, that it is kept. `None`: what
    /// it reports changes nothing.
    fn operation(&self, message: &jetstream::Message) -> Option<Operation> {
        let subject = message.subject.as_str();
        let content_type = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(loom_protocol::codec::CONTENT_TYPE));
        let encoding =
            Encoding::from_content_type(content_type.map(async_nats::HeaderValue::as_str));
        let (published, sequence) = self.origin(message);
        let asked = if subject == names::work_completed(&self.project) {
            self.completed(encoding, &message.payload, published)
        } else if subject == names::work_errors(&self.project) {
            self.failed(encoding, &message.payload, published)
        } else {
            let id = message_id(&self.project, published, sequence);
            self.submitted(encoding, message, id, published).map(Some)
        };
        asked.unwrap_or_else(|(reason, error)| {
            tracing::warn!(subject, "a published message is refused: {error}");
            Some(Operation::Create(Arc::new(
                self.refused(message, reason, error),
            )))
        })
    }

    fn completed(
        &self,
        encoding: Encoding,
        payload: &[u8],
        reported_at: Timestamp,
    ) -> Result<Option<Operation>, (Reason, WireError)> {
        let report: CompletedReport = encoding.decode_request(payload).map_err(poison)?;
        let run = report.instance_id.as_deref();
        if self.agents.is_replaced(report.agent_guid, run, reported_at) {
            return Ok(None);
        }
        self.agents.touch(report.agent_guid, self.clock.now());
        let by = Fence {
            guid: report.agent_guid,
            attempt: report.attempt,
            reported_at,
        };
        let result = work::accept_result(report.result.unwrap_or_default(), reported_at)
            .map_err(|error| (Reason::Rejected, error))?;
        // Nobody could be told to write another cost; the end counts without it.
        let usage = report.usage.filter(Usage::is_sound);
        let command = Command::Complete { by, result, usage };
        Ok(Some(Operation::Apply(
            report.work_item_id,
            Arc::new(command),
        )))
    }

    fn failed(
        &self,
        encoding: Encoding,
        payload: &[u8],
        reported_at: Timestamp,
    ) -> Result<Option<Operation>, (Reason, WireError)> {
        let report: ErrorReport = encoding.decode_request(payload).map_err(poison)?;
        let run = report.instance_id.as_deref();
        if self.agents.is_replaced(report.agent_guid, run, reported_at) {
            return Ok(None);
        }
        self.agents.touch(report.agent_guid, self.clock.now());
        let by = Fence {
            guid: report.agent_guid,
            attempt: report.attempt,
            reported_at,
        };
        // Nobody could be told that the others are not an agent's to give.
        let reason = report.reason.filter(|r| Reason::OF_FAILURE.contains(r));
        let failure = work::accept_failure(report.error, reason, self.backoff(), reported_at);
        let command = Command::Fail { by, failure };
        Ok(Some(Operation::Apply(
            report.work_item_id,
            Arc::new(command),
        )))
    }

    fn backoff(&self) -> Backoff {
        self.retry.backoff(self.jitter.next())
    }

    fn submitted(
        &self,
        encoding: Encoding,
        message: &jetstream::Message,
        message_id: WorkId,
        published: Timestamp,
    ) -> Result<Operation, (Reason, WireError)> {
        let capability = names::capability_of_queue(&message.subject);
        let mut request = Self::read_submission(encoding, message, capability.as_deref())?;
        request.id.get_or_insert_with(|| message_id.to_string());
        request
            .task_id
            .get_or_insert_with(|| message_id.to_string());
        request.offered_at.get_or_insert(published);
        // By the time of its publication: one that waited for us fails by its deadline, as any other does.
        let submission = work::accept(request, self.defaults, "queue", published)
            .and_then(|submission| submission.check_deadline(published).map(|()| submission))
            .map_err(|error| (Reason::Rejected, error))?;
        let room = self.nats.room();
        room.check(&submission.record, &self.project)
            .map_err(|error| (Reason::Rejected, error))?;
        Ok(Operation::Create(Arc::new(submission.record)))
    }

    fn read_submission(
        encoding: Encoding,
        message: &jetstream::Message,
        capability: Option<&str>,
    ) -> Result<SubmitRequest, (Reason, WireError)> {
        let mut reserved = None;
        let mut request: SubmitRequest = encoding
            .decode_noting(&message.payload, &mut |field| {
                if RESERVED_FIELDS.contains(&field.as_str()) {
                    reserved = Some(field);
                }
            })
            .map_err(poison)?;
        if let Some(field) = reserved {
            let text = format!("{field} is reserved and does not work yet; leave it out");
            return Err((Reason::Rejected, WireError::invalid(text)));
        }
        let Some(capability) = capability else {
            let text = "the last part of the subject is no capability";
            return Err((Reason::Rejected, WireError::invalid(text)));
        };
        if request.capability.is_empty() {
            capability.clone_into(&mut request.capability);
        }
        if request.capability != capability {
            let text = format!(
                "the item is of capability {:?}, but its subject of {capability:?}",
                request.capability
            );
            return Err((Reason::Rejected, WireError::invalid(text)));
        }
        Ok(request)
    }
}

fn poison(error: impl Into<WireError>) -> (Reason, WireError) {
    (Reason::Poison, error.into())
}
