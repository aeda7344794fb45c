//! The actor: its messages, its state, and which verb each message is.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use loom_protocol::gc::{GcAgent, GcReport};
use loom_protocol::{AgentGuid, ProjectId, WireError};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::grave_index::GraveIndex;
use super::graveyard::Graveyard;
use super::reap_action::ReapAction;
use crate::agent_registry::{AgentChange, AgentDirectory, AgentRegistryHandle};
use crate::born_agents::BornAgents;
use crate::clock::Clock;
use crate::deadline_queue::DeadlineQueue;
use crate::domain::reaping::ReapTerms;
use crate::leases::Leases;
use crate::liveness::DeliveryBarrier;
use crate::nats::connection::Nats;
use crate::nats::owner::Ownership;
use crate::settings::AgentSettings;
use crate::work_ledger::ReadModel;

/// What the reaper needs to run.
#[derive(Clone)]
pub struct GcReaperArgs {
    /// The project.
    pub project: ProjectId,
    /// The connection.
    pub nats: Nats,
    /// How many copies of the graveyard NATS keeps.
    pub replicas: usize,
    /// The time of day.
    pub clock: Clock,
    /// `[agents]`
    pub settings: AgentSettings,
    /// Who is there.
    pub directory: Arc<AgentDirectory>,
    /// Who marks, buries and orders.
    pub registry: AgentRegistryHandle,
    /// Who holds what, and what is pending.
    pub work: Arc<ReadModel>,
    /// How leases are taken back.
    pub leases: Leases,
    /// Which agents were born from targets, and how their processes are ended.
    pub born: BornAgents,
    /// What is asked before an idle agent is told to go.
    pub withhold: Withhold,
    /// What has to be passed before a verdict.
    pub barrier: DeliveryBarrier,
    /// Which ownership this is.
    pub epoch: u64,
    /// Whether it lasts: asked before a grave is laid or cleared.
    pub ownership: Ownership,
}

/// Has nothing offered to an agent for a moment: until when it may be told to go; `None` where it has something to do.
pub type Withhold =
    Arc<dyn Fn(AgentGuid) -> BoxFuture<'static, Result<Option<Instant>, WireError>> + Send + Sync>;

impl GcReaperArgs {
    pub(super) const fn terms(&self) -> ReapTerms {
        self.settings.reap_terms()
    }
}

/// What the reaper is told.
#[derive(Debug)]
pub enum GcReaperMsg {
    /// An agent came, went or changed.
    AgentChanged(AgentGuid, AgentChange),
    /// Timer. Ignored when `epoch` is stale.
    LookDue {
        /// Which timer.
        epoch: u64,
    },
    /// Everything that was delivered after these agents' deadlines has been applied.
    BarrierEnded(Vec<AgentGuid>),
    /// What was begun with an agent has ended.
    Done {
        /// With whom.
        guid: AgentGuid,
        /// What was done; `None`: nothing, it was heard of meanwhile. An error: it is tried again.
        outcome: Result<Option<Box<GcAgent>>, String>,
    },
    /// A request named an agent that is not registered.
    UnregisteredAgentHeard(AgentGuid),
    /// These have graves.
    GravesRead(Vec<AgentGuid>),
    /// Answer with what is to come.
    Preview(RpcReplyPort<GcReport>),
    /// Look at everybody now, and answer with what was done when all is done.
    Sweep(RpcReplyPort<GcReport>),
    /// Begin nothing more, and answer when what was begun has ended.
    Drain(RpcReplyPort<()>),
}

/// The actor.
pub struct GcReaper;

/// What one incarnation holds.
pub struct State {
    pub(super) args: Arc<GcReaperArgs>,
    pub(super) myself: ActorRef<GcReaperMsg>,
    pub(super) graveyard: Graveyard,
    tasks: JoinSet<()>,
    /// When to look at whom next.
    pub(super) deadlines: DeadlineQueue<AgentGuid>,
    /// Those who seem dead; judged when the barrier is passed.
    pub(super) suspects: BTreeSet<AgentGuid>,
    pub(super) is_crossing: bool,
    pub(super) in_progress: HashMap<AgentGuid, ReapAction>,
    /// Since when agents have an order to end.
    pub(super) ordered_at: HashMap<AgentGuid, Instant>,
    /// When the end of processes was ordered.
    pub(super) process_ended_at: HashMap<AgentGuid, Instant>,
    pub(super) graves: GraveIndex,
    /// Ghosts that were told a moment ago.
    pub(super) told: HashMap<AgentGuid, Instant>,
    pub(super) sweeps: Vec<RpcReplyPort<GcReport>>,
    /// What was done since the first of the sweeps began.
    pub(super) done: Vec<GcAgent>,
    draining: Option<Vec<RpcReplyPort<()>>>,
}

impl Actor for GcReaper {
    type Msg = GcReaperMsg;
    type State = State;
    type Arguments = Arc<GcReaperArgs>;

    async fn pre_start(
        &self,
        myself: ActorRef<GcReaperMsg>,
        args: Arc<GcReaperArgs>,
    ) -> Result<State, ActorProcessingErr> {
        let listener = myself.clone();
        args.directory
            .changes()
            .hook("gc-reaper", move |(guid, change)| {
                let _ = listener.cast(GcReaperMsg::AgentChanged(*guid, *change));
            });
        let retention = args.settings.grave_retention;
        let graveyard = Graveyard::of(
            &args.nats,
            &args.project,
            args.replicas,
            (args.epoch, &args.ownership),
            retention,
            args.work.guard(),
        );
        let mut state = State {
            graveyard,
            myself,
            args,
            tasks: JoinSet::new(),
            deadlines: DeadlineQueue::default(),
            suspects: BTreeSet::new(),
            is_crossing: false,
            in_progress: HashMap::new(),
            ordered_at: HashMap::new(),
            process_ended_at: HashMap::new(),
            graves: GraveIndex::new(retention),
            told: HashMap::new(),
            sweeps: Vec::new(),
            done: Vec::new(),
            draining: None,
        };
        let kept = state.graveyard.clone().keep();
        state.tasks.spawn(kept);
        state.read_graves();
        state.look_at_all();
        state.go_on();
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ActorRef<GcReaperMsg>,
        message: GcReaperMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            GcReaperMsg::AgentChanged(guid, change) => state.agent_changed(guid, change),
            GcReaperMsg::LookDue { epoch } => state.look_due(epoch),
            GcReaperMsg::BarrierEnded(suspects) => state.crossed(&suspects),
            GcReaperMsg::Done { guid, outcome } => state.done_with(guid, outcome),
            GcReaperMsg::UnregisteredAgentHeard(guid) => state.unregistered_agent_heard(guid),
            GcReaperMsg::GravesRead(graves) => {
                for guid in graves {
                    state.graves.insert(guid);
                }
            }
            GcReaperMsg::Preview(reply) => {
                let _ = reply.send(state.preview());
            }
            GcReaperMsg::Sweep(reply) => state.sweep(reply),
            GcReaperMsg::Drain(reply) => state.draining.get_or_insert_default().push(reply),
        }
        state.go_on();
        Ok(())
    }
}

impl State {
    pub(super) const fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Begins what the message has made necessary, and answers who has waited for its end.
    fn go_on(&mut self) {
        if self.is_draining() {
            self.suspects.clear();
        } else {
            self.begin_crossing();
            if let Some((epoch, at)) = self.deadlines.next_to_arm() {
                let wait = at.saturating_duration_since(Instant::now());
                self.myself
                    .send_after(wait, move || GcReaperMsg::LookDue { epoch });
            }
        }
        if self.is_at_rest() {
            self.answer_sweeps();
            for reply in self
                .draining
                .iter_mut()
                .flat_map(|waiting| waiting.drain(..))
            {
                let _ = reply.send(());
            }
        }
    }

    fn is_at_rest(&self) -> bool {
        let suspects = !self.suspects.is_empty() || self.is_crossing;
        self.in_progress.is_empty() && (!suspects || self.is_draining())
    }

    /// Runs something beside the actor, for no longer than it lives; its panic is `None`.
    pub(super) fn run<T: Send + 'static>(
        &mut self,
        work: impl Future<Output = T> + Send + 'static,
        outcome: impl FnOnce(Option<T>) -> Option<GcReaperMsg> + Send + 'static,
    ) {
        while self.tasks.try_join_next().is_some() {}
        let myself = self.myself.clone();
        self.tasks.spawn(async move {
            let ended = AssertUnwindSafe(work).catch_unwind().await;
            if let Some(message) = outcome(ended.ok()) {
                let _ = myself.cast(message);
            }
        });
    }
}
