//! A store that does not answer for longer than an actor may take to start.

use std::sync::Arc;
use std::time::Duration;

use loom_actors::actor_name::ActorName;
use loom_actors::project::Project;
use loom_actors::settings::{RestartOverride, WorkSettings};
use loom_actors::supervision::{TreeState, TreeStatus};
use loom_actors::work_ledger::{LedgerError, Operation, ReadError};
use loom_protocol::ProjectId;
use serde_json::json;
use tokio::time::sleep;

use crate::{House, PATIENCE, ids, open, order};

/// How long an actor may take to start here, and how long nats-server stands still.
const START: Duration = Duration::from_millis(300);
const STANDSTILL: Duration = Duration::from_secs(4);

impl House {
    /// One whose ledger and dispatcher may crash once.
    async fn strict() -> Self {
        let mut house = Box::pin(Self::build(WorkSettings::default())).await;
        house.root.stop_tree("p", PATIENCE).await.unwrap();
        let once = RestartOverride {
            max_restarts: Some(1),
            start_timeout: Some(START),
            ..RestartOverride::default()
        };
        for actor in [ActorName::WorkLedger, ActorName::WorkDispatcher] {
            let actors = &mut house.terms.supervision.actors;
            actors.insert(actor, once.clone());
        }
        house.project = Box::pin(open(&house.terms, &house.root)).await;
        house
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_store_that_stands_still_while_ledger_and_dispatcher_restart_costs_no_further_restart() {
    let house = Box::pin(House::strict()).await;
    let agents = [house.agent(&["rust"]).await, house.agent(&["rust"]).await];
    let first = house.submit(json!({"capability": "rust"})).await;
    let (ledger, dispatcher) = (&house.project.ledger, &house.project.dispatcher);

    house.server.pause().unwrap();
    assert!(ledger.actor().kill() && dispatcher.actor().kill());
    let restarts = |trees: &[TreeStatus]| trees[0].state == TreeState::Restarting;
    house.root.wait_until(PATIENCE, restarts).await.unwrap();
    let record = house.record(json!({"capability": "rust"}));
    let refused = ledger.carry_out(vec![Operation::Create(Arc::new(record.clone()))]);
    let (refused, ()) = tokio::join!(refused, async {
        // deliberate sleep: so long the store says nothing
        sleep(STANDSTILL).await;
    });
    let refused = refused.unwrap_err();
    assert!(
        matches!(&refused, LedgerError::Call(down) if down.to_string().contains("is being started")),
        "{refused}"
    );
    assert!(dispatcher.actor().is_up(), "it needs no store to start");
    assert!(!ledger.actor().is_up());
    house.server.resume().unwrap();

    ledger.actor().wait_until_up(PATIENCE).await.unwrap();
    let created = ledger.carry_out(vec![Operation::Create(Arc::new(record.clone()))]);
    created.await.unwrap().pop().unwrap().unwrap();
    for (agent, expected) in agents.into_iter().zip([first, record.id]) {
        let given = dispatcher
            .claim(order(agent, "the only one", PATIENCE))
            .await;
        assert_eq!(ids(&given.unwrap()), [expected]);
    }
    for restarts in [ledger.actor().restarts(), dispatcher.actor().restarts()] {
        assert_eq!(restarts, 1);
    }
    assert_eq!(house.project.reaper.actor().restarts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_item_is_never_not_found_because_its_ledger_was_not_read_yet() {
    let house = Box::pin(House::strict()).await;
    let id = house.submit(json!({"capability": "rust"})).await;
    house.root.stop_tree("p", PATIENCE).await.unwrap();

    let named = ProjectId::new("p").unwrap();
    let (project, tree) = Box::pin(Project::open(named, &house.terms)).await.unwrap();
    house.server.pause().unwrap();
    let root = house.root.clone();
    let starting = tokio::spawn(async move { root.start_tree(tree).await });
    let unknown = project.work.record(id).await.unwrap_err();
    assert!(matches!(unknown, ReadError::NotLoaded(_)), "{unknown}");
    let unknown = project.work.ready(START * 4).await.unwrap_err();
    assert!(matches!(unknown, ReadError::NotLoaded(_)), "{unknown}");
    assert!(!project.dispatcher.actor().is_up(), "nothing to offer yet");
    house.server.resume().unwrap();

    starting.await.unwrap().unwrap();
    project.work.ready(Duration::ZERO).await.unwrap();
    assert_eq!(project.work.record(id).await.unwrap().0.id, id);
    assert_eq!(project.ledger.actor().restarts(), 0);
}
