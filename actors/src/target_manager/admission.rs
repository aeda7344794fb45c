//! How many targets a project may have: those that are there, and the new names whose registration is under way.

use std::collections::HashMap;
use std::sync::Arc;

use loom_protocol::{ErrorCode, ProjectId, WireError};

use super::change::Request;
use super::command::Command;
use super::key::TargetKey;
use super::{ASK_AGAIN, MOST_TARGETS};

/// New names whose registration is under way, each with the requests for it.
#[derive(Debug, Default)]
pub(super) struct NewNames(HashMap<TargetKey, Vec<Arc<Request>>>);

impl NewNames {
    /// Whether a new name may be registered where `known` targets are there.
    ///
    /// # Errors
    /// `too-large`: there are as many as may be. `overloaded`: there will be, if what is under way is stored.
    pub fn admit(
        &self,
        (project, name): (&ProjectId, &str),
        key: TargetKey,
        known: usize,
    ) -> Result<(), WireError> {
        if known >= MOST_TARGETS {
            let text = format!(
                "project {project} has {MOST_TARGETS} targets, which is the most; remove one before you register {name}"
            );
            return Err(WireError::new(ErrorCode::TooLarge, text));
        }
        if !self.0.contains_key(&key) && known + self.0.len() >= MOST_TARGETS {
            let text = format!(
                "project {project} has {known} targets and {} more are being registered, which is the most ({MOST_TARGETS}); target {name} may have a place when those have ended",
                self.0.len()
            );
            return Err(WireError::overloaded(text, ASK_AGAIN));
        }
        Ok(())
    }

    /// A registration of a new name is under way.
    pub fn began(&mut self, request: &Arc<Request>) {
        self.0.entry(request.key).or_default().push(request.clone());
    }

    /// A request has its outcome; it need not be one of these.
    pub fn ended(&mut self, request: &Arc<Request>) {
        if let Some(requests) = self.0.get_mut(&request.key) {
            requests.retain(|other| !Arc::ptr_eq(other, request));
            if requests.is_empty() {
                self.0.remove(&request.key);
            }
        }
    }
}

/// Whether a command may make a target.
pub(super) const fn may_be_new(command: &Command) -> bool {
    matches!(command, Command::Register(_) | Command::Define { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom_protocol::TargetId;

    fn request(number: usize) -> Arc<Request> {
        let name = format!("t{number}");
        Arc::new(Request {
            key: TargetKey::of(&name).unwrap(),
            name,
            command: Command::Switch {
                id: TargetId::generate(),
                on: true,
            },
        })
    }

    #[test]
    fn new_names_count_once_each_and_only_while_they_are_under_way() {
        let project = ProjectId::new("p").unwrap();
        let admit = |names: &NewNames, number, known| {
            let admitted = names.admit((&project, "x"), request(number).key, known);
            admitted.map_err(|error| error.code)
        };
        let mut names = NewNames::default();
        assert_eq!(admit(&names, 0, MOST_TARGETS), Err(ErrorCode::TooLarge));
        let (first, same, other) = (request(0), request(0), request(1));
        for one in [&first, &same, &other] {
            names.began(one);
        }
        assert_eq!(admit(&names, 2, MOST_TARGETS - 3), Ok(()));
        assert_eq!(
            admit(&names, 2, MOST_TARGETS - 2),
            Err(ErrorCode::Overloaded),
            "those under way may still be refused"
        );
        assert_eq!(admit(&names, 1, MOST_TARGETS - 2), Ok(()), "the same name");
        names.ended(&first);
        names.ended(&first);
        names.ended(&request(0));
        assert_eq!(
            admit(&names, 2, MOST_TARGETS - 2),
            Err(ErrorCode::Overloaded)
        );
        names.ended(&same);
        assert_eq!(admit(&names, 2, MOST_TARGETS - 2), Ok(()));
    }
}
