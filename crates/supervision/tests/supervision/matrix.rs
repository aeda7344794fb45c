//! {panic, `Err`, kill, stop, failing start, hanging start, dependency down at start} × {once, up to exhaustion}.

use loom_supervision::{CallError, StartError, TreeState};

use crate::probe::{Fixture, LONG, Msg, Start};

#[derive(Debug, Clone, Copy)]
enum Fault {
    Panic,
    Err,
    Kill,
    Stop,
    /// A kill, and then a start that goes like this.
    BadStart(Start),
}

const FAULTS: [(Fault, &str); 8] = [
    (Fault::Panic, "told to panic"),
    (Fault::Err, "told to fail"),
    (Fault::Kill, "it was killed"),
    (Fault::Stop, "it stopped by itself"),
    (Fault::BadStart(Start::Fails), "told to fail"),
    (Fault::BadStart(Start::Panics), "told to panic"),
    (Fault::BadStart(Start::Hangs), "it did not start within 30s"),
    (
        Fault::BadStart(Start::NeedsDependency),
        "the dependency is down",
    ),
];

impl Fault {
    /// How many starts it takes until the actor is up again.
    fn starts(self) -> usize {
        match self {
            Self::BadStart(_) => 2,
            _ => 1,
        }
    }

    fn inject(self, fixture: &Fixture) {
        let b = &fixture.b;
        match self {
            Self::Panic => b.handle.cast(Msg::Panic).unwrap(),
            Self::Err => b.handle.cast(Msg::Fail).unwrap(),
            Self::Stop => b.handle.cast(Msg::Stop).unwrap(),
            Self::Kill | Self::BadStart(_) => assert!(b.handle.kill()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn once_the_actor_comes_back_and_its_siblings_notice_nothing() {
    for (fault, reason) in FAULTS {
        let fixture = Fixture::started().await;
        for probe in [&fixture.a, &fixture.b, &fixture.c] {
            assert_eq!(probe.count().await, (1, 1), "{fault:?}");
        }
        if let Fault::BadStart(start) = fault {
            fixture.b.next_starts(&[start, Start::Well]);
            fixture.b.dependency.send_replace(false);
        }
        fault.inject(&fixture);
        fixture.wait_for(TreeState::Restarting).await;
        if !matches!(fault, Fault::BadStart(_)) {
            let failure = fixture.root.tree("p").unwrap().last_failure.unwrap();
            assert!(failure.contains(reason), "{fault:?}: {failure}");
        }

        // A caller during the restart waits, and succeeds.
        let incarnation = 1 + fault.starts();
        assert_eq!(fixture.b.count().await, (incarnation, 1), "{fault:?}");
        assert_eq!(fixture.a.count().await, (1, 2), "{fault:?}");
        assert_eq!(fixture.c.count().await, (1, 2), "{fault:?}");
        assert_eq!(fixture.b.handle.restarts(), 1, "{fault:?}");
        assert_eq!(fixture.a.handle.restarts(), 0, "{fault:?}");
        fixture.wait_for(TreeState::Running).await;
        assert_eq!(fixture.root.tree("p").unwrap().last_failure, None);
        assert_eq!(fixture.b.alive(), 1, "{fault:?}");
        fixture.root.shutdown(LONG).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn up_to_exhaustion_the_tree_restarts_and_then_parks_with_the_reason() {
    for (fault, reason) in FAULTS {
        let fixture = Fixture::started().await;
        if let Fault::BadStart(start) = fault {
            fixture.b.next_starts(&[start]);
            fixture.b.dependency.send_replace(false);
            fault.inject(&fixture);
        } else {
            while fixture.b.handle.wait_until_up(LONG).await.is_ok() {
                fault.inject(&fixture);
                fixture.wait_for_absence().await;
            }
        }
        let parked = fixture.wait_until_parked().await;
        assert!(parked.starts_with("b: "), "{fault:?}: {parked}");
        assert!(parked.contains(reason), "{fault:?}: {parked}");

        // A first start and two restarts in the first tree, and as many in its one restart.
        assert_eq!(fixture.b.starts(), 6, "{fault:?}");
        assert_eq!(fixture.a.starts(), 2, "{fault:?}");
        for probe in [&fixture.a, &fixture.b, &fixture.c] {
            let refused = probe.handle.call(LONG, Msg::Count).await;
            assert_eq!(
                refused,
                Err(CallError::Parked {
                    actor: probe.name.into(),
                    reason: parked.as_str().into()
                })
            );
            assert_eq!(probe.alive(), 0, "{fault:?}");
        }

        // Starting it again does not wait for the next try.
        fixture.b.dependency.send_replace(true);
        fixture.b.next_starts(&[Start::Well]);
        fixture.root.start_tree(fixture.spec()).await.unwrap();
        assert_eq!(fixture.b.count().await, (7, 1), "{fault:?}");
        fixture.root.shutdown(LONG).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_is_down_at_the_first_start_delays_the_tree() {
    let fixture = Fixture::new().await;
    fixture.b.next_starts(&[Start::NeedsDependency]);
    fixture.b.dependency.send_replace(false);
    let starting = tokio::spawn({
        let (root, spec) = (fixture.root.clone(), fixture.spec());
        async move { root.start_tree(spec).await }
    });
    let failed = |trees: &[loom_supervision::TreeStatus]| {
        trees.first().is_some_and(|t| t.last_failure.is_some())
    };
    let trees = fixture.root.wait_until(LONG, failed).await.unwrap();
    assert_eq!(trees[0].state, TreeState::Starting);
    assert!(trees[0].children[0].up);
    assert_eq!(fixture.c.starts(), 0, "c waits for b");

    fixture.b.dependency.send_replace(true);
    assert_eq!(starting.await.unwrap(), Ok(()));
    assert_eq!(fixture.c.count().await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_takes_longer_is_reported_while_it_goes_on() {
    let mut fixture = Fixture::new().await;
    // Longer than the tree's own bound of 30 seconds.
    fixture.policy.backoff_first = std::time::Duration::from_mins(1);
    fixture.policy.backoff_max = fixture.policy.backoff_first;
    fixture.b.next_starts(&[Start::Fails, Start::Well]);
    let error = fixture.root.start_tree(fixture.spec()).await.unwrap_err();
    assert!(matches!(error, StartError::NotUpYet { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "p is not up after 30s and goes on trying (the last failure: b: it could not start: told to fail)"
    );
    fixture.wait_for(TreeState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_never_succeeds_is_parked_and_says_so() {
    let fixture = Fixture::new().await;
    fixture.a.next_starts(&[Start::Fails]);
    let error = fixture.root.start_tree(fixture.spec()).await.unwrap_err();
    assert_eq!(
        error,
        StartError::Parked {
            tree: "p".into(),
            reason: "a: it could not start: told to fail".into()
        }
    );
    assert_eq!(fixture.b.starts(), 0);
}

impl Fixture {
    /// Waits until the end of `b` has been noticed.
    async fn wait_for_absence(&self) {
        let gone = self.root.wait_until(LONG, |trees| !trees[0].children[1].up);
        gone.await
            .unwrap_or_else(|trees| panic!("b is still up: {trees:?}"));
    }
}
