//! Which run of an agent was born by a ticket, and whether what the registry has of its id is of that run.
//!
//! The ticket is used before the registry writes the agent. In between, and for ever where the agent does not come, the
//! registry may have an entry of before with the same id. What that one says, and its end, says nothing of the newborn.

use loom_protocol::Timestamp;
use loom_protocol::agent::Agent;

use crate::domain::agent::has_registered;

/// The run that was born.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BornRun<'a> {
    /// Its name, where it has one.
    pub instance_id: Option<&'a str>,
    /// When its ticket was used: it registers after that.
    pub born_at: Timestamp,
}

impl BornRun<'_> {
    /// Whether it has registered, by the entry of its id, of which a sign of life came last at `seen`.
    ///
    /// One with a name is known by that, also once another run has taken its place. One without is known by having a
    /// target, which the registry notes of those only that register with a ticket, and by a sign of life since its birth,
    /// of which the entry of an earlier birth has none.
    pub fn has_registered(&self, entry: &Agent, seen: Timestamp) -> bool {
        if let Some(run) = self.instance_id {
            return has_registered(entry, run);
        }
        entry.instance_id.is_none() && entry.target_id.is_some() && seen >= self.born_at
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use loom_protocol::agent::RegisterRequest;
    use loom_protocol::{AgentGuid, ProjectId, TargetId};

    use super::*;
    use crate::domain::agent::{Terms, register};

    const BORN_AT: Timestamp = Timestamp::from_millis(50);

    fn entry(run: Option<&str>, is_born: bool) -> Agent {
        let project = ProjectId::new("p").unwrap();
        let terms = Terms {
            project: &project,
            heartbeat_every: Duration::from_secs(10),
            now: Timestamp::from_millis(1),
        };
        let request = RegisterRequest {
            handle: "a".into(),
            agent_type: "t".into(),
            capabilities: vec!["c".into()],
            instance_id: run.map(str::to_owned),
            ..RegisterRequest::default()
        };
        let mut agent = register(&request, AgentGuid::generate(), None, false, &terms).unwrap();
        agent.target_id = is_born.then(|| TargetId::generate().to_string());
        agent
    }

    #[test]
    fn one_with_a_name_is_known_by_it_whatever_else_the_entry_says() {
        let born = BornRun {
            instance_id: Some("one"),
            born_at: BORN_AT,
        };
        for (run, has_come) in [(Some("one"), true), (Some("two"), false), (None, false)] {
            let entry = entry(run, false);
            for seen in [1, 99] {
                let seen = Timestamp::from_millis(seen);
                assert_eq!(born.has_registered(&entry, seen), has_come, "{run:?}");
            }
        }
    }

    #[test]
    fn one_without_a_name_is_known_by_having_a_target_and_by_its_life_since_its_birth() {
        let born = BornRun {
            instance_id: None,
            born_at: BORN_AT,
        };
        for (run, is_born, seen, has_come) in [
            (None, true, 50, true),
            (None, true, 49, false),
            (None, false, 99, false),
            (Some("one"), true, 99, false),
        ] {
            let entry = entry(run, is_born);
            let seen = Timestamp::from_millis(seen);
            let case = format!("{run:?} {is_born} {seen}");
            assert_eq!(born.has_registered(&entry, seen), has_come, "{case}");
        }
    }
}
