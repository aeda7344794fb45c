//! Published work and published reports, taken over from the stream into the ledger.

mod consumers;
mod fate;
mod message_id;
mod refused;
mod reports;
mod standing;
mod submissions;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, AckKind};
use futures_util::FutureExt as _;
use loom_protocol::work::Reason;
use loom_protocol::{
    AgentGuid, Encoding, ErrorCode, ProjectId, Timestamp, WireError, WorkId, names,
};
use tokio::task::JoinSet;

use self::consumers::{Access, Consumers};
use self::fate::{Fate, is_hopeless};
use self::message_id::message_id;
use self::refused::Refused;
use self::standing::{Foreign, Standing};
use super::args::WorkDispatcherArgs;
use super::stream::{QUEUE, REPORTS};
use crate::agent_registry::{AgentDirectory, AgentRegistryHandle};
use crate::clock::Clock;
use crate::domain::room::Room;
use crate::domain::work::{Defaults, WorkRecord};
use crate::liveness::DeliveryBarrier;
use crate::nats::connection::Nats;
use crate::nats::owner::Ownership;
use crate::nats::pull::{Interruption, Pull, PullTerms};
use crate::nats::server_clock::ServerClock;
use crate::settings::RetrySettings;
use crate::supervision::Jitter;
use crate::work_ledger::{Operation, WorkLedgerHandle};

/// How many messages are taken over together.
const BATCH: usize = 128;
/// How they are asked for. A request that got lost is known by two signs of life that are missing:
/// in a cluster that lost the consumer's leader published work waits for up to a minute; a reconnect is noticed at once.
const PULL: PullTerms = PullTerms {
    batch: BATCH,
    expires: Duration::from_mins(5),
    heartbeat: Duration::from_secs(30),
};
const RETRY: Duration = Duration::from_secs(1);
/// How long the agents may take to be read before that is waited for anew.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How much of a message that is given up stands in the log, in bytes.
const SHOWN_OF_POISON: usize = 1_024;
/// Counts reports of other runs of an agent than the registered one.
const IGNORED: &str = "loom_reports_ignored_total";

/// Says what is measured here, once for each recorder.
pub fn describe_meters() {
    metrics::describe_counter!(
        IGNORED,
        "Published reports of other runs of an agent than the registered one, which change nothing."
    );
}

/// What a published message asks for.
pub(super) enum Asked {
    /// This.
    For(Box<Operation>),
    /// It changes nothing.
    Nothing,
    /// Whether a report of this agent counts is not known yet.
    Unclear(AgentGuid),
}

impl Asked {
    pub(super) fn of(operation: Operation) -> Self {
        Self::For(Box::new(operation))
    }
}

/// Takes messages over, one kind after the other in its own task.
pub(super) struct Intake {
    pub(super) project: ProjectId,
    pub(super) nats: Nats,
    ledger: WorkLedgerHandle,
    pub(super) agents: Arc<AgentDirectory>,
    registry: AgentRegistryHandle,
    barrier: DeliveryBarrier,
    ownership: Ownership,
    pub(super) clock: Clock,
    /// The clock of the servers that have the stream.
    server_clock: ServerClock,
    pub(super) defaults: Defaults,
    pub(super) retry: RetrySettings,
    pub(super) jitter: Jitter,
    consumers: Consumers,
}

/// The tasks that take messages over; they end with it.
pub(super) struct RunningIntake(JoinSet<()>);

impl RunningIntake {
    /// Takes nothing more over.
    pub fn stop(&mut self) {
        self.0.abort_all();
    }
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
            barrier: args.barrier.clone(),
            ownership: args.ownership.clone(),
            clock: args.clock.clone(),
            server_clock: ServerClock::of(&args.clock),
            defaults: Defaults {
                max_attempts: args.settings.max_attempts,
            },
            retry: args.settings.retry.clone(),
            jitter: args.jitter.clone(),
            consumers: Consumers::new(args),
        }
    }

    /// Takes over what is published, until that is stopped.
    pub fn start(self) -> RunningIntake {
        let reports = vec![
            names::work_completed(&self.project),
            names::work_errors(&self.project),
        ];
        let queue = vec![names::queue_filter(&self.project)];
        let mut tasks = JoinSet::new();
        tasks.spawn(self.consumers.clone().keep_stream());
        // One for both: a task is as large as what it holds.
        let intake = Arc::new(self);
        tasks.spawn(intake.clone().run(REPORTS, reports));
        tasks.spawn(intake.run(QUEUE, queue));
        RunningIntake(tasks)
    }

    async fn run(self: Arc<Self>, kind: &'static str, filters: Vec<String>) {
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
            Box::pin(self.registry.ready(READY_WITHIN)).await?;
        }
        let stream = names::work_stream(&self.project);
        // What is rarely done is kept apart: a task is as large as what it may wait for, all the time.
        Box::pin(self.server_clock.ask(&self.nats.jetstream, &stream)).await?;
        let own = Box::pin(self.consumers.own(kind, filters, standing)).await?;
        let (consumer, shared) = match own {
            Access::Ours { consumer, shared } => (consumer, shared),
            Access::LeftTo(foreign) => return Ok(End::LeftTo(foreign)),
        };
        if kind == REPORTS {
            self.barrier.leave_reports(false);
        }
        if shared {
            Box::pin(standing.listen(&self.nats.client, &stream)).await;
        }
        let info = consumer.cached_info();
        let name = (stream.as_str(), info.name.as_str());
        let jetstream = &self.nats.jetstream;
        let mut messages = Pull::open(self.nats.listing.inbox(), jetstream, name, PULL).await?;
        drop(consumer);
        standing.is_ours();
        loop {
            // What is submitted waits in the stream while the store is short, so that ends can be written.
            if kind == QUEUE {
                self.nats.store.until_sound().await;
            }
            let chunk = tokio::select! {
                chunk = messages.next(BATCH) => chunk,
                () = standing.until_look(), if shared => {
                    match Box::pin(self.consumers.given_way(kind, filters, standing)).await? {
                        Some(foreign) => return Ok(End::LeftTo(foreign)),
                        None => continue,
                    }
                }
            };
            let batch = match chunk {
                Ok(batch) => batch,
                Err(Interruption::Gone) => return Ok(End::Interrupted),
                // What is not acknowledged comes again.
                Err(why) => {
                    tracing::debug!(project = %self.project, "published {kind}: {why}");
                    continue;
                }
            };
            Box::pin(async {
                let jetstream = &self.nats.jetstream;
                self.server_clock.ask_if_old(jetstream, &stream).await;
                self.take_over(batch, standing).await;
            })
            .await;
        }
    }

    async fn take_over(&self, messages: Vec<jetstream::Message>, standing: &mut Standing) {
        let mut asked: Vec<Asked> = messages
            .iter()
            .map(|message| {
                let sequence = sequence_of(message);
                if sequence.is_some_and(|it| standing.dealt.covers(&message.subject, it)) {
                    return Asked::Nothing;
                }
                self.asked(message)
            })
            .collect();
        if asked.iter().any(|asked| matches!(asked, Asked::Unclear(_))) {
            self.clear_up(&messages, &mut asked).await;
        }
        let (mut operations, mut places) = (Vec::with_capacity(messages.len()), Vec::new());
        for asked in asked {
            places.push(match asked {
                Asked::For(operation) => {
                    operations.push(*operation);
                    Ok(operations.len() - 1)
                }
                Asked::Nothing => Err(Fate::Ack),
                Asked::Unclear(_) => Err(Fate::Later),
            });
        }
        let outcomes = self.ledger.carry_out(operations).await;
        for (place, message) in places.into_iter().zip(&messages) {
            let (sequence, tries) = (sequence_of(message), &mut standing.tries);
            let fate = match (&outcomes, place) {
                (_, Err(fate)) => fate,
                (Ok(outcomes), Ok(place)) => match outcomes.get(place) {
                    Some(Err(error)) => tries.fate_of(error, &message.subject, sequence),
                    Some(Ok(_)) => Fate::Ack,
                    None => Fate::Later,
                },
                (Err(error), Ok(_)) => tries.fate_of(error, &message.subject, sequence),
            };
            let fate = match fate {
                Fate::GiveUp(why) => self.give_up(message, &why).await,
                fate => fate,
            };
            let kind = match fate {
                Fate::Ack => {
                    if let Some(sequence) = sequence {
                        standing.tries.over(sequence);
                    }
                    AckKind::Ack
                }
                Fate::Later | Fate::GiveUp(_) => AckKind::Nak(Some(RETRY)),
            };
            if let Err(error) = message.ack_with(kind).await {
                tracing::debug!(
                    "an acknowledgement was not sent, the message comes again: {error}"
                );
            }
        }
    }

    /// Reports of runs that have not registered, as far as is known: they change nothing if that is still so when
    /// all has been applied that was in the buckets of agents, and nobody else can have registered anybody.
    /// Those that stay unclear come again.
    async fn clear_up(&self, messages: &[jetstream::Message], asked: &mut [Asked]) {
        if let Err(why) = self.barrier.entries_applied().await {
            tracing::debug!(project = %self.project, "whose reports these are is not known yet: {why}");
            return;
        }
        let unclear = messages.iter().zip(asked);
        for (message, asked) in unclear.filter(|(_, asked)| matches!(asked, Asked::Unclear(_))) {
            *asked = match self.asked(message) {
                Asked::Unclear(guid) if self.ownership.is_held() => {
                    self.ignored(guid, "has not registered");
                    Asked::Nothing
                }
                asked => asked,
            };
        }
    }

    pub(super) fn ignored(&self, guid: AgentGuid, why: &str) {
        metrics::counter!(IGNORED, "project" => self.project.to_string()).increment(1);
        tracing::debug!(project = %self.project, %guid, "a published report changes nothing: its run of the agent {why}");
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
        let published = self.published(message);
        let refused = Refused {
            id: self.id_of(message),
            subject: &message.subject,
            reason,
            error,
        };
        refused.record(
            &message.payload,
            Room::of(self.nats.max_payload()).record(),
            published,
        )
    }

    /// When a message was published, by our clock.
    fn published(&self, message: &jetstream::Message) -> Timestamp {
        let published = message.info().map(|info| time_of(&info));
        published.map_or_else(|_| self.clock.now(), |at| self.server_clock.to_ours(at))
    }

    /// The id of an item that is made of a message: the same whenever that is delivered, and whatever is
    /// known of the server's clock by then.
    fn id_of(&self, message: &jetstream::Message) -> WorkId {
        let origin = message
            .info()
            .map(|info| (time_of(&info), info.stream_sequence));
        let (published, sequence) = origin.unwrap_or_else(|_| (self.clock.now(), 0));
        message_id(&self.project, published, sequence)
    }

    /// What a message asks for; of one that is unreadable or breaks a rule, that it is kept.
    fn asked(&self, message: &jetstream::Message) -> Asked {
        let subject = message.subject.as_str();
        let content_type = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(loom_protocol::codec::CONTENT_TYPE));
        let encoding =
            Encoding::from_content_type(content_type.map(async_nats::HeaderValue::as_str));
        let published = self.published(message);
        let asked = if subject == names::work_completed(&self.project) {
            self.completed(encoding, &message.payload, published)
        } else if subject == names::work_errors(&self.project) {
            self.failed(encoding, &message.payload, published)
        } else {
            let id = self.id_of(message);
            self.submitted(encoding, message, id, published)
                .map(Asked::of)
        };
        asked.unwrap_or_else(|(reason, error)| {
            tracing::warn!(subject, "a published message is refused: {error}");
            Asked::of(Operation::Create(Arc::new(
                self.refused(message, reason, error),
            )))
        })
    }
}

fn sequence_of(message: &jetstream::Message) -> Option<u64> {
    message.info().ok().map(|info| info.stream_sequence)
}

/// When the server stored a message, by its clock.
fn time_of(info: &jetstream::message::Info<'_>) -> Timestamp {
    let nanos = info.published.unix_timestamp_nanos() / 1_000_000;
    Timestamp::from_millis(i64::try_from(nanos).unwrap_or_default())
}

pub(super) fn poison(error: impl Into<WireError>) -> (Reason, WireError) {
    (Reason::Poison, error.into())
}
