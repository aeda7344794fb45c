//! The pure state machine of a work item, and the ledger that writes it to a real nats-server: the
//! same commands give the same states, whenever the ledger is killed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use loom_actors::barrier::{Grace, InFlight};
use loom_actors::clock::Clock;
use loom_actors::domain::retry::Backoff;
use loom_actors::domain::work::{Command, Decision, FailureReport, Fence, Holder, WorkRecord};
use loom_actors::nats::connection::{Nats, NatsOptions};
use loom_actors::nats::owner::Ownership;
use loom_actors::nats::server::{NatsServer, Profile, ServerOptions, find_server};
use loom_actors::project::{Project, Terms};
use loom_actors::settings::{
    AgentSettings, DlqSettings, RetrySettings, SupervisionSettings, WorkSettings,
};
use loom_actors::stores::Stores;
use loom_actors::supervision::{Jitter, Root, RootHandle};
use loom_actors::work_ledger::{LedgerError, Operation};
use loom_protocol::work::{Reason, Usage, WorkResult, WorkStatus};
use loom_protocol::{AgentGuid, ProjectId, Timestamp, WorkId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);
/// How many sequences of steps are tried where `PROPTEST_CASES` does not say.
const CASES: u32 = 48;
const ITEMS: usize = 3;
const USED: Usage = Usage {
    tokens: Some(7),
    cost_usd: None,
};

fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(CASES)
}

/// One command to one item.
#[derive(Debug, Clone)]
struct Step {
    item: usize,
    kind: Kind,
    /// Which of two agents.
    agent: u128,
    /// The present attempt, the one before, the next one, or none.
    attempt: Option<i8>,
    /// Seconds since the step before.
    later: u64,
    death: Death,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Assign { start: bool },
    Start,
    Progress,
    Complete,
    Fail { recoverable: bool, spends: bool },
    Release,
    Revoke { spends: bool },
    Cancel,
    CancelDelivered,
    Stopped,
    Retry { reset: bool },
}

/// When the ledger is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Death {
    None,
    Before,
    Meanwhile,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        5 => any::<bool>().prop_map(|start| Kind::Assign { start }),
        2 => Just(Kind::Start),
        2 => Just(Kind::Progress),
        2 => Just(Kind::Complete),
        3 => any::<(bool, bool)>().prop_map(|(recoverable, spends)| Kind::Fail { recoverable, spends }),
        2 => Just(Kind::Release),
        2 => any::<bool>().prop_map(|spends| Kind::Revoke { spends }),
        1 => Just(Kind::Cancel),
        1 => Just(Kind::CancelDelivered),
        1 => Just(Kind::Stopped),
        1 => any::<bool>().prop_map(|reset| Kind::Retry { reset }),
    ];
    let attempt =
        prop_oneof![8 => Just(Some(0)), 1 => Just(Some(-1)), 1 => Just(Some(1)), 2 => Just(None)];
    let death =
        prop_oneof![20 => Just(Death::None), 1 => Just(Death::Before), 2 => Just(Death::Meanwhile)];
    (0..ITEMS, kind, 1..3_u128, attempt, 0..20_u64, death).prop_map(
        |(item, kind, agent, attempt, later, death)| Step {
            item,
            kind,
            agent,
            attempt,
            later,
            death,
        },
    )
}

impl Step {
    /// The command that this step means for an item as it stands.
    fn command(&self, record: &WorkRecord, now: Timestamp) -> Command {
        let guid = AgentGuid::new(Uuid::from_u128(self.agent));
        let attempt = self
            .attempt
            .map(|off| record.attempt.saturating_add_signed(off.into()));
        let by = Fence {
            guid,
            attempt,
            reported_at: now,
        };
        let backoff = Backoff::new(&RetrySettings::default(), 0.5);
        match self.kind {
            Kind::Assign { start } => Command::Assign {
                holder: Holder {
                    guid,
                    handle: "a".into(),
                    agent_type: "t".into(),
                    hostname: None,
                },
                claim_id: Some("claim".into()),
                start,
            },
            Kind::Start => Command::Start(by),
            Kind::Progress => Command::Progress {
                by,
                progress: Some(40.0),
                message: None,
                usage: Some(USED),
            },
            Kind::Complete => Command::Complete {
                by,
                result: WorkResult {
                    summary: Some("done".into()),
                    output: None,
                    artifacts: None,
                    completed_at: now,
                },
                usage: (self.agent == 1).then_some(USED),
            },
            Kind::Fail {
                recoverable,
                spends,
            } => Command::Fail {
                by,
                failure: FailureReport {
                    message: "broken".into(),
                    code: None,
                    recoverable,
                    occurred_at: now,
                    reason: Reason::AgentError,
                    spends_attempt: spends,
                    not_before: None,
                    backoff,
                },
            },
            Kind::Release => Command::Release {
                by,
                reason: Reason::Released,
                not_before: None,
            },
            Kind::Revoke { spends } => Command::Revoke {
                guid,
                attempt: attempt.unwrap_or(record.attempt),
                reason: Reason::Timeout,
                spends_attempt: spends,
                backoff: spends.then_some(backoff),
            },
            Kind::Cancel => Command::Cancel {
                by: "somebody".into(),
                reason: None,
                again: false,
            },
            Kind::CancelDelivered => Command::CancelDelivered(by),
            Kind::Stopped => Command::Stopped { by, result: None },
            Kind::Retry { reset } => Command::Retry {
                retries: Some(record.retries),
                reset_attempts: reset,
                automatic: false,
            },
        }
    }
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
        usage: record.usage.filter(|_| !running),
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
            grace: Grace::of_process(&nats),
            jitter: Jitter::fixed(0.0),
            in_flight: InFlight::new(),
            stores: Stores::new(&nats, None, None),
            nats,
            clock: clock.clone(),
            agents: AgentSettings::default(),
            work: WorkSettings::default(),
            supervision: SupervisionSettings {
                max_restarts: u32::MAX,
                backoff_max: Duration::from_millis(20),
                ..SupervisionSettings::default()
            },
            epoch: 7,
            ownership: Ownership::alone(),
            replicas: 1,
            dlq: DlqSettings::default(),
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
            record = decide(&step.command(&record, now), &record, now).1;
            reached.insert(record.status);
        }
    }
    let all = WorkStatus::ALL;
    assert!(
        all.iter().all(|status| reached.contains(status)),
        "{reached:?}"
    );
}
