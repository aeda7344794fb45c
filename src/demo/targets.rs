//! `loom demo --targets`: nobody is there at first. Three targets start the agents when work waits for them, and the
//! agents go home when nothing does.

use std::time::Duration;

use loom_protocol::rest::AgentsPage;
use loom_protocol::target::TargetAnswer;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::display;
use super::plan::{ROLES, Role, SCRIPT};
use crate::api_client::ApiClient;
use crate::cli::exit::{CliError, CliResult};
use crate::settings::Settings;

/// After how much idleness an agent of the demo is sent home.
const IDLE: Duration = Duration::from_secs(2);
/// How long the last agent may take to go after the last item.
const GONE_WITHIN: Duration = Duration::from_secs(30);
/// How long agents may take that are told to end at once.
const END_WITHIN: Duration = Duration::from_secs(10);

/// What is otherwise in this demo.
pub fn adjust(settings: &mut Settings) {
    settings.agents.idle_timeout = IDLE;
    settings.agents.idle_grace = Duration::from_secs(5);
}

/// Registers a target for each agent of the demo.
///
/// # Errors
/// One is refused.
pub async fn register(api: &ApiClient) -> CliResult {
    let program = std::env::current_exe()
        .map_err(|error| CliError::Failed(format!("this program is not found again: {error}")))?;
    let program = program.to_string_lossy().into_owned();
    for role in ROLES {
        let _: TargetAnswer = api.post(&["targets"], &target_of(&role, &program)).await?;
    }
    Ok(())
}

/// The agent finds its type, capabilities and boundaries in its environment.
fn target_of(role: &Role, program: &str) -> Value {
    let arguments = [
        "agent",
        "run",
        "--handle",
        role.handle,
        "--drain",
        "3s",
        "--",
        "sh",
        "-c",
        SCRIPT,
        "sh",
        "{context.seconds}",
    ];
    json!({
        "name": role.handle,
        "agentType": role.agent_type,
        "capabilities": role.capabilities,
        "boundaries": role.boundaries,
        "mechanism": "local",
        // Not detached: whatever becomes of the demo, they do not outlive it.
        "config": {"command": program, "args": arguments, "detached": false},
    })
}

/// Waits until every agent has gone home.
///
/// # Errors
/// One stays.
pub async fn all_gone(api: &ApiClient) -> CliResult {
    let until = Instant::now() + GONE_WITHIN;
    loop {
        let page: AgentsPage = api.get(&["agents"], &[]).await?;
        if page.agents.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            let names: Vec<&str> = page.agents.iter().map(|a| a.handle.as_str()).collect();
            return Err(CliError::Failed(format!(
                "{} did not go home within {} s",
                names.join(", "),
                GONE_WITHIN.as_secs()
            )));
        }
        sleep(display::PERIOD).await;
    }
}

/// Ends whoever is there, however the demo went: nobody is started any more, and those who are there are told to go.
pub async fn end(api: &ApiClient) {
    let ending = async {
        let all = json!({"all": true});
        let _: Value = api.post(&["targets", "disable-batch"], &all).await?;
        loop {
            let page: AgentsPage = api.get(&["agents"], &[]).await?;
            if page.agents.is_empty() {
                return CliResult::Ok(());
            }
            let all = json!({"all": true, "graceful": false, "reason": "the demo is over"});
            let _: Value = api.post(&["agents", "shutdown-batch"], &all).await?;
            sleep(display::PERIOD).await;
        }
    };
    // What does not obey gets TERM with the end of this process.
    let _ = timeout(END_WITHIN, ending).await;
}
