use proptest::prelude::*;

use super::*;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn refusal(kind: RefusalKind, at: u64) -> Refusal {
    Refusal {
        kind,
        said: "no".into(),
        at: secs(at),
    }
}

fn facts() -> impl Strategy<Value = StoreFacts> {
    let kind = prop_oneof![Just(RefusalKind::Disk), Just(RefusalKind::Limit)];
    let refused = (kind, 0_u64..200).prop_map(|(kind, at)| refusal(kind, at));
    let stuck = (0_u64..200).prop_map(|at| refusal(RefusalKind::Disk, at));
    let space = (1_u64..4_000_000_000, 0.0..1.0_f64).prop_map(|(total, share)| {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "any share will do"
        )]
        let free = (total as f64 * share) as u64;
        Space { free, total }
    });
    let restarts = (0_u64..200, 1_u32..80).prop_map(|(last, times)| (secs(last), times));
    (
        any::<bool>(),
        any::<bool>(),
        prop::option::of(space),
        prop::bool::weighted(0.1),
        prop::option::of(stuck),
        prop::option::of(refused),
        prop::option::of(restarts),
        prop::option::of((0_u64..200, 0_u64..50)),
        prop::option::of(0_u64..10_000),
    )
        .prop_map(
            |(ours, own_limit, space, missing, stuck, refused, restarts, since, seen)| StoreFacts {
                ours: ours.then(|| "/data/nats/store".to_owned()),
                own_limit,
                space: space.filter(|_| ours),
                missing,
                stuck: stuck.filter(|_| ours),
                refused,
                unconfirmed: since.map(|(since, tried_for)| Unconfirmed {
                    stream: "KV_x".to_owned(),
                    since: secs(since),
                    last: secs(since + tried_for),
                }),
                majority_seen: seen.map(secs),
                held: None,
                restarts,
            },
        )
}

proptest! {
    #[test]
    fn a_restart_needs_a_server_of_ours_that_is_stuck_and_enough_space(
        facts in facts(), now in 200_u64..10_000,
    ) {
        let verdict = restart_verdict(&facts, secs(now));
        if verdict != RestartVerdict::No {
            let space = facts.space.unwrap();
            prop_assert!(facts.ours.is_some() && !facts.missing);
            prop_assert!(space.free >= (64 * 1024 * 1024).min(space.total / 2));
            let by_limit = facts.refused.is_some_and(|it| it.kind == RefusalKind::Limit);
            prop_assert!(facts.stuck.is_some() || (by_limit && facts.own_limit));
        }
        if let (RestartVerdict::Now, Some((last, _))) = (verdict, facts.restarts) {
            prop_assert!(secs(now) >= last + secs(60), "at most once a minute");
        }
    }

    #[test]
    fn restarts_in_a_row_are_twice_as_far_apart_each_time(times in 1_u32..12) {
        let mut facts = StoreFacts {
            ours: Some("/data".into()),
            space: Some(Space { free: 60, total: 64 }),
            stuck: Some(refusal(RefusalKind::Disk, 0)),
            ..StoreFacts::default()
        };
        let (mut now, mut pauses) = (secs(5), Vec::new());
        for _ in 0..=times {
            if let RestartVerdict::In(left) = restart_verdict(&facts, now) {
                prop_assert!(left > Duration::ZERO);
                pauses.push(left);
                now += left;
            }
            prop_assert_eq!(restart_verdict(&facts, now), RestartVerdict::Now);
            facts.restarts = Some(restarted(facts.restarts, now));
        }
        for (place, pause) in pauses.iter().enumerate() {
            let doubled = 60 << place.min(20);
            prop_assert_eq!(*pause, secs(doubled.min(3_600)));
        }
    }

    #[test]
    fn what_is_told_has_the_numbers_and_names_no_other_reason(
        facts in facts(), now in 200_u64..10_000,
    ) {
        let verdict = store_verdict(&facts, secs(now));
        let stuck = facts.stuck.is_some();
        let short = facts.space.is_some_and(|it| it.free < (256 * 1024 * 1024).min(it.total / 10));
        match (&verdict, facts.space) {
            (StoreVerdict::Sound, _) => {
                prop_assert!(!stuck && !short);
                prop_assert!(!(facts.missing && facts.ours.is_some()));
            }
            (StoreVerdict::Short(said), Some(space)) => {
                prop_assert!(short && !stuck);
                prop_assert!(said.contains(&space.shown()), "{}", said);
            }
            (StoreVerdict::Refusing(said), Some(space)) if stuck => {
                prop_assert!(said.contains(&space.shown()), "{}", said);
            }
            _ => {}
        }
        if let Some(said) = verdict.sentence() {
            prop_assert!(!said.contains("coordinator has taken over") && !said.contains("stopped"));
        }
    }

    #[test]
    fn a_refusal_counts_from_its_moment_until_it_is_not_repeated(at in 0_u64..100, later in 0_u64..60) {
        let facts = StoreFacts {
            refused: Some(refusal(RefusalKind::Limit, at)),
            ..StoreFacts::default()
        };
        let refusing = matches!(store_verdict(&facts, secs(at + later)), StoreVerdict::Refusing(_));
        prop_assert_eq!(refusing, secs(later) < REFUSAL_LASTS);
    }
}

#[test]
fn writes_without_an_answer_are_the_stores_fault_only_where_nothing_else_is_wrong() {
    let facts = |since, last, seen| StoreFacts {
        unconfirmed: Some(Unconfirmed {
            stream: "KV_x".into(),
            since: secs(since),
            last: secs(last),
        }),
        majority_seen: Some(secs(seen)),
        ..StoreFacts::default()
    };
    let is_refusing = |facts: &StoreFacts| store_verdict(facts, secs(100)) != StoreVerdict::Sound;
    assert!(is_refusing(&facts(90, 99, 99)));
    assert!(!is_refusing(&facts(95, 99, 99)), "it may be an election");
    assert!(!is_refusing(&facts(50, 60, 99)), "nobody tries any more");
    assert!(!is_refusing(&facts(90, 99, 95)), "the cluster is at fault");
}

#[test]
fn a_majority_that_is_missing_for_longer_than_an_election_is_told() {
    let facts = |seen: Option<u64>| StoreFacts {
        majority_seen: seen.map(secs),
        ..StoreFacts::default()
    };
    assert_eq!(without_majority(&facts(None), secs(100), false), None);
    assert_eq!(without_majority(&facts(Some(94)), secs(100), true), None);
    assert_eq!(
        without_majority(&facts(Some(93)), secs(100), true),
        Some(secs(7))
    );
    let lost = without_majority(&facts(Some(96)), secs(100), false);
    assert_eq!(
        lost,
        Some(secs(4)),
        "whoever lost the ownership is told the cause"
    );
}

#[test]
fn a_full_store_is_told_as_people_say_it() {
    let facts = StoreFacts {
        ours: Some("/data/nats/store".into()),
        space: Some(Space {
            free: 3_000_000,
            total: 60_000_000,
        }),
        stuck: Some(refusal(RefusalKind::Disk, 1)),
        ..StoreFacts::default()
    };
    let verdict = store_verdict(&facts, secs(2));
    let said = verdict.sentence().unwrap();
    assert!(
        said.starts_with("the store of nats-server is full: 3 MB of 60 MB free"),
        "{said}"
    );
    let again = StoreFacts {
        space: Some(Space {
            free: 50_000_000,
            total: 60_000_000,
        }),
        ..facts
    };
    let verdict = store_verdict(&again, secs(2));
    assert!(
        verdict
            .sentence()
            .unwrap()
            .ends_with("it is being restarted"),
        "{verdict:?}"
    );
}

#[test]
fn what_the_server_says_of_its_store_is_known_from_what_it_says_of_anything_else() {
    for (said, kind) in [
        ("insufficient resources", Some(RefusalKind::Limit)),
        (
            "insufficient storage resources available",
            Some(RefusalKind::Limit),
        ),
        (
            "resource limits exceeded for account",
            Some(RefusalKind::Limit),
        ),
        ("maximum bytes exceeded", Some(RefusalKind::Limit)),
        ("error creating store for stream", Some(RefusalKind::Disk)),
        (
            "Filestore [KV_a] Critical write error: write 1.blk: no space left on device",
            Some(RefusalKind::Disk),
        ),
        ("wrong last sequence: 3", None),
        ("no responders", None),
        ("maximum messages exceeded", None),
    ] {
        assert_eq!(refusal_in(said), kind, "{said}");
    }
}

#[test]
fn numbers_are_short() {
    for (count, shown) in [
        (0, "0 kB"),
        (999_999, "999 kB"),
        (3_400_000, "3 MB"),
        (1_560_000_000, "1.5 GB"),
    ] {
        assert_eq!(bytes(count), shown);
    }
}
