//! `loom work cancel`: some items, or all that match.

use clap::{ArgGroup, Args};
use loom_protocol::rest::CancelBatchResult;
use serde_json::json;

use crate::api_client::ApiClient;
use crate::cli::each;
use crate::cli::exit::{CliError, CliResult};
use crate::cli::naming::name;
use crate::cli::output::{Output, note};

/// Who cancels, as the item remembers it.
const BY: &str = "loom work cancel";
/// How many refusals are named.
const REFUSALS_SHOWN: usize = 10;

/// Which items to call off.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group = ArgGroup::new("which").required(true).multiple(true)
    .args(["ids", "status", "capability", "boundary", "label", "assigned_to", "min_priority"]))]
pub(super) struct CancelArgs {
    /// The items: ids, beginnings of them, or taskIds.
    #[arg(value_parser = name, conflicts_with_all = ["status", "capability", "boundary", "label", "assigned_to", "min_priority"])]
    ids: Vec<String>,
    /// All of this status (or several, with commas between them) that match; without it all that have not ended.
    #[arg(long)]
    status: Option<String>,
    /// All of this capability.
    #[arg(long)]
    capability: Option<String>,
    /// All of this boundary.
    #[arg(long)]
    boundary: Option<String>,
    /// All with this label.
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Option<String>,
    /// All of this agent: its guid, the beginning of it, or its handle.
    #[arg(long, value_name = "AGENT", value_parser = name)]
    assigned_to: Option<String>,
    /// All of at least this priority.
    #[arg(long, value_name = "PRIORITY")]
    min_priority: Option<u8>,
    /// Why.
    #[arg(long)]
    reason: Option<String>,
}

/// Does what the arguments say.
pub(super) async fn run(out: Output, api: &ApiClient, args: CancelArgs) -> CliResult {
    if !args.ids.is_empty() {
        let body = json!({"reason": args.reason, "by": BY});
        let cancel = async |id: String| api.post(&["work", &id, "cancel"], &body).await;
        return each::for_each(out, args.ids, cancel).await;
    }
    let body = json!({
        "filter": {
            "status": args.status,
            "capability": args.capability,
            "boundary": args.boundary,
            "label": args.label,
            "assignedTo": args.assigned_to,
            "minPriority": args.min_priority,
        },
        "reason": args.reason,
        "by": BY,
    });
    let out = out.doing("");
    let (mut cancelled, mut refused) = (Vec::new(), Vec::new());
    loop {
        let answer: CancelBatchResult = api.post(&["work", "cancel-batch"], &body).await?;
        let came_further = !answer.cancelled_items.is_empty();
        cancelled.extend(answer.cancelled_items);
        refused.extend(answer.batch.errors);
        if !(answer.has_more && came_further) {
            break;
        }
    }
    if out.is_json() {
        out.json(&json!({"cancelled": cancelled, "refused": refused}))?;
    } else {
        out.text(&match cancelled.len() {
            1 => "1 item is cancelled".to_owned(),
            count => format!("{count} items are cancelled"),
        })?;
        for (id, error) in refused.iter().take(REFUSALS_SHOWN) {
            note(&format!("{id}: {error}"));
        }
    }
    match refused.len() {
        0 => Ok(()),
        count => Err(CliError::Failed(format!(
            "{count} items could not be cancelled"
        ))),
    }
}
