//! What is measured of targets and of starts of agents.
//!
//! Starts are counted by the actors ([`spin_up_meters`]). The agents of single targets are written anew each time that somebody asks, so that a target that is gone leaves nothing behind, and of so many that
//! [`NAMED_EACH`] and [`NAMED_ALL`] hold; the rest is one sum per project, under a name that no target can have.

use std::cmp::Reverse;
use std::fmt::Write as _;

use loom_actors::project::Project;
use loom_actors::spin_up_meters;
use loom_protocol::rest::TargetTotals;
use loom_protocol::target::ListTargetsRequest;
use metrics::{describe_gauge, gauge};

use super::exact;

const UNDER_WAY: &str = "loom_spin_ups_under_way";
const TARGETS: &str = "loom_targets";
const AGENTS: &str = "loom_target_agents";

/// How many targets of one project are named.
const NAMED_EACH: usize = 50;
/// How many targets of all projects are named.
const NAMED_ALL: usize = 1_000;
/// What stands for the targets that are not named.
const OTHERS: &str = "(others)";

pub(super) fn describe_meters() {
    spin_up_meters::describe();
    describe_gauge!(UNDER_WAY, "Starts of agents that have not ended.");
    describe_gauge!(TARGETS, "Targets, by status.");
}

/// The targets of a project that is awake.
pub(super) fn note(project: &Project) {
    let name = project.id.as_str();
    note_totals(name, project.targets.totals());
    gauge!(UNDER_WAY, "project" => name.to_owned()).set(exact(project.targets.undecided()));
}

/// The targets of a project that sleeps: it has no agents and starts none.
pub(super) fn note_asleep(project: &str, totals: TargetTotals) {
    note_totals(project, totals);
    gauge!(UNDER_WAY, "project" => project.to_owned()).set(0.0);
}

fn note_totals(project: &str, totals: TargetTotals) {
    for (status, count) in [
        ("available", totals.available),
        ("in-use", totals.in_use),
        ("disabled", totals.disabled),
        ("error", totals.error),
    ] {
        gauge!(TARGETS, "project" => project.to_owned(), "status" => status).set(exact(count));
    }
}

/// The agents of a project by the target that started them, the most first.
fn agents_by_target(project: &Project) -> Vec<(String, usize)> {
    if project.targets.linked_agents() == 0 {
        return Vec::new();
    }
    let all = ListTargetsRequest {
        include_disabled: true,
        ..ListTargetsRequest::default()
    };
    // Without a cursor there is none to be refused.
    let found = project.targets.find(&all, usize::MAX);
    let targets = found.map_or_else(|_| Vec::new(), |found| found.targets);
    let with_agents = targets.into_iter().filter_map(|target| {
        let count = target.current_agent_guids.len();
        (count > 0).then_some((target.name, count))
    });
    let mut agents: Vec<(String, usize)> = with_agents.collect();
    agents.sort_by(|one, other| (Reverse(one.1), &one.0).cmp(&(Reverse(other.1), &other.0)));
    agents
}

/// The agents by the target that started them, as Prometheus reads it.
pub(super) fn agents<'a>(projects: impl IntoIterator<Item = &'a Project>) -> String {
    let projects = projects.into_iter();
    written(projects.map(|project| (project.id.as_str(), agents_by_target(project))))
}

fn written<'a>(projects: impl Iterator<Item = (&'a str, Vec<(String, usize)>)>) -> String {
    let mut text = format!(
        "# HELP {AGENTS} Agents that were started by a target and live; of at most {NAMED_EACH} targets of a project by name.\n# TYPE {AGENTS} gauge\n"
    );
    let mut left = NAMED_ALL;
    for (project, agents) in projects {
        let (named, others) = agents.split_at(agents.len().min(NAMED_EACH).min(left));
        left -= named.len();
        let others: usize = others.iter().map(|(_, count)| count).sum();
        let named = named.iter().map(|(name, count)| (name.as_str(), *count));
        let all = named.chain((others > 0).then_some((OTHERS, others)));
        for (target, count) in all {
            // Neither name has anything that would have to be escaped.
            let _ = writeln!(
                text,
                "{AGENTS}{{project=\"{project}\",target=\"{target}\"}} {count}"
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(count: usize) -> Vec<(String, usize)> {
        (0..count).map(|n| (format!("t{n}"), 2)).collect()
    }

    #[test]
    fn however_many_targets_there_are_the_samples_are_bounded_and_no_agent_is_left_out() {
        let names: Vec<String> = (0..100).map(|n| format!("p{n}")).collect();
        let projects = names.iter().map(|name| (name.as_str(), targets(512)));
        let text = written(projects);
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples.len(), NAMED_ALL + 100);
        let counts = samples.iter().filter_map(|line| line.rsplit_once(' '));
        let sum: usize = counts
            .map(|(_, count)| count.parse::<usize>().unwrap())
            .sum();
        assert_eq!(sum, 100 * 512 * 2);
        assert!(loom_protocol::token::check_name("name", OTHERS).is_err());
    }

    #[test]
    fn few_targets_are_all_named() {
        let text = written([("shop", targets(2))].into_iter());
        let samples: Vec<&str> = text.lines().skip(2).collect();
        let expected = ["t0", "t1"]
            .map(|name| format!("loom_target_agents{{project=\"shop\",target=\"{name}\"}} 2"));
        assert_eq!(samples, expected);
    }
}
