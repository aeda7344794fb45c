//! The births of a project while they are under way: from the decision to the agent, or to the end of what was started.
//!
//! ```text
//! planned ── recorded ──► launched ── its agent registers ────────────────────────────► (gone; the agent is linked)
//!                            │ └─ birth_timeout ─► suspected ── nobody was unheard ─► ending ── ended ─► given up ─► (gone)
//!                            └──── the mechanism says that it is over ──────────────────┘
//! ```
//!
//! What was started is ended *before* the operation is decided: a crash in between finds it undecided, and does it once
//! more. An agent that registers while its start is being ended is told to try again: either it ends first, or the start
//! is given up by then, and it is born late where there is room.
//!
//! A start that this incarnation finds in the bucket is gone on with where the record says that it stands. So is one that
//! is found later: a former owner that stood still has its writes stored when it goes on, as long as nobody else has
//! written that record.
//!
//! | the bucket has | then |
//! |---|---|
//! | its end, and the record has it still | it leaves the record, with that end |
//! | a start without a reference | its mechanism is asked: it runs: its reference is recorded; surely not begun: begun again with a new ticket, as soon as there is a place for it; it cannot say, as of one that was recorded on another machine: it stands until its time is over |
//! | a start with a reference | its mechanism is asked: it runs: watched on, with the full time; it has ended: given up, with its output |
//! | the agent of a start, linked by somebody else | it is waited for no longer |
//! | not what this incarnation has begun, because it was destroyed | what was started is ended |

mod again;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use loom_protocol::target::{BirthTicket, SpinUpStatus, Target};
use loom_protocol::{ErrorCode, SpinUpId, WireError};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::birth_command::BirthCommand;
use super::change::Request;
use super::command::Command;
use super::directory::Known;
use super::env::Env;
use super::key::TargetKey;
use super::launching::{Beginning, LaunchNews};
use super::mechanism::Start;
use super::messages::{GivenUp, TargetMsg};
use super::places::Places;
use super::plans::Plans;
use super::queue::ChangeQueue;
use super::running::{Phase, Running};
use super::terms::StartPermit;
use super::tidying::{end_now, tidy};
use super::{ASK_AGAIN, Ended, Record, Reference};
use crate::deadline_queue::DeadlineQueue;
use crate::domain::targets::Birth;
use crate::liveness::BarrierOutcome;

/// All that are recorded and not decided.
#[derive(Default)]
pub(super) struct Births {
    running: HashMap<SpinUpId, Running>,
    /// Those whose agent has not registered.
    due: DeadlineQueue<SpinUpId>,
    places: Places,
}

impl Births {
    /// Recorded → launched, with the ticket that only this incarnation knows.
    pub fn launch(
        &mut self,
        env: &Env,
        queue: &mut ChangeQueue,
        (key, record): (TargetKey, &Record),
        birth: &Birth<Reference>,
        ticket: BirthTicket,
        permit: StartPermit,
    ) {
        let start = Start {
            project: env.args.project.clone(),
            operation: birth.operation.clone(),
            agent_type: birth.ticket.agent_type.clone(),
            capabilities: birth.ticket.capabilities.clone(),
            boundaries: birth.ticket.boundaries.clone(),
            ticket,
        };
        let beginning = Beginning::New(start.into());
        self.run(env, queue, (key, &record.target), birth, permit, beginning);
    }

    /// Found in the bucket → launched, or its end is taken over.
    pub fn take_over(
        &mut self,
        env: &Env,
        queue: &mut ChangeQueue,
        (key, record): (TargetKey, &Record),
        birth: &Birth<Reference>,
    ) {
        let id = birth.operation.operation_id;
        if self.running.contains_key(&id) {
            return;
        }
        let (target, births) = (&record.target, &env.args.births);
        if let Some(end) = env.args.directory.end_of(id) {
            let command = BirthCommand::Settle {
                end: Box::new((*end).clone()),
                cooldown: births.settings.cooldown,
            };
            let name = target.name.clone();
            let id = target.id;
            let command = Command::Birth { id, command };
            return queue.order(Request { key, name, command }.into());
        }
        let permit = births.limit.take_for_one_begun();
        let beginning = Beginning::Recorded {
            reference: birth.reference.clone(),
            place: birth.place.clone(),
        };
        self.run(env, queue, (key, target), birth, permit, beginning);
    }

    /// A start that is recorded is begun, or looked for.
    fn run(
        &mut self,
        env: &Env,
        queue: &mut ChangeQueue,
        place: (TargetKey, &Target),
        birth: &Birth<Reference>,
        permit: StartPermit,
        beginning: Beginning,
    ) {
        let id = birth.operation.operation_id;
        let (running, why_not) = Running::launched(env, place, birth, beginning);
        self.places.take(env, birth, permit);
        self.due.set(id, running.until());
        self.running.insert(id, running);
        if let Some(why_not) = why_not {
            self.give_up(env, queue, id, failed(why_not, None));
        }
    }

    /// A start has come to something.
    pub fn heard_of(
        &mut self,
        env: &Env,
        (plans, queue): (&mut Plans, &mut ChangeQueue),
        id: SpinUpId,
        news: LaunchNews,
    ) {
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        match news {
            LaunchNews::Started(reference) => {
                running.reference = Some(reference.clone());
                if running.phase != Phase::Ending {
                    self.order(queue, id, BirthCommand::Started { id, reference });
                }
            }
            LaunchNews::Said(text) => env.args.directory.note_said(id, text),
            // Whatever else is said of an agent that lives, or of what is being ended, changes nothing.
            _ if matches!(running.phase, Phase::Ending) => {}
            _ if running.phase == Phase::Born => self.registered(id),
            LaunchNews::NeverBegan => {
                // There is nobody to ask after any more.
                running.task = None;
                self.begin_again(env, (plans, queue), id);
            }
            LaunchNews::Over {
                error,
                output,
                may_live,
            } => {
                let why = failed(error, output);
                if may_live {
                    self.end(env, queue, id, why);
                } else {
                    self.give_up(env, queue, id, why);
                }
            }
            LaunchNews::NotOurs => {
                tracing::info!(%id, "no agent is started: this coordinator owns no longer");
                self.forget(id);
            }
        }
    }

    /// Launched, suspected → ending.
    fn end(&mut self, env: &Env, queue: &mut ChangeQueue, id: SpinUpId, why: GivenUp) {
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        running.phase = Phase::Ending;
        self.due.remove(&id);
        let Some(mechanism) = running.mechanism.clone() else {
            return self.give_up(env, queue, id, why);
        };
        let (reference, myself) = (running.reference.clone(), env.myself());
        // The one before is ended with this: a start under way is in doubt then, and ended with the rest.
        running.task = None;
        running.task = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let (why, may_live) = end_now(&*mechanism, id, reference, why).await;
            let _ = myself.cast(TargetMsg::EndedWhatWasStarted { id, why, may_live });
        })));
    }

    /// What was started has ended, or could not be ended: the operation is decided.
    pub fn ended(
        &mut self,
        env: &mut Env,
        queue: &mut ChangeQueue,
        id: SpinUpId,
        (why, may_live): (GivenUp, bool),
    ) {
        if may_live && let Some(running) = self.running.get(&id) {
            running.end_later(env, id);
        }
        self.give_up(env, queue, id, why);
    }

    /// Any → given up, once it is written.
    fn give_up(&mut self, env: &Env, queue: &mut ChangeQueue, id: SpinUpId, why: GivenUp) {
        if let Some(running) = self.running.get_mut(&id) {
            running.phase = Phase::Ending;
        }
        self.due.remove(&id);
        let command = BirthCommand::GiveUp {
            id,
            status: why.status,
            error: why.error,
            output: why.output,
            cooldown: env.args.births.settings.cooldown,
        };
        self.order(queue, id, command);
    }

    /// Gives a command of the actor's own about a start that is recorded.
    fn order(&self, queue: &mut ChangeQueue, id: SpinUpId, command: BirthCommand) {
        if let Some(running) = self.running.get(&id) {
            queue.order(running.request(command).into());
        }
    }

    /// Given up → (gone): its end is written, and what is kept of it is removed.
    pub fn given_up(&mut self, env: &mut Env, id: SpinUpId, end: Option<&Ended>) {
        let mechanism = self.forget(id).and_then(|running| running.mechanism);
        if let (Some(mechanism), Some(end)) = (mechanism, end) {
            env.spawn_tidying(tidy(mechanism, id, end.reference.clone()));
        }
    }

    /// Whether a ticket may be used just now.
    ///
    /// # Errors
    /// `unavailable`: its start is being ended.
    pub fn admit(&self, command: &Command) -> Result<(), WireError> {
        let Command::Birth {
            command: BirthCommand::Redeem { digest, .. },
            ..
        } = command
        else {
            return Ok(());
        };
        let mut running = self.running.values();
        if running.any(|running| running.phase == Phase::Ending && running.digest == *digest) {
            let text = "the start of this agent is being given up: no agent registered in time, and what was started is ended; try again in a moment";
            return Err(WireError::unavailable(text, ASK_AGAIN));
        }
        Ok(())
    }

    /// Its agent has registered: nothing more is done for the start, but what is needed to find the agent again.
    pub fn registered(&mut self, id: SpinUpId) {
        self.due.remove(&id);
        self.places.leave(id);
        if let Some(running) = self.running.get_mut(&id) {
            let is_just_born = running.phase != Phase::Born;
            if running.reference.is_none() && is_just_born && running.mechanism.is_some() {
                running.phase = Phase::Born;
            } else {
                self.running.remove(&id);
            }
        }
    }

    /// Its agent stands in the record, whoever wrote that: it is waited for no longer.
    pub fn linked(&mut self, id: SpinUpId) {
        if !self.is_born(id) {
            self.registered(id);
        }
    }

    /// Its reference is recorded: nothing more is known of it once its agent is born.
    pub fn started(&mut self, id: SpinUpId) {
        let running = self.running.get(&id);
        if running.is_some_and(|running| running.phase == Phase::Born) {
            self.running.remove(&id);
        }
    }

    fn forget(&mut self, id: SpinUpId) -> Option<Running> {
        self.due.remove(&id);
        self.places.leave(id);
        self.running.remove(&id)
    }

    /// The bucket has been read: what was started and is not recorded any more is ended. Nobody can be born from it.
    pub fn end_unrecorded(&mut self, env: &mut Env, all: &[(TargetKey, Known)]) {
        let mut recorded = HashSet::new();
        for (_, Known { record, .. }) in all {
            let births = record.births.iter();
            recorded.extend(births.map(|birth| birth.operation.operation_id));
            recorded.extend(record.agents.iter().map(|agent| agent.operation_id));
        }
        // Of one that is born only the reference is waited for.
        let unborn = self.running.iter().filter(|(_, r)| r.phase != Phase::Born);
        // Whether it is in a record that nobody can read is not known.
        let told = unborn.filter(|(_, running)| !running.is_unreadable(&env.args.directory));
        let ids: Vec<SpinUpId> = told.map(|(id, _)| *id).collect();
        for id in ids.into_iter().filter(|id| !recorded.contains(id)) {
            self.forget_and_end(env, id);
        }
    }

    fn forget_and_end(&mut self, env: &mut Env, id: SpinUpId) {
        if let Some(running) = self.forget(id) {
            running.end_later(env, id);
        }
    }

    /// Some of them have taken too long.
    pub fn time_is_over(&mut self, env: &mut Env, epoch: u64) {
        let Some(armed) = self.due.fired(epoch) else {
            return;
        };
        env.args.barrier.grace().timer_fired(armed);
        while let Some(id) = self.due.pop_due(Instant::now()) {
            self.suspect(env, id);
        }
    }

    /// Launched → suspected: nobody is late before it is known that we could hear.
    fn suspect(&mut self, env: &mut Env, id: SpinUpId) {
        let heard_since = env.args.barrier.grace().since();
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let until = running.until().max(heard_since + running.timeout);
        if until > Instant::now() {
            return self.due.set(id, until);
        }
        if running.phase != Phase::Launched {
            return;
        }
        running.phase = Phase::Suspected;
        let (barrier, myself) = (env.args.barrier.clone(), env.myself());
        env.spawn(async move {
            let could_hear = barrier.pass().await == BarrierOutcome::Passed;
            let _ = myself.cast(TargetMsg::Crossed { id, could_hear });
        });
    }

    /// Suspected → ending, or launched again with the full time.
    pub fn crossed(&mut self, env: &Env, queue: &mut ChangeQueue, id: SpinUpId, could_hear: bool) {
        let heard_since = env.args.barrier.grace().since();
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        if running.phase != Phase::Suspected {
            return;
        }
        let until = if could_hear {
            heard_since + running.timeout
        } else {
            Instant::now() + running.timeout
        };
        if until > Instant::now() {
            running.phase = Phase::Launched;
            return self.due.set(id, until);
        }
        let why = GivenUp {
            status: SpinUpStatus::Timeout,
            error: format!("no agent registered within {:?}", running.timeout),
            output: None,
        };
        self.end(env, queue, id, why);
    }

    /// Some have taken their places for as long as they may, and wait for their agents without: whether it is so.
    pub fn leave_places(&mut self, epoch: u64) -> bool {
        self.places.time_is_over(epoch)
    }

    /// Arms the timers of what is due next.
    pub fn arm(&mut self, env: &Env) {
        self.places.arm(env);
        env.arm(self.due.next_to_arm(), |epoch| TargetMsg::BirthsDue {
            epoch,
        });
    }

    /// A command of the actor's own was refused: again after a pause, unless it has become pointless.
    pub fn not_carried_out(
        &mut self,
        env: &mut Env,
        (plans, queue): (&mut Plans, &ChangeQueue),
        (request, command): (&Arc<Request>, &BirthCommand),
        error: &WireError,
    ) {
        if error.code != ErrorCode::NotFound {
            tracing::debug!(target = request.name, "it is tried again: {error}");
            return queue.order_again(request.clone());
        }
        match command {
            BirthCommand::Started { id, .. } if !self.is_born(*id) => self.forget_and_end(env, *id),
            BirthCommand::GiveUp { id, .. }
            | BirthCommand::Started { id, .. }
            | BirthCommand::BeginAgain { id, .. } => {
                plans.settle(*id);
                self.forget(*id);
            }
            _ => {}
        }
    }

    fn is_born(&self, id: SpinUpId) -> bool {
        let running = self.running.get(&id);
        running.is_some_and(|running| running.phase == Phase::Born)
    }
}

fn failed(error: String, output: Option<String>) -> GivenUp {
    GivenUp {
        status: SpinUpStatus::Failed,
        error,
        output,
    }
}
