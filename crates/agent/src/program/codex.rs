//! OpenAI Codex: `codex exec --json`.

use serde_json::Value;

use super::facts::{Facts, ResultEvent, Tokens};
use super::power::Allow;
use super::{Adapter, Launch, doing, field, list, number, text};
use crate::limit_presets::LimitPreset;

/// OpenAI Codex.
#[derive(Debug)]
pub struct Codex;

impl Adapter for Codex {
    fn executable(&self) -> &'static str {
        "codex"
    }

    fn agent_type(&self) -> &'static str {
        "codex"
    }

    fn config_directory(&self) -> (Option<&'static str>, &'static str) {
        (Some("CODEX_HOME"), ".codex")
    }

    fn preset(&self) -> LimitPreset {
        LimitPreset::Codex
    }

    fn own_flags(&self) -> &'static [&'static str] {
        &[
            "--json",
            "--sandbox",
            "-s",
            "--skip-git-repo-check",
            "--full-auto",
            "--dangerously-bypass-approvals-and-sandbox",
            "--yolo",
            "-",
        ]
    }

    /// Its sandbox runs any command without network: what may be edited may be tested, too.
    fn command_line(&self, launch: &Launch<'_>) -> Vec<String> {
        let sandbox = match launch.power.allow {
            Allow::Edit | Allow::Test => "workspace-write",
            Allow::All => "danger-full-access",
        };
        let mut line = vec![
            "exec".into(),
            "--json".into(),
            format!("--sandbox={sandbox}"),
            "--skip-git-repo-check".into(),
        ];
        line.extend_from_slice(launch.extra);
        line.push("-".into());
        line
    }

    fn read(&self, event: &Value, facts: &mut Facts) {
        match text(event, "/type") {
            Some("thread.started") => {
                facts.session = text(event, "/thread_id").map(str::to_owned);
            }
            // What follows is another turn.
            Some("turn.started") => facts.result = None,
            Some("item.started") => begun(field(event, "/item"), facts),
            Some("item.completed") => {
                let item = field(event, "/item");
                if text(item, "/type") == Some("agent_message") {
                    facts.answer = text(item, "/text").map(str::to_owned);
                } else if text(item, "/type") == Some("file_change") {
                    begun(item, facts);
                }
            }
            Some("turn.completed") => turn_completed(field(event, "/usage"), facts),
            Some("turn.failed") => {
                let message = text(event, "/error/message").or(facts.trouble.as_deref());
                let message = message.unwrap_or("the turn failed").to_owned();
                facts.fail("turn-failed", message);
            }
            // It may be no more than a connection that is made anew.
            Some("error") => facts.trouble = text(event, "/message").map(str::to_owned),
            _ => {}
        }
    }
}

fn begun(item: &Value, facts: &mut Facts) {
    let directory = facts.directory.as_deref();
    facts.doing = match text(item, "/type") {
        Some("command_execution") => text(item, "/command").map(doing::runs),
        Some("file_change") => {
            let first = list(item, "/changes").next();
            first
                .and_then(|change| text(change, "/path"))
                .map(|path| doing::edits(path, directory))
        }
        Some("web_search") => Some(doing::line("web_search", item, None)),
        Some("mcp_tool_call") => {
            let tool = text(item, "/tool").unwrap_or("a tool");
            Some(doing::line(tool, field(item, "/arguments"), directory))
        }
        _ => return,
    };
}

fn turn_completed(usage: &Value, facts: &mut Facts) {
    let count = |name: &str| number(usage, name).unwrap_or(0);
    let cached = count("/cached_input_tokens");
    let used = Tokens {
        input: count("/input_tokens").saturating_sub(cached),
        output: count("/output_tokens"),
        cache_read: cached,
        cache_write: 0,
    };
    facts.spent.message(None, used);
    if facts.answer.is_none() && used.sum() == 0 {
        let said = facts.trouble.clone();
        let said = said.unwrap_or_else(|| "a turn without a message and without tokens".into());
        facts.meet_limit(said.clone(), None);
        facts.fail("empty-turn", said);
    } else {
        facts.trouble = None;
        facts.result = Some(ResultEvent::Good);
    }
}
