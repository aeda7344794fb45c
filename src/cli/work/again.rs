//! `loom work clone`: the same work once more.

use clap::Args;
use loom_protocol::WorkId;
use loom_protocol::work::WorkItem;
use serde_json::json;

use crate::cli::Context;
use crate::cli::exit::{CliError, CliResult};
use crate::cli::naming::name;
use crate::cli::submit::submit_one;
use crate::cli::tasks_file::Fields;

/// Which item to submit once more.
#[derive(Debug, Args)]
pub(super) struct CloneArgs {
    /// The item: its id, the beginning of it, or its taskId.
    #[arg(value_parser = name)]
    id: String,
    /// Wait until the new item has ended; exit 1 if it failed or was cancelled.
    #[arg(short, long)]
    wait: bool,
}

/// Submits what is to be done, for whom and how, without what became of it and without its times.
pub(super) async fn run(context: &Context, args: &CloneArgs) -> CliResult {
    let api = context.api()?;
    let item: WorkItem = api.get(&["work", &args.id], &[]).await?;
    let fields = json!({
        "description": item.description,
        "capability": item.capability,
        "boundary": item.boundary,
        "priority": item.priority,
        "labels": item.labels,
        "timeoutMs": item.timeout_ms,
        "maxAttempts": item.max_attempts,
        "preferredAgentType": item.preferred_agent_type,
        "requiredAgentType": item.required_agent_type,
        "contextData": item.context_data,
    });
    let failed = |error: serde_json::Error| CliError::Failed(error.to_string());
    let fields = serde_json::to_string(&fields).map_err(failed)?;
    let fields: Fields = serde_json::from_str(&fields).map_err(failed)?;
    let project = item.project_id.parse();
    let api = match project {
        Ok(project) => api.of_project(project),
        Err(_) => api,
    };
    submit_one(context, &api, WorkId::generate(), fields, args.wait).await
}
