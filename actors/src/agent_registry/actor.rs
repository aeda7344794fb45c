//! The actor: its messages, its state, and which verb each message is.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use loom_protocol::agent::{Agent, Directive, HeartbeatRequest, RegisterRequest};
use loom_protocol::event::ShutdownReason;
use loom_protocol::{AgentGuid, Timestamp, WireError};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::bucket_view::BucketView;
use super::entry_state::{InFlightWrite, PendingRequest};
use super::entry_states::EntryStates;
use super::fence::Fence;
use super::pauses::Pauses;
use super::shared::{SharedNews, SharedRefusal};
use super::writes::BOUNDS;
use super::{AgentRegistryArgs, heartbeats};
use crate::domain::agent::Terms;
use crate::keyed_writer::KeyedWriter;
use crate::liveness::Marker;
use crate::nats::error::StoreError;
use crate::nats::kv::{Bucket, Record, WatchEvent};

/// How many chunks of the watch may wait in the mailbox.
const CHUNKS_AHEAD: usize = 4;
/// The shortest time between two sweeps.
const SWEEP_MIN: Duration = Duration::from_millis(50);

/// The answer to a request.
pub(super) type Reply<T> = RpcReplyPort<Result<T, WireError>>;

/// An order to end, with everything decided.
#[derive(Debug, Clone)]
pub(super) struct ShutdownCommand {
    pub graceful: bool,
    pub grace: Duration,
    pub reason: String,
    /// What for: `idle-timeout` or `manual`.
    pub cause: ShutdownReason,
}

/// What the actor can be told.
pub(super) enum Msg {
    /// Answered when the bucket has been read.
    Ready { reply: RpcReplyPort<()> },
    /// Answered when it is durable.
    Register {
        guid: AgentGuid,
        request: Box<RegisterRequest>,
        reply: Reply<Agent>,
    },
    /// Answered when it is durable.
    Deregister { guid: AgentGuid, reply: Reply<()> },
    /// A heartbeat that the directory could not apply by itself.
    Heartbeat {
        heartbeat: HeartbeatRequest,
        reply: Reply<Vec<Directive>>,
    },
    /// The same, published instead of requested; the permit bounds how many wait here.
    HeartbeatHeard {
        heartbeat: HeartbeatRequest,
        _permit: OwnedSemaphorePermit,
    },
    /// Every heartbeat that was published before this marker has come before it.
    Marker(Marker),
    /// A request named an agent that is offline.
    SignOfLife { guid: AgentGuid, reply: Reply<()> },
    /// Answered when the order is given, not when it is obeyed.
    Shutdown {
        guid: AgentGuid,
        order: ShutdownCommand,
        reply: Reply<Agent>,
    },
    /// Whether the agent is offline now: not if it was heard of after `silent_since`.
    MarkOffline {
        guid: AgentGuid,
        silent_since: Timestamp,
        reply: Reply<bool>,
    },
    /// Whether the entry is gone now: not if the agent was heard of after `silent_since`. Answered
    /// when it is durable.
    Bury {
        guid: AgentGuid,
        silent_since: Timestamp,
        reply: Reply<bool>,
    },
    /// Nothing is offered before `until` to the agent and all who share its limit.
    Pause {
        guid: AgentGuid,
        until: Timestamp,
        reason: String,
        reply: Option<Reply<()>>,
    },
    /// The agent is taken out.
    Quarantine { guid: AgentGuid, reason: String },
    /// It is paused and quarantined no more.
    ReleaseFromQuarantine {
        guid: AgentGuid,
        reply: Reply<Agent>,
    },
    /// Timer. Ignored when `epoch` is stale.
    PauseOver { epoch: u64 },
    /// Publishes an order and repeats it until it is cleared.
    AddDirective {
        guid: AgentGuid,
        directive: Directive,
        reply: Reply<()>,
    },
    /// An order was obeyed or is void.
    ClearDirective {
        guid: AgentGuid,
        directive: Directive,
        reply: Reply<()>,
    },
    /// The watch has something; the permit bounds how much of it waits here.
    Bucket {
        event: WatchEvent,
        _permit: OwnedSemaphorePermit,
    },
    /// The bucket of all projects has something about agents of this one; answered with what could
    /// not be taken.
    Shared {
        news: Arc<[SharedNews]>,
        reply: RpcReplyPort<Vec<SharedRefusal>>,
    },
    /// Some agents have another number of items than was told.
    Recounted,
    /// Timer: that is told.
    CountsDue,
    /// A write that this actor began has ended.
    WriteEnded {
        guid: AgentGuid,
        outcome: Result<u64, StoreError>,
    },
    /// A reading that this actor began has ended.
    ReadEnded {
        guid: AgentGuid,
        outcome: Result<Option<Record>, StoreError>,
    },
    /// Timer.
    SweepDue,
    /// A task that must not end has ended.
    HelperEnded { helper: &'static str },
    /// Ends what is in flight, then answers.
    Drain { reply: RpcReplyPort<()> },
}

pub(super) struct State {
    pub me: ActorRef<Msg>,
    pub args: AgentRegistryArgs,
    pub bucket: Bucket,
    /// Whether anything may be written.
    pub fence: Fence,
    /// What is told, but for reads and writes of entries.
    pub tasks: JoinSet<()>,
    /// What is known of each entry.
    pub entries: EntryStates,
    /// What is to be done with each entry, and what is under way.
    pub writer: KeyedWriter<AgentGuid, PendingRequest, Msg, InFlightWrite>,
    /// What the watch has told of the bucket.
    pub bucket_view: BucketView,
    /// Requests that wait for the first reading.
    pub held: Vec<Msg>,
    /// Who is kept from work, and until when.
    pub pauses: Pauses,
}

/// The actor. Reached through [`AgentRegistryHandle`](super::AgentRegistryHandle).
pub(super) struct AgentRegistry;

impl Actor for AgentRegistry {
    type Msg = Msg;
    type State = State;
    type Arguments = AgentRegistryArgs;

    async fn pre_start(
        &self,
        me: ActorRef<Msg>,
        args: AgentRegistryArgs,
    ) -> Result<State, ActorProcessingErr> {
        let mut state = State {
            bucket: args.bucket(),
            fence: Fence::new(args.epoch, args.ownership.clone()),
            tasks: JoinSet::new(),
            entries: EntryStates::default(),
            writer: KeyedWriter::new(me.clone(), BOUNDS),
            bucket_view: BucketView::default(),
            held: Vec::new(),
            pauses: Pauses::of(&args.directory),
            me,
            args,
        };
        state.start_helpers();
        state.listen_to_counts();
        state.arm_pauses();
        state.arm_sweep();
        Ok(state)
    }

    async fn handle(
        &self,
        _me: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let Some(message) = state.hold_while_loading(message) else {
            return Ok(());
        };
        match message {
            Msg::Ready { reply } => answer(reply, ()),
            Msg::Register {
                guid,
                request,
                reply,
            } => state.register(guid, request, reply),
            Msg::Deregister { guid, reply } => state.deregister(guid, reply),
            Msg::Heartbeat { heartbeat, reply } => answer(reply, state.heartbeat(&heartbeat)),
            Msg::HeartbeatHeard { heartbeat, _permit } => state.heartbeat_heard(&heartbeat),
            Msg::Marker(marker) => state.marker(marker),
            Msg::SignOfLife { guid, reply } => answer(reply, state.sign_of_life(guid)),
            Msg::Shutdown { guid, order, reply } => {
                answer(reply, state.request_shutdown(guid, order));
            }
            Msg::MarkOffline {
                guid,
                silent_since,
                reply,
            } => answer(reply, state.mark_offline(guid, silent_since)),
            Msg::Bury {
                guid,
                silent_since,
                reply,
            } => state.bury(guid, silent_since, reply),
            Msg::Pause {
                guid,
                until,
                reason,
                reply,
            } => {
                let paused = state.pause(guid, until, &reason);
                if let Some(reply) = reply {
                    answer(reply, paused);
                }
            }
            Msg::Quarantine { guid, reason } => state.quarantine(guid, &reason),
            Msg::ReleaseFromQuarantine { guid, reply } => {
                answer(reply, state.release_from_quarantine(guid));
            }
            Msg::PauseOver { epoch } => state.pause_over(epoch),
            Msg::AddDirective {
                guid,
                directive,
                reply,
            } => answer(reply, state.add_directive(guid, &directive)),
            Msg::ClearDirective {
                guid,
                directive,
                reply,
            } => answer(reply, state.clear_directive(guid, &directive)),
            Msg::Bucket { event, _permit } => state.bucket_event(event),
            Msg::Shared { news, reply } => answer(reply, state.shared_news(&news)),
            Msg::Recounted => state.counts_begin_to_change(),
            Msg::CountsDue => state.tell_counts(),
            Msg::WriteEnded { guid, outcome } => state.write_ended(guid, outcome),
            Msg::ReadEnded { guid, outcome } => state.read_ended(guid, outcome),
            Msg::SweepDue => {
                state.sweep();
                state.arm_sweep();
            }
            Msg::HelperEnded { helper } => return Err(format!("{helper} has ended").into()),
            // What was asked, and what is not written yet, is written first.
            Msg::Drain { reply } => {
                state.writer.drain(reply);
                state.sweep();
            }
        }
        state.work_off();
        Ok(())
    }
}

/// Answers a port whose caller may have given up.
pub(super) fn answer<T: Send + 'static>(reply: RpcReplyPort<T>, value: T) {
    let _ = reply.send(value);
}

impl State {
    pub fn now(&self) -> Timestamp {
        self.args.clock.now()
    }

    /// Whether one of our own writes of an entry is under way.
    pub fn is_writing(&self, guid: AgentGuid) -> bool {
        let under_way = self.writer.under_way(&guid);
        under_way.is_some_and(|what| !matches!(what, InFlightWrite::Reading))
    }

    pub fn terms(&self) -> Terms<'_> {
        Terms {
            project: &self.args.project,
            heartbeat_every: self.args.settings.heartbeat_every,
            now: self.now(),
        }
    }

    /// Runs `work` beside the actor, for no longer than it lives; its outcome comes back as a
    /// message, and so does its panic.
    pub fn run<T: Send + 'static>(
        &mut self,
        work: impl Future<Output = T> + Send + 'static,
        outcome: impl FnOnce(Result<T, String>) -> Msg + Send + 'static,
    ) {
        let me = self.me.clone();
        self.tasks.spawn(async move {
            let ended = AssertUnwindSafe(work).catch_unwind().await;
            let ended = ended.map_err(|_| "its task panicked".to_owned());
            let _ = me.send_message(outcome(ended));
        });
    }

    /// Publishes something in the background; nobody waits for it.
    pub fn publish(&mut self, subject: String, payload: Vec<u8>) {
        let client = self.args.client.clone();
        self.tasks.spawn(async move {
            let published = client.publish(subject, payload.into());
            match tokio::time::timeout(Duration::from_secs(2), published).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "an order was not published"),
                Err(_) => tracing::debug!("an order was not published in time"),
            }
        });
    }

    fn start_helpers(&mut self) {
        let me = self.me.clone();
        let mut watch = self.bucket.watch();
        let watching = async move {
            let ahead = Arc::new(Semaphore::new(CHUNKS_AHEAD));
            loop {
                let event = watch.next().await;
                let Ok(permit) = Arc::clone(&ahead).acquire_owned().await else {
                    return;
                };
                let told = me.send_message(Msg::Bucket {
                    event,
                    _permit: permit,
                });
                if told.is_err() {
                    return;
                }
            }
        };
        self.run(watching, |_| Msg::HelperEnded {
            helper: "the watch of the agents bucket",
        });
        let listening = heartbeats::listen(self.me.clone(), self.args.clone());
        self.run(listening, |_| Msg::HelperEnded {
            helper: "the subscription to heartbeats",
        });
    }

    fn arm_sweep(&self) {
        let usual = self.args.settings.stale_after / 8;
        let pause = self
            .bucket_view
            .keeps_for()
            .map_or(usual, |age| usual.min(age / 8));
        let pause = SWEEP_MIN.max(pause);
        self.me.send_after(pause, || Msg::SweepDue);
    }
}
