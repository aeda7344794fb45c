//! What callers see through a handle.

use std::time::Duration;

use loom_supervision::CallError;

use crate::probe::{Fixture, LONG, Msg, Probe, Start};

#[tokio::test(start_paused = true)]
async fn a_request_that_kills_the_actor_is_sent_again() {
    let fixture = Fixture::started().await;
    let answer = fixture.b.handle.call(LONG, Msg::DieOnce).await;
    assert_eq!(answer, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_port_outlives_the_actor_is_sent_again() {
    let fixture = Fixture::started().await;
    let within = Duration::from_secs(3);
    let answer = fixture.b.handle.call(within, Msg::FailHoldingOnce).await;
    assert_eq!(answer, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn callers_before_the_first_start_wait_for_it() {
    let fixture = Fixture::new().await;
    let early = tokio::spawn({
        let handle = fixture.b.handle.clone();
        async move { handle.call(LONG, Msg::Count).await }
    });
    assert_eq!(
        fixture.b.handle.cast(Msg::Fail),
        Err(CallError::Down {
            actor: "b".into(),
            why: None
        })
    );
    fixture.root.start_tree(fixture.spec()).await.unwrap();
    assert_eq!(early.await.unwrap(), Ok((1, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_no_longer_than_it_said() {
    let fixture = Fixture::started().await;
    let within = Duration::from_secs(3);
    let slow = fixture.b.handle.call(within, Msg::Ignore).await;
    assert_eq!(
        slow,
        Err(CallError::TimedOut {
            actor: "b".into(),
            within
        })
    );

    fixture.b.next_starts(&[Start::Hangs, Start::Well]);
    assert!(fixture.b.handle.kill());
    let before = tokio::time::Instant::now();
    let down = fixture.b.handle.call(within, Msg::Count).await.unwrap_err();
    assert_eq!(
        down,
        CallError::Down {
            actor: "b".into(),
            why: None
        }
    );
    assert_eq!(before.elapsed().as_secs(), within.as_secs());
    assert_eq!(
        down.to_string(),
        "b is being started; try again in a moment"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stopped_actor_refuses_at_once() {
    let fixture = Fixture::started().await;
    fixture.root.stop_tree("p", LONG).await.unwrap();
    let stopped = Err(CallError::Stopped { actor: "a".into() });
    assert_eq!(fixture.a.handle.wait_until_up(LONG).await, stopped);
    assert_eq!(fixture.a.handle.cast(Msg::Fail), stopped);
    assert!(!fixture.a.handle.kill());
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_get_through_a_row_of_crashes() {
    let mut fixture = Fixture::new().await;
    fixture.policy.max_restarts = 1000;
    fixture.root.start_tree(fixture.spec()).await.unwrap();
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let probe: Probe = fixture.b.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    probe.count().await;
                    let _ = probe.handle.call(LONG, Msg::DieOnce).await;
                }
            })
        })
        .collect();
    for _ in 0..20 {
        fixture.b.handle.wait_until_up(LONG).await.unwrap();
        fixture.b.handle.kill();
        tokio::task::yield_now().await;
    }
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(fixture.b.alive(), 1);
    assert_eq!(fixture.a.starts(), 1);
}
