//! `loom work explain`: who may take an item, and which targets may start an agent for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use loom_protocol::work::ExplainAnswer;

use crate::api_client::ApiClient;
use crate::cli::exit::CliResult;
use crate::cli::naming::short_ids;
use crate::cli::output::{Output, Table, block, note, table};
use crate::cli::table::Column;
use crate::cli::times::ago;

/// Prints the sentence, the starts that are under way, the agents, and the targets where there are any.
pub(super) async fn run(out: Output, api: &ApiClient, id: &str) -> CliResult {
    let answer: ExplainAnswer = api.get(&["work", id, "explain"], &[]).await?;
    if out.is_json() {
        return out.json(&answer);
    }
    out.text(&sentences(&answer))?;
    out.table(&agents(&answer), "no agents are registered")?;
    let more = answer.agents_total.saturating_sub(answer.agents.len());
    tell_the_rest(more, "agents", &answer.others);
    if answer.targets_total > 0 {
        out.text("")?;
        out.table(&targets(&answer), "no target is named")?;
    }
    let more = answer.targets_total.saturating_sub(answer.targets.len());
    tell_the_rest(more, "targets", &answer.other_targets);
    Ok(())
}

fn sentences(answer: &ExplainAnswer) -> String {
    let summary = block(&answer.summary);
    let mut text = format!("{} is {}: {summary}", answer.id, answer.status);
    if let Some(ahead) = answer.ahead {
        let _ = write!(text, "\n{ahead} items with the same needs go before it");
    }
    for start in &answer.being_started {
        let _ = write!(
            text,
            "\nan agent is being started by target {} (operation {}, {}, {})",
            block(&start.target_name),
            start.operation_id,
            start.status.as_str(),
            ago(start.started_at),
        );
    }
    text
}

fn agents(answer: &ExplainAnswer) -> Table {
    let mut rows = table(&[
        Column::text("AGENT", 8).at_most(32),
        Column::spare("GUID", 0),
        Column::cut("TYPE", 6, 3).at_most(24),
        Column::spare("STATUS", 2),
        Column::whole("MAY TAKE IT"),
        Column::spare("RULE", 1),
        Column::text("WHY", 16),
    ]);
    let guids = short_ids(answer.agents.iter().map(|agent| agent.guid));
    for (verdict, guid) in answer.agents.iter().zip(guids) {
        rows.add_row([
            verdict.handle.clone(),
            guid,
            verdict.agent_type.clone(),
            verdict.status.to_string(),
            yes_or_no(verdict.eligible),
            verdict.rule.clone().unwrap_or_default(),
            verdict.message.clone(),
        ]);
    }
    rows
}

fn targets(answer: &ExplainAnswer) -> Table {
    let mut rows = table(&[
        Column::text("TARGET", 8).at_most(64),
        Column::spare("ID", 0),
        Column::cut("TYPE", 6, 3).at_most(24),
        Column::spare("STATUS", 2),
        Column::whole("MAY START"),
        Column::spare("RULE", 1),
        Column::text("WHY", 16),
    ]);
    let ids = short_ids(answer.targets.iter().map(|target| target.id));
    for (verdict, id) in answer.targets.iter().zip(ids) {
        rows.add_row([
            verdict.name.clone(),
            id,
            verdict.agent_type.clone(),
            verdict.status.to_string(),
            yes_or_no(verdict.eligible),
            verdict.rule.clone().unwrap_or_default(),
            verdict.message.clone(),
        ]);
    }
    rows
}

fn yes_or_no(is_so: bool) -> String {
    if is_so { "yes" } else { "no" }.into()
}

fn tell_the_rest(more: usize, what: &str, others: &BTreeMap<String, usize>) {
    if more == 0 {
        return;
    }
    let rules = others.iter();
    let rules: Vec<String> = rules
        .map(|(rule, count)| format!("{rule} {count}"))
        .collect();
    note(&format!(
        "{more} more {what}, by the rule against them: {}",
        rules.join(", ")
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom_protocol::work::sample_item;
    use serde_json::json;

    #[test]
    fn what_is_being_started_and_each_target_with_its_rule_are_shown() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let answer: ExplainAnswer = serde_json::from_value(json!({
            "id": sample_item().id, "status": "pending", "summary": "no agent may take it now", "agents": [],
            "targets": [{"id": id, "name": "build-2", "agentType": "codex", "mechanism": "ssh", "status": "available",
                "eligible": false, "rule": "full", "message": "it has 1 of the 1 agents that it may have"}],
            "targetsTotal": 1,
            "beingStarted": [{"operationId": id, "targetId": id, "targetName": "build-2\u{1b}[2J",
                "status": "in-progress", "startedAt": "2026-01-31T12:00:00Z"}],
        }))
        .unwrap();
        let said = sentences(&answer);
        for part in [
            "no agent may take it now",
            "by target build-2\\u001b[2J (operation 01890a5d-ac96-774b-bcce-b302099a8057, in-progress",
        ] {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
        let rows = targets(&answer).lines(None).join("\n");
        for part in ["build-2", "full", "it has 1 of the 1", "no"] {
            assert!(rows.contains(part), "{part:?} is not in {rows}");
        }
        // One of a coordinator of before, which knows nothing of starts.
        let before = json!({"id": sample_item().id, "status": "pending", "summary": "s", "agents": [], "targets": []});
        let before: ExplainAnswer = serde_json::from_value(before).unwrap();
        assert_eq!((before.targets_total, before.being_started.len()), (0, 0));
    }
}
