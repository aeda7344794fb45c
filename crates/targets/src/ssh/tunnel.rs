//! A way from the other machine to here: `ssh -N -R`, held and renewed for as long as it is wanted, apart from the
//! agents that use it. It ends with the coordinator, and the next one opens it again at the same port.

use std::process::Command;
use std::time::Duration;

use loom_process::group::Group;
use loom_protocol::target::SshConfig;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::SshProgram;
use super::options::{self, Use};

/// How long to wait before it is opened again, at first and at the most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long a line may be that is looked at, in bytes.
const LINE: u64 = 4096;
/// What it says beside what went wrong.
const CHATTER: [&str; 6] = [
    "debug1:",
    "OpenSSH_",
    "Authenticated to",
    "Transferred:",
    "Bytes per second:",
    "Warning: Permanently added",
];
/// How long the program may take to obey TERM.
const GRACE: Duration = Duration::from_secs(1);

/// Where what comes through the tunnel goes to, as this machine reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The host.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// How a tunnel is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelState {
    /// It is being opened for the first time.
    Opening,
    /// It stands: on that machine, this port of 127.0.0.1 leads here.
    Up {
        /// The port there. It stays the same when the tunnel is opened again.
        port: u16,
    },
    /// It is down and will be opened again.
    Down {
        /// What `ssh` said.
        why: String,
    },
}

/// A tunnel; dropped, it is closed.
#[derive(Debug)]
pub struct Tunnel {
    state: watch::Receiver<TunnelState>,
    task: JoinHandle<()>,
}

impl Tunnel {
    /// Opens one, and keeps it open. `port` is that of an earlier one; without it the other machine chooses.
    pub fn open(config: SshConfig, ssh: SshProgram, forward: Forward, port: Option<u16>) -> Self {
        let (tell, state) = watch::channel(TunnelState::Opening);
        let task = tokio::spawn(async move {
            let mut port = port.unwrap_or(0);
            let mut pause = PAUSE.0;
            loop {
                let command = options::command(&config, &ssh, Use::Tunnel(&forward, port));
                let why = hold(command, port, &tell).await;
                if let TunnelState::Up { port: there } = *tell.borrow() {
                    (port, pause) = (there, PAUSE.0);
                }
                tracing::warn!(host = config.host, %why, "a tunnel is down; it is opened again");
                tell.send_replace(TunnelState::Down { why });
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        });
        Self { state, task }
    }

    /// How it is, and each change of that.
    pub fn state(&self) -> watch::Receiver<TunnelState> {
        self.state.clone()
    }

    /// Waits until it stands, and says at which port there.
    pub async fn up(&self) -> Option<u16> {
        let mut state = self.state.clone();
        let up = state
            .wait_for(|state| matches!(state, TunnelState::Up { .. }))
            .await;
        match *up.ok()? {
            TunnelState::Up { port } => Some(port),
            _ => None,
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // With its task the program goes.
        self.task.abort();
    }
}

/// Holds one connection until it ends, and says why it did.
async fn hold(command: Command, port: u16, tell: &watch::Sender<TunnelState>) -> String {
    let (mut group, pipes) = match Group::spawn(command, false, None).await {
        Ok(spawned) => spawned,
        Err(error) => return format!("ssh could not be run ({error}); install openssh-client"),
    };
    let mut last = String::new();
    tokio::select! {
        () = listen(pipes.stderr, port, tell, &mut last) => {}
        _ = group.exited() => {}
    }
    group.end(GRACE).await;
    if last.is_empty() {
        "the connection ended".to_owned()
    } else {
        last
    }
}

/// Reads what `ssh` says of itself: that the port is open there, and what went wrong last.
async fn listen(
    stderr: pipe::Receiver,
    port: u16,
    tell: &watch::Sender<TunnelState>,
    last: &mut String,
) {
    let mut stderr = BufReader::new(stderr);
    loop {
        let mut line = Vec::new();
        let read = (&mut stderr).take(LINE).read_until(b'\n', &mut line).await;
        if !read.is_ok_and(|read| read > 0) {
            return;
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim();
        if let Some(port) = opened(line, port) {
            tell.send_replace(TunnelState::Up { port });
        } else if !CHATTER.iter().any(|words| line.starts_with(words)) && !line.is_empty() {
            line.clone_into(last);
        }
    }
}

/// The port that a line says is open there.
fn opened(line: &str, asked: u16) -> Option<u16> {
    if let Some(rest) = line.strip_prefix("Allocated port ") {
        return rest.split(' ').next()?.parse().ok();
    }
    let is_open = line.starts_with("debug1: remote forward success for: listen");
    (is_open && asked != 0).then_some(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_told_by_the_words_of_ssh() {
        let allocated = "Allocated port 40123 for remote forward to 127.0.0.1:4222";
        assert_eq!(opened(allocated, 0), Some(40123));
        let fixed =
            "debug1: remote forward success for: listen 127.0.0.1:5000, connect localhost:4222";
        assert_eq!(opened(fixed, 5000), Some(5000));
        assert_eq!(
            opened(fixed, 0),
            None,
            "the line with the port is still to come"
        );
        assert_eq!(opened("Warning: something", 5000), None);
    }
}
