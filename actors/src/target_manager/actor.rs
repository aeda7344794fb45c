//! The actor: which of its jobs each message concerns, and what a change that has its outcome means for each.
//!
//! | job | its state |
//! |---|---|
//! | writing what is to be changed | [`ChangeQueue`] |
//! | seeing who is missing | [`Planner`] |
//! | having a start recorded | [`Plans`] |
//! | a start, from its record to the agent | [`Births`] |
//! | the agents that were born | [`LinkedAgents`] |
//! | looking whether agents could be started | [`Health`] |
//! | telling the mechanisms what stands at the targets | [`InUse`] |
//! | reading the bucket again | [`Following`] |
//!
//! A job changes its own state, and gives what is to be written to the [`ChangeQueue`], which is lent to each. What else it
//! needs comes as an argument, and what it means for another job goes back to the actor.

use std::sync::Arc;

use loom_protocol::event::SpinUpEventKind;
use loom_protocol::{SpinUpId, WireError};
use loom_supervision::Loading;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::args::TargetManagerArgs;
use super::birth_command::BirthCommand;
use super::births::Births;
use super::change::{Changed, Request};
use super::command::Command;
use super::discard::discard;
use super::env::Env;
use super::events::{is_not_told_as_started, tell_of, tell_of_start, tell_of_target};
use super::following::Following;
use super::health::Health;
use super::in_use::InUse;
use super::key::TargetKey;
use super::leftovers::tidy_what_is_left;
use super::linked::{LinkedAgents, end_agent, end_late, tidy_after};
use super::messages::{DoneMsg, Reply, TargetMsg};
use super::planning::Planner;
use super::plans::Plans;
use super::queue::{ChangeQueue, Job};
use super::tidying::tidy;

/// The actor.
pub struct TargetManager;

/// What one incarnation holds.
pub struct State {
    env: Env,
    queue: ChangeQueue,
    planner: Planner,
    plans: Plans,
    births: Births,
    linked: LinkedAgents,
    health: Health,
    in_use: InUse,
    following: Following,
    /// Until the bucket has been read.
    loading: Option<Loading>,
    was_loaded: bool,
}

impl Actor for TargetManager {
    type Msg = TargetMsg;
    type State = State;
    type Arguments = Arc<TargetManagerArgs>;

    async fn pre_start(
        &self,
        myself: ActorRef<TargetMsg>,
        args: Arc<TargetManagerArgs>,
    ) -> Result<State, ActorProcessingErr> {
        let env = Env::new(args, myself.clone());
        let (from, into) = (env.bucket.clone(), env.args.directory.clone());
        let load = move || {
            let (from, into) = (from.clone(), into.clone());
            async move { from.read_into(&into).await.map(drop) }
        };
        Ok(State {
            was_loaded: env.args.directory.is_loaded(),
            loading: Some(Loading::begin(&myself, load, TargetMsg::Loaded)),
            queue: ChangeQueue::new(&env),
            in_use: InUse::new(env.args.births.mechanisms.clone()),
            env,
            planner: Planner::default(),
            plans: Plans::default(),
            births: Births::default(),
            linked: LinkedAgents::default(),
            health: Health::default(),
            following: Following::default(),
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<TargetMsg>,
        message: TargetMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let State {
            env,
            queue,
            planner,
            plans,
            births,
            linked,
            health,
            following,
            ..
        } = state;
        match message {
            TargetMsg::Loaded(loaded) => {
                loaded?;
                state.loaded();
            }
            TargetMsg::CarryOut { request, reply } => state.take(request, reply),
            TargetMsg::Trigger { trigger, reply } => plans.trigger(env, queue, &trigger, reply),
            TargetMsg::EndAgent { order, reply } => {
                let _ = reply.send(end_agent(env, order));
            }
            TargetMsg::Discard { name, reply } => discard(env, name, reply),
            TargetMsg::Health(message) => health.heard(env, queue, message),
            TargetMsg::Order { request } => queue.order(request),
            TargetMsg::Launch { id, news } => births.heard_of(env, (plans, queue), id, news),
            TargetMsg::PlaceWanted { id } => births.begin_again(env, (plans, queue), id),
            TargetMsg::EndedWhatWasStarted { id, why, may_live } => {
                births.ended(env, queue, id, (why, may_live));
            }
            TargetMsg::Crossed { id, could_hear } => births.crossed(env, queue, id, could_hear),
            TargetMsg::BirthsDue { epoch } => births.time_is_over(env, epoch),
            TargetMsg::PlacesDue { epoch } => {
                if births.leave_places(epoch) {
                    planner.want_look(env);
                }
            }
            TargetMsg::AbsentDue { epoch } => linked.time_is_over(env, epoch),
            TargetMsg::AbsentCrossed { guid, could_hear } => {
                linked.crossed(env, queue, guid, could_hear);
            }
            TargetMsg::AgentOffline(guid) => linked.ask_after(env, queue, guid),
            TargetMsg::AgentGone(entry) => linked.gone(env, queue, &entry),
            TargetMsg::Departed { guid, born_by } => linked.departed(env, queue, guid, born_by),
            TargetMsg::LookWanted => planner.want_look(env),
            TargetMsg::LookDue { epoch } => planner.look_due(env, plans, queue, epoch),
            TargetMsg::Done(DoneMsg { key, outcome }) => state.settle(key, *outcome),
            TargetMsg::ReloadDue => following.reload(env),
            TargetMsg::Reloaded(read) => {
                if following.reloaded(env, read) {
                    state.take_over();
                }
            }
            TargetMsg::Drain(reply) => queue.drain(reply),
        }
        state.go_on();
        Ok(())
    }
}

impl State {
    /// Loading → ready.
    fn loaded(&mut self) {
        let Some(loading) = self.loading.take() else {
            return;
        };
        let env = &mut self.env;
        env.is_loaded = true;
        if self.was_loaded {
            // What the last incarnation wrote and did not live to tell.
            env.args.events.gap(Some(&env.args.project));
        }
        loading.finish();
        self.following.begin(env);
        self.planner.listen(env);
        self.take_over();
        tidy_what_is_left(&mut self.env);
    }

    /// The bucket has been read: what a crash has left in it is gone on with, and what it has lost is ended.
    fn take_over(&mut self) {
        self.recover();
        self.health.plan_all(&self.env);
    }

    fn recover(&mut self) {
        let (env, queue) = (&mut self.env, &mut self.queue);
        let all = env.args.directory.all_known();
        self.in_use
            .are_all(all.iter().map(|(_, known)| &known.record));
        self.births.end_unrecorded(env, &all);
        for (key, known) in &all {
            let record = &*known.record;
            for birth in &record.births {
                if !self.plans.contains(birth.operation.operation_id) {
                    self.births.take_over(env, queue, (*key, record), birth);
                }
            }
            for agent in &record.agents {
                self.births.linked(agent.operation_id);
                self.linked.expect_again(env, queue, agent.guid);
                let place = (*key, record);
                end_late(env, queue, place, agent.operation_id);
            }
        }
        self.planner.targets_changed(env);
    }

    /// What somebody else asks for is queued, or refused.
    fn take(&mut self, request: Arc<Request>, reply: Reply) {
        let may_write = self.env.may_write(&request.name);
        match may_write.and_then(|()| self.births.admit(&request.command)) {
            Ok(()) => self.queue.take(&self.env, request, reply),
            Err(refusal) => {
                let _ = reply.send(Err(refusal));
            }
        }
    }

    /// After each message: begins what can be begun, and arms the timers.
    fn go_on(&mut self) {
        self.queue.work_off();
        self.births.arm(&self.env);
        self.linked.arm(&self.env);
        self.health.arm(&self.env);
    }

    /// A change has its outcome: the directory takes it in, each job hears of it, and whoever waits is answered.
    fn settle(&mut self, key: TargetKey, outcome: Result<Changed, WireError>) {
        let Some(Job { request, reply }) = self.queue.finish(key) else {
            return;
        };
        // Between what leaves a record and the task that ends it the project does not fall asleep.
        let _under_way = self.env.args.directory.begin_tidying();
        if self.env.args.directory.take_suspicion() {
            self.following.reload(&self.env);
        }
        if let Ok(changed) = &outcome {
            self.apply(key, changed, &request.command);
        }
        if let Command::Birth { command, .. } = &request.command {
            match (command, &outcome) {
                (BirthCommand::Begin { birth, .. }, _) => {
                    self.begun(&request, birth.operation.operation_id, &outcome);
                }
                (_, Ok(changed)) => self.birth_changed(key, command, changed),
                (_, Err(error)) if reply.is_none() => {
                    let (env, starts) = (&mut self.env, (&mut self.plans, &self.queue));
                    let births = &mut self.births;
                    births.not_carried_out(env, starts, (&request, command), error);
                }
                (_, Err(_)) => {}
            }
        }
        if self.env.args.directory.take_found() {
            self.env.args.events.gap(Some(&self.env.args.project));
            self.recover();
        }
        if let Ok(changed) = outcome.as_ref()
            && changed.outcome.changed
        {
            self.planner.targets_changed(&self.env);
            self.health.applied(&self.env, key, changed);
        }
        if let Some(reply) = reply {
            let _ = reply.send(outcome.map(|changed| changed.outcome));
        }
        self.following.begin(&self.env);
    }

    fn apply(&mut self, key: TargetKey, changed: &Changed, command: &Command) {
        if !changed.outcome.changed {
            return;
        }
        let directory = &self.env.args.directory;
        // The end first: who looks for the operation finds it at every moment.
        if let Some(end) = &changed.end {
            directory.apply_end(end.clone());
        }
        match &changed.now {
            Some((record, revision)) => {
                directory.apply(key, record, *revision);
                self.in_use.is_so(record);
            }
            None => directory.forget(key),
        }
        tell_of_target(&self.env, changed, command);
    }

    /// Planned → launched, or not recorded.
    fn begun(&mut self, request: &Request, id: SpinUpId, outcome: &Result<Changed, WireError>) {
        let Some(planned) = self.plans.settle(id) else {
            return;
        };
        let (env, queue) = (&self.env, &mut self.queue);
        match outcome {
            Ok(changed) => {
                let Some((record, birth)) = changed.birth(id) else {
                    // By an incarnation before: its ticket is lost with it. Where somebody was expected of it, it is looked again.
                    self.recover();
                    return self.planner.look_later(&self.env);
                };
                tell_of(env, SpinUpEventKind::Triggered, record, &birth.operation);
                let place = (request.key, record);
                let (ticket, permit) = (planned.ticket, planned.permit);
                self.births.launch(env, queue, place, birth, ticket, permit);
            }
            Err(error) => {
                tracing::debug!(target = request.name, "no agent is started: {error}");
                self.planner.look_later(env);
            }
        }
    }

    /// What follows for the start, or the agent, that a command was about.
    fn birth_changed(&mut self, key: TargetKey, command: &BirthCommand, changed: &Changed) {
        let (env, queue, births) = (&mut self.env, &mut self.queue, &mut self.births);
        match command {
            BirthCommand::Begin { .. } => {}
            BirthCommand::EndLate { .. } => {
                if let Some(end) = &changed.end {
                    env.args.directory.apply_end(end.clone());
                }
            }
            BirthCommand::Started { id, .. } => {
                if changed.outcome.changed {
                    tell_of_start(env, SpinUpEventKind::Started, changed);
                }
                births.started(*id);
            }
            BirthCommand::BeginAgain { id, .. } => {
                let planned = self.plans.settle(*id);
                births.begun_again(env, queue, (*id, planned), changed);
            }
            BirthCommand::GiveUp { id, .. } => {
                births.given_up(env, *id, changed.end.as_deref());
                if changed.end.is_some() {
                    tell_of_start(env, SpinUpEventKind::Failed, changed);
                }
            }
            BirthCommand::RedeemLate { given_up, newborn } => {
                let id = given_up.operation.operation_id;
                if let Some((record, _)) = changed.now.as_ref().filter(|_| changed.outcome.changed)
                {
                    tell_of_start(env, SpinUpEventKind::Completed, changed);
                    births.registered(id);
                    end_late(env, queue, (key, record), id);
                    self.linked.expect(env, queue, newborn.guid);
                }
            }
            BirthCommand::Redeem { newborn, .. } => {
                if let Some(end) = &changed.end {
                    let id = end.operation.operation_id;
                    if is_not_told_as_started(changed, id) {
                        // The agent was quicker than whoever started it.
                        tell_of_start(env, SpinUpEventKind::Started, changed);
                    }
                    tell_of_start(env, SpinUpEventKind::Completed, changed);
                    births.registered(id);
                    self.linked.expect(env, queue, newborn.guid);
                }
            }
            BirthCommand::Settle { end, .. } => {
                if let Some(guid) = end.operation.agent_guid {
                    self.linked.expect(env, queue, guid);
                } else if let Some((record, _)) = &changed.now
                    && let Ok(mechanism) = env.args.births.mechanisms.of(&record.target)
                {
                    let (id, reference) = (end.operation.operation_id, end.reference.clone());
                    env.spawn_tidying(tidy(mechanism, id, reference));
                }
            }
            BirthCommand::Unlink { guid, .. } => {
                let before = changed.before.as_ref();
                if let Some(before) = before.filter(|_| changed.outcome.changed)
                    && let Some(agent) = before.agents.iter().find(|agent| agent.guid == *guid)
                {
                    tidy_after(env, before, agent);
                }
            }
        }
    }
}
