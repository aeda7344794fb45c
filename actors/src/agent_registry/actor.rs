//! The actor: its state, and which verb each message is.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use loom_protocol::{AgentGuid, Timestamp};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::bucket_view::BucketView;
use super::entry_state::{InFlightWrite, PendingRequest};
use super::entry_states::EntryStates;
use super::fence::Fence;
use super::held_requests::HeldRequests;
use super::messages::{Msg, answer};
use super::outbox::Outbox;
use super::pauses::Pauses;
use super::{AgentRegistryArgs, MAX_AGENTS, heartbeats};
use crate::domain::agent::Terms;
use crate::keyed_writer::{Bounds, KeyedWriter};
use crate::nats::kv::Bucket;
use crate::repetition::Repetition;

/// How many reads and writes are under way at once, and how many requests wait for one entry: of all entries no more than that
/// comes to.
pub(super) const BOUNDS: Bounds = Bounds {
    tasks: 256,
    requests_of_a_key: 16,
    requests: 16 * MAX_AGENTS,
};
/// How many chunks of the watch may wait in the mailbox.
const CHUNKS_AHEAD: usize = 4;
/// The shortest time between two sweeps.
const SWEEP_MIN: Duration = Duration::from_millis(50);

pub(super) struct State {
    pub me: ActorRef<Msg>,
    pub args: Arc<AgentRegistryArgs>,
    pub bucket: Bucket,
    /// Whether anything may be written.
    pub fence: Fence,
    /// What listens to the bucket and to heartbeats.
    helpers: JoinSet<()>,
    /// What is published to agents.
    pub outbox: Outbox,
    /// What is known of each entry.
    pub entries: EntryStates,
    /// What is to be done with each entry, and what is under way.
    pub writer: KeyedWriter<AgentGuid, PendingRequest, Msg, InFlightWrite>,
    /// What the watch has told of the bucket.
    pub bucket_view: BucketView,
    /// Requests that wait for the first reading.
    pub held: HeldRequests,
    /// Who is kept from work, and until when.
    pub pauses: Pauses,
    /// How often the store refused a write since that was logged.
    pub refusals: Repetition,
    /// The timer of the next sweep is set: it is while anything is known of any entry.
    is_sweep_armed: bool,
}

/// The actor. Reached through [`AgentRegistryHandle`](super::AgentRegistryHandle).
pub(super) struct AgentRegistry;

impl Actor for AgentRegistry {
    type Msg = Msg;
    type State = State;
    type Arguments = Arc<AgentRegistryArgs>;

    async fn pre_start(
        &self,
        me: ActorRef<Msg>,
        args: Arc<AgentRegistryArgs>,
    ) -> Result<State, ActorProcessingErr> {
        let mut state = State {
            bucket: args.bucket(),
            fence: Fence::new(args.epoch, args.ownership.clone()),
            helpers: JoinSet::new(),
            outbox: Outbox::new(args.client.clone(), args.project.clone()),
            entries: EntryStates::default(),
            writer: KeyedWriter::new(me.clone(), BOUNDS),
            bucket_view: BucketView::default(),
            held: HeldRequests::default(),
            pauses: Pauses::of(&args.directory),
            refusals: Repetition::default(),
            is_sweep_armed: false,
            me,
            args,
        };
        state.start_helpers();
        state.listen_to_counts();
        state.arm_pauses();
        Ok(state)
    }

    async fn handle(
        &self,
        _me: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let Some(message) = state
            .held
            .keep_while_loading(&state.args.directory, message)
        else {
            return Ok(());
        };
        match message {
            Msg::Ready { reply } => answer(reply, ()),
            Msg::Register {
                guid,
                registration,
                reply,
            } => state.register(guid, registration, reply),
            Msg::Deregister { guid, reply } => state.deregister(guid, reply),
            Msg::Heartbeat { heartbeat, reply } => answer(reply, state.heartbeat(&heartbeat)),
            Msg::PublishedHeartbeat { heartbeat, _permit } => state.published_heartbeat(&heartbeat),
            Msg::Marker(marker) => state.marker(marker),
            Msg::SignOfLife { guid, reply } => answer(reply, state.sign_of_life(guid)),
            Msg::Shutdown { guid, order, reply } => {
                answer(reply, state.request_shutdown(guid, order));
            }
            Msg::SendHome {
                guid,
                order,
                before,
                reply,
            } => answer(reply, state.scale_in_if_idle(guid, order, before)),
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
            Msg::CountsDue => state.notify_counts(),
            Msg::WriteEnded { guid, outcome } => state.write_ended(guid, outcome),
            Msg::ReadEnded { guid, outcome } => state.read_ended(guid, outcome),
            Msg::SweepDue => {
                state.is_sweep_armed = false;
                state.sweep();
            }
            Msg::HelperEnded { helper } => return Err(format!("{helper} has ended").into()),
            // What was asked, and what is not written yet, is written first.
            Msg::Drain { reply } => {
                state.writer.drain(reply);
                state.sweep();
            }
        }
        state.work_off();
        state.arm_sweep();
        Ok(())
    }
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

    /// Runs a helper beside the actor, for no longer than it lives. That it has ended, or panicked, is a defect.
    fn start_helper(
        &mut self,
        helper: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let me = self.me.clone();
        self.helpers.spawn(async move {
            let _ = AssertUnwindSafe(work).catch_unwind().await;
            let _ = me.send_message(Msg::HelperEnded { helper });
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
        self.start_helper("the watch of the agents bucket", watching);
        let listening = heartbeats::listen(self.me.clone(), self.args.clone());
        self.start_helper("the subscription to heartbeats", listening);
    }

    /// An empty registry has nothing to sweep, and no timer.
    fn arm_sweep(&mut self) {
        if self.is_sweep_armed || self.entries.is_empty() {
            return;
        }
        self.is_sweep_armed = true;
        let usual = self.args.settings.stale_after / 8;
        let pause = self
            .bucket_view
            .keeps_for()
            .map_or(usual, |age| usual.min(age / 8));
        let pause = SWEEP_MIN.max(pause);
        self.me.send_after(pause, || Msg::SweepDue);
    }
}
