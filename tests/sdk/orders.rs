//! What stops a handler.

use std::time::Duration;

use loom_client::CancelCause;
use loom_protocol::{ErrorCode, WorkId, names};
use serde_json::json;
use tokio::time::timeout;

use crate::fake::{Fake, LIMIT, Reply, claimed, claimed_with_timeout};
use crate::{case, cause, patient};

case! {
    a_lease_that_is_gone_stops_the_handler_and_nothing_is_reported(fake) {
        let id = WorkId::generate();
        fake.replies("work.claim", [Reply::Answer(claimed_with_timeout(&[id], 600))]);
        fake.replies("work.progress", [Reply::Refuse(ErrorCode::StaleLease)]);
        let (handler, mut told) = patient();
        let agent = fake.agent().start(handler).unwrap();
        assert_eq!(cause(&mut told).await, CancelCause::LeaseLost);
        fake.next("work.claim").await;
        assert!(fake.next("work.claim").await["resume"].is_array());
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
