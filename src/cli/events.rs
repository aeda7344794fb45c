//! `loom events`: what happens, as it happens.

use clap::{Args, ValueEnum};
use loom_protocol::event::{AgentEvent, Event, SpinUpEvent, TargetEvent, WorkEvent};

use super::Context;
use super::exit::CliResult;
use super::following::{Follower, Step};
use super::output::{Output, cell};

/// Print what happens from now on, one line each, until interrupted.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only about these; without it about everything.
    #[arg(long, value_name = "TOPIC", value_enum)]
    topic: Vec<Topic>,
}

/// What events are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Topic {
    Work,
    Agents,
    Targets,
}

/// Prints events until interrupted.
pub async fn run(context: &Context, args: &EventsArgs) -> CliResult {
    let api = context.api_of_listing().await?;
    let topics: Vec<&str> = args
        .topic
        .iter()
        .map(|topic| match topic {
            Topic::Work => "work",
            Topic::Agents => "agents",
            Topic::Targets => "targets",
        })
        .collect();
    let mut query = vec![("topic", topics.join(","))];
    if context.is_everywhere() {
        query.push(("allProjects", "true".into()));
    }
    let mut follower = Follower::begin(&api, query).await?;
    loop {
        if let Step::Event(event) = follower.next().await? {
            tell(context.out, &event, context.is_everywhere())?;
        }
    }
}

/// Prints one event: as JSON on one line, or as a line for people.
pub(super) fn tell(out: Output, event: &Event, with_project: bool) -> CliResult {
    if out.is_json() {
        return out.json_line(event);
    }
    let (at, line) = match event {
        Event::Work(work) => (work.timestamp, of_work(work)),
        Event::Agent(agent) => (agent.timestamp, of_agent(agent)),
        Event::Target(target) => (target.timestamp, of_target(target)),
        Event::SpinUp(start) => (start.timestamp, of_spin_up(start)),
    };
    let project = if with_project {
        format!("{} ", cell(event.project_id(), 64))
    } else {
        String::new()
    };
    out.text(&format!("{at} {project}{line}"))
}

fn of_work(event: &WorkEvent) -> String {
    let mut words = vec![event.work_id.to_string(), event.kind.as_str().to_owned()];
    if event.attempt > 0 {
        words.push(format!("attempt {}", event.attempt));
    }
    if let Some(agent) = &event.assigned_to_agent {
        words.push(format!("by {}", cell(&agent.handle, 24)));
    }
    if let Some(progress) = event.progress {
        words.push(format!("{progress:.0}%"));
    }
    if let Some(reason) = event.reason {
        words.push(format!("({reason})"));
    }
    let said = [
        &event.error_message,
        &event.summary,
        &event.message,
        &event.description,
    ];
    if let Some(said) = said.into_iter().flatten().next() {
        words.push(format!(" {}", cell(said, 60)));
    }
    words.join(" ")
}

fn of_agent(event: &AgentEvent) -> String {
    let agent = &event.agent;
    let mut words = vec![
        agent.guid.to_string(),
        event.kind.as_str().to_owned(),
        cell(&agent.handle, 24),
    ];
    if let (Some(before), Some(now)) = (event.previous_status, event.new_status)
        && before != now
    {
        words.push(format!("{before} -> {now}"));
    }
    if let Some(count) = event.current_task_count {
        words.push(format!("{count} items"));
    }
    if let Some(reason) = event.reason {
        words.push(format!("({reason})"));
    }
    if let Some(detail) = &event.detail {
        words.push(cell(detail, 60));
    }
    words.join(" ")
}

fn of_target(event: &TargetEvent) -> String {
    let mut words = vec![
        event.target_id.to_string(),
        event.kind.as_str().to_owned(),
        cell(&event.target_name, 64),
    ];
    if let (Some(before), Some(now)) = (event.previous_status, event.new_status)
        && before != now
    {
        words.push(format!("{before} -> {now}"));
    }
    words.join(" ")
}

fn of_spin_up(event: &SpinUpEvent) -> String {
    let mut words = vec![
        event.operation_id.to_string(),
        event.kind.as_str().to_owned(),
        cell(&event.target_name, 64),
    ];
    if let Some(capability) = &event.capability {
        words.push(format!("for {}", cell(capability, 64)));
    }
    if let Some(guid) = event.agent_guid {
        words.push(format!("agent {guid}"));
    }
    if let Some(error) = &event.error_message {
        words.push(format!(" {}", cell(error, 60)));
    }
    words.join(" ")
}
