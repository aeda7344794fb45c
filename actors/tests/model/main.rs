//! The pure state machine of a work item, and the ledger that writes it to a real nats-server: the
//! same commands give the same states, whenever the ledger is killed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{sync::Arc, time::Duration};

use loom_actors::clock::Clock;
use loom_actors::domain::work::{Command, Decision, WorkRecord};
use loom_actors::events::EventHub;
use loom_actors::liveness::{InFlight, StallGuard};
use loom_actors::nats::connection::{Nats, NatsOptions};
use loom_actors::nats::owner::Ownership;
use loom_actors::nats::server::{NatsServer, Profile, ServerOptions, find_server};
use loom_actors::project::{Project, Terms};
use loom_actors::settings::{
    AgentSettings, DlqSettings, RestartSettings, SupervisionSettings, WorkSettings,
};
use loom_actors::shared_agents::SharedAgents;
use loom_actors::stores::Stores;
use loom_actors::supervision::{Jitter, Root, RootHandle};
use loom_actors::target_manager::BirthTerms;
use loom_actors::work_ledger::{LedgerError, Operation};
use loom_protocol::work::WorkStatus;
use loom_protocol::{ProjectId, Timestamp, WorkId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

mod step;

use step::{Death, Kind, Step, step};

const PATIENCE: Duration = Duration::from_secs(20);
/// How many sequences of steps are tried where `PROPTEST_CASES` does not say.
const CASES: u32 = 48;
/// How many items there are at a time.
pub const ITEMS: usize = 3;

fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(CASES)
}

/// What a command comes to, without the record.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Came {
    /// It is as it should be.
    Done,
    /// The state does not allow it.
    Refused,
}

/// The state machine alone.
fn decide(command: &Command, record: &WorkRecord, now: Timestamp) -> (Came, WorkRecord) {
    match command.decide(record, now) {
        Ok(Decision::Write(next)) => (Came::Done, *next),
        Ok(Decision::Already) => (Came::Done, record.clone()),
        Err(_) => (Came::Refused, record.clone()),
    }
}

/// Without what only the ledger knows: who wrote it and where, and what a running agent has said, which is written
/// now and then. Dead letters are noted by others, at a time of their own.
fn comparable(record: &WorkRecord) -> WorkRecord {
    let running = record.status == WorkStatus::InProgress;
    WorkRecord {
        created: 0,
        write_id: loom_actors::domain::work::WriteId::default(),
        dead_letter: None,
        progress: record.progress.filter(|_| !running),
        usage: record.usage.clone().filter(|_| !running),
        updated_at: Timestamp::from_millis(0),
        ..record.clone()
    }
}

struct House {
    project: Project,
    clock: Clock,
    root: RootHandle,
    _server: NatsServer,
    _store: tempfile::TempDir,
}

impl House {
    async fn build() -> Self {
        let store = tempfile::tempdir().unwrap();
        let server = ServerOptions::new(find_server(None).unwrap(), store.path().to_owned());
        let fast = ServerOptions {
            profile: Profile::Fast,
            ..server
        };
        let server = NatsServer::start(fast).await.unwrap();
        let options = NatsOptions {
            url: server.client_url(),
            ..NatsOptions::default()
        };
        let nats = Nats::connect(&options).await.unwrap();
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        let terms = Terms {
            begun_at: clock.now(),
            shared_agents: SharedAgents::new(&nats, false, &Clock::system()),
            grace: StallGuard::of_process(&nats),
            jitter: Jitter::fixed(0.0),
            events: EventHub::default(),
            in_flight: InFlight::new(),
            stores: Stores::new(&nats, None, None),
            nats,
            clock: clock.clone(),
            agents: AgentSettings::default(),
            work: WorkSettings::default(),
            supervision: SupervisionSettings {
                general: RestartSettings {
                    max_restarts: u32::MAX,
                    backoff_max: Duration::from_millis(20),
                    ..RestartSettings::default()
                },
                ..SupervisionSettings::default()
            },
            epoch: 7,
            ownership: Ownership::alone(),
            replicas: 1,
            dlq: DlqSettings::default(),
            births: BirthTerms::of_nobody(),
        };
        let root = Root::start("test").await.unwrap();
        let id = ProjectId::new("p").unwrap();
        let (project, tree) = Project::open(id, &terms).await.unwrap();
        root.start_tree(tree).await.unwrap();
        let up = project.ledger.actor().wait_until_up(PATIENCE).await;
        up.unwrap();
        Self {
            project,
            clock,
            root,
            _server: server,
            _store: store,
        }
    }

    /// A new item, here and there.
    async fn create(&self, max_attempts: u32) -> WorkRecord {
        let now = self.clock.now();
        let record = WorkRecord {
            task_id: "task".into(),
            capability: "c".into(),
            boundary: "default".into(),
            description: "d".into(),
            max_attempts,
            ..WorkRecord::blank(
                WorkId::generate(),
                "me",
                now,
                std::collections::BTreeMap::new(),
            )
        };
        let create = Operation::Create(Arc::new(record.clone()));
        let mut created = self.project.ledger.carry_out(vec![create]).await.unwrap();
        created.pop().unwrap().unwrap();
        record
    }

    /// The same steps on both sides.
    async fn follow(&self, steps: Vec<Step>) -> TestCaseResult {
        let mut model = Vec::new();
        for number in 0..ITEMS {
            model.push(self.create(1 + u32::try_from(number).unwrap()).await);
        }
        for (number, step) in steps.iter().enumerate() {
            self.clock.advance(Duration::from_secs(step.later));
            let record = &mut model[step.item];
            let taken = self.take(step, record).await;
            let named = |error| TestCaseError::fail(format!("step {number}: {error}"));
            *record = taken.map_err(named)?;
        }
        for record in &model {
            self.compare(record).await?;
        }
        Ok(())
    }

    async fn take(&self, step: &Step, record: &WorkRecord) -> Result<WorkRecord, TestCaseError> {
        let now = self.clock.now();
        let command = step.command(record, now);
        let (expected, next) = decide(&command, record, now);
        // A command whose answer was lost with the ledger is sent again.
        let (again, _) = decide(&command.once_more(), &next, now);
        let ledger = &self.project.ledger;
        let (restarts, mut killed) = (ledger.actor().restarts(), false);
        if step.death == Death::Before {
            killed = ledger.actor().kill();
        }
        let applying = ledger.apply(record.id, command.clone());
        let dying = async {
            if step.death == Death::Meanwhile {
                tokio::task::yield_now().await;
                killed = ledger.actor().kill();
            }
        };
        let came = match tokio::join!(applying, dying).0 {
            Ok(_) => Came::Done,
            Err(LedgerError::Refused(_)) => Came::Refused,
            Err(error) => return Err(TestCaseError::fail(format!("{command:?}: {error}"))),
        };
        let may_be = match step.death {
            Death::None => [expected, expected],
            // Its first sending may have gone to the one that was dying.
            Death::Before => [expected, decide(&command.once_more(), record, now).0],
            Death::Meanwhile => [expected, again],
        };
        prop_assert!(
            may_be.contains(&came),
            "{command:?} came to {came:?} instead of {may_be:?} on {record:?}"
        );
        // A command may be answered before the death that was ordered meanwhile: the death is this step's all the
        // same, and the next command meets the next incarnation.
        if killed {
            self.wait_for_restart_after(restarts).await;
        }
        self.compare(&next).await?;
        Ok(next)
    }

    async fn wait_for_restart_after(&self, restarts: u64) {
        let ledger = self.project.ledger.actor();
        let restarted = self
            .root
            .wait_until(PATIENCE, |_| ledger.restarts() > restarts);
        assert!(
            restarted.await.is_ok(),
            "the ledger is not up again after {PATIENCE:?}"
        );
    }

    async fn compare(&self, model: &WorkRecord) -> TestCaseResult {
        let read = self.project.work.record(model.id).await;
        let (real, _) = read.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(comparable(&real), comparable(model));
        let header = self
            .project
            .work
            .header(model.id)
            .map(|header| header.status);
        prop_assert_eq!(header, Some(model.status));
        Ok(())
    }
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn the_ledger_does_what_the_state_machine_says_whenever_it_is_killed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let house = runtime.block_on(House::build());
    let mut runner = TestRunner::new(Config {
        cases: cases(),
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    });
    let told = runner.run(&vec(step(), 1..40), |steps| {
        runtime.block_on(house.follow(steps))
    });
    told.unwrap_or_else(|error| panic!("{error}"));
    let totals = house.project.work.totals();
    for (what, count) in [
        ("completed", totals.completed),
        ("failed", totals.failed),
        ("cancelled", totals.cancelled),
    ] {
        assert!(count > 0, "no item was ever {what}: nothing was tested");
    }
    assert!(house.project.ledger.actor().restarts() > 0);
}

/// What the model stands on: the steps reach every state.
#[test]
fn the_steps_reach_every_state() {
    use proptest::strategy::ValueTree as _;
    let mut runner = TestRunner::deterministic();
    let mut reached = std::collections::HashSet::new();
    let (mut late, mut resumed) = (0, 0);
    for _ in 0..100 {
        let now = Timestamp::from_millis(0);
        let mut record = WorkRecord {
            max_attempts: 2,
            ..WorkRecord::blank(
                WorkId::generate(),
                "me",
                now,
                std::collections::BTreeMap::new(),
            )
        };
        for step in vec(step(), 20..40).new_tree(&mut runner).unwrap().current() {
            let lost = record.loss.is_some();
            let (came, next) = decide(&step.command(&record, now), &record, now);
            match step.kind {
                Kind::Complete if lost => late += u32::from(came == Came::Done),
                Kind::Resume { .. } => resumed += u32::from(came == Came::Done),
                _ => {}
            }
            record = next;
            reached.insert(record.status);
        }
    }
    let all = WorkStatus::ALL;
    assert!(
        late > 0 && resumed > 0,
        "{late} late completions and {resumed} resumed leases"
    );
    assert!(
        all.iter().all(|status| reached.contains(status)),
        "{reached:?}"
    );
}
