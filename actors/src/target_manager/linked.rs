//! The agents that were born from targets, once they are: which of them have gone.
//!
//! | what is seen | what is asked | then |
//! |---|---|---|
//! | the registry has it no longer; an entry of before with its id is not meant | – | unlinked |
//! | it is offline | its mechanism | ended or never there: unlinked; it runs: it still takes a place at its target, and is asked after again; that can't be told: unlinked |
//! | it was born and has never registered | a delivery barrier | unlinked after `stale_after`, in which we could hear |

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use loom_protocol::agent::AgentStatus;
use loom_protocol::{AgentGuid, SpinUpId, WireError};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::birth_command::BirthCommand;
use super::change::Request;
use super::command::{Command, not_found};
use super::env::Env;
use super::key::TargetKey;
use super::mechanism::{Found, Stopped};
use super::messages::TargetMsg;
use super::queue::ChangeQueue;
use super::tidying::{GRACE, tidy_after_agent};
use super::trigger::AgentToEnd;
use super::{Record, Reference};
use crate::agent_registry::{AgentDirectory, AgentEntry};
use crate::deadline_queue::DeadlineQueue;
use crate::domain::targets::LinkedAgent;
use crate::liveness::BarrierOutcome;

/// How often an agent that is offline is asked after.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// The agents of which more is to be found out.
#[derive(Default)]
pub(super) struct LinkedAgents {
    /// Those that were born, until they had the time to be there.
    due: DeadlineQueue<AgentGuid>,
    /// Those that are offline: their mechanisms are asked.
    asked_after: HashMap<AgentGuid, AbortOnDropHandle<()>>,
}

impl LinkedAgents {
    /// The registry has an agent no longer. One that was born with that id and has not registered yet is not meant.
    pub fn gone(&mut self, env: &Env, queue: &mut ChangeQueue, entry: &AgentEntry) {
        let guid = entry.agent().guid;
        let linked = env.args.directory.linked_agent(guid);
        if linked.is_some_and(|(_, agent)| is_of(entry, &agent)) {
            self.unlink(env, queue, guid);
        }
    }

    /// An agent of this start does not run any more. One of that id that was born by another start since is not meant.
    pub fn departed(
        &mut self,
        env: &Env,
        queue: &mut ChangeQueue,
        guid: AgentGuid,
        born_by: SpinUpId,
    ) {
        let linked = env.args.directory.linked(guid);
        if linked.is_none_or(|linked| linked.operation_id == born_by) {
            self.unlink(env, queue, guid);
        }
    }

    /// Has an agent leave its target, if it has one.
    fn unlink(&mut self, env: &Env, queue: &mut ChangeQueue, guid: AgentGuid) {
        self.asked_after.remove(&guid);
        self.due.remove(&guid);
        let Some(linked) = env.args.directory.linked(guid) else {
            return;
        };
        let Some(key) = TargetKey::of(&linked.target_name) else {
            return;
        };
        let request = Request {
            key,
            name: linked.target_name,
            command: Command::Birth {
                id: linked.target_id,
                command: BirthCommand::Unlink {
                    guid,
                    born_by: linked.operation_id,
                },
            },
        };
        queue.order(request.into());
    }

    /// An agent was there when the bucket was read. One that is waited for already is not given more time by that.
    pub fn expect_again(&mut self, env: &Env, queue: &mut ChangeQueue, guid: AgentGuid) {
        // One that came back is asked after no longer, though it was.
        let asking = self.asked_after.get(&guid);
        let is_asked_after = asking.is_some_and(|asking| !asking.is_finished());
        if self.due.get(&guid).is_none() && !is_asked_after {
            self.expect(env, queue, guid);
        }
    }

    /// An agent was born: it has the time to be there.
    pub fn expect(&mut self, env: &Env, queue: &mut ChangeQueue, guid: AgentGuid) {
        self.due.set(guid, Instant::now() + env.args.stale_after);
        self.ask_after(env, queue, guid);
    }

    /// Some have had the time to be there.
    pub fn time_is_over(&mut self, env: &mut Env, epoch: u64) {
        let Some(armed) = self.due.fired(epoch) else {
            return;
        };
        env.args.barrier.grace().timer_fired(armed);
        while let Some(guid) = self.due.pop_due(Instant::now()) {
            self.suspect(env, guid);
        }
    }

    /// An agent had the time to register since it was born: it is absent if its registration does not wait to be heard.
    fn suspect(&mut self, env: &mut Env, guid: AgentGuid) {
        let stale_after = env.args.stale_after;
        if !is_expected(env, guid) {
            return;
        }
        if !env.args.agents.is_loaded() {
            return self.due.set(guid, Instant::now() + stale_after);
        }
        let until = env.args.barrier.grace().since() + stale_after;
        if until > Instant::now() {
            return self.due.set(guid, until);
        }
        let (barrier, myself) = (env.args.barrier.clone(), env.myself());
        env.spawn(async move {
            let could_hear = barrier.pass().await == BarrierOutcome::Passed;
            let _ = myself.cast(TargetMsg::AbsentCrossed { guid, could_hear });
        });
    }

    /// Suspected → unlinked, or expected again for the full time.
    pub fn crossed(
        &mut self,
        env: &Env,
        queue: &mut ChangeQueue,
        guid: AgentGuid,
        could_hear: bool,
    ) {
        // It has come, has gone, or was born anew meanwhile.
        if !is_expected(env, guid) || self.due.get(&guid).is_some() {
            return;
        }
        let stale_after = env.args.stale_after;
        let heard_since = env.args.barrier.grace().since();
        let until = if could_hear {
            heard_since + stale_after
        } else {
            Instant::now() + stale_after
        };
        if until > Instant::now() {
            return self.due.set(guid, until);
        }
        tracing::info!(%guid, "an agent was born and never registered: its target has room again");
        self.unlink(env, queue, guid);
    }

    /// An agent is offline: perhaps its process has ended.
    pub fn ask_after(&mut self, env: &Env, queue: &mut ChangeQueue, guid: AgentGuid) {
        let Some((record, agent)) = env.args.directory.linked_agent(guid) else {
            return;
        };
        if !is_offline(&env.args.agents, &agent) {
            return;
        }
        let Ok(mechanism) = env.args.births.mechanisms.of(&record.target) else {
            return self.unlink(env, queue, guid);
        };
        let Some(key) = TargetKey::of(&record.target.name) else {
            return;
        };
        let (name, id) = (record.target.name.clone(), record.target.id);
        let (agents, myself) = (env.args.agents.clone(), env.myself());
        let born_by = agent.operation_id;
        let asking = tokio::spawn(async move {
            while is_offline(&agents, &agent) {
                let found = mechanism.find(born_by, agent.reference.as_ref()).await;
                match found {
                    Ok(Found::Running(reference) | Found::Waiting { reference, .. }) => {
                        // It registered before its mechanism had said by what it is found.
                        if agent.reference.is_none() {
                            let command = BirthCommand::Started {
                                id: born_by,
                                reference,
                            };
                            let request = Request {
                                key,
                                name: name.clone(),
                                command: Command::Birth { id, command },
                            };
                            let request = request.into();
                            let _ = myself.cast(TargetMsg::Order { request });
                        }
                        sleep(ASK_EVERY).await;
                    }
                    Err(_) => sleep(ASK_EVERY).await,
                    Ok(Found::Ended { .. } | Found::Absent | Found::Unknown { .. }) => {
                        if is_offline(&agents, &agent) {
                            let _ = myself.cast(TargetMsg::Departed { guid, born_by });
                        }
                        return;
                    }
                }
            }
        });
        self.asked_after
            .insert(guid, AbortOnDropHandle::new(asking));
    }

    /// Arms the timer of who is due next.
    pub fn arm(&mut self, env: &Env) {
        env.arm(self.due.next_to_arm(), |epoch| TargetMsg::AbsentDue {
            epoch,
        });
    }
}

/// Ends an agent by its mechanism.
///
/// # Errors
/// No target has started it, or its mechanism is not here.
pub(super) fn end_agent(env: &mut Env, order: AgentToEnd) -> Result<(), WireError> {
    let AgentToEnd { guid, grace } = order;
    let Some((record, agent)) = env.args.directory.linked_agent(guid) else {
        return Err(not_started_here(guid));
    };
    let target = &record.target;
    let mechanism = env.args.births.mechanisms.of(target);
    let mechanism =
        mechanism.map_err(|why| WireError::invalid(format!("target {}: {why}", target.name)))?;
    let myself = env.myself();
    env.spawn(async move {
        let (born_by, reference) = (agent.operation_id, agent.reference);
        match mechanism.stop(born_by, reference.as_ref(), grace).await {
            Ok(Stopped::Ended { .. }) => {
                tracing::info!(%guid, "an agent was ended by its mechanism");
                // Its place is free at once, whatever the registry still waits for.
                let _ = myself.cast(TargetMsg::Departed { guid, born_by });
            }
            Ok(Stopped::NotPossible { why }) => {
                tracing::info!(%guid, "an agent is left to its directive: {why}");
            }
            Err(why) => tracing::warn!(%guid, "an agent could not be ended: {why}"),
        }
    });
    Ok(())
}

/// An agent is linked: the end of its start says so, if it was given up before that birth. The directory has it at once;
/// what a crash keeps from the bucket is written by the next incarnation.
pub(super) fn end_late(
    env: &Env,
    queue: &mut ChangeQueue,
    (key, record): (TargetKey, &Record),
    born_by: SpinUpId,
) {
    let given_up = env.args.directory.end_of(born_by);
    let Some(end) = given_up.and_then(|given_up| record.end_late(&given_up)) else {
        return;
    };
    let directory = &env.args.directory;
    directory.apply_end_to_come(Arc::new(end.clone()));
    let command = BirthCommand::EndLate { end: end.into() };
    let target = &record.target;
    let (name, id) = (target.name.clone(), target.id);
    let command = Command::Birth { id, command };
    queue.order(Request { key, name, command }.into());
}

/// An agent was unlinked: what is kept of its start goes, once nothing of it lives.
pub(super) fn tidy_after(env: &mut Env, record: &Record, agent: &LinkedAgent<Reference>) {
    if let Ok(mechanism) = env.args.births.mechanisms.of(&record.target) {
        let (id, reference) = (agent.operation_id, agent.reference.clone());
        let (agents, guid) = (env.args.agents.clone(), agent.guid);
        let run = agent.instance_id.clone();
        // Another run is another process.
        let is_there = move || {
            let known = agents.get(guid);
            known.is_some_and(|entry| {
                let agent = entry.agent();
                agent.status != AgentStatus::Offline && agent.instance_id == run
            })
        };
        let times = (env.args.idle_grace, GRACE);
        env.spawn_tidying(tidy_after_agent(mechanism, id, reference, is_there, times));
    }
}

/// Whether an agent was born and the registry does not have it.
fn is_expected(env: &Env, guid: AgentGuid) -> bool {
    let linked = env.args.directory.linked_agent(guid);
    linked.is_some_and(|(_, agent)| registered(&env.args.agents, &agent).is_none())
}

/// What an agent of before that has the same id was says nothing of the one that was born.
fn is_offline(agents: &AgentDirectory, agent: &LinkedAgent<Reference>) -> bool {
    let known = registered(agents, agent);
    known.is_some_and(|entry| entry.agent().status == AgentStatus::Offline)
}

/// The entry of an agent that was born, once it has registered.
fn registered(agents: &AgentDirectory, agent: &LinkedAgent<Reference>) -> Option<Arc<AgentEntry>> {
    let entry = agents.get(agent.guid);
    entry.filter(|entry| is_of(entry, agent))
}

/// Whether an entry of the registry is of the agent that was born, and of none that had its id before.
fn is_of(entry: &AgentEntry, agent: &LinkedAgent<Reference>) -> bool {
    let run = agent.run();
    run.has_registered(entry.agent(), entry.last_seen())
}

fn not_started_here(guid: AgentGuid) -> WireError {
    let mut error = not_found("");
    error.message = format!(
        "agent {guid} was started by no target of this project; tell it to end by `loom agents shutdown {guid}`"
    );
    error.error.clone_from(&error.message);
    error
}
