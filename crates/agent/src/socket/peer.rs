//! Who is at the other end of a connection: only programs of the attempt, and what they have started.

use std::io;
use std::time::Duration;

use loom_process::stat;
use loom_protocol::{ErrorCode, WireError};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout;

/// How many ancestors are looked at.
const ANCESTORS: usize = 256;
/// How long is waited until it is known whose program it is: one may ask before its start has returned.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);

/// The programs that were started for one attempt, by their numbers.
#[derive(Debug)]
pub struct Programs(watch::Sender<Vec<u32>>);

impl Default for Programs {
    fn default() -> Self {
        Self(watch::Sender::new(Vec::new()))
    }
}

impl Programs {
    /// Another one was started, as a child of this process.
    pub fn add(&self, pid: u32) {
        self.0.send_modify(|pids| pids.push(pid));
    }

    /// One has ended: its number may soon be that of another one.
    pub fn remove(&self, pid: u32) {
        self.0
            .send_modify(|pids| pids.retain(|other| *other != pid));
    }

    /// Whether a connection is of this user and this attempt. Where there is no `/proc`, the user has to do.
    ///
    /// # Errors
    /// `forbidden`: it is not.
    pub async fn check(&self, stream: &UnixStream) -> Result<(), WireError> {
        let peer = match stream.peer_cred() {
            Ok(peer) => peer,
            // The directory of the socket is for its user alone.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(()),
            Err(error) => return Err(forbidden(&format!("nobody knows who asks ({error})"))),
        };
        if peer.uid() != rustix::process::geteuid().as_raw() {
            return Err(forbidden("this socket is for the user that runs the agent"));
        }
        if stat::entry(std::process::id()).is_none() {
            return Ok(());
        }
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
        let Some(pid) = pid else {
            return Err(forbidden("nobody knows which process asks"));
        };
        if pid == std::process::id() {
            return Ok(());
        }
        let is_ours = match program_of(pid) {
            Some(program) => {
                let mut pids = self.0.subscribe();
                let known = pids.wait_for(|pids| pids.contains(&program));
                timeout(KNOWN_WITHIN, known).await.is_ok()
            }
            None => false,
        };
        if is_ours {
            return Ok(());
        }
        Err(forbidden(&format!(
            "process {pid} does not belong to this attempt: neither its program nor what that has started, each with its parent still there"
        )))
    }
}

/// The child of this process that a process is, or comes from.
fn program_of(pid: u32) -> Option<u32> {
    let own = std::process::id();
    let mut at = pid;
    for _ in 0..ANCESTORS {
        let parent = u32::try_from(stat::entry(at)?.parent).ok()?;
        if parent == own {
            return Some(at);
        }
        at = parent;
    }
    None
}

fn forbidden(message: &str) -> WireError {
    WireError::new(ErrorCode::Forbidden, message)
}
