//! Listens to how attempts end: a broken agent is quarantined, and one that meets a usage limit in a
//! published report is paused. (Who reports it by a request is paused before the report is applied.)

use loom_protocol::AgentGuid;
use loom_protocol::work::{Reason, WorkStatus};

use crate::agent_registry::AgentRegistryHandle;
use crate::clock::Clock;
use crate::domain::agent::pause_end;
use crate::domain::breaker::{AttemptEnd, BreakerTerms};
use crate::settings::AgentSettings;
use crate::work_ledger::{ItemChange, ReadModel};

/// Begins to listen; nothing of it waits.
pub fn listen(
    work: &ReadModel,
    registry: &AgentRegistryHandle,
    settings: &AgentSettings,
    clock: &Clock,
) {
    let breaker = Breaker {
        registry: registry.clone(),
        terms: BreakerTerms {
            after: Some(settings.quarantine_after).filter(|after| *after > 0),
            within: settings.quarantine_within,
        },
        clock: clock.clone(),
    };
    work.changes()
        .hook("breaker", move |change| breaker.item_changed(change));
}

struct Breaker {
    registry: AgentRegistryHandle,
    terms: BreakerTerms,
    clock: Clock,
}

impl Breaker {
    fn item_changed(&self, change: &ItemChange) {
        let Some(guid) = change.freed else {
            return;
        };
        let header = &change.header;
        let end = match change.failure {
            Some(failure) if failure.reason == Reason::UsageLimit => {
                return self.limit_met(guid);
            }
            Some(failure) => AttemptEnd::Failed(header.id, failure.after),
            None if header.status == WorkStatus::Completed => AttemptEnd::Completed,
            None => return,
        };
        let directory = self.registry.directory();
        if directory.note_attempt(guid, end, &self.terms) {
            let within = humantime::format_duration(self.terms.within);
            let items = self.terms.after.unwrap_or_default();
            let reason = format!("it failed {items} items in a row, each within {within}");
            self.registry.quarantine_in_background(guid, reason);
        }
    }

    /// Whoever said so by a request is paused already.
    fn limit_met(&self, guid: AgentGuid) {
        let entry = self.registry.directory().get(guid);
        if entry.is_some_and(|entry| entry.agent().paused_until.is_none()) {
            let until = pause_end(None, self.clock.now());
            let reason = Reason::UsageLimit.to_string();
            self.registry.pause_in_background(guid, until, reason);
        }
    }
}
