//! One project: its parts, put together, and the tree that supervises them.
//!
//! The parts outlive their actors: handles find the next incarnation, the read models stay.

mod agents;
mod births;
mod breaker;
mod cancellation;
mod last_use;
mod orphaned_leases;

use std::sync::Arc;

use futures_util::FutureExt as _;
use loom_protocol::work::Reason;
use loom_protocol::{ProjectId, Timestamp, WireError, names};

pub use self::last_use::LastUse;
use crate::actor_name::ActorName;
use crate::agent_registry::{AgentChange, AgentDirectory, AgentRegistryArgs, AgentRegistryHandle};
use crate::born_agents::BornAgents;
use crate::clock::Clock;
use crate::dlq_retrier::{DeadLetters, DlqMsg, DlqRetrier, DlqRetrierArgs, DlqRetrierHandle};
use crate::events::EventHub;
use crate::gc_reaper::{GcReaper, GcReaperArgs, GcReaperHandle, GcReaperMsg, Withhold};
use crate::leases::Leases;
use crate::liveness::{AppliedPositions, BarrierParts, DeliveryBarrier, InFlight, StallGuard};
use crate::nats::connection::Nats;
use crate::nats::dead_letters::LetterStore;
use crate::nats::error::StoreError;
use crate::nats::kv::Bucket;
use crate::nats::ledger_store::LedgerStore;
use crate::nats::owner::Ownership;
use crate::nats::store_guard::StoreGuard;
use crate::settings::{AgentSettings, DlqSettings, SupervisionSettings, WorkSettings};
use crate::shared_agents::SharedAgents;
use crate::stores::Stores;
use crate::supervision::{ActorHandle, ChildSpec, Jitter, TreeSpec};
use crate::target_manager::{
    BirthTerms, TargetDirectory, TargetManager, TargetManagerArgs, TargetManagerHandle, TargetMsg,
};
use crate::work_dispatcher::{
    DispatcherMsg, StreamError, WorkDispatcher, WorkDispatcherArgs, WorkDispatcherHandle,
    ensure_stream, reports_consumer,
};
use crate::work_ledger::{LedgerMsg, ReadModel, WorkLedger, WorkLedgerArgs, WorkLedgerHandle};

/// How long the agents bucket may take to be read before orphaned leases are looked for.
pub(crate) const READY_WITHIN: std::time::Duration = std::time::Duration::from_mins(1);

/// How long the opening of a project waits until it is known whether the store is the right one.
const STORE_KNOWN_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// What every project of a coordinator has in common.
#[derive(Clone)]
pub struct Terms {
    /// The connection.
    pub nats: Nats,
    /// The clock.
    pub clock: Clock,
    /// `[agents]`
    pub agents: AgentSettings,
    /// `[work]`
    pub work: WorkSettings,
    /// `[dlq]`
    pub dlq: DlqSettings,
    /// `[supervision]`
    pub supervision: SupervisionSettings,
    /// Since when the clocks of all run at the earliest.
    pub grace: StallGuard,
    /// Spreads the pauses before a next attempt.
    pub jitter: Jitter,
    /// Who listens to events in this process.
    pub events: EventHub,
    /// The requests that are being applied, of every API.
    pub in_flight: InFlight,
    /// Which ownership this is.
    pub epoch: u64,
    /// Whether it lasts.
    pub ownership: Ownership,
    /// When it began, by the time of day.
    pub begun_at: Timestamp,
    /// What is read of the bucket in which existing clients keep the agents of all projects.
    pub shared_agents: SharedAgents,
    /// How many copies of each stream NATS keeps.
    pub replicas: usize,
    /// Which store this process works with.
    pub stores: Stores,
    /// How agents are started.
    pub births: BirthTerms,
}

/// The parts of a project.
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Who is there: the read side.
    pub agents: Arc<AgentDirectory>,
    /// Who is there: the actor.
    pub registry: AgentRegistryHandle,
    /// What is to be done: the read side.
    pub work: Arc<ReadModel>,
    /// What is to be done: the actor that writes.
    pub ledger: WorkLedgerHandle,
    /// Who does what: the actor that matches.
    pub dispatcher: WorkDispatcherHandle,
    /// Who is dead: the actor that judges.
    pub reaper: GcReaperHandle,
    /// To be passed before anybody is declared dead or late.
    pub barrier: DeliveryBarrier,
    /// What was given up: the read side.
    pub letters: Arc<DeadLetters>,
    /// What was given up: the actor.
    pub dlq: DlqRetrierHandle,
    /// Where agents can be started: the read side.
    pub targets: Arc<TargetDirectory>,
    /// Where agents can be started: the actor.
    pub target_manager: TargetManagerHandle,
    /// When it was last used.
    pub last_use: LastUse,
    pub(crate) clock: Clock,
    /// The bucket of its agents.
    pub(crate) entries: Bucket,
    /// How long an agent may be silent of which nothing is known.
    pub(crate) patience: std::time::Duration,
}

impl Project {
    /// Makes the project's resources where there are none, and its parts; nothing runs yet.
    pub async fn open(id: ProjectId, terms: &Terms) -> Result<(Self, TreeSpec), WireError> {
        let nats = &terms.nats;
        let guard = terms.stores.guard(&id);
        // Nothing is made in a store that is not the one that is worked with.
        for guard in [terms.stores.whole(), &guard] {
            let known = guard.settled_within(STORE_KNOWN_WITHIN).await;
            known?;
        }
        let work_stream = names::work_stream(&id);
        let made = ensure_stream(&nats.jetstream, &id, terms.replicas).await;
        let problem = match &made {
            Err(StreamError::Store(error)) if error.is_of_the_stream() => Some(error.reason()),
            _ => None,
        };
        guard.note_problem(&work_stream, problem.as_deref());
        made?;
        make_agents_bucket_of_a_new_one(&id, terms, &guard).await?;
        terms.shared_agents.opened(&id);
        let store = LedgerStore::open(&nats.jetstream, &id, terms.replicas, &guard)
            .await?
            .owned_by(&terms.ownership);
        let work = Arc::new(ReadModel::new(id.clone(), store));
        // What was begun under an ownership that is over says nothing of the one that came after it.
        if !terms.ownership.is_held() {
            let text =
                format!("project {id} cannot be started: this coordinator does not own just now");
            return Err(WireError::unavailable(
                text,
                std::time::Duration::from_secs(1),
            ));
        }
        terms.stores.opened(&id, &work);
        let agents = directory_of(&work, &terms.clock);
        let arrivals = AppliedPositions::new(&id);
        let barrier = DeliveryBarrier::new(BarrierParts {
            nats: nats.clone(),
            project: id.clone(),
            reports_consumer: reports_consumer(terms.epoch),
            in_flight: terms.in_flight.clone(),
            arrivals: arrivals.clone(),
            shared_agents: Arc::new(terms.shared_agents.clone()),
            grace: terms.grace.of_project(),
        });
        let named = |actor: ActorName| format!("{} of project {id}", actor.as_str());
        let ledger = WorkLedgerHandle::new(ActorHandle::new(named(ActorName::WorkLedger)));
        let dispatcher =
            WorkDispatcherHandle::new(ActorHandle::new(named(ActorName::WorkDispatcher)));

        let ledger_args = Arc::new(WorkLedgerArgs {
            read: work.clone(),
            nats: nats.clone(),
            clock: terms.clock.clone(),
            settings: terms.work.clone(),
            events: terms.events.clone(),
            epoch: terms.epoch,
            ownership: terms.ownership.clone(),
            grace: barrier.grace().clone(),
        });
        let leases = Leases::of(&work, &ledger);
        // The read model tells the directory: what listens there does not keep it alive.
        let (told, held, gives_back) = (dispatcher.clone(), Arc::downgrade(&work), ledger.clone());
        agents.changes().hook("project", move |(guid, change)| {
            told.agent_changed(*guid);
            if let (AgentChange::Gone, Some(work)) = (change, held.upgrade()) {
                Leases::of(&work, &gives_back).revoke_in_background(*guid, Reason::Released);
            }
        });
        let registry_args = AgentRegistryArgs {
            project: id.clone(),
            client: nats.client.clone(),
            jetstream: nats.jetstream.clone(),
            health: nats.store.clone(),
            replicas: terms.replicas,
            clock: terms.clock.clone(),
            settings: terms.agents.clone(),
            directory: agents.clone(),
            events: terms.events.clone(),
            arrivals,
            guard: guard.clone(),
            epoch: terms.epoch,
            begun_at: terms.begun_at,
            ownership: terms.ownership.clone(),
        };

        let registry = AgentRegistryHandle::new(&registry_args);
        let agents_bucket = names::agents_bucket(&id);
        let registry_entries = Bucket::new(&nats.jetstream, &agents_bucket, terms.replicas, &guard);
        let dispatcher_args = Arc::new(WorkDispatcherArgs {
            read: work.clone(),
            ledger: ledger.clone(),
            agents: agents.clone(),
            registry: registry.clone(),
            nats: nats.clone(),
            clock: terms.clock.clone(),
            settings: terms.work.clone(),
            replicas: terms.replicas,
            ownership: terms.ownership.clone(),
            epoch: terms.epoch,
            barrier: barrier.clone(),
            jitter: terms.jitter.clone(),
        });
        breaker::listen(&work, &registry, &terms.agents, &terms.clock);
        let reaper = GcReaperHandle::new(ActorHandle::new(named(ActorName::GcReaper)));
        let retention = terms.dlq.retention;
        let store = LetterStore::new(&nats.jetstream, &id, terms.replicas, retention, &guard)
            .owned_by(&terms.ownership);
        let letters = Arc::new(DeadLetters::new(store, &terms.dlq));
        let dlq = DlqRetrierHandle::new(ActorHandle::new(named(ActorName::DlqRetrier)));
        let dlq_args = Arc::new(DlqRetrierArgs {
            letters: letters.clone(),
            read: work.clone(),
            ledger: ledger.clone(),
            nats: nats.clone(),
            clock: terms.clock.clone(),
        });

        let targets = Arc::new(TargetDirectory::new(id.clone()));
        let target_manager = TargetManagerHandle::new(
            ActorHandle::new(named(ActorName::TargetManager)),
            terms.clock.clone(),
            targets.clone(),
            terms.births.clone(),
        );
        let target_args = Arc::new(TargetManagerArgs {
            project: id.clone(),
            directory: targets.clone(),
            nats: nats.clone(),
            replicas: terms.replicas,
            clock: terms.clock.clone(),
            events: terms.events.clone(),
            epoch: terms.epoch,
            ownership: terms.ownership.clone(),
            guard: guard.clone(),
            births: terms.births.clone(),
            jitter: terms.jitter.clone(),
            agents: agents.clone(),
            work: work.clone(),
            barrier: barrier.clone(),
            stale_after: terms.agents.stale_after,
            idle_grace: terms.agents.idle_grace,
            begun_at: terms.begun_at,
            opened_at: tokio::time::Instant::now(),
        });

        let reaper_args = Arc::new(GcReaperArgs {
            project: id.clone(),
            nats: nats.clone(),
            replicas: terms.replicas,
            clock: terms.clock.clone(),
            settings: terms.agents.clone(),
            directory: agents.clone(),
            registry: registry.clone(),
            work: work.clone(),
            leases,
            born: BornAgents::of(&targets, &target_manager),
            withhold: withhold_from(&dispatcher),
            barrier: barrier.clone(),
            epoch: terms.epoch,
            ownership: terms.ownership.clone(),
        });

        let supervision = &terms.supervision;
        let ledger_child = ChildSpec::actor(
            ActorName::WorkLedger.as_str(),
            ledger.actor().clone(),
            supervision.policy(ActorName::WorkLedger),
            move || (WorkLedger, ledger_args.clone()),
        )
        .loads_after_start()
        .drain_with(LedgerMsg::Drain);
        let registry_child =
            registry.child_spec(supervision.policy(ActorName::AgentRegistry), registry_args);
        let dispatcher_child = ChildSpec::actor(
            ActorName::WorkDispatcher.as_str(),
            dispatcher.actor().clone(),
            supervision.policy(ActorName::WorkDispatcher),
            move || (WorkDispatcher, dispatcher_args.clone()),
        )
        .drain_with(DispatcherMsg::Drain);
        let reaper_child = ChildSpec::actor(
            ActorName::GcReaper.as_str(),
            reaper.actor().clone(),
            supervision.policy(ActorName::GcReaper),
            move || (GcReaper, reaper_args.clone()),
        )
        .drain_with(GcReaperMsg::Drain);
        let dlq_child = ChildSpec::actor(
            ActorName::DlqRetrier.as_str(),
            dlq.actor().clone(),
            supervision.policy(ActorName::DlqRetrier),
            move || (DlqRetrier, dlq_args.clone()),
        )
        .drain_with(DlqMsg::Drain);
        let target_child = ChildSpec::actor(
            ActorName::TargetManager.as_str(),
            target_manager.actor().clone(),
            supervision.policy(ActorName::TargetManager),
            move || (TargetManager, target_args.clone()),
        )
        .loads_after_start()
        .drain_with(TargetMsg::Drain);
        let tree = TreeSpec::new(id.as_str(), supervision.project_policy())
            .child(ledger_child)
            .child(registry_child)
            .child(dispatcher_child)
            .child(reaper_child)
            .child(dlq_child)
            .child(target_child)
            .drain_order(
                [
                    ActorName::GcReaper,
                    ActorName::TargetManager,
                    ActorName::WorkDispatcher,
                    ActorName::DlqRetrier,
                    ActorName::WorkLedger,
                    ActorName::AgentRegistry,
                ]
                .map(ActorName::as_str),
            );
        let project = Self {
            entries: registry_entries,
            patience: terms.agents.reap_terms().allowance(None, false),
            id,
            agents,
            registry,
            work,
            ledger,
            dispatcher,
            reaper,
            barrier,
            letters,
            dlq,
            targets,
            target_manager,
            last_use: LastUse::default(),
            clock: terms.clock.clone(),
        };
        Ok((project, tree))
    }
}

/// A project that comes to life has a bucket of agents. Later on nobody but an agent that registers
/// by request makes it again: whoever destroyed it meant it. It comes before the ledger, whose
/// absence tells that the project is new, so that an interruption in between is made good.
async fn make_agents_bucket_of_a_new_one(
    id: &ProjectId,
    terms: &Terms,
    guard: &StoreGuard,
) -> Result<(), StoreError> {
    let nats = &terms.nats;
    let jetstream = &nats.jetstream;
    let bucket = |name: &str| Bucket::new(jetstream, name, terms.replicas, guard);
    if bucket(&names::work_bucket(id)).info().await?.is_none() {
        bucket(&names::agents_bucket(id)).ensure().await?;
    }
    Ok(())
}

/// How the dispatcher is asked to offer an idle agent nothing for a moment.
fn withhold_from(dispatcher: &WorkDispatcherHandle) -> Withhold {
    let dispatcher = dispatcher.clone();
    Arc::new(move |guid| {
        let dispatcher = dispatcher.clone();
        async move { dispatcher.withhold(guid).await }.boxed()
    })
}

/// Who is there, with how many leases each has: the read model of the ledger knows, and tells when that changes.
fn directory_of(work: &Arc<ReadModel>, clock: &Clock) -> Arc<AgentDirectory> {
    let asked = Arc::downgrade(work);
    let agents = AgentDirectory::with_leases(move |guid, set| {
        if let Some(work) = asked.upgrade() {
            work.with_lease_count(guid, set);
        }
    });
    let (counted, clock) = (agents.clone(), clock.clone());
    work.lease_changes().hook("agents", move |(guid, leases)| {
        counted.set_lease_count(*guid, *leases, clock.now());
    });
    agents
}
