//! For each rule a sound history, and the same one with one thing wrong.

mod attempts;
mod ends;
mod letters_and_leases;
mod runs;
mod service;

use super::world::Tale;
use crate::history::{Rule, Verb};

const COMPLETE: Verb = Verb::Complete;
const FAIL: Verb = Verb::Fail { spends: true };
const RELEASE: Verb = Verb::Release { delayed: false };

/// The sound history passes; the broken one is refused with exactly this rule.
fn breaks(rule: Rule, tell: impl Fn(&mut Tale, bool)) {
    let mut sound = Tale::new();
    tell(&mut sound, false);
    let verdict = sound.check();
    assert!(verdict.is_sound(), "{verdict}");
    let mut broken = Tale::new();
    tell(&mut broken, true);
    let verdict = broken.check();
    let rules: Vec<Rule> = verdict
        .violations()
        .iter()
        .map(|found| found.rule)
        .collect();
    assert_eq!(rules, [rule], "{verdict}");
    // The sentence names the item and says why.
    let text = verdict.to_string();
    let item = verdict.violations()[0].item.to_string();
    assert!(
        text.contains(&item) && text.contains(&rule.to_string()),
        "{text}"
    );
}
