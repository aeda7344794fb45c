//! Requests that wait until the bucket has been read for the first time: an agent that is not in the directory may exist all
//! the same.

use loom_protocol::WireError;

use super::AgentDirectory;
use super::messages::{Msg, RETRY_AFTER, answer};

/// How many requests wait; more are refused.
const MAX_HELD: usize = 10_000;

/// What waits, in the order in which it came.
#[derive(Default)]
pub(super) struct HeldRequests(Vec<Msg>);

impl HeldRequests {
    /// Keeps a request that has to wait; gives back what has not.
    pub fn keep_while_loading(&mut self, directory: &AgentDirectory, message: Msg) -> Option<Msg> {
        if directory.is_loaded() || !has_to_wait(directory, &message) {
            return Some(message);
        }
        if self.0.len() < MAX_HELD {
            self.0.push(message);
        } else {
            refuse(message);
        }
        None
    }

    /// The bucket has been read: what waited for it goes on.
    pub fn release(&mut self) -> Vec<Msg> {
        std::mem::take(&mut self.0)
    }
}

fn has_to_wait(directory: &AgentDirectory, message: &Msg) -> bool {
    match message {
        Msg::Ready { .. } | Msg::Register { .. } | Msg::Deregister { .. } | Msg::Shared { .. } => {
            true
        }
        Msg::Heartbeat { heartbeat, .. } | Msg::PublishedHeartbeat { heartbeat, .. } => {
            directory.get(heartbeat.guid).is_none()
        }
        Msg::SignOfLife { guid, .. }
        | Msg::Shutdown { guid, .. }
        | Msg::SendHome { guid, .. }
        | Msg::MarkOffline { guid, .. }
        | Msg::Bury { guid, .. }
        | Msg::Pause { guid, .. }
        | Msg::ReleaseFromQuarantine { guid, .. }
        | Msg::AddDirective { guid, .. }
        | Msg::ClearDirective { guid, .. } => directory.get(*guid).is_none(),
        _ => false,
    }
}

fn refuse(message: Msg) {
    let error = || {
        let message = "the agents of this project are still being read; try again in a moment";
        WireError::overloaded(message, RETRY_AFTER)
    };
    match message {
        Msg::Register { reply, .. }
        | Msg::Shutdown { reply, .. }
        | Msg::ReleaseFromQuarantine { reply, .. } => {
            answer(reply, Err(error()));
        }
        Msg::Deregister { reply, .. }
        | Msg::SignOfLife { reply, .. }
        | Msg::AddDirective { reply, .. }
        | Msg::Pause {
            reply: Some(reply), ..
        }
        | Msg::ClearDirective { reply, .. } => answer(reply, Err(error())),
        Msg::Heartbeat { reply, .. } => answer(reply, Err(error())),
        Msg::MarkOffline { reply, .. } | Msg::Bury { reply, .. } | Msg::SendHome { reply, .. } => {
            answer(reply, Err(error()));
        }
        // Who only wants to know when has no place to hear an error: the port closes, and the
        // handle asks again.
        _ => {}
    }
}
