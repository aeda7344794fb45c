//! What the reaper does to agents. Each deed is a task; its outcome comes back as a message.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::agent::{Agent, AgentStatus, Directive, DirectiveKind};
use loom_protocol::gc::{GcAgent, Grave};
use loom_protocol::work::Reason;
use loom_protocol::{AgentGuid, ErrorCode, Timestamp, WireError, names};
use tokio::time::Instant;

use super::actor::{GcReaperArgs, GcReaperMsg, State};
use super::grave_index::MAX_GRAVES;
use super::graveyard::Graveyard;
use super::reap_action::ReapAction;
use crate::agent_registry::AgentEntry;

/// How long to wait before something that failed is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// A ghost is told again after this long.
const TELL_AGAIN: Duration = Duration::from_secs(5);
/// How many ghosts are remembered as told.
const MAX_TOLD: usize = 10_000;

/// What a deed needs. What was known when the verdict was spoken goes along: whoever was heard of
/// since is left alone.
struct Hand {
    args: Arc<GcReaperArgs>,
    graveyard: Graveyard,
    agent: Agent,
    silent_since: Timestamp,
}

impl State {
    /// Watched or suspect → in hand.
    pub(super) fn begin(&mut self, deed: ReapAction, entry: &AgentEntry) {
        let agent = entry.snapshot();
        let guid = agent.guid;
        if self.is_draining() || self.in_progress.insert(guid, deed).is_some() {
            return;
        }
        self.deadlines.remove(&guid);
        let leases = self.args.work.lease_count(guid);
        let told = GcAgent {
            guid,
            handle: agent.handle.clone(),
            status: agent.status,
            last_heartbeat: agent.last_heartbeat,
            leases,
            action: deed.action(),
            due_in_ms: 0,
        };
        let hand = Hand {
            args: self.args.clone(),
            graveyard: self.graveyard.clone(),
            silent_since: entry.last_seen(),
            agent,
        };
        self.run(hand.carry_out(deed), move |outcome| {
            let outcome = outcome.unwrap_or_else(|| Err("its task panicked".to_owned()));
            let outcome = outcome.map(|was_done| was_done.then(|| Box::new(told)));
            Some(GcReaperMsg::Done { guid, outcome })
        });
    }

    /// In hand → watched.
    pub(super) fn done_with(
        &mut self,
        guid: AgentGuid,
        outcome: Result<Option<Box<GcAgent>>, String>,
    ) {
        let Some(deed) = self.in_progress.remove(&guid) else {
            return;
        };
        let is_there = self.args.directory.get(guid).is_some();
        match outcome {
            Ok(None) if deed == ReapAction::SendHome => {
                // It has something to do after all. What that is, need not be seen here.
                if is_there && !self.is_draining() {
                    return self.deadlines.set(guid, Instant::now() + RETRY);
                }
            }
            Ok(None) => {}
            Ok(Some(told)) => {
                let project = &self.args.project;
                tracing::info!(
                    %project, %guid, handle = told.handle, last_heartbeat = %told.last_heartbeat,
                    leases = told.leases, action = told.action.as_str(), "the reaper has acted"
                );
                if deed == ReapAction::EndProcess {
                    self.process_ended_at.insert(guid, Instant::now());
                }
                let has_grave = matches!(deed, ReapAction::MarkOffline | ReapAction::Bury);
                if has_grave {
                    self.graves.insert(guid);
                }
                let lives = |entry: &AgentEntry| entry.agent().status != AgentStatus::Offline;
                if has_grave && self.args.directory.get(guid).is_some_and(|e| lives(&e)) {
                    self.clear_grave(guid);
                }
                if !self.sweeps.is_empty() {
                    self.done.push(*told);
                }
            }
            Err(problem) => {
                tracing::warn!(%guid, ?deed, "the reaper has to try again: {problem}");
                if is_there && !self.is_draining() {
                    return self.deadlines.set(guid, Instant::now() + RETRY);
                }
            }
        }
        if !self.is_draining() {
            self.look(guid);
        }
    }

    /// The agent of a grave is heard of. Where it is not registered it is told to register.
    pub(super) fn unregistered_agent_heard(&mut self, guid: AgentGuid) {
        let now = Instant::now();
        if !self.graves.contains(guid) || self.args.directory.get(guid).is_some() {
            return;
        }
        self.told.retain(|_, told| now - *told < TELL_AGAIN);
        if self.told.len() >= MAX_TOLD || self.told.insert(guid, now).is_some() {
            return;
        }
        let directive = Directive {
            kind: DirectiveKind::Register,
            work_item_id: None,
            attempt: None,
            reason: Some("this agent was silent for so long that it was removed".to_owned()),
            grace_ms: None,
            instance_id: None,
        };
        let subject = names::directive(&self.args.project, guid);
        let client = self.args.nats.client.clone();
        let telling = async move {
            if let Ok(payload) = serde_json::to_vec(&directive) {
                let _ = client.publish(subject, payload.into()).await;
            }
        };
        self.run(telling, |_| None);
    }

    /// An agent lives that has a grave.
    pub(super) fn clear_grave(&mut self, guid: AgentGuid) {
        let graveyard = self.graveyard.clone();
        let clearing = async move {
            if let Err(error) = graveyard.clear(guid).await {
                tracing::debug!(%guid, "a grave was not cleared; it expires by itself: {error}");
            }
        };
        self.run(clearing, |_| None);
    }

    pub(super) fn read_graves(&mut self) {
        let graveyard = self.graveyard.clone();
        let reading = async move {
            loop {
                match graveyard.read().await {
                    Ok(mut graves) => {
                        graves.truncate(MAX_GRAVES);
                        return graves;
                    }
                    Err(error) => tracing::debug!("the graves cannot be read yet: {error}"),
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        self.run(reading, |graves| graves.map(GcReaperMsg::GravesRead));
    }
}

impl Hand {
    /// Whether it was done; not where the agent was heard of meanwhile.
    async fn carry_out(self, deed: ReapAction) -> Result<bool, String> {
        let outcome = match deed {
            ReapAction::MarkOffline => self.mark_offline().await,
            ReapAction::Bury => self.bury().await,
            ReapAction::SendHome => self.scale_in().await,
            ReapAction::Insist => self.insist().await,
            ReapAction::EndProcess => self.end_process().await,
        };
        outcome.map_err(|error| error.message)
    }

    /// Any → offline, without leases.
    async fn mark_offline(&self) -> Result<bool, WireError> {
        let (guid, died_at) = (self.agent.guid, self.args.clock.now());
        let registry = &self.args.registry;
        if !registry.mark_offline(guid, self.silent_since).await? {
            return Ok(false);
        }
        // What it claims when it comes back at this very moment is its own.
        let lost = self
            .args
            .leases
            .revoke(guid, Reason::AgentLost, |lease| {
                lease.assigned_at <= died_at
            })
            .await?;
        let grave = Grave::of(&self.agent, died_at, false, lost);
        if let Err(error) = self.graveyard.put(&grave).await {
            tracing::warn!(%guid, "a grave was not written: {error}");
        }
        Ok(true)
    }

    /// Offline → gone. The grave is there before the entry goes.
    async fn bury(&self) -> Result<bool, WireError> {
        let (guid, died_at) = (self.agent.guid, self.args.clock.now());
        let grave = Grave::of(&self.agent, died_at, true, Vec::new());
        self.graveyard.put(&grave).await.map_err(|error| {
            WireError::unavailable(format!("its grave was not written: {error}"), RETRY)
        })?;
        let is_gone = self.args.registry.bury(guid, self.silent_since).await?;
        if !is_gone && let Err(error) = self.graveyard.clear(guid).await {
            tracing::debug!(%guid, "a grave was not cleared; it expires by itself: {error}");
        }
        Ok(is_gone)
    }

    /// Online → draining, unless it has something to do by now.
    async fn scale_in(&self) -> Result<bool, WireError> {
        let guid = self.agent.guid;
        let Some(before) = (self.args.withhold)(guid).await? else {
            return Ok(false);
        };
        let reason = "it was idle for as long as it may be";
        let ordered = self
            .args
            .registry
            .send_home_idle(guid, reason, before)
            .await;
        unless_gone(ordered, |is_ordered| is_ordered)
    }

    /// Told to end → told to end at once.
    async fn insist(&self) -> Result<bool, WireError> {
        let reason = "it has not ended within the time that it was given";
        let registry = &self.args.registry;
        let ordered = registry.insist_on_end(self.agent.guid, reason).await;
        unless_gone(ordered, |_| true)
    }

    /// Its process gets TERM, and KILL after the grace; not where the agent is heard of meanwhile. Its entry goes as that
    /// of any agent does.
    async fn end_process(&self) -> Result<bool, WireError> {
        let Some(entry) = self.args.directory.get(self.agent.guid) else {
            // What is left of one that has gone is ended with its link.
            return Ok(false);
        };
        let was_silent = self.agent.status == AgentStatus::Offline;
        if was_silent && entry.last_seen() > self.silent_since {
            return Ok(false);
        }
        let grace = self.args.settings.idle_grace;
        self.args.born.end_process(&entry, grace).await
    }
}

/// What was asked of the registry about an agent; one that has gone meanwhile is what is wanted.
fn unless_gone<T>(
    outcome: Result<T, WireError>,
    was_done: impl FnOnce(T) -> bool,
) -> Result<bool, WireError> {
    match outcome {
        Err(error) if error.code == ErrorCode::NotRegistered => Ok(false),
        outcome => outcome.map(was_done),
    }
}
