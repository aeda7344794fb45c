//! `loom agents`: list, show and shut down agents.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use loom_protocol::agent::{Agent, AgentStatus};
use loom_protocol::rest::AgentsPage;
use serde_json::json;

use super::Context;
use super::each;
use super::exit::{CliError, CliResult};
use super::naming::{Form, FormArgs, name};
use super::output::{Output, Table, note, table};
use super::pages::{self, Query, Wanted, tell_more};
use super::show::sheet;
use super::table::Column;
use super::times::{ago, at};
use super::unreadable;

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
        /// The agent: its guid, the beginning of it, or its handle.
        #[arg(value_parser = name)]
        guid: String,
    },
    /// Tell agents to end
    Shutdown {
        /// The agents: guids, beginnings of them, or handles.
        #[arg(required = true, value_parser = name)]
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
        /// The agents: guids, beginnings of them, or handles.
        #[arg(required = true, value_parser = name)]
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
    #[arg(long, value_name = "NUMBER", conflicts_with = "all")]
    limit: Option<usize>,
    /// Begin where the last page ended.
    #[arg(long)]
    cursor: Option<String>,
    /// All of them, page by page.
    #[arg(long)]
    all: bool,
    /// In which order; without it, as they registered.
    #[arg(long, value_enum, value_name = "ORDER")]
    sort: Option<Sort>,
    /// Instead: entries in the buckets that cannot be taken for agents, each with the reason.
    #[arg(long, conflicts_with_all = ["agent_type", "status", "capability", "boundary", "cursor", "all", "sort"])]
    unreadable: bool,
    #[command(flatten)]
    form: FormArgs,
}

/// In which order agents are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// By handle.
    Handle,
    /// By type.
    Type,
    /// By status.
    Status,
    /// The one that was heard of last first.
    Seen,
}

impl ListArgs {
    fn query(&self, cursor: Option<&str>) -> Query {
        pages::query([
            ("type", self.agent_type.clone()),
            ("status", self.status.clone()),
            ("capability", self.capability.clone()),
            ("boundary", self.boundary.clone()),
            ("cursor", cursor.map(str::to_owned)),
        ])
    }
}

/// Does what the arguments say.
pub async fn run(context: &Context, args: AgentsArgs) -> CliResult {
    if args.command.is_some() && args.list != ListArgs::default() {
        let message = "the filters of `loom agents` are for listing; write them after `list`";
        return Err(CliError::Usage(message.into()));
    }
    match args.command.unwrap_or(AgentsCommand::List(args.list)) {
        AgentsCommand::List(args) => list(context, &args).await,
        AgentsCommand::Show { guid } => {
            let agent: Agent = context.api()?.get(&["agents", &guid], &[]).await?;
            show(context.out, &agent)
        }
        AgentsCommand::Shutdown {
            guids,
            now,
            grace,
            reason,
        } => {
            let body = json!({
                "graceful": !now,
                "gracePeriodMs": grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
                "reason": reason,
            });
            let api = context.api()?;
            let shutdown =
                async |guid: String| api.post(&["agents", &guid, "shutdown"], &body).await;
            each::for_each(context.out, guids, shutdown).await
        }
        AgentsCommand::Resume { guids } => {
            let api = context.api()?;
            let resume =
                async |guid: String| api.post(&["agents", &guid, "resume"], &json!({})).await;
            each::for_each(context.out, guids, resume).await
        }
    }
}

async fn list(context: &Context, args: &ListArgs) -> CliResult {
    let (out, api) = (context.out, context.api_of_listing().await?);
    if args.unreadable {
        return unreadable::list(out, &api, args.limit).await;
    }
    let query = |cursor: Option<&str>| args.query(cursor);
    let wanted = Wanted::of(args.all, args.limit);
    let mut page: AgentsPage =
        pages::fetch(&api, "agents", wanted, args.cursor.as_deref(), query).await?;
    let agents = &mut page.agents;
    match args.sort {
        None => {}
        Some(Sort::Handle) => agents.sort_by(|a, b| a.handle.cmp(&b.handle)),
        Some(Sort::Type) => agents.sort_by(|a, b| a.agent_type.cmp(&b.agent_type)),
        Some(Sort::Status) => agents.sort_by_key(|agent| agent.status.as_str()),
        Some(Sort::Seen) => agents.sort_by_key(|agent| std::cmp::Reverse(agent.last_heartbeat)),
    }
    let form = args.form.form(out);
    let guids: Vec<String> = page
        .agents
        .iter()
        .map(|agent| agent.guid.to_string())
        .collect();
    let rows = |guids: &[String], wide: bool| rows(&page.agents, guids, wide);
    let empty = "no agents are registered";
    pages::print(out, form, &page, &guids, rows, empty)?;
    tell_more(&page.page, form);
    if let Some(advice) = advice(&page.agents).filter(|_| matches!(form, Form::Table | Form::Wide))
    {
        note(&advice);
    }
    Ok(())
}

fn rows(agents: &[Agent], guids: &[String], wide: bool) -> Table {
    let mut columns = vec![
        Column::whole("GUID"),
        Column::text("HANDLE", 8).at_most(32),
        Column::cut("TYPE", 6, 3).at_most(24),
        Column::whole("STATUS"),
        Column::spare("TASKS", 1),
        Column::spare("SEEN", 0),
        Column::cut("BOUNDARIES", 10, 5).at_most(32),
        Column::cut("PROJECT", 8, 4).at_most(64),
    ];
    if wide {
        columns.extend(["ALLOW", "HOST", "REGISTERED"].map(Column::whole));
    }
    columns.push(Column::cut("CAPABILITIES", 12, 2).at_most(if wide { 120 } else { 40 }));
    let mut rows = table(&columns);
    for (agent, guid) in agents.iter().zip(guids) {
        let (count, most) = (agent.current_task_count, agent.max_concurrent_tasks);
        let mut cells = vec![
            guid.clone(),
            agent.handle.clone(),
            agent.agent_type.clone(),
            standing(agent),
            format!("{count}/{most}"),
            ago(agent.last_heartbeat),
            agent.boundaries.join(" "),
            agent.project_id.clone(),
        ];
        if wide {
            cells.push(allow(agent));
            cells.push(agent.hostname.clone().unwrap_or_default());
            cells.push(ago(agent.registered_at));
        }
        cells.push(agent.capabilities.join(" "));
        rows.add_row(cells);
    }
    rows
}

/// What its program may do, where it says so.
fn allow(agent: &Agent) -> String {
    let allow = agent
        .metadata
        .as_ref()
        .and_then(|about| about["allow"].as_str());
    allow.unwrap_or_default().to_owned()
}

/// Its status, and what else keeps it from work: an agent that is offline comes back as what it was kept for.
fn standing(agent: &Agent) -> String {
    let mut standing = agent.status.to_string();
    for (is_so, status) in [
        (agent.quarantine.is_some(), AgentStatus::Quarantined),
        (agent.paused_until.is_some(), AgentStatus::Paused),
    ] {
        if is_so && agent.status != status {
            standing.extend([", ", status.as_str()]);
        }
    }
    standing
}

/// What to do about agents that are quarantined, whatever their status; nothing where there are none.
fn advice(agents: &[Agent]) -> Option<String> {
    let mut quarantined = agents.iter().filter(|agent| agent.quarantine.is_some());
    let first = quarantined.next()?.guid;
    let count = 1 + quarantined.count();
    let are = if count == 1 { "is" } else { "are" };
    Some(format!(
        "{count} {are} quarantined and take no work, in new runs either: `loom agents show {first}` says why, `loom agents resume {first}` ends it"
    ))
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
    let quarantined = agent.quarantine.as_ref().map(|quarantine| {
        format!(
            "{}: {}; it takes no work, in new runs either, until `loom agents resume {}`",
            at(Some(quarantine.since)),
            quarantine.reason,
            agent.guid
        )
    });
    let tasks = format!(
        "{} of {}",
        agent.current_task_count, agent.max_concurrent_tasks
    );
    let metadata = agent.metadata.as_ref().map(ToString::to_string);
    out.text(&sheet(&[
        ("guid", agent.guid.to_string()),
        ("handle", agent.handle.clone()),
        ("type", agent.agent_type.clone()),
        ("status", standing(agent)),
        ("because", optional(&agent.status_reason)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarantine_is_shown_whatever_the_status_is() {
        let agent = |status: &str, is_quarantined: bool| -> Agent {
            let quarantine = is_quarantined
                .then(|| json!({"since": "2026-01-01T00:00:00.000Z", "reason": "it failed"}));
            serde_json::from_value(json!({
                "guid": "01890a5d-ac96-774b-bcce-b302099a8057", "handle": "h", "agentType": "t",
                "status": status, "capabilities": [], "boundaries": [], "projectId": "p",
                "currentTaskCount": 0, "maxConcurrentTasks": 1, "quarantine": quarantine,
                "lastHeartbeat": "2026-01-01T00:00:00.000Z",
                "lastActivity": "2026-01-01T00:00:00.000Z",
                "registeredAt": "2026-01-01T00:00:00.000Z"
            }))
            .unwrap()
        };
        assert_eq!(standing(&agent("offline", true)), "offline, quarantined");
        assert_eq!(standing(&agent("quarantined", true)), "quarantined");
        assert_eq!(standing(&agent("offline", false)), "offline");
        assert_eq!(advice(&[agent("offline", false)]), None);
        let told = advice(&[agent("online", false), agent("offline", true)]).unwrap();
        assert!(told.starts_with("1 is quarantined"), "{told}");
        assert!(told.contains("`loom agents resume 01890a5d-"), "{told}");
    }
}
