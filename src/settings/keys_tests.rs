use super::*;

#[test]
fn near_names_are_found_and_far_ones_are_not() {
    let agents = names_in("agents");
    assert_eq!(
        did_you_mean("hartbeat_every", &agents),
        Some("heartbeat_every")
    );
    assert_eq!(did_you_mean("stale-after", &agents), Some("stale_after"));
    assert_eq!(did_you_mean("stale", &agents), Some("stale_after"));
    assert_eq!(did_you_mean("colour", &agents), None);
    let sections = names_in("");
    assert_eq!(did_you_mean("agent", &sections), Some("agents"));
    assert_eq!(did_you_mean("targets", &sections), None);
}

#[test]
fn actors_take_the_keys_of_supervision() {
    assert!(find("supervision.work_ledger.within").is_some());
    assert!(find("supervision.nobody.within").is_none());
    assert!(is_section("supervision.project"));
    assert!(names_in("supervision").contains(&"work_ledger"));
    assert!(names_in("supervision.work_ledger").contains(&"max_restarts"));
}
