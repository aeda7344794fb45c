use std::collections::HashMap;

use loom_protocol::WorkId;
use loom_protocol::work::WorkStatus;

use super::super::stories::Stories;
use super::super::verdict::{Rule, Violation};

/// A failed item has one dead letter; an item that is not failed has none.
pub(super) fn one_for_each_failed_item(stories: &Stories, found: &mut Vec<Violation>) {
    let Some(letters) = &stories.at_the_end.dead_letters else {
        return;
    };
    let mut counts: HashMap<WorkId, usize> = HashMap::new();
    for id in letters {
        *counts.entry(*id).or_default() += 1;
    }
    for (id, story) in stories.items() {
        let Some(end) = story.end() else {
            continue;
        };
        let count = counts.remove(&id).unwrap_or(0);
        let due = usize::from(end.status == WorkStatus::Failed);
        if count != due {
            let says = format!("is {} at the end and has {count} dead letters", end.status);
            found.push(Violation::new(Rule::DeadLetter, id, says, &[]));
        }
    }
    for (id, count) in counts {
        let says = format!("has {count} dead letters, and there is no such item");
        found.push(Violation::new(Rule::DeadLetter, id, says, &[]));
    }
}
