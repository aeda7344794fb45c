//! What the demo shows: three agents that can do different things in different places, and work for them.

use loom_protocol::work::SubmitRequest;
use loom_protocol::{Body, WorkId};
use serde_json::json;

/// The project of the demo.
pub const PROJECT: &str = "demo";

/// An agent of the demo.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    /// Its name.
    pub handle: &'static str,
    /// Its type.
    pub agent_type: &'static str,
    /// What it can do.
    pub capabilities: &'static [&'static str],
    /// Where it may.
    pub boundaries: &'static [&'static str],
}

/// The three of them.
pub const ROLES: [Role; 3] = [
    Role {
        handle: "ada",
        agent_type: "claude-code",
        capabilities: &["typescript", "docs"],
        boundaries: &["web"],
    },
    Role {
        handle: "brian",
        agent_type: "codex",
        capabilities: &["rust", "tests"],
        boundaries: &["core"],
    },
    Role {
        handle: "chen",
        agent_type: "copilot-cli",
        capabilities: &["docs", "tests"],
        boundaries: &["web", "core"],
    },
];

/// What stands in for an agent's program: it works for as long as the item's context says.
pub const SCRIPT: &str = r#"
echo "::progress 30 reading"
sleep "$1"
echo "::progress 80 writing"
sleep "$1"
echo "{\"summary\": \"$LOOM_WORK_CAPABILITY: done by $LOOM_AGENT_HANDLE\"}"
"#;

/// Capability, boundary, and what there is to do of that kind. The first and the last kind are for
/// one agent alone; the two between are for whoever of two is free.
const KINDS: [(&str, &str, [&str; 8]); 4] = [
    (
        "typescript",
        "web",
        [
            "Validate the sign-up form",
            "Show the cart while it loads",
            "Sort the order table",
            "Remember the chosen language",
            "Repair the date picker",
            "Shrink the images",
            "Label the buttons",
            "Drop the old polyfills",
        ],
    ),
    (
        "docs",
        "web",
        [
            "Describe the public API",
            "Write the upgrade notes",
            "Explain how to log in",
            "Draw the page of the data flow",
            "Mend the dead links",
            "Write down the limits",
            "Show an example of each error",
            "List the keyboard shortcuts",
        ],
    ),
    (
        "tests",
        "core",
        [
            "Test the parser on bad input",
            "Test the cache under load",
            "Test the clock at midnight",
            "Test the import of old data",
            "Test what happens on a full disk",
            "Test the retry after a timeout",
            "Test two writers at once",
            "Test the export of nothing",
        ],
    ),
    (
        "rust",
        "core",
        [
            "Make the parser report columns",
            "Bound the cache",
            "Read the configuration once",
            "Drop the unused column",
            "Speed up the import",
            "Name the threads",
            "Replace the hand-written queue",
            "Return errors instead of panicking",
        ],
    ),
];

/// So many items, of mixed kind and priority.
pub fn items(count: usize) -> Vec<SubmitRequest> {
    (0..count).map(item).collect()
}

fn item(index: usize) -> SubmitRequest {
    let (capability, boundary, things) = KINDS[index % KINDS.len()];
    let turn = index / KINDS.len();
    // 7 and 10 have no common divisor, so that every priority comes up.
    let priority = 1 + index * 7 % 10;
    let half = 0.3 + 0.05 * f64::from(u8::try_from(index % 5).unwrap_or(0));
    SubmitRequest {
        description: things[turn % things.len()].into(),
        capability: capability.into(),
        boundary: Some(boundary.into()),
        id: Some(WorkId::generate().to_string()),
        task_id: Some(format!("demo-{:02}", index + 1)),
        priority: Some(priority.into()),
        context_data: Body::of(&json!({ "seconds": format!("{half:.2}") })).ok(),
        offered_by: Some("loom demo".into()),
        ..SubmitRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn somebody_may_take_every_item() {
        for item in items(30) {
            let able = ROLES.iter().filter(|role| {
                role.capabilities.contains(&item.capability.as_str())
                    && role.boundaries.contains(&item.boundary.as_deref().unwrap())
            });
            assert!(able.count() >= 1, "{item:?}");
        }
    }

    #[test]
    fn priorities_are_mixed_and_within_bounds() {
        let priorities: BTreeSet<u64> = items(30)
            .iter()
            .map(|item| item.priority.as_ref().unwrap().as_u64().unwrap())
            .collect();
        assert_eq!(priorities, (1..=10).collect());
    }
}
