//! Says why an item that somebody waits for is not taken by anybody.

use std::collections::BTreeMap;
use std::time::Duration;

use loom_protocol::agent::AgentStatus;
use loom_protocol::work::{ExplainAnswer, WorkItem, WorkStatus};
use tokio::time::Instant;

use super::output::note;
use crate::api_client::ApiClient;

/// How long an item may be pending before its reason is asked for, and how often it is asked again.
const ASK_EVERY: Duration = Duration::from_secs(4);

/// What was said of one item so far.
#[derive(Debug)]
pub(super) struct Waiting {
    ask_at: Instant,
    said: Option<String>,
}

impl Waiting {
    pub fn new() -> Self {
        Self {
            ask_at: Instant::now() + ASK_EVERY,
            said: None,
        }
    }

    /// Says why the item is pending, where it has been for a while and that is something new.
    pub async fn look(&mut self, api: &ApiClient, item: &WorkItem) {
        if item.status != WorkStatus::Pending {
            self.ask_at = Instant::now() + ASK_EVERY;
            return;
        }
        if Instant::now() < self.ask_at {
            return;
        }
        self.ask_at = Instant::now() + ASK_EVERY;
        let id = item.id.to_string();
        // Without an answer there is nothing to say; whether the coordinator is there is told elsewhere.
        let Ok(explained) = api
            .get::<ExplainAnswer>(&["work", &id, "explain"], &[])
            .await
        else {
            return;
        };
        if let Some(line) = line(item, &explained)
            && self.said.as_ref() != Some(&line)
        {
            note(&line);
            self.said = Some(line);
        }
    }
}

/// Why nobody takes it. Nothing where somebody may.
fn line(item: &WorkItem, explained: &ExplainAnswer) -> Option<String> {
    let agents = &explained.agents;
    if explained.status != WorkStatus::Pending || agents.iter().any(|agent| agent.eligible) {
        return None;
    }
    let again = item
        .pending_reason
        .map(|reason| format!(" again ({reason})"))
        .unwrap_or_default();
    let others = explained.others.iter();
    let mut rules: BTreeMap<&str, usize> = others
        .map(|(rule, count)| (rule.as_str(), *count))
        .collect();
    for agent in agents {
        *rules
            .entry(agent.rule.as_deref().unwrap_or("other"))
            .or_default() += 1;
    }
    let rules: Vec<String> = rules
        .iter()
        .map(|(rule, count)| format!("{rule} {count}"))
        .collect();
    let rules = match rules.as_slice() {
        [] => String::new(),
        rules => format!(" (agents by the rule against them: {})", rules.join(", ")),
    };
    // Of these a person can end the waiting.
    let kept = agents.iter().find(|agent| {
        let kept = [AgentStatus::Paused, AgentStatus::Quarantined];
        agent.rule.as_deref() == Some("status") && kept.contains(&agent.status)
    });
    let kept = kept
        .map(|agent| format!("; {}: {}", agent.handle, agent.message))
        .unwrap_or_default();
    Some(format!(
        "{} is pending{again}: {}{rules}{kept}; see `loom work explain {}`",
        item.id, explained.summary, item.id
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom_protocol::work::sample_item as item;
    use serde_json::json;

    fn explained(rules: &[Option<&str>]) -> ExplainAnswer {
        let agents: Vec<_> = rules
            .iter()
            .map(|rule| {
                json!({"guid": "01890a5d-ac96-774b-bcce-b302099a8057", "handle": "a",
                    "agentType": "t", "status": "online", "eligible": rule.is_none(),
                    "rule": rule, "message": "m"})
            })
            .collect();
        let answer = json!({"id": item().id, "status": "pending", "summary": "nobody may",
            "agents": agents, "targets": []});
        serde_json::from_value(answer).unwrap()
    }

    #[test]
    fn the_reason_and_the_rules_are_named() {
        let mut item = item();
        item.pending_reason = Some(loom_protocol::work::Reason::AgentLost);
        let rules = [Some("slots"), Some("capability"), Some("slots")];
        let line = line(&item, &explained(&rules)).unwrap();
        for part in [
            "again (agent-lost)",
            "nobody may",
            "capability 1, slots 2",
            "loom work explain",
        ] {
            assert!(line.contains(part), "{part:?} is not in {line}");
        }
    }

    #[test]
    fn an_agent_that_is_only_kept_from_work_is_named() {
        let mut explained = explained(&[Some("capability"), Some("status"), Some("status")]);
        assert!(!line(&item(), &explained).unwrap().contains("; a: m"));
        explained.agents[2].status = AgentStatus::Paused;
        assert!(line(&item(), &explained).unwrap().contains("; a: m; see"));
    }

    #[test]
    fn nothing_is_said_where_somebody_may_take_it() {
        assert_eq!(line(&item(), &explained(&[Some("slots"), None])), None);
        assert!(line(&item(), &explained(&[])).is_some());
    }
}
