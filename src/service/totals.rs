//! Sums, and what the coordinator says of itself.

use std::collections::BTreeMap;

use loom_actors::domain::room::Room;
use loom_actors::domain::sleep::AsleepTotals;
use loom_actors::nats::server::ManagedState;
use loom_actors::nats::store::space_at;
use loom_actors::project::Project;
use loom_actors::projects::NotUp;
use loom_protocol::readiness::{Problem, ProblemKind, Readiness};
use loom_protocol::rest::{
    AgentTotals, Info, NatsStatus, OwnServerStatus, ProjectSummary, ProjectTotals, ProjectsAnswer,
    Stats, Status, TargetTotals, WorkTotals,
};
use loom_protocol::{PROTOCOL_VERSION, ProjectId, WireError};

use super::Service;
use crate::access::Allowed;

impl Service {
    /// The totals of one project, or of all that can be read; the others are named.
    ///
    /// # Errors
    /// The project cannot be read.
    pub fn stats(&self, caller: &Allowed) -> Result<Stats, WireError> {
        let project = caller.project();
        let mut stats = Stats {
            timestamp: self.now(),
            ..Stats::default()
        };
        if project.is_none() {
            stats.starting = self.starting();
        }
        let asleep = self.asleep(project);
        // Of one that sleeps everything is known that is counted here.
        let awake = match project {
            Some(_) if !asleep.is_empty() => Vec::new(),
            project => self.readable(project)?,
        };
        for (id, totals) in asleep {
            add_work(&mut stats.work, totals.work);
            stats.dead_letters.total = stats.dead_letters.total.saturating_add(totals.letters);
            add_targets(&mut stats.targets, totals.targets);
            stats.total_projects += 1;
            stats.asleep += 1;
            stats
                .by_project
                .insert(id.to_string(), totals_asleep(&totals));
        }
        for project in awake {
            let work = project.work.totals();
            let agents = project.agents.totals();
            add_work(&mut stats.work, work);
            add_targets(&mut stats.targets, project.targets.totals());
            stats.dead_letters.total += project.letters.total();
            stats.dead_letters.expired += project.letters.expired();
            stats.total_projects += 1;
            stats.totals.agents += agents.total;
            stats
                .by_project
                .insert(project.id.to_string(), totals_of(&project));
            add_agents(&mut stats.agents, agents);
        }
        let work = stats.work;
        stats.pending = work.pending;
        stats.active = work.active;
        stats.completed = work.completed;
        stats.failed = work.failed;
        stats.cancelled = work.cancelled;
        stats.total = work.total();
        stats.totals.pending_work = work.pending;
        stats.totals.active_work = work.active;
        stats.totals.completed_work = work.completed;
        stats.totals.failed_work = work.failed;
        stats.totals.targets = stats.targets.total;
        Ok(stats)
    }

    /// What is in the projects that sleep, all or this one.
    fn asleep(&self, project: Option<&ProjectId>) -> Vec<(ProjectId, AsleepTotals)> {
        let projects = self.projects();
        match project {
            None => projects.all_totals_asleep(),
            Some(id) => {
                let totals = projects.totals_asleep(id);
                totals
                    .map(|totals| (id.clone(), totals))
                    .into_iter()
                    .collect()
            }
        }
    }

    /// The projects that are there and have not been up yet, with what their last start came to.
    pub fn starting(&self) -> BTreeMap<String, String> {
        let why = |last: Option<String>| last.unwrap_or_else(|| "it is starting".into());
        let not_up = self.projects().not_up_yet().into_iter();
        not_up
            .map(|(id, last)| (id.to_string(), why(last)))
            .collect()
    }

    /// The projects that are awake or sleep, and the default one before it is used, with their sums.
    ///
    /// # Errors
    /// `unavailable`: which projects there are is not known yet.
    pub fn project_summaries(&self, _caller: &Allowed) -> Result<ProjectsAnswer, WireError> {
        let mut details: Vec<_> = self
            .projects()
            .all_readable()?
            .iter()
            .map(|project| ProjectSummary {
                project_id: project.id.to_string(),
                totals: totals_of(project),
                asleep: false,
                unused: false,
            })
            .collect();
        let asleep = self.asleep(None).into_iter();
        details.extend(asleep.map(|(id, totals)| ProjectSummary {
            project_id: id.to_string(),
            totals: totals_asleep(&totals),
            asleep: true,
            unused: false,
        }));
        details.sort_by(|one, other| one.project_id.cmp(&other.project_id));
        let default = self.default_project().as_str();
        let starting = self.starting();
        if !details.iter().any(|project| project.project_id == default) {
            let unused = ProjectSummary {
                project_id: default.to_owned(),
                totals: ProjectTotals::default(),
                asleep: false,
                unused: !starting.contains_key(default),
            };
            let place = details.partition_point(|project| project.project_id.as_str() < default);
            details.insert(place, unused);
        }
        let names = details.iter().map(|project| project.project_id.clone());
        Ok(ProjectsAnswer {
            count: details.len(),
            projects: names.collect(),
            starting,
            details,
            timestamp: self.now(),
        })
    }

    /// How the coordinator is, for the people who run it.
    pub fn status(&self, _caller: &Allowed) -> Status {
        let projects = self.projects();
        let nats = &projects.terms().nats;
        let own = self.0.options.server.as_ref().map(|server| {
            let store = server.store();
            let space = nats.store.space().or_else(|| space_at(&store));
            OwnServerStatus {
                pid: match server.state() {
                    ManagedState::Running { pid } => Some(pid),
                    ManagedState::Down { .. } | ManagedState::Stopped => None,
                },
                store: store.display().to_string(),
                free_bytes: space.map(|space| space.free),
                total_bytes: space.map(|space| space.total),
                log: server.log().display().to_string(),
            }
        });
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            since: self.0.options.since,
            owner: self.owns(),
            epoch: projects.terms().epoch,
            projects: projects.awake(),
            asleep: projects.asleep(),
            nats: NatsStatus {
                url: nats.shown_url.clone(),
                up: nats.is_up(),
                version: nats.client.server_info().version.clone(),
                own,
            },
            readiness: self.readiness(),
            warnings: projects.terms().stores.warnings(),
        }
    }

    /// Who this is.
    pub fn info(&self, _caller: &Allowed) -> Info {
        Info {
            name: "loom".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            protocol: PROTOCOL_VERSION,
            features: super::FEATURES.map(str::to_owned).to_vec(),
            epoch: self.projects().terms().epoch,
            projects: self.projects().awake(),
            default_project: self.default_project().to_string(),
            nats_url: self.0.options.nats_url.clone(),
            store_id: self.projects().terms().stores.describe().id,
            warnings: self.projects().terms().stores.warnings(),
        }
    }

    /// Whether the coordinator can serve, and if not, why. A project that is parked does not hinder the others.
    pub fn readiness(&self) -> Readiness {
        let projects = self.projects();
        let mut readiness = Readiness {
            ready: true,
            nats: projects.terms().nats.is_up(),
            owner: self.owns(),
            parked: projects.parked(),
            starting: self.starting(),
            ..Readiness::default()
        };
        for (project, failure) in projects.failing() {
            readiness.starting.entry(project).or_insert(failure);
        }
        for trouble in self.troubles() {
            readiness.add(trouble);
        }
        let nats = &projects.terms().nats;
        let too_small = Room::of(nats.max_payload())
            .problem(&nats.shown_url)
            .filter(|_| readiness.nats);
        if let Some(sentence) = too_small {
            readiness.add(Problem::new(ProblemKind::MaxPayload, sentence));
        }
        let stores = &projects.terms().stores;
        for sentence in stores.problems_of_projects() {
            // That of the store as a whole is told already.
            if readiness.problems.contains(&sentence) {
                continue;
            }
            readiness.add(Problem::new(ProblemKind::StoreChanged, sentence));
        }
        for sentence in stores.problems_of_streams() {
            readiness.add(Problem::new(ProblemKind::SubjectsTaken, sentence));
        }
        readiness
    }

    /// Whether the coordinator can serve, this project included, and if not, why. A project that is not awake is ready:
    /// its first request starts it; asking here does not.
    pub fn readiness_of(&self, project: &ProjectId) -> Readiness {
        let mut readiness = self.readiness();
        let (kind, sentence) = match self.projects().why_not_up(project) {
            None => return readiness,
            Some(NotUp::Parked(why)) => {
                let sentence = format!("project {project} is parked: {why}");
                (ProblemKind::ProjectParked, sentence)
            }
            Some(NotUp::Down(what)) => {
                // Of one that is only found the sentence names it already.
                let sentence = if what.starts_with("project ") {
                    what
                } else {
                    format!("project {project} {what}")
                };
                (ProblemKind::ProjectDown, sentence)
            }
        };
        readiness.add(Problem::new(kind, sentence));
        readiness
    }
}

fn totals_of(project: &Project) -> ProjectTotals {
    let work = project.work.totals();
    ProjectTotals {
        agents: project.agents.totals().total,
        pending_work: work.pending,
        active_work: work.active,
        targets: project.targets.totals().total,
        last_activity: project.work.last_activity(),
    }
}

fn totals_asleep(totals: &AsleepTotals) -> ProjectTotals {
    ProjectTotals {
        last_activity: totals.last_activity,
        targets: totals.targets.total,
        ..ProjectTotals::default()
    }
}

fn add_work(sum: &mut WorkTotals, more: WorkTotals) {
    sum.pending = sum.pending.saturating_add(more.pending);
    sum.active = sum.active.saturating_add(more.active);
    sum.completed = sum.completed.saturating_add(more.completed);
    sum.failed = sum.failed.saturating_add(more.failed);
    sum.cancelled = sum.cancelled.saturating_add(more.cancelled);
}

fn add_targets(sum: &mut TargetTotals, more: TargetTotals) {
    sum.total = sum.total.saturating_add(more.total);
    sum.available = sum.available.saturating_add(more.available);
    sum.in_use = sum.in_use.saturating_add(more.in_use);
    sum.disabled = sum.disabled.saturating_add(more.disabled);
    sum.error = sum.error.saturating_add(more.error);
}

fn add_agents(sum: &mut AgentTotals, more: AgentTotals) {
    sum.total += more.total;
    for (name, count) in more.by_type {
        *sum.by_type.entry(name).or_default() += count;
    }
    for (name, count) in more.by_status {
        *sum.by_status.entry(name).or_default() += count;
    }
}
