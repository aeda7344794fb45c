//! `loom agents`: list, show and shut down agents.

use std::time::Duration;

use clap::{Args, Subcommand};
use loom_protocol::agent::Agent;
use loom_protocol::rest::{AgentsPage, UnreadablePage};
use serde_json::json;

use super::Context;
use super::each;
use super::exit::{CliError, CliResult};
use super::output::{Output, ago, cell, note, table};
use super::pages::{self, Query, tell_more};
use super::show::{at, sheet};
use super::work::id_prefix;
use crate::api_client::ApiClient;

/// List, show, shut down and resume agents.
#[derive(Debug, Args)]
pub struct AgentsArgs {
    #[command(subcommand)]
    command: Option<AgentsCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum AgentsCommand {
    /// List agents (the same as `loom agents` alone)
    List(ListArgs),
    /// Show all about an agent
    Show {
        /// The agent, or the beginning of its guid.
        #[arg(value_parser = id_prefix)]
        guid: String,
    },
    /// Tell agents to end
    Shutdown {
        /// The agents, or the beginnings of their guids.
        #[arg(required = true, value_parser = id_prefix)]
        guids: Vec<String>,
        /// Without letting them finish what they have.
        #[arg(long)]
        now: bool,
        /// Within which time, like `30s`.
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        grace: Option<Duration>,
        /// Why.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let agents take work again that are quarantined or paused
    Resume {
        /// The agents, or the beginnings of their guids.
        #[arg(required = true, value_parser = id_prefix)]
        guids: Vec<String>,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
struct ListArgs {
    /// Only of this type.
    #[arg(long = "type", value_name = "TYPE")]
    agent_type: Option<String>,
    /// Only of this status.
    #[arg(long)]
    status: Option<String>,
    /// Only with this capability.
    #[arg(long)]
    capability: Option<String>,
    /// Only in this boundary.
    #[arg(long)]
    boundary: Option<String>,
    /// At most so many; 50 where absent.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    /// Begin where the last page ended.
    #[arg(long)]
    cursor: Option<String>,
    /// Instead: entries in the buckets that cannot be taken for agents, each with the reason.
    #[arg(long, conflicts_with_all = ["agent_type", "status", "capability", "boundary", "cursor"])]
    unreadable: bool,
}

impl ListArgs {
    fn query(&self) -> Query {
        pages::query([
            ("type", self.agent_type.clone()),
            ("status", self.status.clone()),
            ("capability", self.capability.clone()),
            ("boundary", self.boundary.clone()),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("cursor", self.cursor.clone()),
            ("unreadable", self.unreadable.then(|| "true".to_owned())),
        ])
    }
}

/// Does what the arguments say.
pub async fn run(context: &Context, args: AgentsArgs) -> CliResult {
    if args.command.is_some() && args.list != ListArgs::default() {
        let message = "the filters of `loom agents` are for listing; write them after `list`";
        return Err(CliError::Usage(message.into()));
    }
    let api = context.api()?;
    match args.command {
        None => list(context.out, &api, &args.list).await,
        Some(AgentsCommand::List(own)) => list(context.out, &api, &own).await,
        Some(AgentsCommand::Show { guid }) => {
            let agent: Agent = api.get(&["agents", &guid], &[]).await?;
            show(context.out, &agent)
        }
        Some(AgentsCommand::Shutdown {
            guids,
            now,
            grace,
            reason,
        }) => {
            let body = json!({
                "graceful": !now,
                "gracePeriodMs": grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
                "reason": reason,
            });
            let shutdown =
                async |guid: String| api.post(&["agents", &guid, "shutdown"], &body).await;
            each::for_each(context.out, guids, shutdown).await
        }
        Some(AgentsCommand::Resume { guids }) => {
            let resume =
                async |guid: String| api.post(&["agents", &guid, "resume"], &json!({})).await;
            each::for_each(context.out, guids, resume).await
        }
    }
}

async fn list_unreadable(out: Output, api: &ApiClient, args: &ListArgs) -> CliResult {
    let page: UnreadablePage = api.get(&["agents"], &args.query()).await?;
    if out.is_json() {
        return out.json(&page);
    }
    let mut rows = table(&["BUCKET", "KEY", "PROJECT", "REASON"]);
    for entry in &page.unreadable {
        rows.add_row([
            cell(&entry.bucket, 40),
            cell(&entry.key, 64),
            cell(entry.project_id.as_deref().unwrap_or("-"), 24),
            cell(&entry.reason, 200),
        ]);
    }
    out.table(&rows, "every entry can be read")?;
    if page.total > page.count {
        note(&format!(
            "{} of {}; --limit shows more",
            page.count, page.total
        ));
    }
    Ok(())
}

async fn list(out: Output, api: &ApiClient, args: &ListArgs) -> CliResult {
    if args.unreadable {
        return list_unreadable(out, api, args).await;
    }
    let page: AgentsPage = api.get(&["agents"], &args.query()).await?;
    if out.is_json() {
        return out.json(&page);
    }
    let mut rows = table(&[
        "GUID",
        "HANDLE",
        "TYPE",
        "STATUS",
        "TASKS",
        "CAPABILITIES",
        "BOUNDARIES",
        "PROJECT",
        "SEEN",
    ]);
    for agent in &page.agents {
        rows.add_row([
            agent.guid.to_string(),
            cell(&agent.handle, 24),
            cell(&agent.agent_type, 20),
            agent.status.to_string(),
            format!(
                "{}/{}",
                agent.current_task_count, agent.max_concurrent_tasks
            ),
            cell(&agent.capabilities.join(" "), 40),
            cell(&agent.boundaries.join(" "), 24),
            cell(&agent.project_id, 24),
            ago(agent.last_heartbeat),
        ]);
    }
    out.table(&rows, "no agents are registered")?;
    tell_more(&page.page, "");
    Ok(())
}

fn show(out: Output, agent: &Agent) -> CliResult {
    if out.is_json() {
        return out.json(agent);
    }
    let millis = |ms: Option<u64>| {
        ms.map(|ms| humantime::format_duration(Duration::from_millis(ms)).to_string())
            .unwrap_or_default()
    };
    let optional = |text: &Option<String>| text.clone().unwrap_or_default();
    let paused = agent.paused_until.map(|until| {
        let why = agent.pause_reason.as_deref().unwrap_or("no reason given");
        format!("until {until}: {why}")
    });
    let quarantined = agent
        .quarantine
        .as_ref()
        .map(|quarantine| format!("{}: {}", at(Some(quarantine.since)), quarantine.reason));
    let tasks = format!(
        "{} of {}",
        agent.current_task_count, agent.max_concurrent_tasks
    );
    let metadata = agent.metadata.as_ref().map(ToString::to_string);
    out.text(&sheet(&[
        ("guid", agent.guid.to_string()),
        ("handle", agent.handle.clone()),
        ("type", agent.agent_type.clone()),
        ("status", agent.status.to_string()),
        ("paused", paused.unwrap_or_default()),
        ("quarantined", quarantined.unwrap_or_default()),
        ("tasks", tasks),
        ("capabilities", agent.capabilities.join(" ")),
        ("boundaries", agent.boundaries.join(" ")),
        ("project", agent.project_id.clone()),
        ("host", optional(&agent.hostname)),
        ("user", optional(&agent.username)),
        ("visibility", optional(&agent.visibility)),
        ("limit group", optional(&agent.limit_group)),
        ("target", optional(&agent.target_id)),
        ("heartbeat every", millis(agent.heartbeat_interval_ms)),
        ("goes home after", millis(agent.spindown_after_idle_ms)),
        ("last heartbeat", at(Some(agent.last_heartbeat))),
        ("last activity", at(Some(agent.last_activity))),
        ("registered", at(Some(agent.registered_at))),
        ("metadata", metadata.unwrap_or_default()),
    ]))
}
