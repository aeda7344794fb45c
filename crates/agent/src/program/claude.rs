//! Claude Code: `claude -p --output-format=stream-json --verbose`.

use loom_protocol::Timestamp;
use serde_json::Value;

use super::facts::{Facts, ResultEvent, Tokens};
use super::power::Allow;
use super::{Adapter, Launch, doing, field, list, number, text};
use crate::limit_presets::LimitPreset;

/// Claude Code.
#[derive(Debug)]
pub struct Claude;

impl Adapter for Claude {
    fn executable(&self) -> &'static str {
        "claude"
    }

    fn agent_type(&self) -> &'static str {
        "claude-code"
    }

    fn config_directory(&self) -> (Option<&'static str>, &'static str) {
        (Some("CLAUDE_CONFIG_DIR"), ".claude")
    }

    fn preset(&self) -> LimitPreset {
        LimitPreset::Claude
    }

    fn own_flags(&self) -> &'static [&'static str] {
        &[
            "-p",
            "--print",
            "--output-format",
            "--input-format",
            "--verbose",
            "--permission-mode",
            "--allowedTools",
            "--allowed-tools",
            "--dangerously-skip-permissions",
            "--session-id",
            "--resume",
            "-r",
            "--continue",
            "-c",
        ]
    }

    fn command_line(&self, launch: &Launch<'_>) -> Vec<String> {
        let mut line = vec![
            "-p".into(),
            "--output-format=stream-json".into(),
            "--verbose".into(),
        ];
        line.push(match launch.power.allow {
            Allow::Edit | Allow::Test => "--permission-mode=acceptEdits".into(),
            Allow::All => "--permission-mode=bypassPermissions".into(),
        });
        let commands = launch.power.commands();
        if !commands.is_empty() {
            let rules: Vec<String> = commands
                .iter()
                .map(|command| format!("Bash({command}:*)"))
                .collect();
            line.push(format!("--allowedTools={}", rules.join(",")));
        }
        line.push(format!("--session-id={}", launch.session));
        line.extend_from_slice(launch.extra);
        line
    }

    fn names_session(&self) -> bool {
        true
    }

    fn refuses_all_as_root(&self) -> bool {
        true
    }

    fn read(&self, event: &Value, facts: &mut Facts) {
        if let Some(session) = text(event, "/session_id") {
            facts.session = Some(session.to_owned());
        }
        match text(event, "/type") {
            Some("system") if text(event, "/subtype") == Some("init") => {
                if let Some(directory) = text(event, "/cwd") {
                    facts.directory = Some(directory.to_owned());
                }
                facts.spent.by_model(text(event, "/model"));
            }
            Some("assistant") => message(event, facts),
            Some("rate_limit_event") => limit(field(event, "/rate_limit_info"), facts),
            Some("result") => result(event, facts),
            _ => {}
        }
    }
}

fn message(event: &Value, facts: &mut Facts) {
    if let Some(usage) = event.pointer("/message/usage") {
        facts
            .spent
            .message(text(event, "/message/id"), tokens(usage));
    }
    for part in list(event, "/message/content") {
        match text(part, "/type") {
            // What a part of it says is not its answer.
            Some("text") if text(event, "/parent_tool_use_id").is_none() => {
                facts.answer = text(part, "/text").map(str::to_owned);
            }
            Some("tool_use") => {
                let tool = text(part, "/name").unwrap_or("a tool");
                let line = doing::line(tool, field(part, "/input"), facts.directory.as_deref());
                facts.doing = Some(line);
            }
            _ => {}
        }
    }
}

/// Only a limit that is met: warnings, and extra usage that is not there, are normal.
fn limit(info: &Value, facts: &mut Facts) {
    match text(info, "/status") {
        Some("rejected") => {
            let kind = text(info, "/rateLimitType").unwrap_or("usage");
            let resets = number(info, "/resetsAt").and_then(|seconds| i64::try_from(seconds).ok());
            let until = resets.map(|seconds| Timestamp::from_millis(seconds.saturating_mul(1000)));
            facts.meet_limit(format!("the {kind} limit is met"), until);
        }
        Some(_) => facts.limit = None,
        None => {}
    }
}

fn result(event: &Value, facts: &mut Facts) {
    let answer = text(event, "/result").map(str::to_owned);
    for denial in list(event, "/permission_denials") {
        facts.deny(text(denial, "/tool_name").unwrap_or("a tool"));
    }
    let cost = event.pointer("/total_cost_usd").and_then(Value::as_f64);
    facts.spent.total(tokens(field(event, "/usage")), cost);
    let structured = event
        .pointer("/structured_output")
        .filter(|value| !value.is_null());
    facts.structured = structured.cloned();
    let subtype = text(event, "/subtype").unwrap_or("success");
    let ended = text(event, "/terminal_reason").filter(|reason| *reason != "completed");
    let is_error = event.pointer("/is_error").and_then(Value::as_bool) == Some(true);
    if is_error || subtype != "success" || ended.is_some() {
        let errors = list(event, "/errors").filter_map(Value::as_str);
        let errors: Vec<&str> = errors.collect();
        let said = Some(errors.join("\n")).filter(|errors| !errors.is_empty());
        let code = if subtype == "success" {
            ended.unwrap_or("is-error")
        } else {
            subtype
        };
        let message = said.or(answer).filter(|said| !said.trim().is_empty());
        facts.fail(
            code,
            message.unwrap_or_else(|| format!("it ended with {code}")),
        );
    } else {
        facts.answer = answer.or(facts.answer.take());
        facts.result = Some(ResultEvent::Good);
    }
}

fn tokens(usage: &Value) -> Tokens {
    let count = |name: &str| number(usage, name).unwrap_or(0);
    Tokens {
        input: count("/input_tokens"),
        output: count("/output_tokens"),
        cache_read: count("/cache_read_input_tokens"),
        cache_write: count("/cache_creation_input_tokens"),
    }
}
