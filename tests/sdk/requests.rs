//! Requests of a client: what is repeated, and for how long.

use std::time::Duration;

use loom_client::{ErrorKind, NewWork, WorkOutcome};
use loom_protocol::target::{SpinUpRequest, SpinUpStatus};
use loom_protocol::{ErrorCode, SpinUpId, WorkId};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::case;
use crate::fake::{Fake, LIMIT, Reply, item, submitted};

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
    a_start_of_an_agent_is_asked_for_once_and_looked_at_patiently(fake) {
        let id = SpinUpId::generate();
        let operation = move |status: &str| Reply::Answer(json!({
            "operationId": id, "targetId": id, "targetName": "here", "mechanism": "local", "status": status,
            "startedAt": "2026-01-31T12:00:00Z",
        }));
        let request = SpinUpRequest { target: "here".into(), work_item_id: None };
        for lost in [Reply::Silence, Reply::Refuse(ErrorCode::Unavailable)] {
            fake.replies("spin-up.trigger", [lost, operation("pending")]);
            let error = fake.client.spin_up(&request).await.unwrap_err();
            assert!(error.is_transient(), "{error}");
            assert_eq!(fake.next("spin-up.trigger").await, json!({"target": "here"}));
            assert!(fake.rest().is_empty(), "a second request would start a second agent");
        }
        let begun = fake.client.spin_up(&request).await.unwrap();
        fake.replies("spin-up.status", [Reply::Silence, operation("success")]);
        let born = fake.client.spin_up_status(begun.operation_id).await.unwrap();
        assert_eq!((born.operation_id, born.status), (id, SpinUpStatus::Success));
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
