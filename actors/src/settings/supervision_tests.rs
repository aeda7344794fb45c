use loom_supervision::{RestartHistory, RestartVerdict};
use tokio::time::Instant;

use super::*;

#[test]
fn what_an_actor_says_wins_over_the_general_settings_for_it_alone() {
    let mut settings = SupervisionSettings::default();
    settings.set("work_ledger.max_restarts", 2.into()).unwrap();
    settings.set("within", "2m".into()).unwrap();
    let policy = settings.policy(ActorName::WorkLedger);
    assert_eq!(policy.max_restarts, 2);
    assert_eq!(policy.within, Duration::from_mins(2));
    assert_eq!(settings.policy(ActorName::GcReaper).max_restarts, 10);
    assert!(settings.set("nobody.within", "2m".into()).is_err());
}

#[test]
fn a_project_keeps_what_nobody_sets_of_its_own() {
    let mut settings = SupervisionSettings::default();
    settings.set("within", "2m".into()).unwrap();
    settings.set("gc_reaper.max_restarts", 1.into()).unwrap();
    let policy = settings.project_policy();
    assert_eq!(policy.max_restarts, 3);
    assert_eq!(policy.within, Duration::from_mins(10));
    settings.set("project.max_restarts", 7.into()).unwrap();
    let policy = settings.project_policy();
    assert_eq!(policy.max_restarts, 7);
    assert_eq!(policy.within, Duration::from_mins(10));
}

#[test]
fn every_actor_has_a_section_and_only_what_is_set_is_shown() {
    let mut settings = SupervisionSettings::default();
    for actor in ActorName::ALL {
        let path = format!("{}.within", actor.key());
        assert_eq!(settings.get(&path), None);
        settings.set(&path, "9s".into()).unwrap();
        assert_eq!(settings.get(&path), Some("9s".into()));
        assert_eq!(settings.policy(actor).within, Duration::from_secs(9));
    }
    let shown = settings.get("").unwrap();
    assert_eq!(shown["gc_reaper"].as_table().unwrap().len(), 1);
    assert_eq!(shown["project"].as_table().unwrap().len(), 2);
}

/// The pauses until the policy is exhausted by starts that fail at once; `None` when it never is.
fn time_to_exhaustion(policy: &RestartPolicy, per_try: Duration) -> Option<Duration> {
    let (mut history, start) = (RestartHistory::default(), Instant::now());
    let mut now = start;
    for _ in 0..1000 {
        now += per_try;
        match history.record_crash(policy, now, 1.0) {
            RestartVerdict::RestartAfter(pause) => now += pause,
            RestartVerdict::Exhausted => return Some(now - start),
        }
    }
    None
}

#[test]
fn by_default_an_actor_that_never_starts_parks_its_project_within_two_minutes() {
    let settings = SupervisionSettings::default();
    let actor = settings.policy(ActorName::WorkLedger);
    let project = settings.project_policy();
    let one_tree = time_to_exhaustion(&actor, Duration::ZERO).unwrap();
    let parked = time_to_exhaustion(&project, one_tree).unwrap();
    assert!(parked < Duration::from_mins(2), "{parked:?}");
}
