//! The actor: claims come in, items become ready, the two are brought together.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use loom_protocol::agent::AgentStatus;
use loom_protocol::work::WorkStatus;
use loom_protocol::{AgentGuid, WorkId};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::claims::{ClaimError, ClaimOrder, ClaimOutcome, ClaimWants, Claims, OpenClaim};
use super::intake::{self, Intake};
use super::queue::PendingQueue;
use super::slots::Slots;
use super::timers::{Due, Timers};
use crate::agent_registry::{AgentDirectory, AgentEntry};
use crate::clock::Clock;
use crate::domain::work::{Command, Holder};
use crate::nats::connection::Nats;
use crate::settings::WorkSettings;
use crate::work_ledger::{
    Applied, Header, ItemChange, LeaseInfo, LedgerError, Operation, ReadModel, WorkLedgerHandle,
};

/// How long an item that was released is not offered to the same agent.
const HOLD_OFF: Duration = Duration::from_secs(30);
/// How long a cancelled item keeps its agent's slot, if the agent does not say that it stopped.
const STOP_GRACE: Duration = Duration::from_secs(30);

/// What the dispatcher needs to run.
#[derive(Clone)]
pub struct WorkDispatcherArgs {
    /// The read side of the ledger.
    pub read: Arc<ReadModel>,
    /// The ledger, which writes.
    pub ledger: WorkLedgerHandle,
    /// Who is there.
    pub agents: Arc<AgentDirectory>,
    /// The connection.
    pub nats: Nats,
    /// The clock.
    pub clock: Clock,
    /// Defaults of items.
    pub settings: WorkSettings,
    /// How many copies of the stream NATS keeps.
    pub replicas: usize,
    /// Which ownership this is: part of the consumers' names.
    pub epoch: u64,
}

/// What the dispatcher is told.
#[derive(Debug)]
pub enum DispatcherMsg {
    /// An agent wants work. Answered when there is some, or when its wait is over.
    Claim {
        /// What it wants.
        order: Arc<ClaimOrder>,
        /// To whom.
        reply: RpcReplyPort<ClaimOutcome>,
    },
    /// The read model has taken a write over.
    ItemChanged(Box<ItemChange>),
    /// An agent came, went or changed.
    AgentChanged(AgentGuid),
    /// An agent has stopped a cancelled item: its slot is free.
    Stopped {
        /// The agent.
        guid: AgentGuid,
        /// The item.
        id: WorkId,
    },
    /// Assignments have their outcomes; `None` where the ledger died.
    Assigned {
        /// For which claim.
        claim: u64,
        /// Which items.
        ids: Vec<WorkId>,
        /// What came of them, in the same order.
        outcomes: Option<Vec<Result<Applied, LedgerError>>>,
    },
    /// How many pending items are served before this one, of those with the same needs?
    Ahead {
        /// The item.
        header: Box<Header>,
        /// To whom.
        reply: RpcReplyPort<usize>,
    },
    /// Timer. Ignored when `epoch` is stale.
    TimerDue {
        /// Which timer.
        epoch: u64,
    },
    /// Answer every waiting claim, take no more.
    Drain(RpcReplyPort<()>),
}

/// The actor.
pub struct WorkDispatcher;

/// What one incarnation holds.
pub struct State {
    args: WorkDispatcherArgs,
    myself: ActorRef<DispatcherMsg>,
    tasks: JoinSet<()>,
    queue: PendingQueue,
    claims: Claims,
    slots: Slots,
    timers: Timers,
    draining: bool,
}

impl Actor for WorkDispatcher {
    type Msg = DispatcherMsg;
    type State = State;
    type Arguments = WorkDispatcherArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<DispatcherMsg>,
        args: WorkDispatcherArgs,
    ) -> Result<State, ActorProcessingErr> {
        intake::ensure_stream(&args.nats.jetstream, args.read.project(), args.replicas).await?;
        let listener = myself.clone();
        args.read.listen(move |change| {
            let _ = listener.cast(DispatcherMsg::ItemChanged(Box::new(change)));
        });
        let now = args.clock.now();
        let mut queue = PendingQueue::default();
        args.read.for_each_pending(|header| {
            queue.push(header, now);
        });
        for (guid, leases) in args.read.lease_counts() {
            args.agents
                .set_lease_count(guid, u32::try_from(leases).unwrap_or(u32::MAX), now);
        }
        let mut tasks = JoinSet::new();
        Intake::new(&args).spawn_into(&mut tasks);
        let mut state = State {
            args,
            myself,
            tasks,
            queue,
            claims: Claims::default(),
            slots: Slots::default(),
            timers: Timers::default(),
            draining: false,
        };
        state.arm_held();
        state.arm();
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ActorRef<DispatcherMsg>,
        message: DispatcherMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            DispatcherMsg::Claim { order, reply } => state.claim(&order, reply),
            DispatcherMsg::ItemChanged(change) => state.item_changed(&change),
            DispatcherMsg::AgentChanged(guid) => state.agent_changed(guid),
            DispatcherMsg::Stopped { guid, id } => {
                state.slots.stopped(guid, id);
                state.ask_again(guid);
            }
            DispatcherMsg::Assigned {
                claim,
                ids,
                outcomes,
            } => state.assigned(claim, &ids, outcomes),
            DispatcherMsg::Ahead { header, reply } => {
                let _ = reply.send(state.queue.ahead_of(&header, 10_000));
            }
            DispatcherMsg::TimerDue { epoch } => state.timer_due(epoch),
            DispatcherMsg::Drain(reply) => state.drain(reply),
        }
        state.arm();
        Ok(())
    }
}

impl State {
    fn claim(&mut self, order: &ClaimOrder, reply: RpcReplyPort<ClaimOutcome>) {
        let guid = order.guid;
        let Some(agent) = self.args.agents.get(guid) else {
            let _ = reply.send(Err(ClaimError::NotRegistered(guid)));
            return;
        };
        let given: Vec<LeaseInfo> = self
            .args
            .read
            .leases_of(guid)
            .into_iter()
            .filter(|lease| lease.claim_id.as_deref() == Some(&order.claim_id))
            .collect();
        if !given.is_empty() {
            self.give_again(given, reply);
            return;
        }
        if let Some(open) = self.claims.named(guid, &order.claim_id) {
            self.claims.replace_reply(open, reply);
            return;
        }
        if self.draining {
            let _ = reply.send(Ok(Vec::new()));
            return;
        }
        let claim = self.claims.open(OpenClaim {
            order: order.clone(),
            reply,
            wants: wants(&agent, order),
        });
        self.fill_or_park(claim);
    }

    /// The answer to this claim got lost: the same items once more.
    fn give_again(&mut self, leases: Vec<LeaseInfo>, reply: RpcReplyPort<ClaimOutcome>) {
        let read = self.args.read.clone();
        self.spawn(async move {
            let mut given = Vec::with_capacity(leases.len());
            for lease in leases {
                match read.record(lease.id).await {
                    Ok((record, revision)) if record.attempt == lease.attempt => {
                        given.push(Applied::already(record, revision));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        let _ = reply.send(Err(ClaimError::Ledger(error.into())));
                        return;
                    }
                }
            }
            given.sort_by_key(|applied| {
                let record = &applied.record;
                (Reverse(record.priority), record.created)
            });
            let _ = reply.send(Ok(given));
        });
    }

    /// Gives the claim what there is; where there is nothing, lets it wait, or answers it.
    fn fill_or_park(&mut self, claim: u64) {
        if self.fill(claim) {
            return;
        }
        let Some(open) = self.claims.get(claim) else {
            return;
        };
        let now = Instant::now();
        match open.order.wait_until.filter(|until| *until > now) {
            None => self.answer(claim, Ok(Vec::new())),
            Some(_) if self.claims.is_full() => self.answer(claim, Err(ClaimError::Overloaded)),
            Some(until) => {
                let has_slots = self.free_slots(open.order.guid) > 0;
                if let Some(before) = self.claims.park(claim) {
                    self.answer(before, Ok(Vec::new()));
                }
                if has_slots {
                    self.claims.listen(claim);
                }
                self.timers.add(until, Due::ClaimOver(claim));
            }
        }
    }

    /// Takes items out of the queue for a claim and has them assigned. False: there was nothing.
    fn fill(&mut self, claim: u64) -> bool {
        let Some(open) = self.claims.get(claim) else {
            return true;
        };
        let guid = open.order.guid;
        let Some(agent) = self.args.agents.get(guid) else {
            return false;
        };
        let most = open.order.max.min(self.free_slots(guid));
        let now = Instant::now();
        let mut ids = Vec::new();
        while ids.len() < most {
            let skip = |id| self.slots.is_held_off(guid, id, now);
            let Some(pick) = self.queue.best(open.wants.as_wants(), skip) else {
                break;
            };
            self.queue.take(&pick);
            ids.push(pick.id);
        }
        if ids.is_empty() {
            return false;
        }
        let command = Arc::new(Command::Assign {
            holder: holder(&agent),
            claim_id: Some(open.order.claim_id.clone()),
            start: open.order.start,
        });
        self.slots.assigning(guid, ids.len());
        self.claims.fill(claim);
        self.assign(claim, ids, &command);
        true
    }

    fn assign(&mut self, claim: u64, ids: Vec<WorkId>, command: &Arc<Command>) {
        let operations = ids
            .iter()
            .map(|id| Operation::Apply(*id, command.clone()))
            .collect();
        let answer = self.args.ledger.begin(operations);
        let myself = self.myself.clone();
        self.spawn(async move {
            let outcomes = match answer {
                Ok(answer) => answer.await.ok(),
                Err(_) => None,
            };
            let _ = myself.cast(DispatcherMsg::Assigned {
                claim,
                ids,
                outcomes,
            });
        });
    }

    fn assigned(
        &mut self,
        claim: u64,
        ids: &[WorkId],
        outcomes: Option<Vec<Result<Applied, LedgerError>>>,
    ) {
        let Some(guid) = self.claims.get(claim).map(|open| open.order.guid) else {
            return;
        };
        self.slots.assigned(guid, ids.len());
        let mut given = Vec::new();
        let mut failure = None;
        for outcome in outcomes.into_iter().flatten() {
            match outcome {
                Ok(applied) => given.push(applied),
                Err(LedgerError::Refused(_)) => {}
                Err(error) => failure = Some(error),
            }
        }
        for id in ids {
            if given.iter().all(|applied| applied.record.id != *id) {
                self.put_back(*id);
            }
        }
        match failure {
            _ if !given.is_empty() => self.answer(claim, Ok(given)),
            Some(error) => self.answer(claim, Err(error.into())),
            None => self.fill_or_park(claim),
        }
        self.ask_again(guid);
    }

    /// An assignment came to nothing: what the read model says now counts.
    fn put_back(&mut self, id: WorkId) {
        if let Some(header) = self.args.read.header(id)
            && header.status == WorkStatus::Pending
        {
            self.ready(&header);
        }
    }

    fn item_changed(&mut self, change: &ItemChange) {
        let header = &change.header;
        if header.status == WorkStatus::Pending {
            self.ready(header);
        } else {
            self.queue.remove(header);
        }
        if let Some(guid) = header.holder.filter(|_| header.status.is_leased()) {
            self.count_leases(guid);
        }
        if let Some(guid) = change.freed {
            self.count_leases(guid);
            if change.released {
                let until = Instant::now() + HOLD_OFF;
                self.slots.hold_off(guid, header.id, until);
                self.timers
                    .add(until, Due::AgentMayTakeMore(guid, header.id));
            }
            if header.status == WorkStatus::Cancelled {
                let until = Instant::now() + STOP_GRACE;
                self.slots.stopping(guid, header.id, until);
                self.timers
                    .add(until, Due::AgentMayTakeMore(guid, header.id));
            }
            self.ask_again(guid);
        }
    }

    /// An item can be served: whoever waits for one like it gets it.
    fn ready(&mut self, header: &Header) {
        if !self.queue.push(header, self.args.clock.now()) {
            self.arm_held();
            return;
        }
        self.offer(header);
    }

    fn offer(&mut self, header: &Header) {
        let now = Instant::now();
        let first = self.claims.first_for(&header.needs, |open| {
            !self.slots.is_held_off(open.order.guid, header.id, now)
        });
        if let Some(claim) = first {
            self.fill(claim);
        }
    }

    fn agent_changed(&mut self, guid: AgentGuid) {
        let Some(claim) = self.claims.parked_of(guid) else {
            return;
        };
        let agent = self.args.agents.get(guid);
        match (agent, self.claims.get(claim)) {
            (Some(agent), Some(open)) if agent.agent().status != AgentStatus::Offline => {
                let wants = wants(&agent, &open.order);
                self.claims.set_wants(claim, wants);
                self.ask_again(guid);
            }
            _ => self.answer(claim, Ok(Vec::new())),
        }
    }

    /// The agent's parked claim may be served now: it has a slot, or may take what it might not.
    fn ask_again(&mut self, guid: AgentGuid) {
        if let Some(claim) = self.claims.parked_of(guid)
            && self.free_slots(guid) > 0
            && !self.fill(claim)
        {
            self.claims.listen(claim);
        }
    }

    /// How many more items an agent may be given now.
    fn free_slots(&self, guid: AgentGuid) -> usize {
        let Some(agent) = self.args.agents.get(guid) else {
            return 0;
        };
        let agent = agent.agent();
        let takes_nothing = matches!(
            agent.status,
            AgentStatus::Paused | AgentStatus::Draining | AgentStatus::Quarantined
        );
        if takes_nothing {
            return 0;
        }
        let taken = self.args.read.lease_count(guid) + self.slots.taken(guid);
        (agent.max_concurrent_tasks as usize).saturating_sub(taken)
    }

    fn count_leases(&self, guid: AgentGuid) {
        let leases = u32::try_from(self.args.read.lease_count(guid)).unwrap_or(u32::MAX);
        self.args
            .agents
            .set_lease_count(guid, leases, self.args.clock.now());
    }

    fn answer(&mut self, claim: u64, outcome: ClaimOutcome) {
        if let Some(closed) = self.claims.close(claim) {
            let _ = closed.reply.send(outcome);
        }
    }

    fn timer_due(&mut self, epoch: u64) {
        let now = Instant::now();
        for due in self.timers.fired(epoch, now) {
            match due {
                Due::ClaimOver(claim) => {
                    let is_parked = self
                        .claims
                        .get(claim)
                        .is_some_and(|open| self.claims.parked_of(open.order.guid) == Some(claim));
                    if is_parked {
                        self.answer(claim, Ok(Vec::new()));
                    }
                }
                Due::Held => {
                    for header in self.queue.release_due(self.args.clock.now()) {
                        self.offer(&header);
                    }
                    self.arm_held();
                }
                Due::AgentMayTakeMore(guid, id) => {
                    self.slots.over(guid, id, now);
                    self.ask_again(guid);
                }
            }
        }
    }

    fn arm_held(&mut self) {
        if let Some(time) = self.queue.next_due() {
            let wait = time.since(self.args.clock.now());
            self.timers.add(Instant::now() + wait, Due::Held);
        }
    }

    fn arm(&mut self) {
        if let Some((epoch, at)) = self.timers.to_arm() {
            let wait = at.saturating_duration_since(Instant::now());
            self.myself
                .send_after(wait, move || DispatcherMsg::TimerDue { epoch });
        }
    }

    fn drain(&mut self, reply: RpcReplyPort<()>) {
        self.draining = true;
        for claim in self.claims.close_all() {
            let _ = claim.reply.send(Ok(Vec::new()));
        }
        self.tasks.abort_all();
        let _ = reply.send(());
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(task);
    }
}

fn wants(agent: &AgentEntry, order: &ClaimOrder) -> ClaimWants {
    let agent = agent.agent();
    let asked_for = |capability: &&String| {
        order
            .capabilities
            .as_ref()
            .is_none_or(|asked| asked.contains(capability))
    };
    ClaimWants {
        agent_type: agent.agent_type.clone(),
        capabilities: agent
            .capabilities
            .iter()
            .filter(asked_for)
            .cloned()
            .collect(),
        boundaries: agent.boundaries.clone(),
    }
}

fn holder(agent: &AgentEntry) -> Holder {
    let agent = agent.agent();
    Holder {
        guid: agent.guid,
        handle: agent.handle.clone(),
        agent_type: agent.agent_type.clone(),
        hostname: agent.hostname.clone(),
    }
}
