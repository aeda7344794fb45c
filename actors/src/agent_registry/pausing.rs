//! Agents that are kept from work: paused until a usage limit is over, together with all who share
//! it; quarantined until an operator lets them in.

use std::time::Duration;

use loom_protocol::agent::{Agent, AgentStatus, Directive, DirectiveKind};
use loom_protocol::{AgentGuid, Timestamp, WireError};

use super::actor::State;
use super::messages::Msg;
use super::notifications::Departure;
use crate::domain::agent::{self, MAX_PAUSE};

/// The longest wait for a timer at once: the time of day may be set, and a laptop may sleep.
const LOOK_EVERY: Duration = Duration::from_secs(30);

impl State {
    /// Takes work → paused until then, with all that share its limit.
    pub fn pause(
        &mut self,
        guid: AgentGuid,
        until: Timestamp,
        reason: &str,
    ) -> Result<(), WireError> {
        let entry = self.known(guid)?;
        let now = self.now();
        let until = until.min(now.after(MAX_PAUSE));
        if until <= now {
            return Ok(());
        }
        for member in self.pauses.group_of(entry.agent()) {
            let Some(entry) = self.args.directory.get(member) else {
                continue;
            };
            if let Some(agent) = agent::pause(entry.agent(), until, reason) {
                self.upsert_agent(agent, true);
                self.mark_dirty(member);
                let order = self.of_its_run(member, pause_directive(member, until, reason));
                self.outbox.publish_directive(member, &order);
            }
        }
        self.arm_pauses();
        Ok(())
    }

    /// Any → quarantined.
    pub fn quarantine(&mut self, guid: AgentGuid, reason: &str) {
        let now = self.now();
        let Some(entry) = self.args.directory.get(guid) else {
            return;
        };
        if let Some(agent) = agent::quarantine(entry.agent(), reason, now) {
            tracing::warn!(%guid, handle = agent.handle, reason, "an agent is quarantined");
            self.upsert_agent(agent, true);
            self.mark_dirty(guid);
            let order = self.of_its_run(guid, quarantine_directive(guid, reason));
            self.outbox.publish_directive(guid, &order);
        }
    }

    /// What is left of an agent that leaves in quarantine; `None` where it is not in one.
    pub fn quarantined(&self, guid: AgentGuid) -> Option<Agent> {
        let agent = self.args.directory.get(guid)?.snapshot();
        agent.quarantine.as_ref()?;
        Some(Agent {
            status: AgentStatus::Offline,
            current_task_count: 0,
            ..agent
        })
    }

    /// Quarantined → offline: it has deregistered. To all but the memory of its quarantine it is gone.
    pub fn remove_quarantined(&mut self, agent: Agent) {
        self.remove_agent(agent.guid, Departure::Deregistered);
        self.upsert_agent(agent, false);
    }

    /// Paused, quarantined → takes work: an operator says so.
    pub fn release_from_quarantine(&mut self, guid: AgentGuid) -> Result<Agent, WireError> {
        let entry = self.known(guid)?;
        let (leaving, now) = (entry.is_leaving(), self.now());
        let agent = entry.agent();
        let resumed = agent::resume(agent, leaving);
        let free = agent::release_from_quarantine(resumed.as_ref().unwrap_or(agent), leaving, now);
        if let Some(agent) = free.or(resumed) {
            self.go_on(agent);
        }
        self.known(guid).map(|entry| entry.snapshot())
    }

    /// Paused → takes work, for those whose time has come.
    pub fn pause_over(&mut self, epoch: u64) {
        if self.pauses.due.fired(epoch).is_none() {
            return;
        }
        let now = self.now();
        for guid in self.pauses.take_over(now) {
            let Some(entry) = self.args.directory.get(guid) else {
                continue;
            };
            match entry.agent().paused_until {
                Some(until) if until <= now => {
                    if let Some(agent) = agent::resume(entry.agent(), entry.is_leaving()) {
                        self.go_on(agent);
                    }
                }
                Some(_) => {}
                // It was told to go on a while ago.
                None => entry.clear_directive(&directive(DirectiveKind::Resume, String::new())),
            }
        }
        self.arm_pauses();
    }

    /// An agent that is kept from work no more, or by less. The order to go on is repeated for as
    /// long as an agent may be silent.
    fn go_on(&mut self, agent: Agent) {
        let guid = agent.guid;
        let is_free = agent.paused_until.is_none() && agent.quarantine.is_none();
        self.upsert_agent(agent, true);
        self.mark_dirty(guid);
        let Some(entry) = self.args.directory.get(guid).filter(|_| is_free) else {
            return;
        };
        entry.clear_directive(&directive(DirectiveKind::Pause, String::new()));
        let resume = directive(
            DirectiveKind::Resume,
            "work may be claimed again".to_owned(),
        );
        let resume = self.of_its_run(guid, resume);
        entry.add_directive(resume.clone());
        self.outbox.publish_directive(guid, &resume);
        let repeated_until = self.now().after(self.args.settings.stale_after);
        self.pauses.due.set(guid, repeated_until);
        self.arm_pauses();
    }

    /// What the limit of its group makes of an agent that comes into it.
    pub fn apply_group_pause(&self, before: Option<&Agent>, agent: Agent) -> Agent {
        if before.is_some_and(|before| before.limit_group == agent.limit_group) {
            return agent;
        }
        let limit = self.args.directory.limit_of(&agent, self.now());
        let paused = limit.and_then(|limit| agent::pause(&agent, limit.until, &limit.reason));
        paused.unwrap_or(agent)
    }

    /// An agent has come, or is another one than before: its pause is kept in mind, and repeated.
    pub fn note_pause(&mut self, before: Option<&Agent>, guid: AgentGuid) {
        let Some(entry) = self.args.directory.get(guid) else {
            return;
        };
        let agent = entry.agent();
        self.pauses.upsert(before, agent);
        self.args.directory.note_limit(agent, self.now());
        let order = match (&agent.quarantine, agent.paused_until) {
            (Some(quarantine), _) => quarantine_directive(guid, &quarantine.reason),
            (None, Some(until)) => pause_directive(
                guid,
                until,
                agent.pause_reason.as_deref().unwrap_or_default(),
            ),
            (None, None) => return,
        };
        entry.clear_directive(&directive(DirectiveKind::Resume, String::new()));
        entry.add_directive(self.of_its_run(guid, order));
        self.arm_pauses();
    }

    /// An order for the run of an agent that is registered now.
    fn of_its_run(&self, guid: AgentGuid, order: Directive) -> Directive {
        let entry = self.args.directory.get(guid);
        Directive {
            instance_id: entry.and_then(|entry| entry.agent().instance_id.clone()),
            ..order
        }
    }

    pub fn arm_pauses(&mut self) {
        let now = self.now();
        if let Some((epoch, at)) = self.pauses.due.next_to_arm_by(now.after(LOOK_EVERY)) {
            self.me
                .send_after(at.since(now), move || Msg::PauseOver { epoch });
        }
    }
}

fn pause_directive(guid: AgentGuid, until: Timestamp, reason: &str) -> Directive {
    let text =
        format!("paused until {until}: {reason}; `loom agents resume {guid}` ends it sooner");
    directive(DirectiveKind::Pause, text)
}

fn quarantine_directive(guid: AgentGuid, reason: &str) -> Directive {
    let text = format!("quarantined: {reason}; `loom agents resume {guid}` ends it");
    directive(DirectiveKind::Pause, text)
}

const fn directive(kind: DirectiveKind, reason: String) -> Directive {
    Directive {
        kind,
        work_item_id: None,
        attempt: None,
        reason: Some(reason),
        grace_ms: None,
        instance_id: None,
    }
}
