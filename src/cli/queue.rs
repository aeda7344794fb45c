//! `loom queue`: what waits, and cancelling what waits.

use clap::{ArgGroup, Args, Subcommand};
use loom_protocol::work::{PurgeAnswer, QueueInfo};
use loom_protocol::{ProjectId, Timestamp};
use serde::Serialize;
use serde_json::json;

use super::Context;
use super::exit::CliResult;
use super::output::table;
use super::pages;
use super::table::Column;
use super::times::ago;

/// Say what waits, by capability; cancel what waits.
#[derive(Debug, Args)]
pub struct QueueArgs {
    #[command(subcommand)]
    command: Option<QueueCommand>,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// Say what waits (the same as `loom queue` alone)
    Info,
    /// Cancel what is pending and matches; what an agent holds goes on
    Purge(PurgeArgs),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true).args(["capability", "boundary", "label", "all"]))]
struct PurgeArgs {
    /// Only of this capability.
    #[arg(long)]
    capability: Option<String>,
    /// Only of this boundary.
    #[arg(long)]
    boundary: Option<String>,
    /// Only with this label.
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Option<String>,
    /// All that is pending.
    #[arg(long, conflicts_with_all = ["capability", "boundary", "label"])]
    all: bool,
}

/// Does what the arguments say.
pub async fn run(context: &Context, args: QueueArgs) -> CliResult {
    match args.command.unwrap_or(QueueCommand::Info) {
        QueueCommand::Info => info(context).await,
        QueueCommand::Purge(args) => purge(context, &args).await,
    }
}

async fn info(context: &Context) -> CliResult {
    if context.is_everywhere() {
        return info_everywhere(context).await;
    }
    let queue: QueueInfo = context.api()?.get(&["queue"], &[]).await?;
    if context.out.is_json() {
        return context.out.json(&queue);
    }
    let mut rows = table(&[Column::text("CAPABILITY", 10), Column::whole("PENDING")]);
    for (capability, count) in &queue.pending {
        rows.add_row([capability.clone(), count.to_string()]);
    }
    context.out.table(&rows, "nothing is pending")?;
    tell_rest(context, queue.oldest_pending, queue.messages)
}

/// The queue of one project among others.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OfProject {
    project_id: ProjectId,
    #[serde(flatten)]
    queue: QueueInfo,
}

/// Of every project, one after the other.
async fn info_everywhere(context: &Context) -> CliResult {
    let api = context.api_of_listing().await?;
    let mut queues = Vec::new();
    for project_id in pages::projects(&api).await? {
        let api = api.of_project(project_id.clone());
        let queue: QueueInfo = api.get(&["queue"], &[]).await?;
        queues.push(OfProject { project_id, queue });
    }
    if context.out.is_json() {
        return context.out.json(&json!({ "queues": queues }));
    }
    let mut rows = table(&[
        Column::text("PROJECT", 8).at_most(64),
        Column::text("CAPABILITY", 10),
        Column::whole("PENDING"),
    ]);
    for OfProject { project_id, queue } in &queues {
        for (capability, count) in &queue.pending {
            rows.add_row([
                project_id.to_string(),
                capability.clone(),
                count.to_string(),
            ]);
        }
    }
    context.out.table(&rows, "nothing is pending")?;
    let queues = queues.iter().map(|of_project| &of_project.queue);
    let oldest = queues
        .clone()
        .filter_map(|queue| queue.oldest_pending)
        .min();
    tell_rest(context, oldest, queues.map(|queue| queue.messages).sum())
}

fn tell_rest(context: &Context, oldest: Option<Timestamp>, messages: u64) -> CliResult {
    if let Some(oldest) = oldest {
        let text = format!("the oldest was submitted {}", ago(oldest));
        context.out.text(&text)?;
    }
    if messages > 0 {
        let text = format!("{messages} published messages are not taken over yet");
        context.out.text(&text)?;
    }
    Ok(())
}

async fn purge(context: &Context, args: &PurgeArgs) -> CliResult {
    let body = json!({
        "capability": args.capability,
        "boundary": args.boundary,
        "label": args.label,
        "all": args.all,
    });
    let answer: PurgeAnswer = context.api()?.post(&["queue", "purge"], &body).await?;
    if context.out.is_json() {
        return context.out.json(&answer);
    }
    context.out.text(&match answer.purged {
        1 => "1 item is cancelled".to_owned(),
        count => format!("{count} items are cancelled"),
    })
}
