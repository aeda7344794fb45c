//! `loom work explain`: who may take an item, and which targets may start an agent for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use loom_protocol::work::{AgentVerdict, ExplainAnswer, TargetVerdict};

use crate::api_client::ApiClient;
use crate::cli::exit::CliResult;
use crate::cli::naming::short_ids;
use crate::cli::output::{Output, Table, block, note, table};
use crate::cli::table::Column;
use crate::cli::times::ago;

/// Prints the sentence, the starts that are under way, the agents, and the targets where there are any: all that are
/// named, or only those that have to do with the item.
pub(super) async fn run(out: Output, api: &ApiClient, id: &str, all: bool) -> CliResult {
    let answer: ExplainAnswer = api.get(&["work", id, "explain"], &[]).await?;
    if out.is_json() {
        return out.json(&answer);
    }
    out.text(&sentences(&answer))?;
    out.table(&of_agents(&answer.agents), "no agents are registered")?;
    let more = answer.agents_total.saturating_sub(answer.agents.len());
    tell_the_rest(more, "agents", &answer.others);
    if answer.targets_unread {
        note("which targets there are is not known yet; ask again in a moment");
    }
    let related = answer.targets.iter();
    let related: Vec<&TargetVerdict> = related.filter(|of| all || is_related(of)).collect();
    if !related.is_empty() {
        out.text("")?;
        out.table(&of_targets(&related), "")?;
    }
    let unrelated = answer.targets.len() - related.len();
    let more = answer.targets_total.saturating_sub(answer.targets.len());
    tell_the_rest(more, "targets", &answer.other_targets);
    match unrelated {
        0 => {}
        1 => note("1 target for another capability is left out; --all shows it"),
        more => note(&format!(
            "{more} targets for other capabilities are left out; --all shows them"
        )),
    }
    Ok(())
}

/// Whether a target has to do with an item: one that starts agents for something else has not.
fn is_related(verdict: &TargetVerdict) -> bool {
    verdict.rule.as_deref() != Some("capability")
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
        if let Some(said) = &start.said {
            let _ = write!(text, ": {}", block(said));
        }
    }
    text
}

/// One who was judged: its name, its id, its type, its state, and the verdict.
type Judged<'a> = ([&'a str; 4], bool, Option<&'a str>, &'a str);

fn of_agents(verdicts: &[AgentVerdict]) -> Table {
    let columns = [
        Column::text("AGENT", 8).at_most(32),
        Column::spare("GUID", 0),
        Column::whole("MAY TAKE IT"),
    ];
    let guids = short_ids(verdicts.iter().map(|agent| agent.guid));
    let judged = verdicts.iter().zip(&guids).map(|(of, guid)| {
        let is = [&*of.handle, guid, &*of.agent_type, of.status.as_str()];
        (is, of.eligible, of.rule.as_deref(), &*of.message)
    });
    verdicts_of(columns, judged)
}

fn of_targets(verdicts: &[&TargetVerdict]) -> Table {
    let columns = [
        Column::text("TARGET", 8).at_most(64),
        Column::spare("ID", 0),
        Column::whole("MAY START"),
    ];
    let ids = short_ids(verdicts.iter().map(|target| target.id));
    let judged = verdicts.iter().zip(&ids).map(|(of, id)| {
        let is = [&*of.name, id, &*of.agent_type, of.status.as_str()];
        (is, of.eligible, of.rule.as_deref(), &*of.message)
    });
    verdicts_of(columns, judged)
}

/// Who was judged, and how: a line for each.
fn verdicts_of<'a>(
    [name, id, may]: [Column; 3],
    judged: impl Iterator<Item = Judged<'a>>,
) -> Table {
    let mut rows = table(&[
        name,
        id,
        Column::cut("TYPE", 6, 3).at_most(24),
        Column::spare("STATUS", 2),
        may,
        Column::spare("RULE", 1),
        Column::text("WHY", 16),
    ]);
    for ([name, id, of_type, status], eligible, rule, message) in judged {
        let may = if eligible { "yes" } else { "no" };
        let rule = rule.unwrap_or_default();
        rows.add_row([name, id, of_type, status, may, rule, message].map(str::to_owned));
    }
    rows
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
                "status": "in-progress", "startedAt": "2026-01-31T12:00:00Z", "said": "no node\u{7} takes its pod"}],
        }))
        .unwrap();
        let said = sentences(&answer);
        for part in [
            "no agent may take it now",
            "by target build-2\\u001b[2J (operation 01890a5d-ac96-774b-bcce-b302099a8057, in-progress",
            "): no node\\u0007 takes its pod",
        ] {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
        let all: Vec<&TargetVerdict> = answer.targets.iter().collect();
        let rows = of_targets(&all).lines(None).join("\n");
        for part in ["build-2", "full", "it has 1 of the 1", "no"] {
            assert!(rows.contains(part), "{part:?} is not in {rows}");
        }
        assert!(is_related(&answer.targets[0]));
        let mut other = answer.targets[0].clone();
        other.rule = Some("capability".into());
        assert!(!is_related(&other));
        // One of a coordinator of before, which knows nothing of starts.
        let before = json!({"id": sample_item().id, "status": "pending", "summary": "s", "agents": [], "targets": []});
        let before: ExplainAnswer = serde_json::from_value(before).unwrap();
        assert_eq!((before.targets_total, before.being_started.len()), (0, 0));
    }
}
