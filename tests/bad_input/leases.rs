//! Requests of agents that are not registered, do not hold the item, or come late.

use loom_protocol::work::{Reason, WorkStatus};
use loom_protocol::{AgentGuid, ErrorCode, names};
use serde_json::json;

use crate::doors::{Doors, check};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_is_not_registered() {
    let doors = Doors::open().await;
    let stranger = AgentGuid::generate();
    let named = [&*stranger.to_string(), "register"];
    // Before the project has anything, and after.
    for _ in 0..2 {
        for action in ["work.claim", "agents.heartbeat"] {
            for error in doors.refused(action, &json!({"guid": stranger})).await {
                check(&error, ErrorCode::NotRegistered, &named);
            }
        }
        doors.project.submit_plain("rust").await.unwrap();
    }
    let pending = doors.project.all_work().await.unwrap();
    assert!(
        pending
            .iter()
            .all(|item| item.status == WorkStatus::Pending)
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn claims_that_make_no_sense() {
    let doors = Doors::open().await;
    let agent = doors.project.agent("rust").spawn().await.unwrap();
    for (field, value, remedy) in [
        ("max", json!(0), "from 1 to"),
        ("waitMs", json!(60_001), "from 0 to 60000"),
    ] {
        let claim = json!({"guid": agent.guid(), field: value});
        for error in doors.refused("work.claim", &claim).await {
            check(
                &error,
                ErrorCode::InvalidRequest,
                &[field, &value.to_string(), remedy],
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn completing_what_one_does_not_hold() {
    let doors = Doors::open().await;
    let holder = doors.project.agent("rust").spawn().await.unwrap();
    let other = doors.project.agent("rust").spawn().await.unwrap();
    let id = doors.project.submit_plain("rust").await.unwrap();
    let claimed = holder.claim_one().await.unwrap();
    let (named, remedy) = (id.to_string(), "discard its result");

    for verb in ["start", "progress", "complete", "release"] {
        let error = other.report(verb, &claimed, json!({})).await.unwrap_err();
        check(
            &error,
            ErrorCode::StaleLease,
            &[&named, &other.guid().to_string(), remedy],
        );
    }
    let why = json!({"error": "not mine"});
    let error = other.report("fail", &claimed, why).await.unwrap_err();
    check(&error, ErrorCode::StaleLease, &[&named, remedy]);

    let completion = json!({"id": id, "guid": holder.guid()});
    for attempt in [0, 2, 99] {
        let mut wrong = completion.clone();
        wrong["attempt"] = json!(attempt);
        for error in doors.refused("work.complete", &wrong).await {
            let parts = [&*named, &attempt.to_string(), "with attempt 1", remedy];
            check(&error, ErrorCode::StaleLease, &parts);
        }
    }
    for error in doors.refused("work.complete", &completion).await {
        check(&error, ErrorCode::InvalidRequest, &["attempt", "the lease"]);
    }

    // An old one: it was given back, and taken by another.
    holder.report("release", &claimed, json!({})).await.unwrap();
    let again = other.claim_one().await.unwrap();
    assert_eq!(again.lease.attempt, 2);
    let error = holder.complete(&claimed, "too late").await.unwrap_err();
    check(
        &error,
        ErrorCode::StaleLease,
        &[&named, &other.guid().to_string(), remedy],
    );
    other
        .complete(&again, "by whom it belongs to")
        .await
        .unwrap();

    let item = doors.project.work(id).await.unwrap();
    let summary = item.result.unwrap().summary;
    assert_eq!(summary.as_deref(), Some("by whom it belongs to"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn completing_twice() {
    let doors = Doors::open().await;
    let agent = doors.project.agent("rust").spawn().await.unwrap();
    doors.project.submit_plain("rust").await.unwrap();
    let claimed = agent.claim_one().await.unwrap();
    let first = agent.complete(&claimed, "once").await.unwrap();
    let second = agent.complete(&claimed, "twice").await.unwrap();
    assert_eq!(second, first, "the same answer, and nothing has changed");
    let item = doors.project.work(first.id).await.unwrap();
    assert_eq!(item.result.unwrap().summary.as_deref(), Some("once"));

    let why = json!({"error": "after all"});
    let error = agent.report("fail", &claimed, why).await.unwrap_err();
    check(&error, ErrorCode::StaleLease, &["it is completed"]);
    let progress = json!({"progress": 50});
    let error = agent
        .report("progress", &claimed, progress)
        .await
        .unwrap_err();
    check(&error, ErrorCode::StaleLease, &["it is completed"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn reasons_that_are_the_coordinators_to_give() {
    let doors = Doors::open().await;
    let agent = doors.project.agent("rust").spawn().await.unwrap();
    doors.project.submit_plain("rust").await.unwrap();
    let claimed = agent.claim_one().await.unwrap();
    let allowed = |verb| match verb {
        "fail" => &Reason::OF_FAILURE[..],
        _ => &Reason::OF_RELEASE[..],
    };
    for verb in ["fail", "release"] {
        for reason in Reason::ALL {
            if allowed(verb).contains(&reason) {
                continue;
            }
            let body = json!({"error": "e", "reason": reason});
            let error = agent.report(verb, &claimed, body).await.unwrap_err();
            let mut named = vec![reason.as_str(), "write one of"];
            named.extend(allowed(verb).iter().map(|reason| reason.as_str()));
            check(&error, ErrorCode::InvalidRequest, &named);
        }
    }
    agent.complete(&claimed, "it is its own").await.unwrap();

    // Published, nobody can be told: the report counts, its reason does not.
    let id = doors.project.submit_plain("rust").await.unwrap();
    agent.claim_one().await.unwrap();
    let report = json!({
        "workItemId": id, "agentGuid": agent.guid(), "attempt": 1, "reason": "poison",
        "error": {"message": "e", "recoverable": false},
    });
    let subject = names::work_errors(doors.project.id());
    doors.project.publish(subject, &report).await.unwrap();
    let failed = doors.project.until_ended(id).await.unwrap();
    let error = failed.error.unwrap();
    assert_eq!(error.reason, Reason::AgentError);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn progress_beyond_the_end() {
    let doors = Doors::open().await;
    let agent = doors.project.agent("rust").spawn().await.unwrap();
    doors.project.submit_plain("rust").await.unwrap();
    let claimed = agent.claim_one().await.unwrap();
    for progress in [json!(101), json!(-1), json!(1e9)] {
        let report = json!({"progress": progress});
        let error = agent
            .report("progress", &claimed, report)
            .await
            .unwrap_err();
        check(
            &error,
            ErrorCode::InvalidRequest,
            &["progress", "from 0 to 100"],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn cancelling_what_is_finished() {
    let doors = Doors::open().await;
    let agent = doors.project.agent("rust").spawn().await.unwrap();
    let done = doors.project.submit_plain("rust").await.unwrap();
    let claimed = agent.claim_one().await.unwrap();
    agent.complete(&claimed, "done").await.unwrap();
    let cancelled = doors.project.submit_plain("rust").await.unwrap();
    let request = json!({"id": cancelled});
    doors.project.request("work.cancel", request).await.unwrap();

    for (id, status) in [(done, "completed"), (cancelled, "cancelled")] {
        let mut refusals = doors.refused("work.cancel", &json!({"id": id})).await;
        let path = format!("/api/work/{id}/cancel");
        refusals.push(doors.refused_post(&path, "").await);
        for error in refusals {
            check(&error, ErrorCode::TerminalState, &[&id.to_string(), status]);
        }
    }
}
