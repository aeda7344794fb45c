//! A start that is dropped at any of its pauses, as by a coordinator that stood still and owns no longer: what others can
//! find by then goes on.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use loom_protocol::SpinUpId;
use loom_protocol::target::Mechanism;
use loom_targets::{Found, Launcher, Started, Step, StepHook, Surroundings};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fixture::{alive, around, end, launcher, order, until};

/// Starts an agent, and drops that at its pause of this number; its outcome where it has fewer.
async fn start_until(launcher: &dyn Launcher, id: SpinUpId, pause: usize) -> Option<Started> {
    let order = order(id);
    let mut start = pin!(launcher.start(&order, CancellationToken::new()));
    let mut pauses = 0;
    poll_fn(|context| match start.as_mut().poll(context) {
        Poll::Ready(started) => Poll::Ready(Some(started.unwrap())),
        Poll::Pending if pauses == pause => Poll::Ready(None),
        Poll::Pending => {
            pauses += 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test]
async fn an_agent_that_others_can_find_is_not_killed_with_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"command": "sh", "args": ["-c", "exec sleep 600"]});
    let next = launcher(Mechanism::Local, &config, &around(folder.path()));
    let mut was_launched = false;
    for pause in 0.. {
        let (launched, id) = (Arc::new(AtomicBool::new(false)), SpinUpId::generate());
        let seen = launched.clone();
        let surroundings = Surroundings {
            on_step: StepHook::new(move |step| {
                seen.fetch_or(step == Step::Launch, Ordering::Relaxed);
            }),
            ..around(folder.path())
        };
        let first = launcher(Mechanism::Local, &config, &surroundings);
        let mut start = Box::pin(start_until(&*first, id, pause));
        let outcome = start.as_mut().await;
        if launched.load(Ordering::Relaxed) {
            was_launched |= outcome.is_none();
            // The next coordinator sees it before the former one, which stands still, has dropped its start.
            until("the agent", || alive(id).first().map(|_| ())).await;
            let found = next.find(id, None).await.unwrap();
            drop(start);
            let again = next.start(&order(id), CancellationToken::new()).await;
            let again = again.unwrap();
            assert!(again.existing, "dropped at pause {pause}");
            assert_eq!(found, Found::Running(again.reference.clone()), "{pause}");
            end(&*next, id, Some(&again.reference)).await;
        }
        if outcome.is_some() {
            break;
        }
    }
    assert!(was_launched, "none was dropped when it was launched");
}
