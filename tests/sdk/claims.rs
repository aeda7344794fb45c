//! How an agent registers, beats and comes by its items.

use std::time::Duration;

use loom_client::{CancelCause, ErrorKind};
use loom_protocol::{ErrorCode, WorkId};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::fake::{Fake, LIMIT, Reply, claimed};
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
        assert!(second["ticket"].is_null(), "a ticket is for one birth");
    }
}

case! {
    an_agent_that_makes_no_sense_is_refused_at_once(fake) {
        use loom_client::Agent;
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
