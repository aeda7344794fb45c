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

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::target::{BirthTicket, SpinUpStatus, Target};
use loom_protocol::{SpinUpId, WireError};
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::actor::{Job, State};
use super::birth_command::BirthCommand;
use super::change::Request;
use super::command::Command;
use super::key::TargetKey;
use super::launching::{Beginning, Launch, LaunchNews};
use super::mechanism::{Mechanism, Start, Stopped};
use super::messages::TargetMsg;
use super::terms::StartPermit;
use super::tidying::{end_and_tidy, tidy};
use super::under_way::{Due, EndOf, Phase, Running};
use super::{Ended, Record, Reference};
use crate::domain::targets::{Birth, TicketDigest, digest_of};
use crate::liveness::BarrierOutcome;

/// How long what is ended has between TERM and KILL.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How long its end may take in all before the operation is decided all the same.
const END_WITHIN: Duration = Duration::from_secs(40);
/// The pause before a command of the actor's own is given again that could not be carried out.
const AGAIN: Duration = Duration::from_secs(1);

impl State {
    /// Recorded → launched, with the ticket that only this incarnation knows.
    pub(super) fn launch(
        &mut self,
        (key, record): (TargetKey, &Record),
        birth: &Birth<Reference>,
        ticket: BirthTicket,
        permit: StartPermit,
    ) {
        let start = Start {
            project: self.args.project.clone(),
            operation: birth.operation.clone(),
            agent_type: birth.ticket.agent_type.clone(),
            capabilities: birth.ticket.capabilities.clone(),
            boundaries: birth.ticket.boundaries.clone(),
            ticket,
        };
        self.run(
            key,
            &record.target,
            birth,
            permit,
            Beginning::New(start.into()),
        );
    }

    /// A start that is recorded is begun, or looked for.
    pub(super) fn run(
        &mut self,
        key: TargetKey,
        target: &Target,
        birth: &Birth<Reference>,
        permit: StartPermit,
        beginning: Beginning,
    ) {
        let id = birth.operation.operation_id;
        let terms = &self.args.births;
        let (mechanism, why_not) = match terms.mechanisms.of(target) {
            Ok(mechanism) => (Some(mechanism), None),
            Err(why_not) => (None, Some(why_not)),
        };
        let task = mechanism.clone().map(|mechanism| {
            let myself = self.myself.clone();
            let launch = Launch {
                id,
                mechanism,
                ownership: self.args.ownership.clone(),
                on_step: terms.on_step.clone(),
                tell: move |news| {
                    let _ = myself.cast(TargetMsg::Launch { id, news });
                },
            };
            AbortOnDropHandle::new(tokio::spawn(launch.run(beginning)))
        });
        let running = Running {
            key,
            name: target.name.clone(),
            target: target.id,
            mechanism,
            digest: birth.ticket.digest,
            ticket: None,
            reference: birth.reference.clone(),
            phase: Phase::Launched,
            since: Instant::now(),
            timeout: terms.settings.birth_timeout.of(target.mechanism),
            task,
            _permit: permit,
        };
        self.births.due.set(Due::Birth(id), running.until());
        self.births.running.insert(id, running);
        if let Some(why_not) = why_not {
            self.give_up(id, SpinUpStatus::Failed, why_not, None);
        }
    }

    /// A start has come to something.
    pub(super) fn heard_of(&mut self, id: SpinUpId, news: LaunchNews) {
        let Some(running) = self.births.running.get_mut(&id) else {
            return;
        };
        match news {
            LaunchNews::Started(reference) => {
                running.reference = Some(reference.clone());
                if running.phase != Phase::Ending {
                    self.command(id, BirthCommand::Started { id, reference });
                }
            }
            // Whatever else is said of an agent that lives, or of what is being ended, changes nothing.
            _ if matches!(running.phase, Phase::Ending) => {}
            _ if running.phase == Phase::Born => self.settle_birth(id),
            LaunchNews::NeverBegan => {
                let ticket = BirthTicket::generate();
                let digest = digest_of(&ticket);
                (running.digest, running.ticket) = (digest, Some(ticket));
                let until = self.args.clock.now().after(running.timeout);
                self.command(id, BirthCommand::BeginAgain { id, digest, until });
            }
            LaunchNews::Over {
                error,
                output,
                may_live: true,
            } => self.end(id, SpinUpStatus::Failed, error, output),
            LaunchNews::Over { error, output, .. } => {
                self.give_up(id, SpinUpStatus::Failed, error, output);
            }
            LaunchNews::NotOurs => {
                tracing::info!(%id, "no agent is started: this coordinator owns no longer");
                self.forget_birth(id);
            }
        }
    }

    /// Launched, suspected → ending.
    pub(super) fn end(
        &mut self,
        id: SpinUpId,
        status: SpinUpStatus,
        error: String,
        output: Option<String>,
    ) {
        let Some(running) = self.births.running.get_mut(&id) else {
            return;
        };
        running.phase = Phase::Ending;
        self.births.due.remove(&Due::Birth(id));
        let Some(mechanism) = running.mechanism.clone() else {
            return self.give_up(id, status, error, output);
        };
        let (reference, myself) = (running.reference.clone(), self.myself.clone());
        // The one before is ended with this: a start under way is in doubt then, and ended with the rest.
        running.task = None;
        running.task = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let ended = timeout(END_WITHIN, mechanism.stop(id, reference.as_ref(), GRACE)).await;
            let (problem, said) = match ended {
                Ok(Ok(Stopped::Ended { output })) => (None, output),
                Ok(Ok(Stopped::NotPossible { .. })) => (None, None),
                Ok(Err(why)) => (Some(why), None),
                Err(_elapsed) => (Some(format!("it did not end within {END_WITHIN:?}")), None),
            };
            let end = EndOf {
                status,
                may_live: problem.is_some(),
                error: match problem {
                    Some(problem) => {
                        format!("{error}; what was started could not be ended: {problem}")
                    }
                    None => error,
                },
                output: output.or(said),
            };
            let _ = myself.cast(TargetMsg::EndedWhatWasStarted { id, end });
        })));
    }

    /// What was started has ended: the operation is decided.
    pub(super) fn ended(&mut self, id: SpinUpId, end: EndOf) {
        let EndOf {
            status,
            error,
            output,
            may_live,
        } = end;
        if may_live && let Some(running) = self.births.running.get(&id) {
            let left = (running.mechanism.clone(), running.reference.clone());
            self.end_later(id, left);
        }
        self.give_up(id, status, error, output);
    }

    fn end_later(&mut self, id: SpinUpId, left: (Option<Arc<dyn Mechanism>>, Option<Value>)) {
        if let (Some(mechanism), reference) = left {
            let directory = self.args.directory.clone();
            // It may be born late, until it has ended.
            let is_born = move || {
                let end = directory.end_of(id);
                end.is_some_and(|end| end.operation.agent_guid.is_some())
            };
            self.births
                .tasks
                .spawn(end_and_tidy(mechanism, id, reference, is_born, GRACE));
        }
    }

    /// Nothing records a start any more, by which its agent could be born: what was started is ended.
    pub(super) fn end_unrecorded(&mut self, id: SpinUpId) {
        if let Some(running) = self.forget_birth(id) {
            self.end_later(id, (running.mechanism, running.reference));
        }
    }

    /// Any → given up, once it is written.
    pub(super) fn give_up(
        &mut self,
        id: SpinUpId,
        status: SpinUpStatus,
        error: String,
        output: Option<String>,
    ) {
        if let Some(running) = self.births.running.get_mut(&id) {
            running.phase = Phase::Ending;
        }
        self.births.due.remove(&Due::Birth(id));
        let command = BirthCommand::GiveUp {
            id,
            status,
            error,
            output,
            cooldown: self.args.births.settings.cooldown,
        };
        self.command(id, command);
    }

    /// Gives a command of the actor's own about a start that is recorded.
    pub(super) fn command(&mut self, id: SpinUpId, command: BirthCommand) {
        if let Some(running) = self.births.running.get(&id) {
            let request = Request {
                key: running.key,
                name: running.name.clone(),
                command: Command::Birth {
                    id: running.target,
                    command,
                },
            };
            self.order(request.into());
        }
    }

    /// Has a command of the actor's own carried out, now or later.
    pub(super) fn order(&mut self, request: Arc<Request>) {
        let key = request.key;
        let job = Job {
            request,
            reply: None,
        };
        if let Err(rejected) = self.writer.push(key, job) {
            self.order_again(rejected.request.request);
        }
    }

    /// The same after a pause. What is no longer true by then changes nothing.
    pub(super) fn order_again(&self, request: Arc<Request>) {
        self.myself
            .send_after(AGAIN, move || TargetMsg::Order { request });
    }

    /// Whether an agent that registers with this ticket is to wait: its start is being ended.
    pub(super) fn is_ending(&self, digest: &TicketDigest) -> bool {
        let mut running = self.births.running.values();
        running.any(|running| running.phase == Phase::Ending && running.digest == *digest)
    }

    /// Its agent is born: nothing more is done for the start, but what is needed to find the agent again.
    pub(super) fn settle_birth(&mut self, id: SpinUpId) {
        self.births.due.remove(&Due::Birth(id));
        if let Some(running) = self.births.running.get_mut(&id) {
            let is_just_born = running.phase != Phase::Born;
            if running.reference.is_none() && is_just_born && running.mechanism.is_some() {
                running.phase = Phase::Born;
            } else {
                self.births.running.remove(&id);
            }
        }
    }

    /// Whether its agent is born, and nothing was known by which it is found.
    pub(super) fn is_born(&self, id: SpinUpId) -> bool {
        let running = self.births.running.get(&id);
        running.is_some_and(|running| running.phase == Phase::Born)
    }

    /// It is decided, or not ours.
    pub(super) fn forget_birth(&mut self, id: SpinUpId) -> Option<Running> {
        self.births.due.remove(&Due::Birth(id));
        self.births.running.remove(&id)
    }

    /// The end of a start is written: what is kept of it is removed.
    pub(super) fn tidy_up(&mut self, end: &Ended, mechanism: Option<Arc<dyn Mechanism>>) {
        let id = end.operation.operation_id;
        if let Some(mechanism) = mechanism {
            self.births
                .tasks
                .spawn(tidy(mechanism, id, end.reference.clone()));
        }
    }

    /// Somebody's time is over.
    pub(super) fn time_is_over(&mut self, epoch: u64) {
        let Some(armed) = self.births.due.fired(epoch) else {
            return;
        };
        self.args.barrier.grace().timer_fired(armed);
        while self.births.tasks.try_join_next().is_some() {}
        while let Some(due) = self.births.due.pop_due(Instant::now()) {
            match due {
                Due::Birth(id) => self.suspect(id),
                Due::Absent(guid) => self.look_for_absent(guid),
            }
        }
    }

    /// Launched → suspected: nobody is late before it is known that we could hear.
    fn suspect(&mut self, id: SpinUpId) {
        let heard_since = self.args.barrier.grace().since();
        let Some(running) = self.births.running.get_mut(&id) else {
            return;
        };
        let until = running.until().max(heard_since + running.timeout);
        if until > Instant::now() {
            return self.births.due.set(Due::Birth(id), until);
        }
        if running.phase != Phase::Launched {
            return;
        }
        running.phase = Phase::Suspected;
        let (barrier, myself) = (self.args.barrier.clone(), self.myself.clone());
        self.births.tasks.spawn(async move {
            let could_hear = barrier.pass().await == BarrierOutcome::Passed;
            let _ = myself.cast(TargetMsg::Crossed { id, could_hear });
        });
    }

    /// Suspected → ending, or launched again with the full time.
    pub(super) fn crossed(&mut self, id: SpinUpId, could_hear: bool) {
        let heard_since = self.args.barrier.grace().since();
        let Some(running) = self.births.running.get_mut(&id) else {
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
            return self.births.due.set(Due::Birth(id), until);
        }
        let error = format!("no agent registered within {:?}", running.timeout);
        self.end(id, SpinUpStatus::Timeout, error, None);
    }

    /// Arms the timer of what is due next.
    pub(super) fn arm_births(&mut self) {
        if let Some((epoch, at)) = self.births.due.next_to_arm() {
            let wait = at.saturating_duration_since(Instant::now());
            self.myself
                .send_after(wait, move || TargetMsg::BirthsDue { epoch });
        }
    }

    /// A command of the actor's own was refused: again after a pause, unless it has become pointless.
    pub(super) fn not_carried_out(&mut self, request: Arc<Request>, error: &WireError) {
        use loom_protocol::ErrorCode;
        if error.code == ErrorCode::NotFound {
            if let Command::Birth {
                command: BirthCommand::GiveUp { id, .. } | BirthCommand::Started { id, .. },
                ..
            } = &request.command
            {
                self.forget_birth(*id);
            }
            return;
        }
        tracing::debug!(target = request.name, "it is tried again: {error}");
        self.order_again(request);
    }
}
