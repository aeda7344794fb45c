//! What is checked of every target, however it is started.

use super::{HealthCheck, check, limits};
use crate::error::{ErrorCode, WireError};
use crate::token::{TokenError, check_label, check_name, check_token};

/// From so many hexadecimal digits on a text is taken for the beginning of an id.
const ID_DIGITS: usize = 8;

fn named(error: TokenError, field: &str) -> WireError {
    check::with_field(error.into(), field)
}

/// Checks the name of a new target: one that a request can name, and that is never taken for the id of another target.
/// What was stored under such a name before stays reachable by its id.
pub(super) fn check_name_of_target(name: &str) -> Result<(), WireError> {
    check_name("name", name).map_err(|error| named(error, "name"))?;
    if matches!(name, "." | "..") {
        let problem = format!(
            "is {name:?}, which stands for a folder in the path of a URL; choose another name"
        );
        return Err(check::refused("", "name", &problem));
    }
    if reads_as_id(name) {
        let problem = format!(
            "{name:?} begins with {ID_DIGITS} hexadecimal digits and reads as an id, and an id goes before a name; choose another name, like t-{name}"
        );
        return Err(check::refused("", "name", &problem));
    }
    Ok(())
}

/// Whether a text is so much of an id that it is looked for among the ids first.
fn reads_as_id(name: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_hexdigit();
    name.len() >= ID_DIGITS
        && name.chars().take(ID_DIGITS).all(is_digit)
        && name.chars().all(|c| is_digit(c) || c == '-')
}

/// Checks the type of the agents of a new target.
pub(super) fn check_agent_type(agent_type: &str) -> Result<(), WireError> {
    let checked = check_token("agentType", agent_type);
    checked.map_err(|error| named(error, "agentType"))
}

/// What a registration and an update have in common.
pub(super) struct Common<'a> {
    pub(super) capabilities: Option<&'a [String]>,
    pub(super) boundaries: Option<&'a [String]>,
    pub(super) tags: Option<&'a [String]>,
    pub(super) description: Option<&'a str>,
    pub(super) health_check: Option<&'a HealthCheck>,
    pub(super) max_agents: Option<u32>,
    pub(super) limit_group: Option<&'a str>,
}

impl Common<'_> {
    pub(super) fn check(&self) -> Result<(), WireError> {
        for (field, names) in [
            ("capabilities", self.capabilities),
            ("boundaries", self.boundaries),
            ("tags", self.tags),
        ] {
            let names = names.unwrap_or_default();
            if names.len() > limits::NAMES {
                let message = format!(
                    "{field} has {} entries; at most {} are allowed",
                    names.len(),
                    limits::NAMES
                );
                return Err(check::with_field(
                    WireError::new(ErrorCode::TooLarge, message),
                    field,
                ));
            }
            for name in names {
                check_label(field, name).map_err(|error| named(error, field))?;
            }
        }
        if self
            .description
            .is_some_and(|text| text.len() > limits::DESCRIPTION)
        {
            let message = format!(
                "description has more than {} bytes; shorten it",
                limits::DESCRIPTION
            );
            return Err(check::with_field(
                WireError::new(ErrorCode::TooLarge, message),
                "description",
            ));
        }
        if let Some(count) = self
            .max_agents
            .filter(|count| !(1..=limits::AGENTS).contains(count))
        {
            let problem = format!(
                "is {count}; write 1 to {} (a target that starts none is disabled)",
                limits::AGENTS
            );
            return Err(check::refused("", "maxAgents", &problem));
        }
        if let Some(group) = self.limit_group {
            let checked = check_token("limitGroup", group);
            checked.map_err(|error| named(error, "limitGroup"))?;
        }
        self.health_check.map_or(Ok(()), check::health_check)
    }
}
