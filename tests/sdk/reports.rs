//! How the end of a job is reported.

use std::sync::Arc;

use async_nats::jetstream::stream::{Config, Stream};
use loom_client::{Job, JobError, JobResult};
use loom_protocol::{WorkId, names};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::fake::{Fake, LIMIT, Reply, claimed, claimed_with_timeout};
use crate::{case, done};

/// The stream of the project's work, as the coordinator makes it.
async fn work_stream(fake: &Fake) -> Stream {
    let jetstream = async_nats::jetstream::new(fake.client.nats().clone());
    let config = Config {
        name: names::work_stream(&fake.project),
        subjects: names::work_stream_subjects(&fake.project),
        ..Default::default()
    };
    jetstream.create_stream(config).await.unwrap()
}

/// Waits until a report that nobody answers lies in the stream.
async fn until_published(fake: &mut Fake, stream: &mut Stream) {
    let until = Instant::now() + LIMIT;
    while stream.info().await.unwrap().state.messages == 0 {
        assert!(Instant::now() < until, "never published");
        fake.next("work.complete").await;
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
        let mut stream = work_stream(&fake).await;
        let id = WorkId::generate();
        fake.replies("work.claim", [Reply::Answer(claimed(&[id]))]);
        fake.on("work.complete", |_| Some(Reply::Silence));
        let agent = fake.agent().start(done).unwrap();
        until_published(&mut fake, &mut stream).await;
        fake.next("work.complete").await;
        assert_eq!(stream.info().await.unwrap().state.messages, 1);
        let subject = names::work_completed(&fake.project);
        let message = stream.direct_get_last_for_subject(&subject).await;
        let message = match message {
            Ok(message) => message.payload,
            Err(_) => stream.get_last_raw_message_by_subject(&subject).await.unwrap().payload,
        };
        let report: Value = serde_json::from_slice(&message).unwrap();
        let run = report["instanceId"].as_str().unwrap();
        let ids = stream.get_last_raw_message_by_subject(&subject).await.unwrap().headers;
        let id_of_it = ids.get("Nats-Msg-Id").unwrap().as_str();
        assert_eq!(id_of_it, format!("{id}.1.{run}"));
        assert_eq!((&report["workItemId"], &report["attempt"]), (&json!(id), &json!(1)));
        agent.shut_down("test", LIMIT);
        let report = timeout(LIMIT, agent.ended()).await.unwrap().unwrap();
        assert_eq!(report.published, 1);
        assert!(fake.rest().iter().all(|seen| seen.action != "agents.deregister"));
    }
}

case! {
    an_agent_whose_published_report_is_answered_after_all_deregisters(fake) {
        let mut stream = work_stream(&fake).await;
        fake.replies("work.claim", [Reply::Answer(claimed(&[WorkId::generate()]))]);
        fake.on("work.complete", |_| Some(Reply::Silence));
        let agent = fake.agent().start(done).unwrap();
        until_published(&mut fake, &mut stream).await;
        agent.shut_down("test", LIMIT);
        fake.on("work.complete", |_| None);
        fake.next("agents.deregister").await;
        let report = timeout(LIMIT, agent.ended()).await.unwrap().unwrap();
        assert_eq!((report.completed, report.published), (1, 0));
    }
}

case! {
    a_report_in_a_stream_of_somebody_else_is_published_again(fake) {
        let jetstream = async_nats::jetstream::new(fake.client.nats().clone());
        let (subjects, ours) = (names::work_stream_subjects(&fake.project), names::work_stream(&fake.project));
        let over = |name: &str| Config {
            name: name.to_owned(),
            subjects: subjects.clone(),
            ..Default::default()
        };
        let mut other = jetstream.create_stream(over("SOMEBODY_ELSES")).await.unwrap();
        fake.replies("work.claim", [Reply::Answer(claimed(&[WorkId::generate()]))]);
        fake.on("work.complete", |_| Some(Reply::Silence));
        let agent = fake.agent().start(done).unwrap();
        until_published(&mut fake, &mut other).await;
        jetstream.delete_stream("SOMEBODY_ELSES").await.unwrap();
        let mut ours = jetstream.create_stream(over(&ours)).await.unwrap();
        until_published(&mut fake, &mut ours).await;
        agent.shut_down("test", LIMIT);
        let report = timeout(LIMIT, agent.ended()).await.unwrap().unwrap();
        assert_eq!(report.published, 1);
    }
}
