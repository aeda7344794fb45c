//! Ledger and dispatcher of one project under supervision, on a nats-server of their own: what
//! must hold when somebody is unlucky or hostile.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod given_back;
mod house;
mod loading;
mod lost_reads;

use std::sync::Arc;
use std::time::Duration;

use loom_actors::domain::work::{Bodies, Command, Fence, Holder, RunReport, accept_result};
use loom_actors::liveness::InFlight;
use loom_actors::nats::ledger_store::LedgerStore;
use loom_actors::settings::WorkSettings;
use loom_actors::supervision::ActorHandle;
use loom_actors::work_dispatcher::{Admission, Claim, WorkDispatcherHandle};
use loom_actors::work_ledger::{Filter, Operation};
use loom_protocol::work::{ReportedResult, WorkStatus};
use loom_protocol::{AgentGuid, WorkId, names};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use self::house::{House, PATIENCE, eventually, ids, open, order};

macro_rules! scenario {
    ($(#[$doc:meta])* $name:ident($house:ident: $settings:expr) $body:block) => {
        $(#[$doc])*
        #[tokio::test(flavor = "multi_thread")]
        #[ignore = "needs a nats-server: run `cargo xtask test`"]
        async fn $name() {
            let $house = House::build($settings).await;
            $body
        }
    };
}

scenario! {
    /// The first agent waits for `ts` while its only slot holds an item of `py`: the next item of
    /// `ts` is for the second agent.
    a_waiting_claim_without_a_slot_keeps_no_item_from_the_next(house: WorkSettings::default()) {
        let (full, idle) = (house.agent(&["ts", "py"]).await, house.agent(&["ts"]).await);
        let for_ts = Claim {
            capabilities: Some(vec!["ts".into()]),
            ..order(full, "first", PATIENCE)
        };
        let first = house.claim(for_ts);
        // Whoever is answered after it tells that it waits.
        let unfit = house.agent(&["none"]).await;
        house.claim(order(unfit, "x", Duration::ZERO)).await.unwrap();
        let py = house.submit(json!({"capability": "py"})).await;
        let given = house.claim(order(full, "second", Duration::ZERO)).await.unwrap();
        assert_eq!(ids(&given), [py]);
        let waiting = house.claim(order(idle, "third", PATIENCE));
        house.claim(order(unfit, "y", Duration::ZERO)).await.unwrap();
        let ts = house.submit(json!({"capability": "ts"})).await;
        let given = timeout(PATIENCE / 4, waiting).await;
        assert_eq!(ids(&given.unwrap().unwrap()), [ts]);
        first.abort();
    }
}

scenario! {
    /// Progress is written every 30 s; what is shown is always the latest, and the next one after
    /// a write is not written again.
    progress_that_was_written_is_shown_and_not_written_each_time(house: WorkSettings::default()) {
        let guid = AgentGuid::generate();
        let id = house.submit(json!({"capability": "ts"})).await;
        let holder = Holder { guid, handle: "a".into(), agent_type: "t".into(), hostname: None };
        house.apply(id, Command::Assign { holder, claim_id: None, start: true }).await;
        let mut written = Vec::new();
        for (progress, later) in [(10.0, 0), (20.0, 0), (30.0, 31), (40.0, 0)] {
            house.terms.clock.advance(Duration::from_secs(later));
            let by = Fence { guid, attempt: Some(1), reported_at: house.terms.clock.now() };
            let command = Command::Progress { by, progress: Some(progress), message: None, report: RunReport::default() };
            written.push(house.apply(id, command).await.changed);
            let item = house.project.work.item(id, Bodies::Without).await.unwrap();
            assert_eq!(item.progress, Some(progress));
        }
        assert_eq!(written, [false, false, true, false]);
    }
}

scenario! {
    /// What one incarnation left under way must not look like a write of the next.
    write_ids_are_never_used_again(house: WorkSettings::default()) {
        let one = house.submit(json!({"capability": "ts"})).await;
        house.project.ledger.actor().kill();
        let other = house.submit(json!({"capability": "ts"})).await;
        let (one, _) = house.project.work.record(one).await.unwrap();
        let (other, _) = house.project.work.record(other).await.unwrap();
        assert_ne!(one.write_id, other.write_id);
    }
}

scenario! {
    /// Bytes that grow sixfold as JSON text, and all that a message may carry.
    a_refused_submission_of_any_size_is_kept_and_does_not_come_again(house: WorkSettings::default()) {
        let subject = names::work_queue(&house.project.id, "ts");
        let huge = json!({"description": "\"".repeat(400_000)}).to_string();
        for payload in [vec![1; 1_000_000], vec![0xff; 900_000], huge.into_bytes()] {
            let stored = house.terms.nats.jetstream.publish(subject.clone(), payload.into()).await;
            stored.unwrap().await.unwrap();
        }
        eventually("three failed items", async || house.project.work.totals().failed == 3).await;
        let stream = names::work_stream(&house.project.id);
        eventually("an empty stream", async || {
            let stream = house.terms.nats.jetstream.get_stream(&stream).await.unwrap();
            stream.get_info().await.unwrap().state.messages == 0
        })
        .await;
    }
}

scenario! {
    /// The server lets a finished record expire a little before it is forgotten here.
    an_id_can_be_submitted_again_as_soon_as_its_record_has_expired(
        house: WorkSettings { retention: Duration::from_secs(1), ..WorkSettings::default() }
    ) {
        let guid = AgentGuid::generate();
        let id = house.submit(json!({"capability": "ts"})).await;
        let holder = Holder { guid, handle: "a".into(), agent_type: "t".into(), hostname: None };
        house.apply(id, Command::Assign { holder, claim_id: None, start: true }).await;
        let now = house.terms.clock.now();
        let by = Fence { guid, attempt: Some(1), reported_at: now };
        let result = accept_result(ReportedResult::default(), now).unwrap();
        house.apply(id, Command::Complete { by, result, report: RunReport::default() }).await;
        let stopped = house.root.stop_tree("p", PATIENCE).await;
        stopped.unwrap();
        // A read model that knows of the item, and has nothing of it in its cache.
        let again = open(&house.terms, &house.root).await;
        assert_eq!(again.work.header(id).unwrap().status, WorkStatus::Completed);
        let found = LedgerStore::find(&house.terms.nats.jetstream, &again.id).await.unwrap();
        let store = found.unwrap();
        eventually("the record is gone", async || store.get(id).await.unwrap().is_none()).await;
        let record = house.record(json!({"capability": "ts", "id": id}));
        let mut created = again
            .ledger
            .carry_out(vec![Operation::Create(Arc::new(record))])
            .await
            .unwrap();
        let created = created.pop().unwrap().unwrap();
        assert_eq!(created.record.status, WorkStatus::Pending);
    }
}

scenario! {
    /// What is being assigned when the project is stopped is handed over.
    a_project_that_stops_hands_over_what_it_assigns(house: WorkSettings::default()) {
        let mut agents = Vec::new();
        for _ in 0..64 {
            house.submit(json!({"capability": "ts"})).await;
            agents.push(house.agent(&["ts"]).await);
        }
        let name = |guid: AgentGuid| order(guid, "the only one", Duration::ZERO);
        let claims: Vec<_> = agents.iter().map(|guid| house.claim(name(*guid))).collect();
        eventually("a claim is served", async || house.project.work.totals().active > 0).await;
        house.root.stop_tree("p", PATIENCE).await.unwrap();
        let mut told = 0;
        for claim in claims {
            // A claim that came too late is refused.
            told += claim.await.map_or(0, |given| given.len());
        }
        assert_eq!(told, house.project.work.totals().active);
    }
}

scenario! {
    /// Whoever dies between a claim and its answer: each item is given to exactly one agent, which
    /// is told, and nothing stays behind.
    every_claim_is_answered_whichever_actor_dies(house: WorkSettings::default()) {
        const ITEMS: usize = 60;
        let house = Arc::new(house);
        let mut agents = Vec::new();
        for _ in 0..3 {
            let (house, guid) = (house.clone(), house.agent(&["ts"]).await);
            agents.push(tokio::spawn(async move {
                let mut done = 0;
                loop {
                    let claim_id = WorkId::generate().to_string();
                    let wait = Duration::from_secs(1);
                    let given = loop {
                        let order = order(guid, &claim_id, wait);
                        if let Ok(given) = house.project.dispatcher.claim(order).await {
                            break given;
                        }
                    };
                    if given.is_empty() && house.project.work.totals().completed == ITEMS {
                        return done;
                    }
                    for applied in given {
                        let now = house.terms.clock.now();
                        let by = Fence { guid, attempt: Some(applied.record.attempt), reported_at: now };
                        let result = accept_result(ReportedResult::default(), now).unwrap();
                        let command = Command::Complete { by, result, report: RunReport::default() };
                        house.apply(applied.record.id, command).await;
                        done += 1;
                    }
                }
            }));
        }
        for number in 0..ITEMS {
            house.submit(json!({"capability": "ts"})).await;
            if number % 20 == 7 {
                house.project.ledger.actor().kill();
            }
            if number % 20 == 17 {
                house.project.dispatcher.actor().kill();
            }
        }
        let mut done = 0;
        for agent in agents {
            done += timeout(PATIENCE * 2, agent).await.unwrap().unwrap();
        }
        assert_eq!(done, ITEMS);
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_waiting_claim_holds_no_permit_and_one_on_its_way_does() {
    let house = Box::pin(House::build(WorkSettings::default())).await;
    let agent = house.agent(&["rust"]).await;
    let door = Arc::new(Semaphore::new(1));
    let admitted = |claim_id, wait| {
        let permit = door.clone().try_acquire_owned().unwrap();
        Claim {
            admission: Admission::new(permit, InFlight::new().enter("coord.p.work.claim")),
            ..order(agent, claim_id, wait)
        }
    };

    let waiting = house.claim(admitted("waits", PATIENCE));
    drop(timeout(PATIENCE, door.acquire()).await.unwrap().unwrap());
    let repeated = house.claim(admitted("waits", PATIENCE));
    drop(timeout(PATIENCE, door.acquire()).await.unwrap().unwrap());
    assert!(waiting.await.unwrap().is_empty() && !repeated.is_finished());

    let nobody = WorkDispatcherHandle::new(ActorHandle::new("nobody"));
    let _ = timeout(Duration::from_millis(20), async {
        let unheard = nobody.claim(admitted("unheard", Duration::ZERO));
        tokio::pin!(unheard);
        assert!(futures_util::poll!(&mut unheard).is_pending());
        assert_eq!(door.available_permits(), 0, "a flood would not be bounded");
        unheard.await
    })
    .await;
    assert_eq!(door.available_permits(), 1);
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_is_published_about_a_damaged_record_does_not_come_back_for_ever() {
    let house = Box::pin(House::build(WorkSettings::default())).await;
    let (damaged, agent) = (WorkId::generate(), AgentGuid::generate());
    let project = &house.project.id;
    let jetstream = &house.terms.nats.jetstream;
    let bucket = names::work_bucket(project);
    let key = format!("$KV.{bucket}.{damaged}");
    let stored = jetstream.publish(key, "garbage".into()).await.unwrap();
    stored.await.unwrap();
    for (subject, body) in [
        (
            names::work_completed(project),
            json!({"workItemId": damaged, "agentGuid": agent}),
        ),
        (
            names::work_queue(project, "rust"),
            json!({"id": damaged, "description": "precious"}),
        ),
    ] {
        let stored = jetstream
            .publish(subject, body.to_string().into())
            .await
            .unwrap();
        stored.await.unwrap();
    }
    let emptied = async {
        let mut stream = jetstream
            .get_stream(names::work_stream(project))
            .await
            .unwrap();
        while stream.info().await.unwrap().state.messages > 0 {
            // deliberate sleep: nothing tells that a stream is empty
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, emptied).await.unwrap();
    let kept = house.project.work.page(&Filter::default(), 0, 10).headers;
    let mut told = String::new();
    for header in kept {
        assert_eq!(header.status, WorkStatus::Failed);
        let item = house.project.work.item(header.id, Bodies::With).await;
        let bytes = item.unwrap().context_data.unwrap();
        told.push_str(&String::from_utf8_lossy(bytes.as_bytes()));
    }
    assert!(told.contains("precious"), "{told}");
}
