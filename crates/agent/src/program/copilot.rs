//! GitHub Copilot CLI: `copilot -s --output-format=json`.

use serde_json::Value;

use super::facts::{Facts, ResultEvent};
use super::power::Allow;
use super::{Adapter, Launch, doing, field, says_denied, text};
use crate::limit_presets::LimitPreset;

/// GitHub Copilot CLI.
#[derive(Debug)]
pub struct Copilot;

impl Adapter for Copilot {
    fn executable(&self) -> &'static str {
        "copilot"
    }

    fn agent_type(&self) -> &'static str {
        "copilot-cli"
    }

    fn config_directory(&self) -> (Option<&'static str>, &'static str) {
        (None, ".copilot")
    }

    fn preset(&self) -> LimitPreset {
        LimitPreset::Copilot
    }

    fn own_flags(&self) -> &'static [&'static str] {
        &[
            "-s",
            "--silent",
            "--output-format",
            "--no-ask-user",
            "--session-id",
            "--resume",
            "--continue",
            "--allow-tool",
            "--allow-all",
            "--allow-all-tools",
            "--allow-all-paths",
            "--yolo",
            "--autopilot",
            "-p",
            "--prompt",
            "-i",
            "--interactive",
        ]
    }

    fn command_line(&self, launch: &Launch<'_>) -> Vec<String> {
        let mut line: Vec<String> = vec![
            "-s".into(),
            "--output-format=json".into(),
            "--no-ask-user".into(),
            format!("--session-id={}", launch.session),
        ];
        match launch.power.allow {
            Allow::Edit | Allow::Test => line.push("--allow-tool=write".into()),
            Allow::All => line.extend(["--allow-all".into(), "--autopilot".into()]),
        }
        let commands = launch.power.commands();
        line.extend(
            commands
                .iter()
                .map(|command| format!("--allow-tool=shell({command}:*)")),
        );
        line.extend_from_slice(launch.extra);
        line
    }

    fn names_session(&self) -> bool {
        true
    }

    fn read(&self, event: &Value, facts: &mut Facts) {
        let data = event.pointer("/data").unwrap_or(event);
        match text(event, "/type") {
            Some("session.start") => {
                if let Some(session) = text(data, "/sessionId") {
                    facts.session = Some(session.to_owned());
                }
            }
            Some("assistant.message") => {
                if let Some(content) = text(data, "/content").filter(|content| !content.is_empty())
                {
                    facts.answer = Some(content.to_owned());
                }
                // It goes on: what was wrong is over.
                facts.trouble = None;
                facts.limit = None;
            }
            Some("tool.execution_start") => {
                let tool = text(data, "/toolName").unwrap_or("a tool");
                let line = doing::line(tool, field(data, "/arguments"), facts.directory.as_deref());
                facts.doing = Some(line);
                facts.call(text(data, "/toolCallId"), tool);
            }
            Some("tool.execution_complete") => {
                let tool = facts.called(text(data, "/toolCallId"));
                let tool = tool.as_deref().or_else(|| text(data, "/toolName"));
                let is_success = data.pointer("/success").and_then(Value::as_bool);
                if is_success == Some(false) && says_denied(data) {
                    facts.deny(tool.unwrap_or("a tool"));
                }
            }
            Some("session.error") => {
                let message = text(data, "/message").unwrap_or("an error of its session");
                if text(data, "/errorType") == Some("rate_limit") {
                    facts.meet_limit(message, None);
                }
                facts.trouble = Some(message.to_owned());
            }
            Some("result") => result(event, facts),
            _ => {}
        }
    }
}

fn result(event: &Value, facts: &mut Facts) {
    if let Some(session) = text(event, "/sessionId") {
        facts.session = Some(session.to_owned());
    }
    let code = event
        .pointer("/exitCode")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    match (code, facts.trouble.clone()) {
        (0, None) => facts.result = Some(ResultEvent::Good),
        (_, Some(trouble)) => facts.fail("session-error", trouble),
        (code, None) => facts.fail("exit-code", format!("it ended with its exit code {code}")),
    }
}
