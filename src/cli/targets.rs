//! `loom targets`: list, show, add, change, switch, test and remove targets.

mod add;
mod fields;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use loom_protocol::rest::TargetsPage;
use loom_protocol::target::{LastSpinUp, Mechanism, Target, TargetAnswer, TargetHealth};
use serde_json::{Value, json};

use self::add::AddArgs;
use self::fields::UpdateArgs;
use super::Context;
use super::each;
use super::everywhere::{self, Located};
use super::exit::{CliError, CliResult};
use super::naming::{FormArgs, name};
use super::output::{Output, Table, cell, note, table};
use super::pages::{self, ExtentArgs, Query, tell_more};
use super::show::sheet;
use super::table::Column;
use super::times::{ago, at};
use crate::api_client::{ApiClient, ApiError};
use crate::settings::targets::renamed;

/// List, show, add, change, switch, test and remove targets: where agents can be started.
#[derive(Debug, Args)]
pub struct TargetsArgs {
    #[command(subcommand)]
    command: Option<TargetsCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum TargetsCommand {
    /// List targets (the same as `loom targets` alone)
    List(ListArgs),
    /// Show all about a target
    Show {
        /// The target: its id, the beginning of it, or its name in whatever case.
        #[arg(value_parser = name)]
        target: String,
    },
    /// Register a target: from a file, by flags, or, at a terminal, by answering what is missing
    Add(Box<AddArgs>),
    /// Change a target; what is not named stays
    Update(Box<UpdateArgs>),
    /// Remove targets
    Remove(Which),
    /// Let targets start agents again
    Enable(Which),
    /// Let targets start no agents
    Disable(Which),
    /// Look whether an agent could be started at targets, without starting one; 1 where none could
    Test(Which),
}

#[derive(Debug, Args)]
struct Which {
    /// The targets: ids, beginnings of them, or names in whatever case.
    #[arg(required = true, value_parser = name)]
    targets: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
struct ListArgs {
    /// Only those whose agents are of this type.
    #[arg(long = "type", value_name = "TYPE")]
    agent_type: Option<String>,
    /// Only those whose agents can do this.
    #[arg(long)]
    capability: Option<String>,
    /// Only those that serve this boundary.
    #[arg(long)]
    boundary: Option<String>,
    /// Only in this state.
    #[arg(long, value_parser = ["available", "in-use", "error", "disabled"])]
    status: Option<String>,
    /// Only in this health.
    #[arg(long, value_parser = ["healthy", "unhealthy", "unknown"])]
    health: Option<String>,
    /// Only of this mechanism.
    #[arg(long, value_parser = Mechanism::ALL.map(Mechanism::as_str))]
    mechanism: Option<String>,
    /// Only with this tag.
    #[arg(long)]
    tag: Option<String>,
    /// The disabled too.
    #[arg(long)]
    include_disabled: bool,
    #[command(flatten)]
    extent: ExtentArgs,
    #[command(flatten)]
    form: FormArgs,
}

impl ListArgs {
    fn query(&self, cursor: Option<&str>) -> Query {
        let with_disabled = self.include_disabled.then(|| "true".to_owned());
        pages::query([
            ("type", self.agent_type.clone()),
            ("capability", self.capability.clone()),
            ("boundary", self.boundary.clone()),
            ("status", self.status.clone()),
            ("healthStatus", self.health.clone()),
            ("mechanism", self.mechanism.clone()),
            ("tag", self.tag.clone()),
            ("includeDisabled", with_disabled),
            ("cursor", cursor.map(str::to_owned)),
        ])
    }
}

/// Does what the arguments say.
pub async fn run(context: &Context, args: TargetsArgs) -> CliResult {
    if args.command.is_some() && args.list != ListArgs::default() {
        let message = "the filters of `loom targets` are for listing; write them after `list`";
        return Err(CliError::Usage(message.into()));
    }
    let out = context.out;
    match args.command.unwrap_or(TargetsCommand::List(args.list)) {
        TargetsCommand::List(args) => list(context, &args).await,
        TargetsCommand::Show { target } => {
            let api = context.api()?;
            let target: TargetAnswer = api.get(&["targets", &target], &[]).await?;
            show(out, &target)
        }
        TargetsCommand::Add(args) => {
            let (api, (request, named)) = (context.api()?, args.request()?);
            let added = api.post(&["targets"], &request).await;
            let added: TargetAnswer = added.map_err(|error| in_words(error, |it| named.of(it)))?;
            tell(out, &added, "is registered")
        }
        TargetsCommand::Update(args) => {
            let (api, updates) = (context.api()?, args.updates()?);
            let path = ["targets", args.target()];
            if updates.config.is_some() {
                let there: TargetAnswer = api.get(&path, &[]).await?;
                args.check_for(there.target.mechanism)?;
            }
            let updated = api.put(&path, &updates).await;
            let updated: TargetAnswer =
                updated.map_err(|error| in_words(error, |it| args.named(it)))?;
            tell(out, &updated, "is changed")
        }
        TargetsCommand::Remove(which) => {
            let api = context.api()?;
            let remove = async |target: String| api.delete(&["targets", &target]).await;
            each::for_each(out, which.targets, remove).await
        }
        TargetsCommand::Enable(which) => switch(context, which, "enable").await,
        TargetsCommand::Disable(which) => switch(context, which, "disable").await,
        TargetsCommand::Test(which) => test(out, &context.api()?, which.targets).await,
    }
}

/// Looks at one target after the other: at all of them, however one is.
async fn test(out: Output, api: &ApiClient, targets: Vec<String>) -> CliResult {
    let (mut are_well, mut first_refusal, mut answers) = (true, None, Vec::new());
    let alone = targets.len() == 1;
    for target in targets {
        let looked = api.post(&["targets", &target, "test"], &json!({})).await;
        let health: TargetHealth = match looked {
            Ok(health) => health,
            Err(error) if alone => return Err(error.into()),
            Err(error) => {
                let error = CliError::from(error);
                note(&format!("{target}: {error}"));
                first_refusal.get_or_insert(error);
                continue;
            }
        };
        are_well &= health.healthy;
        let took = health.latency_ms;
        match &health.error {
            _ if out.is_json() => answers.push(health),
            None => {
                let seen = health.seen.as_deref();
                let seen = seen.map_or_else(String::new, |seen| format!(": {seen}"));
                let said = format!("{target} is healthy ({took} ms){seen}");
                out.text(&cell(&said, usize::MAX))?;
            }
            Some(why) => {
                let said = format!("{target} is unhealthy ({took} ms): {why}");
                out.text(&cell(&said, usize::MAX))?;
            }
        }
    }
    if out.is_json() {
        out.json(&answers)?;
    }
    match first_refusal {
        Some(refusal) => Err(each::of_several(out, refusal)),
        None if are_well => Ok(()),
        None => Err(CliError::WorkFailed),
    }
}

/// A refusal that names what is wrong as it was written.
fn in_words(error: ApiError, words: impl FnOnce(&str) -> String) -> CliError {
    match error {
        ApiError::Refused(error) => CliError::Refused(error.code, renamed(&error, words)),
        other => other.into(),
    }
}

async fn switch(context: &Context, which: Which, on: &str) -> CliResult {
    let api = context.api()?;
    let switched = async |target: String| api.post(&["targets", &target, on], &json!({})).await;
    each::for_each(context.out, which.targets, switched).await
}

fn tell(out: Output, answer: &TargetAnswer, done: &str) -> CliResult {
    if out.is_json() {
        return out.json(answer);
    }
    let target = &answer.target;
    out.text(&format!("{} {done} ({})", target.name, target.id))
}

async fn list(context: &Context, args: &ListArgs) -> CliResult {
    let (out, api) = (context.out, context.api_of_listing().await?);
    let wanted = args.extent.wanted();
    let unreadable = RefCell::new(Vec::new());
    let fetch = async |api: &ApiClient| -> CliResult<TargetsPage> {
        let query = |cursor: Option<&str>| args.query(cursor);
        let mut page: TargetsPage =
            pages::fetch(api, "targets", wanted, args.extent.cursor(), query).await?;
        unreadable.borrow_mut().append(&mut page.unreadable);
        Ok(page)
    };
    let found = if context.is_everywhere() {
        let place = |answer: &TargetAnswer| (answer.target.registered_at, answer.target.id);
        everywhere::of_all(&api, wanted, fetch, place).await?
    } else {
        everywhere::of_one(fetch(&api).await?)
    };
    let form = args.form.form(out);
    let targets = found.items.iter();
    let ids: Vec<String> = targets.map(|one| one.target.id.to_string()).collect();
    let rows = |ids: &[String], wide: bool| rows(&found, ids, wide);
    let mut answer = found.answer("targets")?;
    let unreadable = unreadable.into_inner();
    if !unreadable.is_empty() {
        answer["unreadable"] = json!(unreadable);
    }
    pages::print(out, form, &answer, &ids, rows, "no targets")?;
    tell_more(&found.info, form);
    for entry in &unreadable {
        note(&entry.reason);
    }
    if found.items.is_empty() && !out.is_json() && !args.include_disabled && args.status.is_none() {
        note("those that are disabled are listed with --include-disabled");
    }
    Ok(())
}

fn rows(found: &Located<TargetAnswer>, ids: &[String], wide: bool) -> Table {
    let is_everywhere = !found.projects.is_empty();
    let mut columns = vec![
        Column::whole("ID"),
        Column::text("NAME", 8).at_most(64),
        Column::cut("TYPE", 6, 3).at_most(24),
        Column::spare("MECHANISM", 1),
        Column::whole("STATUS"),
        Column::spare("HEALTH", 2),
        Column::spare("AGENTS", 0),
        Column::cut("LAST START", 10, 4).at_most(32),
        Column::cut("BOUNDARIES", 10, 5).at_most(32),
    ];
    if is_everywhere {
        columns.push(Column::cut("PROJECT", 8, 4).at_most(64));
    }
    if wide {
        columns.extend(["TAGS", "UPDATED", "REGISTERED BY"].map(Column::whole));
    }
    columns.push(Column::cut("CAPABILITIES", 12, 2).at_most(if wide { 120 } else { 40 }));
    let mut rows = table(&columns);
    for (place, (TargetAnswer { target, .. }, id)) in found.items.iter().zip(ids).enumerate() {
        let mut cells = vec![
            id.clone(),
            target.name.clone(),
            target.agent_type.clone(),
            target.mechanism.to_string(),
            target.status.to_string(),
            target.health_status.as_str().to_owned(),
            format!("{}/{}", target.current_agent_guids.len(), target.max_agents),
            target
                .last_spin_up
                .as_ref()
                .map(last_start)
                .unwrap_or_default(),
            target.boundaries.join(" "),
        ];
        if is_everywhere {
            cells.push(found.project(place).unwrap_or_default().to_owned());
        }
        if wide {
            cells.push(target.tags.join(" "));
            cells.push(ago(target.updated_at));
            cells.push(target.registered_by.clone());
        }
        cells.push(target.capabilities.join(" "));
        rows.add_row(cells);
    }
    rows
}

/// What was seen, when, and how often it is looked at.
fn health_of(target: &Target) -> String {
    let mut text = target.health_status.as_str().to_owned();
    if let Some(time) = target.last_health_check {
        let _ = write!(text, ", looked at {}", at(Some(time)));
    }
    if let Some(check) = target.health_check.filter(|check| check.enabled) {
        let every = humantime::format_duration(Duration::from_millis(check.interval_ms));
        let _ = write!(text, ", every {every}");
    }
    text
}

/// What became of the last start, and when.
fn last_start(last: &LastSpinUp) -> String {
    format!("{} {}", last.outcome.as_str(), ago(last.time))
}

/// The same with all that is known of it.
fn all_of_last_start(last: &LastSpinUp) -> String {
    let mut text = format!("{} at {}", last.outcome.as_str(), at(Some(last.time)));
    if let Some(guid) = last.agent {
        let _ = write!(text, ", agent {guid}");
    }
    if let Some(id) = last.work_item_id {
        let _ = write!(text, ", for item {id}");
    }
    if let Some(error) = &last.error {
        let _ = write!(text, ": {error}");
    }
    text
}

fn show(out: Output, answer: &TargetAnswer) -> CliResult {
    if out.is_json() {
        return out.json(answer);
    }
    let target = &answer.target;
    let optional = |text: &Option<String>| text.clone().unwrap_or_default();
    let config = target.config.answered().unwrap_or(Value::Null);
    let config = serde_json::to_string_pretty(&config).unwrap_or_default();
    let boundaries = if target.boundaries.is_empty() {
        "any".to_owned()
    } else {
        target.boundaries.join(" ")
    };
    let agents = target.current_agent_guids.iter();
    let agents: Vec<String> = agents.map(ToString::to_string).collect();
    let last = target.last_spin_up.as_ref().map(all_of_last_start);
    let last = last.unwrap_or_default();
    out.text(&sheet(&[
        ("id", target.id.to_string()),
        ("name", target.name.clone()),
        ("description", optional(&target.description)),
        ("status", target.status.to_string()),
        ("health", health_of(target)),
        ("because", optional(&target.last_error)),
        ("type", target.agent_type.clone()),
        ("capabilities", target.capabilities.join(" ")),
        ("boundaries", boundaries),
        ("mechanism", target.mechanism.to_string()),
        ("config", config),
        ("agents", agents.join(" ")),
        ("agents at most", target.max_agents.to_string()),
        ("agents started", target.use_count.to_string()),
        ("last used", at(target.last_used_at)),
        ("last start", last),
        ("limit group", optional(&target.limit_group)),
        ("tags", target.tags.join(" ")),
        ("registered", at(Some(target.registered_at))),
        ("registered by", target.registered_by.clone()),
        ("updated", at(Some(target.updated_at))),
    ]))
}
