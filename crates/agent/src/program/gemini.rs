//! Gemini CLI: `gemini --output-format=stream-json`.

use serde_json::Value;

use super::facts::{Facts, ResultEvent, Tokens};
use super::power::Allow;
use super::{Adapter, Launch, Meaning, doing, field, number, says_denied, text};
use crate::limit_met::Class;
use crate::limit_presets::LimitPreset;

/// Gemini CLI.
#[derive(Debug)]
pub struct Gemini;

impl Adapter for Gemini {
    fn executable(&self) -> &'static str {
        "gemini"
    }

    fn agent_type(&self) -> &'static str {
        "gemini-cli"
    }

    fn config_directory(&self) -> (Option<&'static str>, &'static str) {
        (None, ".gemini")
    }

    fn preset(&self) -> LimitPreset {
        LimitPreset::Gemini
    }

    fn own_flags(&self) -> &'static [&'static str] {
        &[
            "--output-format",
            "-o",
            "--approval-mode",
            "--yolo",
            "-y",
            "--skip-trust",
            "--allowed-tools",
            "-p",
            "--prompt",
            "-i",
            "--prompt-interactive",
            "--resume",
            "-r",
        ]
    }

    fn command_line(&self, launch: &Launch<'_>) -> Vec<String> {
        let mode = match launch.power.allow {
            Allow::Edit | Allow::Test => "auto_edit",
            Allow::All => "yolo",
        };
        let mut line = vec![
            "--output-format=stream-json".into(),
            format!("--approval-mode={mode}"),
            "--skip-trust".into(),
        ];
        let commands = launch.power.commands();
        if !commands.is_empty() {
            let rules = commands
                .iter()
                .map(|command| format!("run_shell_command({command})"));
            line.push(format!(
                "--allowed-tools={}",
                rules.collect::<Vec<_>>().join(",")
            ));
        }
        line.extend_from_slice(launch.extra);
        line
    }

    fn read(&self, event: &Value, facts: &mut Facts) {
        match text(event, "/type") {
            Some("init") => {
                facts.session = text(event, "/session_id").map(str::to_owned);
                facts.spent.by_model(text(event, "/model"));
            }
            Some("message") if text(event, "/role") == Some("assistant") => {
                let is_part = event.pointer("/delta").and_then(Value::as_bool) == Some(true);
                let content = text(event, "/content").unwrap_or_default();
                if content.is_empty() {
                    return;
                }
                if facts.answer_is_over || !is_part {
                    facts.answer = None;
                    facts.answer_is_over = false;
                }
                facts.add_to_answer(content);
            }
            Some("tool_use") => {
                let tool = text(event, "/tool_name").unwrap_or("a tool");
                let line = doing::line(
                    tool,
                    field(event, "/parameters"),
                    facts.directory.as_deref(),
                );
                facts.doing = Some(line);
                facts.call(text(event, "/tool_id"), tool);
                // What it says from here on is another message; until then the last one stays.
                facts.answer_is_over = true;
            }
            Some("tool_result") => {
                let tool = facts.called(text(event, "/tool_id"));
                if text(event, "/status") != Some("success") && says_denied(event) {
                    facts.deny(tool.as_deref().unwrap_or("a tool"));
                }
            }
            Some("error") => facts.trouble = text(event, "/message").map(str::to_owned),
            Some("result") => result(event, facts),
            _ => {}
        }
    }

    fn exit_meaning(&self, code: u8) -> Option<Meaning> {
        Some(match code {
            41 => Meaning::unspent(Class::Account, "it could not sign in"),
            42 => Meaning::failed("input", "it did not accept its input"),
            44 => Meaning::failed("sandbox", "its sandbox failed"),
            52 => Meaning::failed("config", "its configuration is wrong"),
            53 => Meaning::failed("max-turns", "it reached its limit of turns"),
            54 => Meaning::failed("tool", "a tool failed"),
            55 => Meaning::failed("untrusted", "it does not trust the directory"),
            _ => return None,
        })
    }
}

fn result(event: &Value, facts: &mut Facts) {
    let stats = field(event, "/stats");
    let count = |name: &str| number(stats, name).unwrap_or(0);
    let (input, cached) = (count("/input_tokens"), count("/cached"));
    let output = count("/output_tokens");
    let used = Tokens {
        input: input.saturating_sub(cached),
        // Thoughts are in the total only.
        output: count("/total_tokens").saturating_sub(input).max(output),
        cache_read: cached,
        cache_write: 0,
    };
    facts.spent.total(used, None);
    if text(event, "/status") == Some("success") {
        facts.result = Some(ResultEvent::Good);
    } else {
        let code = text(event, "/error/type").unwrap_or("error");
        let message = text(event, "/error/message").or(facts.trouble.as_deref());
        let message = message.unwrap_or("it ended with an error").to_owned();
        facts.fail(code, message);
    }
}
