//! How an agent registers, beats and comes by its items.

use std::time::Duration;

use loom_client::{Agent, CancelCause, Client, ErrorKind, Job, JobError, JobResult};
use loom_protocol::{ErrorCode, WireError, WorkId};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::fake::{Fake, LIMIT, Reply, Seen, claimed, claimed_as};
use crate::{case, cause, done, patient};

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
    an_agent_that_is_not_known_registers_again_as_itself(fake) {
        fake.replies("agents.heartbeat", [Reply::Refuse(ErrorCode::NotRegistered)]);
        let _agent = fake.agent().ticket("once").start(done).unwrap();
        let (first, second) = (fake.next("agents.register").await, fake.next("agents.register").await);
        assert_eq!((&first["guid"], &first["instanceId"]), (&second["guid"], &second["instanceId"]));
        assert_eq!(first["ticket"], "once");
        assert_eq!(second["ticket"], "once", "the same run with the same ticket is the same birth");
    }
}

case! {
    an_agent_whose_ticket_is_refused_ends_at_its_birth_and_later(fake) {
        let refused = || {
            let error = WireError::new(ErrorCode::Forbidden, "a ticket is for one agent");
            Reply::RefuseWith(error.with_details(json!({"ticket": "refused"})).into())
        };
        fake.replies("agents.register", [refused()]);
        let born_twice = fake.agent().ticket("used").run(done).await.unwrap_err();
        assert!(born_twice.is_ticket_refused(), "{born_twice:?}");

        let mut registrations = 0;
        fake.on("agents.register", move |_| {
            registrations += 1;
            (registrations > 1).then(refused)
        });
        fake.replies("agents.heartbeat", [Reply::Refuse(ErrorCode::NotRegistered)]);
        let removed = fake.agent().ticket("mine").run(done).await.unwrap_err();
        assert!(removed.is_ticket_refused(), "{removed:?}");
    }
}

case! {
    an_agent_that_makes_no_sense_is_refused_at_once(fake) {
        let start = |agent: loom_client::AgentBuilder| agent.start(done).err().unwrap();
        assert!(start(Agent::builder(&fake.client)).to_string().contains("capability"));
        assert_eq!(start(fake.agent().slots(0)).kind(), ErrorKind::Options);
        assert!(start(fake.agent().capability(" a")).to_string().contains("at one end"));
        assert!(start(fake.agent().handle("a/b")).to_string().contains("handle"));
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

/// Gives the item, takes it back (as the answers to heartbeats say), and gives it again to whoever names it, unless
/// somebody else has it.
fn lose_once(fake: &Fake, id: WorkId, is_free: bool) {
    fake.on("work.claim", move |body| {
        let resumed = body["resume"].as_array().is_some();
        let has_it_again = resumed && is_free;
        let attempt = if has_it_again { 2 } else { 1 };
        let given = has_it_again || (!resumed && body["waitMs"] == 200);
        given.then(|| Reply::Answer(claimed_as(id, attempt)))
    });
    fake.on("agents.heartbeat", move |body| {
        let holding = body["holding"].as_array()?;
        let lost: Vec<_> = holding
            .iter()
            .filter(|lease| lease["attempt"] == 1)
            .collect();
        Some(Reply::Answer(
            json!({"ok": true, "lost": lost, "directives": []}),
        ))
    });
}

/// The next claim by name.
async fn resumption(fake: &mut Fake) -> serde_json::Value {
    loop {
        let claim = fake.next("work.claim").await;
        if claim["resume"].is_array() {
            return claim;
        }
    }
}

case! {
    what_was_lost_while_the_agent_was_away_is_claimed_again_and_its_handler_goes_on(fake) {
        let id = WorkId::generate();
        lose_once(&fake, id, true);
        let (go, going) = tokio::sync::watch::channel(false);
        let handler = move |job: Job| {
            let mut going = going.clone();
            async move {
                tokio::select! {
                    _ = going.wait_for(|go| *go) => Ok(JobResult::summary("done")),
                    () = job.cancelled().cancelled() => Err(JobError::recoverable("it was stopped")),
                }
            }
        };
        let agent = fake.agent().start(handler).unwrap();
        let claim = resumption(&mut fake).await;
        assert_eq!(claim["resume"], json!([{"id": id, "attempt": 1}]));
        assert_eq!((&claim["max"], &claim["start"]), (&json!(0), &json!(true)));
        let held = loop {
            let beat = fake.next("agents.heartbeat").await;
            if beat["holding"][0]["attempt"] == 2 {
                break beat;
            }
        };
        assert_eq!(held["holding"].as_array().map(Vec::len), Some(1), "{held}");
        assert_eq!(agent.holding().len(), 1);
        go.send_replace(true);
        let complete = fake.next("work.complete").await;
        let item = &complete["items"][0];
        assert_eq!((&item["id"], &item["attempt"]), (&json!(id), &json!(2)));
    }
}

case! {
    what_somebody_else_has_had_meanwhile_is_stopped(fake) {
        let id = WorkId::generate();
        lose_once(&fake, id, false);
        let (handler, mut told) = patient();
        let _agent = fake.agent().start(handler).unwrap();
        resumption(&mut fake).await;
        assert_eq!(cause(&mut told).await, CancelCause::LeaseLost);
    }
}

case! {
    an_agent_that_resumes_nothing_stops_what_was_lost(fake) {
        let id = WorkId::generate();
        lose_once(&fake, id, true);
        let (handler, mut told) = patient();
        let _agent = fake.agent().resume_lost(false).start(handler).unwrap();
        assert_eq!(cause(&mut told).await, CancelCause::LeaseLost);
        let seen = fake.rest();
        let resumes = |seen: &Seen| seen.body["resume"].is_array();
        assert!(!seen.iter().any(resumes), "{seen:?}");
    }
}

case! {
    a_result_that_comes_while_the_item_is_claimed_again_is_reported_under_the_attempt_that_counts(fake) {
        let id = WorkId::generate();
        lose_once(&fake, id, true);
        let (answer, answered) = tokio::sync::oneshot::channel();
        let mut first = true;
        let mut held = Some(answered);
        fake.on("work.claim", move |body| {
            if body["resume"].is_array() {
                return held.take().map(Reply::When);
            }
            std::mem::take(&mut first).then(|| Reply::Answer(claimed_as(id, 1)))
        });
        let (go, going) = tokio::sync::watch::channel(false);
        let (end, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let handler = move |_: Job| {
            let (mut going, end) = (going.clone(), end.clone());
            async move {
                going.wait_for(|go| *go).await.unwrap();
                end.send(()).unwrap();
                Ok::<_, JobError>(JobResult::summary("done"))
            }
        };
        // The answer comes when this test says so, however late that is.
        let mut options = fake.client.options().clone();
        options.request_timeout = LIMIT;
        let client = Client::connect(options).await.unwrap();
        let _agent = Agent::builder(&client).capability("c").start(handler).unwrap();
        resumption(&mut fake).await;
        go.send_replace(true);
        ended.recv().await.unwrap();
        answer.send(claimed_as(id, 2)).unwrap();
        let complete = fake.next("work.complete").await;
        assert_eq!(complete["items"][0]["attempt"], 2);
    }
}

case! {
    a_claim_by_hand_has_a_name_and_waits_as_long_as_it_says(fake) {
        use loom_protocol::work::{ClaimRequest, LeaseRef, ThenClaim};
        let id = WorkId::generate();
        fake.replies("work.claim", [Reply::Silence, Reply::Answer(claimed_as(id, 4))]);
        let lease = LeaseRef { id, attempt: 3 };
        let request = ClaimRequest {
            guid: loom_protocol::AgentGuid::generate(),
            instance_id: None,
            claim: ThenClaim { max: Some(0), resume: Some(vec![lease]), ..ThenClaim::default() },
        };
        let items = fake.client.claim(&request).await.unwrap();
        assert_eq!(items[0].lease.attempt, 4);
        let (first, second) = (fake.next("work.claim").await, fake.next("work.claim").await);
        assert!(first["claimId"].is_string());
        assert_eq!(first, second);
    }
}
