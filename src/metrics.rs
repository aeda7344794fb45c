//! Metrics: the recorder of this process, and what `/metrics` shows.
//!
//! What happens is counted where it happens (`loom_actors::work_ledger`, for one); how things stand
//! is read when somebody asks. Names, units and labels are those of Prometheus; the dashboard
//! `docs/grafana-dashboard.json` uses them.
//!
//! | name, read when asked | what it tells |
//! |---|---|
//! | `loom_work_items{project,status}` | items that are retained |
//! | `loom_dead_letters{project}` | dead letters that are kept |
//! | `loom_dead_letters_expired_total{project}` | dead letters that went because of their age |
//! | `loom_unreadable_records{project,place}` | what cannot be read and is left alone |
//! | `loom_agents{project,status}` | agents that are registered |
//! | `loom_targets{project,status}` | targets that are registered |
//! | `loom_target_agents{project,target}` | agents by the target that started them, of 50 targets of a project by name |
//! | `loom_spin_ups_under_way{project}` | starts of agents that have not ended |
//! | `loom_actor_restarts_total{project,actor}` | restarts since this ownership began |
//! | `loom_nats_reconnects_total` | how often the connection was made anew |
//! | `loom_store_free_bytes`, `loom_store_size_bytes` | the disk of our own nats-server |
//! | `loom_store_refusals_total` | writes that the store of NATS refused |
//! | `loom_store_restarts_total` | how often our own nats-server was restarted because of its store |
//! | `loom_projects{state}` | projects that are awake, and that are asleep |
//! | `loom_ready` | 1 when the coordinator can serve |

mod targets;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use loom_actors::nats::store::StoreHealth;
use loom_actors::projects::Projects;
use loom_actors::spin_up_meters::BIRTH_SECONDS;
use loom_actors::work_dispatcher;
use loom_actors::work_ledger::describe_meters;
use loom_protocol::agent::AgentStatus;
use loom_protocol::rest::WorkTotals;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::service::Service;

/// How often samples that nobody has asked for are summed up.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// The bounds of waiting and running times, in seconds: agents take from moments to days.
const LONG_SECONDS: [f64; 12] = [
    0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 172_800.0,
];
/// The bounds of a write's time, in seconds.
const SHORT_SECONDS: [f64; 12] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

const ITEMS: &str = "loom_work_items";
const LETTERS: &str = "loom_dead_letters";
const EXPIRED_LETTERS: &str = "loom_dead_letters_expired_total";
const UNREADABLE: &str = "loom_unreadable_records";
const AGENTS: &str = "loom_agents";
const RESTARTS: &str = "loom_actor_restarts_total";
const RECONNECTS: &str = "loom_nats_reconnects_total";
const STORE_FREE: &str = "loom_store_free_bytes";
const STORE_SIZE: &str = "loom_store_size_bytes";
const STORE_REFUSALS: &str = "loom_store_refusals_total";
const STORE_RESTARTS: &str = "loom_store_restarts_total";
const READY: &str = "loom_ready";
const PROJECTS: &str = "loom_projects";
const PARKED: &str = "loom_parked_projects";

/// The recorder of this process. Made with its first use; where a program that embeds Loom has
/// installed another one, that one gets the samples and `/metrics` stays empty.
static RECORDER: LazyLock<PrometheusHandle> = LazyLock::new(|| {
    // It refuses only empty lists of bounds.
    let builder = with_buckets().unwrap_or_default();
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("another recorder of metrics is installed; /metrics will be empty");
    }
    describe_meters();
    work_dispatcher::describe_meters();
    targets::describe_meters();
    describe_gauge!(ITEMS, "Work items that are retained, by status.");
    describe_gauge!(LETTERS, "Dead letters that are kept.");
    describe_counter!(
        EXPIRED_LETTERS,
        "Dead letters that went because of their age, since this ownership began."
    );
    describe_gauge!(
        UNREADABLE,
        "Records, entries and letters that cannot be read and are left alone."
    );
    describe_gauge!(AGENTS, "Registered agents, by status.");
    describe_counter!(RESTARTS, "Restarts of actors since this ownership began.");
    describe_counter!(
        RECONNECTS,
        "How often the connection to NATS was made anew."
    );
    describe_gauge!(
        STORE_FREE,
        "What is free on the disk of our own nats-server."
    );
    describe_gauge!(STORE_SIZE, "The size of the disk of our own nats-server.");
    describe_counter!(
        STORE_REFUSALS,
        "Writes that the store of NATS refused because it is full or broken."
    );
    describe_counter!(
        STORE_RESTARTS,
        "How often our own nats-server was restarted because of its store."
    );
    describe_gauge!(
        PARKED,
        "Projects that crashed too often and wait for their next try."
    );
    describe_gauge!(PROJECTS, "Projects, by whether they are awake or asleep.");
    describe_gauge!(READY, "1 when the coordinator can serve, else 0.");
    handle
});

fn with_buckets() -> Result<PrometheusBuilder, BuildError> {
    let named = |name: &str| Matcher::Full(name.to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(named("loom_work_claim_wait_seconds"), &LONG_SECONDS)?
        .set_buckets_for_metric(named("loom_work_run_seconds"), &LONG_SECONDS)?
        .set_buckets_for_metric(named(BIRTH_SECONDS), &LONG_SECONDS)?
        .set_buckets_for_metric(named("loom_ledger_write_seconds"), &SHORT_SECONDS)
}

/// Begins to record. To be called before the first project is opened; a second call changes nothing.
pub fn install() {
    LazyLock::force(&RECORDER);
}

/// The same service: what ends in it is counted from now on, as its events tell it, in the place of the service before.
pub fn observed(service: Service) -> Service {
    service
}

/// Sums up what was recorded, for ever: samples of histograms are kept one by one until then.
pub async fn keep_up() {
    loop {
        tokio::time::sleep(UPKEEP_EVERY).await;
        RECORDER.run_upkeep();
    }
}

/// Everything, as Prometheus reads it.
pub fn render(service: &Service) -> String {
    let projects = service.projects();
    let readable = projects.all_readable().unwrap_or_default();
    for project in &readable {
        let name = project.id.as_str();
        note_items(name, project.work.totals());
        let letters = &project.letters;
        gauge!(LETTERS, "project" => name.to_owned()).set(exact(letters.total()));
        counter!(EXPIRED_LETTERS, "project" => name.to_owned()).absolute(letters.expired());
        let unread = usize::try_from(letters.unreadable()).unwrap_or(usize::MAX);
        for (place, count) in [
            ("ledger", project.work.quarantined()),
            ("agents", project.agents.quarantined()),
            ("targets", project.targets.quarantined()),
            ("dead-letters", unread),
        ] {
            gauge!(UNREADABLE, "project" => name.to_owned(), "place" => place).set(exact(count));
        }
        note_agents(name, &project.agents.totals().by_status);
        targets::note(project);
    }
    note_asleep(&projects);
    note_shared_agents(service);
    for tree in projects.trees() {
        for actor in tree.children {
            let labels = [
                ("project", tree.name.to_string()),
                ("actor", actor.name.to_string()),
            ];
            counter!(RESTARTS, &labels).absolute(actor.restarts);
        }
    }
    // The first connection is none that was made anew.
    let connected = *projects.terms().nats.reconnects.borrow();
    counter!(RECONNECTS).absolute(connected.saturating_sub(1));
    note_store(&projects.terms().nats.store);
    let readiness = service.readiness();
    gauge!(PARKED).set(exact(readiness.parked.len()));
    gauge!(READY).set(if readiness.ready { 1.0 } else { 0.0 });
    let mut text = RECORDER.render();
    text += &targets::agents(readable.iter().map(|project| &**project));
    text
}

fn note_items(project: &str, work: WorkTotals) {
    for (status, count) in [
        ("pending", work.pending),
        ("active", work.active),
        ("completed", work.completed),
        ("failed", work.failed),
        ("cancelled", work.cancelled),
    ] {
        gauge!(ITEMS, "project" => project.to_owned(), "status" => status).set(exact(count));
    }
}

/// The projects that sleep, by what is known of them without waking any.
fn note_asleep(projects: &Projects) {
    for (id, totals) in projects.all_totals_asleep() {
        let name = id.as_str();
        note_items(name, totals.work);
        gauge!(LETTERS, "project" => name.to_owned()).set(exact(totals.letters));
        note_agents(name, &BTreeMap::new());
        targets::note_asleep(name, totals.targets);
    }
    let states = [("awake", projects.awake()), ("asleep", projects.asleep())];
    for (state, count) in states {
        gauge!(PROJECTS, "state" => state).set(exact(count));
    }
}

fn note_store(store: &StoreHealth) {
    if let Some(space) = store.space() {
        let sample = |bytes: u64| exact(usize::try_from(bytes).unwrap_or(usize::MAX));
        gauge!(STORE_FREE).set(sample(space.free));
        gauge!(STORE_SIZE).set(sample(space.total));
    }
    counter!(STORE_REFUSALS).absolute(store.refusals());
    counter!(STORE_RESTARTS).absolute(store.restarts());
}

/// The entries in the bucket of all projects: what names no project, or one that is not awake, is with the default one.
fn note_shared_agents(service: &Service) {
    let projects = service.projects();
    let awake = projects.all();
    let names: Vec<&str> = awake.iter().map(|project| project.id.as_str()).collect();
    let shared = &projects.terms().shared_agents;
    for (name, count) in shared.unreadable_counts(&names, service.default_project().as_str()) {
        let labels = [
            ("project", name.to_owned()),
            ("place", "agent-registry".to_owned()),
        ];
        gauge!(UNREADABLE, &labels).set(exact(count));
    }
}

fn note_agents(project: &str, by_status: &BTreeMap<String, usize>) {
    for status in AgentStatus::ALL {
        let count = by_status.get(status.as_str()).copied().unwrap_or_default();
        gauge!(AGENTS, "project" => project.to_owned(), "status" => status.as_str())
            .set(exact(count));
    }
}

/// A count as a sample; exact far beyond what fits into memory.
#[allow(clippy::cast_precision_loss, reason = "exact below 2^53")]
const fn exact(count: usize) -> f64 {
    count as f64
}
