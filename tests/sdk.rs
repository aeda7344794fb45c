//! The SDK against a coordinator that misbehaves: what is repeated, what is believed, what is given up.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod fake;

use std::sync::Arc;
use std::time::Duration;

use fake::{Fake, LIMIT, Reply, claimed, claimed_with_timeout, item, submitted};
use loom_client::{CancelCause, ErrorKind, Job, JobEnd, JobError, JobResult, NewWork, WorkOutcome};
use loom_protocol::{ErrorCode, WorkId, names};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout};

macro_rules! case {
    ($(#[$doc:meta])* $name:ident($fake:ident) $body:block) => {
        $(#[$doc])*
        #[tokio::test]
        #[ignore = "needs a nats-server: run `cargo xtask test`"]
        async fn $name() {
            #[allow(unused_mut, reason = "only some cases look at the requests")]
            let mut $fake = Fake::open().await;
            $body
        }
    };
}

async fn done(_: Job) -> Result<JobResult, JobError> {
    Ok(JobResult::summary("done"))
}

/// A handler that waits to be told to stop, and tells why.
fn patient() -> (
    impl Fn(Job) -> futures_util::future::BoxFuture<'static, JobEnd> + Send + Sync,
    mpsc::UnboundedReceiver<CancelCause>,
) {
    let (tell, told) = mpsc::unbounded_channel();
    let handler = move |job: Job| -> futures_util::future::BoxFuture<'static, JobEnd> {
        let tell = tell.clone();
        Box::pin(async move {
            job.cancelled().cancelled().await;
            tell.send(job.cancel_cause().unwrap()).unwrap();
            JobEnd::Failed(JobError::recoverable("stopped"))
        })
    };
    (handler, told)
}

async fn cause(told: &mut mpsc::UnboundedReceiver<CancelCause>) -> CancelCause {
    timeout(LIMIT, told.recv()).await.unwrap().unwrap()
}

case! {
    a_submit_is_repeated_under_the_same_id_until_it_is_answered(fake) {
        fake.on("work.submit", {
            let mut tries = 0;
            move |body| {
                tries += 1;
                Some(match tries {
                    1 => Reply::Refuse(ErrorCode::Overloaded),
                    2 => Reply::Silence,
                    3 => Reply::Refuse(ErrorCode::Unavailable),
                    _ => Reply::Answer(submitted(body)),
                })
            }
        });
        let work = NewWork::new("c", "d");
        assert_eq!(fake.client.submit(&work).await.unwrap().id, work.id());
        for _ in 0..4 {
            assert_eq!(fake.next("work.submit").await["id"], work.id().to_string());
        }
    }
}

case! {
    what_can_not_succeed_is_not_repeated(fake) {
        fake.replies("work.submit", [Reply::Refuse(ErrorCode::InvalidRequest)]);
        let error = fake.client.submit(&NewWork::new("c", "d")).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::InvalidRequest));
        assert!(error.to_string().contains("the test says no"));
        fake.next("work.submit").await;
        assert!(fake.rest().is_empty());
    }
}

case! {
    a_deadline_ends_the_tries_with_what_was_wrong(fake) {
        fake.on("work.get", |_| Some(Reply::Refuse(ErrorCode::Unavailable)));
        let within = Duration::from_millis(400);
        let started = Instant::now();
        let request = json!({"id": WorkId::generate()});
        let error = fake.client.request_within::<Value>("work.get", &request, within).await;
        assert_eq!(error.unwrap_err().code(), Some(ErrorCode::Unavailable));
        assert!(started.elapsed() < Duration::from_secs(3));
    }
}

case! {
    nobody_who_answers_is_a_kind_of_its_own(fake) {
        let mut options = fake.client.options().clone();
        options.project = loom_testkit::nats::TestNats::unique_project();
        let client = loom_client::Client::connect(options).await.unwrap();
        let request = json!({"id": WorkId::generate()});
        let within = Duration::from_millis(200);
        let error = client.request_within::<Value>("work.get", &request, within).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoCoordinator);
        assert!(error.to_string().contains("loom up"), "{error}");
    }
}

case! {
    many_items_go_in_arrays_and_their_answers_keep_the_order(fake) {
        fake.on("work.submit", |body| {
            let items = body["items"].as_array().unwrap().clone();
            let answers: Vec<Value> = items
                .iter()
                .map(|item| match item["description"].as_str() {
                    Some("item 70") => serde_json::to_value(loom_protocol::WireError::invalid("no")).unwrap(),
                    _ => submitted(item),
                })
                .collect();
            Some(Reply::Answer(json!({"items": answers})))
        });
        let work: Vec<NewWork> = (0..130).map(|n| NewWork::new("c", format!("item {n}"))).collect();
        let answers = fake.client.submit_many(&work).await;
        assert_eq!(answers.len(), 130);
        for (n, (work, answer)) in work.iter().zip(&answers).enumerate() {
            match answer {
                Ok(answer) => assert_eq!(answer.id, work.id()),
                Err(error) => {
                    assert_eq!(n, 70);
                    assert_eq!(error.code(), Some(ErrorCode::InvalidRequest));
                }
            }
        }
        let requests = fake.rest();
        assert_eq!(requests.len(), 3);
        assert!(requests.iter().all(|seen| seen.body["items"].as_array().unwrap().len() <= 64));
    }
}

case! {
    items_too_large_for_one_message_go_in_several(fake) {
        let large = "x".repeat(300_000);
        let work: Vec<NewWork> = (0..7)
            .map(|n| NewWork::new("c", format!("{n}")).context(&large).unwrap())
            .collect();
        let answers = fake.client.submit_many(&work).await;
        let ids: Vec<WorkId> = answers.into_iter().map(|answer| answer.unwrap().id).collect();
        assert_eq!(ids, work.iter().map(NewWork::id).collect::<Vec<_>>());
    }
}

case! {
    awaiting_needs_no_event(fake) {
        let id = WorkId::generate();
        let unfinished = || Reply::Answer(item(id, "in-progress", 1));
        fake.replies("work.get", [unfinished(), unfinished(), Reply::Silence, Reply::Answer(item(id, "failed", 1))]);
        let outcome = fake.client.wait(id, LIMIT).await.unwrap();
        assert!(matches!(outcome, WorkOutcome::Failed(_)), "{outcome:?}");
    }
}

case! {
    awaiting_has_an_end(fake) {
        let within = Duration::from_millis(500);
        let error = fake.client.wait(WorkId::generate(), within).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadline);
    }
}

case! {
    a_claim_whose_answer_is_lost_is_repeated_under_its_name(fake) {
        let id = WorkId::generate();
        fake.replies("work.claim", [Reply::Refuse(ErrorCode::Unavailable), Reply::Answer(claimed(&[id]))]);
        let _agent = fake.agent().start(done).unwrap();
        let (first, second) = (fake.next("work.claim").await, fake.next("work.claim").await);
        assert_eq!(first["claimId"], second["claimId"]);
        assert_eq!((first["start"].clone(), first["max"].clone()), (json!(true), json!(1)));
        let complete = fake.next("work.complete").await;
        assert_eq!(complete["items"][0]["id"], id.to_string());
        assert_eq!(complete["items"][0]["attempt"], 1);
        let then = &complete["thenClaim"];
        assert!(then["claimId"].is_string() && then["claimId"] != first["claimId"], "{then}");
        assert_eq!(then["waitMs"].as_u64().unwrap_or(0), 0);
    }
}

case! {
    the_next_item_comes_with_the_answer_to_the_last(fake) {
        let (first, second) = (WorkId::generate(), WorkId::generate());
        fake.replies("work.claim", [Reply::Answer(claimed(&[first]))]);
        let answer = json!({"items": [{"id": first}], "claimed": claimed(&[second])["items"]});
        fake.replies("work.complete", [Reply::Answer(answer)]);
        let report = fake.agent().max_items(2).run(done);
        let report = timeout(LIMIT, report).await.unwrap().unwrap();
        assert_eq!(report.completed, 2);
        let actions: Vec<_> = fake.rest().into_iter().map(|seen| seen.action).collect();
        let count = |name: &str| actions.iter().filter(|action| *action == name).count();
        assert_eq!((count("work.claim"), count("work.complete")), (1, 2));
        assert_eq!(count("agents.deregister"), 1);
    }
}

case! {
    completions_that_wait_together_go_together(fake) {
        let ids: Vec<WorkId> = (0..4).map(|_| WorkId::generate()).collect();
        fake.replies("work.claim", [Reply::Answer(claimed(&ids))]);
        let (answer, held_back) = oneshot::channel();
        fake.replies("work.complete", [Reply::When(held_back)]);
        let gate = Arc::new(Notify::new());
        let (first, waiting) = (ids[0], gate.clone());
        let _agent = fake.agent().slots(4).max_items(4).start(move |job: Job| {
            let waiting = waiting.clone();
            async move {
                if job.item().id != first {
                    waiting.notified().await;
                }
                Ok::<_, JobError>(JobResult::default())
            }
        }).unwrap();
        let one = fake.next("work.complete").await;
        assert_eq!(one["items"].as_array().unwrap().len(), 1);
        gate.notify_waiters();
        // By the second heartbeat from here the three are ready.
        fake.next("agents.heartbeat").await;
        fake.next("agents.heartbeat").await;
        let _ = answer.send(json!({"items": [{"id": first}]}));
        loop {
            // The first may have been repeated by now.
            let complete = fake.next("work.complete").await;
            let items = complete["items"].as_array().unwrap();
            if items[0]["id"] != first.to_string() {
                assert_eq!(items.len(), 3);
                break;
            }
        }
    }
}

case! {
    a_lease_that_is_gone_stops_the_handler_and_nothing_is_reported(fake) {
        let id = WorkId::generate();
        fake.replies("work.claim", [Reply::Answer(claimed_with_timeout(&[id], 600))]);
        fake.replies("work.progress", [Reply::Refuse(ErrorCode::StaleLease)]);
        let (handler, mut told) = patient();
        let agent = fake.agent().start(handler).unwrap();
        assert_eq!(cause(&mut told).await, CancelCause::LeaseLost);
        fake.next("work.claim").await;
        // The next claim means that the slot is free.
        fake.next("work.claim").await;
        assert!(agent.holding().is_empty());
        agent.shut_down("test", Duration::ZERO);
        let report = timeout(LIMIT, agent.ended()).await.unwrap().unwrap();
        assert_eq!((report.lost, report.failed), (1, 0));
        assert!(fake.rest().iter().all(|seen| seen.action != "work.fail"));
    }
}

case! {
    a_new_epoch_in_the_answer_to_a_heartbeat_makes_it_claim_again(fake) {
        fake.replies("work.claim", [Reply::Silence, Reply::Answer(claimed(&[]))]);
        let beat = |epoch| Reply::Answer(json!({"ok": true, "lost": [], "directives": [], "epoch": epoch}));
        fake.replies("agents.heartbeat", [7, 7, 8].map(beat));
        let _agent = fake.agent().start(done).unwrap();
        let (lost, since) = (fake.next("work.claim").await, Instant::now());
        assert_eq!(lost["claimId"], fake.next("work.claim").await["claimId"]);
        assert!(since.elapsed() < Duration::from_secs(2), "a claim is given up after 4 s by itself");
    }
}

case! {
    a_heartbeat_names_what_is_held_and_its_answer_what_is_lost(fake) {
        let id = WorkId::generate();
        fake.replies("work.claim", [Reply::Answer(claimed(&[id]))]);
        fake.on("agents.heartbeat", move |body| {
            let lost = body["holding"].clone();
            Some(Reply::Answer(json!({"ok": true, "lost": lost, "directives": []})))
        });
        let (handler, mut told) = patient();
        let _agent = fake.agent().start(handler).unwrap();
        assert_eq!(cause(&mut told).await, CancelCause::LeaseLost);
        let beat = fake.next("agents.heartbeat").await;
        assert_eq!(beat["holding"][0]["id"], id.to_string());
        assert_eq!(beat["currentTaskCount"], 1);
    }
}

case! {
    an_agent_that_is_not_known_registers_again_as_itself(fake) {
        fake.replies("agents.heartbeat", [Reply::Refuse(ErrorCode::NotRegistered)]);
        let _agent = fake.agent().ticket("once").start(done).unwrap();
        let (first, second) = (fake.next("agents.register").await, fake.next("agents.register").await);
        assert_eq!((&first["guid"], &first["instanceId"]), (&second["guid"], &second["instanceId"]));
        assert_eq!(first["ticket"], "once");
        assert!(second["ticket"].is_null(), "a ticket is for one birth");
    }
}

case! {
    a_cancel_stops_the_handler_and_is_acknowledged(fake) {
        let id = WorkId::generate();
        fake.replies("work.claim", [Reply::Answer(claimed(&[id]))]);
        let (handler, mut told) = patient();
        let agent = fake.agent().start(handler).unwrap();
        let directive = names::directive(&fake.project, agent.guid());
        let mut beats = 0;
        while agent.holding().is_empty() {
            fake.next("agents.heartbeat").await;
            beats += 1;
            assert!(beats < 100);
        }
        fake.publish(directive.clone(), &json!({"kind": "cancel", "workItemId": id, "attempt": 1})).await;
        assert_eq!(cause(&mut told).await, CancelCause::Cancelled);
        let stopped = fake.next("work.stopped").await;
        assert_eq!((&stopped["id"], &stopped["attempt"]), (&json!(id), &json!(1)));
        // The same order about something that it doesn't have is acknowledged at once.
        let other = WorkId::generate();
        fake.publish(directive, &json!({"kind": "cancel", "workItemId": other, "attempt": 7})).await;
        assert_eq!(fake.next("work.stopped").await["id"], other.to_string());
    }
}

case! {
    a_shutdown_without_grace_gives_back_what_is_held(fake) {
        let id = WorkId::generate();
        fake.replies("work.claim", [Reply::Answer(claimed(&[id]))]);
        let order = json!({"kind": "shutdown", "graceMs": 0, "reason": "idle"});
        let mut beats = 0;
        fake.on("agents.heartbeat", move |body| {
            beats += usize::from(!body["holding"].as_array().unwrap().is_empty());
            let directives = if beats > 0 { vec![order.clone()] } else { vec![] };
            Some(Reply::Answer(json!({"ok": true, "lost": [], "directives": directives})))
        });
        let (handler, mut told) = patient();
        let agent = fake.agent().start(handler).unwrap();
        assert_eq!(cause(&mut told).await, CancelCause::Shutdown);
        let report = timeout(LIMIT, agent.ended()).await.unwrap().unwrap();
        assert_eq!((report.returned, report.failed), (1, 0));
        assert!(report.because.contains("idle"), "{report:?}");
        assert_eq!(fake.next("work.release").await["id"], id.to_string());
        fake.next("agents.deregister").await;
    }
}

case! {
    a_panic_is_a_recoverable_failure(fake) {
        fake.replies("work.claim", [Reply::Answer(claimed(&[WorkId::generate()]))]);
        let report = fake.agent().max_items(1).run(async |_: Job| -> Result<JobResult, JobError> {
            panic!("no luck")
        });
        assert_eq!(timeout(LIMIT, report).await.unwrap().unwrap().failed, 1);
        let fail = fake.next("work.fail").await;
        assert_eq!(fail["recoverable"], true);
        assert_eq!(fail["error"]["message"], "the handler panicked: no luck");
    }
}

case! {
    a_handler_that_blocks_its_thread_stops_no_heartbeat(fake) {
        fake.replies("work.claim", [Reply::Answer(claimed_with_timeout(&[WorkId::generate()], 600))]);
        let (blocked, mut told) = mpsc::unbounded_channel();
        let (release, released) = std::sync::mpsc::channel();
        let released = std::sync::Mutex::new(released);
        let agent = fake.agent().max_items(1);
        let thread = std::thread::spawn(move || {
            // A runtime with a single thread, and the handler blocks that.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(agent.run(move |_: Job| {
                blocked.send(()).unwrap();
                released.lock().unwrap().recv().unwrap();
                std::future::ready(Ok::<_, JobError>(JobResult::default()))
            }))
        });
        timeout(LIMIT, told.recv()).await.unwrap().unwrap();
        fake.rest();
        for _ in 0..3 {
            fake.next("agents.heartbeat").await;
        }
        fake.next("work.progress").await;
        release.send(()).unwrap();
        fake.next("agents.deregister").await;
        assert_eq!(thread.join().unwrap().unwrap().completed, 1);
    }
}

case! {
    a_result_that_is_refused_fails_the_item_and_says_why(fake) {
        fake.replies("work.claim", [Reply::Answer(claimed(&[WorkId::generate()]))]);
        let refused = serde_json::to_value(loom_protocol::WireError::invalid("bad result")).unwrap();
        fake.replies("work.complete", [Reply::Answer(json!({"items": [refused]}))]);
        let report = timeout(LIMIT, fake.agent().max_items(1).run(done)).await.unwrap().unwrap();
        assert_eq!((report.completed, report.failed), (0, 1));
        let fail = fake.next("work.fail").await;
        assert_eq!(fail["recoverable"], false);
        assert!(fail["error"]["message"].as_str().unwrap().contains("bad result"));
    }
}

case! {
    while_nobody_answers_a_report_goes_into_the_stream_once(fake) {
        let jetstream = async_nats::jetstream::new(fake.client.nats().clone());
        let mut stream = jetstream.create_stream(async_nats::jetstream::stream::Config {
            name: names::work_stream(&fake.project),
            subjects: names::work_stream_subjects(&fake.project),
            ..Default::default()
        }).await.unwrap();
        let id = WorkId::generate();
        fake.replies("work.claim", [Reply::Answer(claimed(&[id]))]);
        fake.on("work.complete", |_| Some(Reply::Silence));
        let agent = fake.agent().start(done).unwrap();
        let until = Instant::now() + LIMIT;
        while stream.info().await.unwrap().state.messages == 0 {
            assert!(Instant::now() < until, "never published");
            fake.next("work.complete").await;
        }
        fake.next("work.complete").await;
        assert_eq!(stream.info().await.unwrap().state.messages, 1);
        let subject = names::work_completed(&fake.project);
        let message = stream.direct_get_last_for_subject(&subject).await;
        let message = match message {
            Ok(message) => message.payload,
            Err(_) => stream.get_last_raw_message_by_subject(&subject).await.unwrap().payload,
        };
        let report: Value = serde_json::from_slice(&message).unwrap();
        assert_eq!((&report["workItemId"], &report["attempt"]), (&json!(id), &json!(1)));
        agent.shut_down("test", LIMIT);
        let report = timeout(LIMIT, agent.ended()).await.unwrap().unwrap();
        assert_eq!(report.published, 1);
        assert!(fake.rest().iter().all(|seen| seen.action != "agents.deregister"));
    }
}

case! {
    an_agent_that_makes_no_sense_is_refused_at_once(fake) {
        use loom_client::Agent;
        let start = |agent: loom_client::AgentBuilder| agent.start(done).err().unwrap();
        assert!(start(Agent::builder(&fake.client)).to_string().contains("capability"));
        assert_eq!(start(fake.agent().slots(0)).kind(), ErrorKind::Options);
        assert!(start(fake.agent().capability("a b")).to_string().contains("a b"));
        assert!(start(fake.agent().handle("a/b")).to_string().contains("handle"));
    }
}
