//! The agents that were born from targets, once they are: which of them have gone.
//!
//! | what is seen | what is asked | then |
//! |---|---|---|
//! | the registry has it no longer | – | unlinked |
//! | it is offline | its mechanism | ended or never there: unlinked; it runs: it still takes a place at its target, and is asked after again; that can't be told: unlinked |
//! | it was born and the registry never had it | – | unlinked after `stale_after`, in which we could hear |

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::agent::AgentStatus;
use loom_protocol::{AgentGuid, SpinUpId, WireError};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::actor::State;
use super::birth_command::BirthCommand;
use super::births::GRACE;
use super::change::Request;
use super::command::{Command, not_found};
use super::key::TargetKey;
use super::mechanism::{Found, Mechanism, Stopped};
use super::messages::TargetMsg;
use super::tidying::tidy_after_agent;
use super::trigger::AgentToEnd;
use super::under_way::Due;
use super::{Record, Reference};
use crate::agent_registry::AgentChange;
use crate::domain::targets::LinkedAgent;

/// How often an agent that is offline is asked after.
const ASK_EVERY: Duration = Duration::from_secs(30);

impl State {
    /// The registry says that an agent is offline, or gone.
    pub(super) fn agent_left(&mut self, guid: AgentGuid, change: AgentChange) {
        match change {
            AgentChange::Gone => self.unlink(guid),
            AgentChange::Offline => self.ask_after(guid),
            AgentChange::Registered | AgentChange::Updated => {}
        }
    }

    /// An agent of this start does not run any more. One of that id that was born by another start since is not meant.
    pub(super) fn departed(&mut self, guid: AgentGuid, born_by: SpinUpId) {
        let linked = self.args.directory.linked(guid);
        if linked.is_none_or(|linked| linked.operation_id == born_by) {
            self.unlink(guid);
        }
    }

    /// Has an agent leave its target, if it has one.
    fn unlink(&mut self, guid: AgentGuid) {
        self.births.departed.remove(&guid);
        self.births.due.remove(&Due::Absent(guid));
        let Some(linked) = self.args.directory.linked(guid) else {
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
        self.order(request.into());
    }

    /// An agent was there when the bucket was read. One that is waited for already is not given more time by that.
    pub(super) fn expect_again(&mut self, guid: AgentGuid) {
        let births = &self.births;
        let is_expected =
            births.due.get(&Due::Absent(guid)).is_some() || births.departed.contains_key(&guid);
        if !is_expected {
            self.expect(guid);
        }
    }

    /// An agent was born, or was there when the bucket was read.
    pub(super) fn expect(&mut self, guid: AgentGuid) {
        let due = Instant::now() + self.args.stale_after;
        self.births.due.set(Due::Absent(guid), due);
        let known = self.args.agents.get(guid);
        if known.is_some_and(|entry| entry.agent().status == AgentStatus::Offline) {
            self.ask_after(guid);
        }
    }

    /// An agent had the time to register since it was born.
    pub(super) fn look_for_absent(&mut self, guid: AgentGuid) {
        let agents = &self.args.agents;
        if agents.get(guid).is_some() || self.args.directory.linked(guid).is_none() {
            return;
        }
        let heard_since = self.args.barrier.grace().since();
        let until = heard_since + self.args.stale_after;
        if !agents.is_loaded() {
            let due = Instant::now() + self.args.stale_after;
            return self.births.due.set(Due::Absent(guid), due);
        }
        if until > Instant::now() {
            return self.births.due.set(Due::Absent(guid), until);
        }
        tracing::info!(%guid, "an agent was born and never registered: its target has room again");
        self.unlink(guid);
    }

    /// An agent is offline: perhaps its process has ended.
    fn ask_after(&mut self, guid: AgentGuid) {
        let Some((record, agent)) = self.args.directory.linked_agent(guid) else {
            return;
        };
        let Ok(mechanism) = self.args.births.mechanisms.of(&record.target) else {
            return self.unlink(guid);
        };
        let (agents, myself) = (self.args.agents.clone(), self.myself.clone());
        let asking = tokio::spawn(async move {
            let is_offline = || {
                let known = agents.get(guid);
                known.is_some_and(|entry| entry.agent().status == AgentStatus::Offline)
            };
            while is_offline() {
                let found = mechanism.find(agent.operation_id, agent.reference.as_ref());
                let found = found.await;
                match found {
                    Ok(Found::Running(_)) | Err(_) => sleep(ASK_EVERY).await,
                    Ok(Found::Ended { .. } | Found::Absent | Found::Unknown { .. }) => {
                        if is_offline() {
                            let born_by = agent.operation_id;
                            let _ = myself.cast(TargetMsg::Departed { guid, born_by });
                        }
                        return;
                    }
                }
            }
        });
        self.births
            .departed
            .insert(guid, AbortOnDropHandle::new(asking));
    }

    /// Ends an agent by its mechanism.
    pub(super) fn end_agent(&mut self, order: AgentToEnd) -> Result<(), WireError> {
        let AgentToEnd { guid, grace } = order;
        let Some((record, agent)) = self.args.directory.linked_agent(guid) else {
            return Err(not_started_here(guid));
        };
        let mechanism = self.mechanism_of(&record)?;
        let myself = self.myself.clone();
        self.births.tasks.spawn(async move {
            let (id, reference) = (agent.operation_id, agent.reference);
            match mechanism.stop(id, reference.as_ref(), grace).await {
                Ok(Stopped::Ended { .. }) => {
                    tracing::info!(%guid, "an agent was ended by its mechanism");
                    // Its place is free at once, whatever the registry still waits for.
                    let _ = myself.cast(TargetMsg::Departed { guid, born_by: id });
                }
                Ok(Stopped::NotPossible { why }) => {
                    tracing::info!(%guid, "an agent is left to its directive: {why}");
                }
                Err(why) => tracing::warn!(%guid, "an agent could not be ended: {why}"),
            }
        });
        Ok(())
    }

    fn mechanism_of(&self, record: &Record) -> Result<Arc<dyn Mechanism>, WireError> {
        let target = &record.target;
        let mechanism = self.args.births.mechanisms.of(target);
        mechanism.map_err(|why| WireError::invalid(format!("target {}: {why}", target.name)))
    }

    /// An agent was unlinked: what is kept of its start goes, once nothing of it lives.
    pub(super) fn tidy_after(&mut self, record: &Record, agent: &LinkedAgent<Reference>) {
        if let Ok(mechanism) = self.args.births.mechanisms.of(&record.target) {
            let (id, reference) = (agent.operation_id, agent.reference.clone());
            let (agents, guid) = (self.args.agents.clone(), agent.guid);
            let is_there = move || {
                let known = agents.get(guid);
                known.is_some_and(|entry| entry.agent().status != AgentStatus::Offline)
            };
            let times = (self.args.idle_grace, GRACE);
            let tidying = tidy_after_agent(mechanism, id, reference, is_there, times);
            self.births.tasks.spawn(tidying);
        }
    }
}

fn not_started_here(guid: AgentGuid) -> WireError {
    let mut error = not_found("");
    error.message = format!(
        "agent {guid} was started by no target of this project; tell it to end by `loom agents shutdown {guid}`"
    );
    error.error.clone_from(&error.message);
    error
}
