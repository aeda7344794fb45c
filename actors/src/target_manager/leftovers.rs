//! What the incarnation before was about to end, or to remove: no record names it any more. The ends of the starts do, for
//! as long as they are kept, and the mechanism keeps what it has begun until nothing of it lives.

use std::sync::Arc;

use loom_protocol::SpinUpId;
use loom_protocol::agent::AgentStatus;

use super::directory::TargetDirectory;
use super::env::Env;
use super::tidying::{GRACE, tidy_after_agent};
use crate::agent_registry::AgentDirectory;

/// The bucket has been read: of each start that is over and of which its mechanism keeps something, what lives is ended
/// as after its agent, and the rest is removed.
pub(super) fn tidy_what_is_left(env: &mut Env) {
    let directory = env.args.directory.clone();
    for end in directory.over() {
        let (id, target) = (end.operation.operation_id, end.operation.target_id);
        let Some(target) = directory.get(target) else {
            continue;
        };
        let Ok(mechanism) = env.args.births.mechanisms.of(&target) else {
            continue;
        };
        if !mechanism.keeps(id) {
            continue;
        }
        let (directory, agents) = (directory.clone(), env.args.agents.clone());
        let is_there = move || may_work(&directory, &agents, id);
        let times = (env.args.idle_grace, GRACE);
        let reference = end.reference.clone();
        env.spawn_tidying(tidy_after_agent(mechanism, id, reference, is_there, times));
    }
}

/// Whether the agent of a start works, or might: born late, or registered anew.
fn may_work(directory: &TargetDirectory, agents: &Arc<AgentDirectory>, id: SpinUpId) -> bool {
    let end = directory.end_of(id);
    let Some(guid) = end.and_then(|end| end.operation.agent_guid) else {
        return false;
    };
    let is_linked = directory
        .linked(guid)
        .is_some_and(|linked| linked.operation_id == id);
    let is_registered = || {
        let known = agents.get(guid);
        known.is_some_and(|entry| entry.agent().status != AgentStatus::Offline)
    };
    is_linked || !agents.is_loaded() || is_registered()
}
