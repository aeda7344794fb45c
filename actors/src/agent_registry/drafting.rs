//! The agent that a registration makes: decided in one place for the actor, which writes it, and for those who have to know
//! before it is written.

use loom_protocol::agent::{Agent, RegisterRequest};
use loom_protocol::{AgentGuid, WireError};

use super::messages::RETRY_AFTER;
use super::{AgentDirectory, MAX_AGENTS};
use crate::domain::agent::{self, Terms};

/// The agent that a registration would make now, without what the pauses of groups make of it.
///
/// # Errors
/// `overloaded`: it is a new one, and there are as many as may be. `invalid`: a field is wrong.
pub(super) fn draft(
    directory: &AgentDirectory,
    request: &RegisterRequest,
    guid: AgentGuid,
    terms: &Terms<'_>,
) -> Result<Agent, WireError> {
    let known = directory.get(guid);
    if known.is_none() && directory.len() >= MAX_AGENTS {
        let message = format!(
            "project {} has {MAX_AGENTS} agents, which is the most; deregister some",
            terms.project
        );
        return Err(WireError::overloaded(message, RETRY_AFTER));
    }
    let is_leaving = known.as_ref().is_some_and(|entry| entry.is_leaving());
    let is_leaving = is_leaving && goes_on(directory, guid, request);
    let known = known.map(|entry| entry.snapshot());
    agent::register(request, guid, known.as_ref(), is_leaving, terms)
}

/// Whether a registration comes from the run of the program that is known already.
pub(super) fn goes_on(
    directory: &AgentDirectory,
    guid: AgentGuid,
    request: &RegisterRequest,
) -> bool {
    let known = directory.get(guid);
    request.instance_id.is_some()
        && known.is_some_and(|known| known.agent().instance_id == request.instance_id)
}
