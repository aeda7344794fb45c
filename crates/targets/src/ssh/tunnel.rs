//! A way from the other machine to here: `ssh -N -R`, held and renewed for as long as it is wanted, apart from the
//! agents that use it. It ends with the coordinator, and the next one opens it again at the same port.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
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
/// What it says where the port is not opened there.
const REFUSED: &str = "remote port forwarding failed for listen port";
/// How long the program may take to obey TERM.
const GRACE: Duration = Duration::from_secs(1);
/// How long it is listened to after its end.
const READ_ON: Duration = Duration::from_millis(500);

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
        /// Whether that machine was reached, and does not open the port.
        is_refused: bool,
    },
}

/// A tunnel; dropped, it is closed.
#[derive(Debug)]
pub struct Tunnel {
    state: watch::Receiver<TunnelState>,
    /// The port there, once it is known; 0 until then.
    port: Arc<AtomicU16>,
    task: JoinHandle<()>,
}

impl Tunnel {
    /// Opens one, and keeps it open. `port` is that of an earlier one; without it the other machine chooses.
    pub fn open(config: SshConfig, ssh: SshProgram, forward: Forward, port: Option<u16>) -> Self {
        let (tell, state) = watch::channel(TunnelState::Opening);
        let known = Arc::new(AtomicU16::new(port.unwrap_or(0)));
        let port = known.clone();
        let task = tokio::spawn(async move {
            let mut pause = PAUSE.0;
            loop {
                let asked = port.load(Ordering::Relaxed);
                let command = options::command(&config, &ssh, Use::Tunnel(&forward, asked));
                let up = |there| {
                    port.store(there, Ordering::Relaxed);
                    tracing::info!(host = config.host, port = there, "a tunnel stands");
                    tell.send_replace(TunnelState::Up { port: there });
                };
                let ended = hold(command, asked, up).await;
                if matches!(*tell.borrow(), TunnelState::Up { .. }) {
                    pause = PAUSE.0;
                }
                let why = ended.sentence(&config.host, asked);
                tracing::warn!(host = config.host, %why, "a tunnel is down; it is opened again");
                tell.send_replace(TunnelState::Down {
                    why,
                    is_refused: ended.is_refused,
                });
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        });
        Self {
            state,
            port: known,
            task,
        }
    }

    /// The port there, where it was given or has been opened once.
    pub fn port(&self) -> Option<u16> {
        Some(self.port.load(Ordering::Relaxed)).filter(|port| *port != 0)
    }

    /// Whether it stands.
    pub fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), TunnelState::Up { .. })
    }

    /// Waits until it stands, for so long, and says at which port there. One that never stood and does not come to stand
    /// at once is waited for no longer.
    ///
    /// # Errors
    /// It does not stand: why.
    pub async fn up_within(&self, limit: Duration) -> Result<u16, String> {
        let mut state = self.state.clone();
        let is_decided = |state: &TunnelState| match state {
            TunnelState::Opening => false,
            TunnelState::Up { .. } => true,
            TunnelState::Down { .. } => self.port().is_none(),
        };
        let waited = tokio::time::timeout(limit, state.wait_for(is_decided)).await;
        if let Ok(Err(_)) = waited {
            return Err("it is held no longer".to_owned());
        }
        match &*self.state.borrow() {
            TunnelState::Up { port } => Ok(*port),
            TunnelState::Down { why, .. } => Err(why.clone()),
            TunnelState::Opening => Err(format!("it did not stand within {limit:?}")),
        }
    }

    /// How it is, and each change of that.
    pub fn state(&self) -> watch::Receiver<TunnelState> {
        self.state.clone()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // With its task the program goes.
        self.task.abort();
    }
}

/// How a connection ended.
#[derive(Debug, Default)]
struct Ended {
    /// What `ssh` said last.
    last: String,
    /// Whether the port was not opened there.
    is_refused: bool,
}

impl Ended {
    /// Why it ended, with the remedy where one is known.
    fn sentence(&self, host: &str, asked: u16) -> String {
        let allowed = "the sshd_config there needs AllowTcpForwarding yes or remote and no PermitListen against it, and the key in authorized_keys no restrict or no-port-forwarding (GatewayPorts is not needed)";
        match (self.is_refused, self.last.as_str(), asked) {
            (true, _, 0) => format!("{host} opens no port for a tunnel: {allowed}"),
            (true, ..) => format!(
                "{host} does not open port {asked} of 127.0.0.1 for a tunnel, by which agents there know it: it is taken (ss -ltnp there says by whom; a connection that has just died is noticed soon), or forwarding is not allowed any more: {allowed}"
            ),
            (false, "", _) => "the connection ended".to_owned(),
            (false, last, _) => last.to_owned(),
        }
    }
}

/// Holds one connection until it ends, and says why it did.
async fn hold(command: Command, port: u16, up: impl Fn(u16)) -> Ended {
    let mut ended = Ended::default();
    let (mut group, pipes) = match Group::spawn(command, false, None).await {
        Ok(spawned) => spawned,
        Err(error) => {
            ended.last = format!("ssh could not be run ({error}); install openssh-client");
            return ended;
        }
    };
    {
        let mut listening = std::pin::pin!(listen(pipes.stderr, port, up, &mut ended));
        tokio::select! {
            () = &mut listening => {}
            _ = group.exited() => {
                // What it said last is the reason; somebody else may keep the pipe open.
                let _ = tokio::time::timeout(READ_ON, &mut listening).await;
            }
        }
    }
    group.end(GRACE).await;
    ended
}

/// Reads what `ssh` says of itself: that the port is open there, and what went wrong last.
async fn listen(stderr: pipe::Receiver, port: u16, up: impl Fn(u16), ended: &mut Ended) {
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
            up(port);
        } else if line.contains(REFUSED) {
            ended.is_refused = true;
        } else if !CHATTER.iter().any(|words| line.starts_with(words)) && !line.is_empty() {
            line.clone_into(&mut ended.last);
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
