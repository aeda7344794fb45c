//! What is to be changed: queued by name, carried out one at a time for each, and taken out when it has its outcome.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::{ErrorCode, WireError};
use ractor::{ActorRef, RpcReplyPort};

use super::ASK_AGAIN;
use super::admission::{NewNames, may_be_new};
use super::change::{Change, ChangeContext, Changed, Request};
use super::env::Env;
use super::key::TargetKey;
use super::messages::{DoneMsg, Reply, TargetMsg};
use crate::keyed_writer::{Bounds, KeyedWriter, Panicked, Rejection, carry_out};

/// How many changes may be under way or queued, in all and for one name; more are refused with `overloaded`.
const BOUNDS: Bounds = Bounds {
    tasks: 64,
    requests_of_a_key: 64,
    requests: 1024,
};
/// The pause before a command of the actor's own is given again that could not be carried out.
const AGAIN: Duration = Duration::from_secs(1);

/// A request, and who waits for its outcome.
pub(super) struct Job {
    pub request: Arc<Request>,
    /// `None`: the actor's own.
    pub reply: Option<Reply>,
}

/// The changes that are under way, and those that wait.
pub(super) struct ChangeQueue {
    writer: KeyedWriter<TargetKey, Job, TargetMsg>,
    new_names: NewNames,
    context: ChangeContext,
    myself: ActorRef<TargetMsg>,
}

impl ChangeQueue {
    /// Without any.
    pub fn new(env: &Env) -> Self {
        let args = &env.args;
        Self {
            writer: KeyedWriter::new(env.myself(), BOUNDS),
            new_names: NewNames::default(),
            context: ChangeContext {
                directory: args.directory.clone(),
                bucket: env.bucket.clone(),
                nats: args.nats.clone(),
                clock: args.clock.clone(),
                epoch: args.epoch,
                on_step: args.births.on_step.clone(),
            },
            myself: env.myself(),
        }
    }

    /// Takes what somebody else asks for, or answers why not.
    pub fn take(&mut self, env: &Env, request: Arc<Request>, reply: Reply) {
        let directory = &env.args.directory;
        let is_new = may_be_new(&request.command) && directory.known(request.key).is_none();
        if is_new {
            let name = (&env.args.project, request.name.as_str());
            if let Err(refusal) = self.new_names.admit(name, request.key, directory.len()) {
                let _ = reply.send(Err(refusal));
                return;
            }
            self.new_names.began(&request);
        }
        let key = request.key;
        let reply = Some(reply);
        if let Err(rejected) = self.writer.push(key, Job { request, reply }) {
            let Job { request, reply } = rejected.request;
            self.new_names.ended(&request);
            let text = format!("target {} is not changed: {}", request.name, rejected.why);
            if let Some(reply) = reply {
                let _ = reply.send(Err(WireError::overloaded(text, ASK_AGAIN)));
            }
        }
    }

    /// Takes a job that is admitted; otherwise gives back who waits for it, and why it is not taken.
    pub fn push(&mut self, job: Job) -> Result<(), (Option<Reply>, Rejection)> {
        let pushed = self.writer.push(job.request.key, job);
        pushed.map_err(|rejected| (rejected.request.reply, rejected.why))
    }

    /// Has a command of the actor's own carried out, now or later.
    pub fn order(&mut self, request: Arc<Request>) {
        let job = Job {
            request: request.clone(),
            reply: None,
        };
        if self.push(job).is_err() {
            self.order_again(request);
        }
    }

    /// The same after a pause. What is no longer true by then changes nothing.
    pub fn order_again(&self, request: Arc<Request>) {
        self.myself
            .send_after(AGAIN, move || TargetMsg::Order { request });
    }

    /// Begins what can be begun. To be done after each message.
    pub fn work_off(&mut self) {
        while let Some(key) = self.writer.next_turn() {
            let Some(job) = self.writer.first(&key) else {
                continue;
            };
            let change = Change::new(self.context.clone(), job.request.clone());
            let name = job.request.name.clone();
            let done = move |outcome: Result<Result<Changed, WireError>, Panicked>| {
                let lost = |panicked: Panicked| {
                    let text = format!("what became of target {name} is not known: {panicked}");
                    Err(WireError::new(ErrorCode::Internal, text))
                };
                let outcome = Box::new(outcome.unwrap_or_else(lost));
                TargetMsg::Done(DoneMsg { key, outcome })
            };
            self.writer.begin(key, (), carry_out(change), done);
        }
    }

    /// The first change of a name has its outcome.
    pub fn finish(&mut self, key: TargetKey) -> Option<Job> {
        let job = self.writer.finish(&key)?;
        self.new_names.ended(&job.request);
        Some(job)
    }

    /// Takes nothing new, and answers when nothing is under way.
    pub fn drain(&mut self, reply: RpcReplyPort<()>) {
        self.writer.drain(reply);
    }

    /// Whether nothing new is taken.
    pub const fn is_draining(&self) -> bool {
        self.writer.is_draining()
    }
}
