//! A program in a process group of its own, and the end of all of it.

use std::io;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use crate::{OwnChild, ParentDeath, plain};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::unix::pipe;
use tokio::time::Instant;

use crate::stat::{Entry, is_group_gone};
use crate::warden::{Warden, Watched};

/// How often it is looked whether a group is gone.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long what a program left behind may take to obey TERM.
const LEFTOVERS: Duration = Duration::from_secs(2);

/// A running program and whatever it has started in its group. Dropping it kills the group.
///
/// Where the agent itself is killed, the [`Warden`] ends the group; without one the program alone gets
/// TERM (on Linux). Its item will be somebody else's.
#[derive(Debug)]
pub struct Group {
    child: OwnChild,
    id: Option<Pid>,
    watched: Option<Watched>,
}

/// The ends of the pipes to and from a program.
#[derive(Debug)]
pub struct Pipes {
    /// What it reads.
    pub stdin: Option<pipe::Sender>,
    /// What it writes.
    pub stdout: pipe::Receiver,
    /// What it writes about itself.
    pub stderr: pipe::Receiver,
}

impl Group {
    /// Starts a program in a group of its own. Without `with_stdin` it reads nothing.
    pub async fn spawn(
        mut command: Command,
        with_stdin: bool,
        warden: Option<&Warden>,
    ) -> io::Result<(Self, Pipes)> {
        let (stdout, to_stdout) = io::pipe()?;
        let (stderr, to_stderr) = io::pipe()?;
        command.stdout(to_stdout).stderr(to_stderr);
        let stdin = if with_stdin {
            let (from_stdin, stdin) = io::pipe()?;
            command.stdin(from_stdin);
            Some(pipe::Sender::from_owned_fd(stdin.into())?)
        } else {
            command.stdin(std::process::Stdio::null());
            None
        };
        let pipes = Pipes {
            stdin,
            stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
            stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
        };
        let child = OwnChild::spawn(command, ParentDeath::Terminate).await?;
        let id = i32::try_from(child.pid()).ok().and_then(Pid::from_raw);
        let watched = warden.zip(id).map(|(warden, id)| warden.watch(id));
        Ok((Self { child, id, watched }, pipes))
    }

    /// Its id, while it lives.
    pub const fn id(&self) -> Option<Pid> {
        self.id
    }

    /// Waits until the program itself has ended; others of its group may live on.
    pub async fn exited(&self) -> io::Result<ExitStatus> {
        let status = self.child.ended().await;
        status.ok_or_else(|| io::Error::other("nobody knows how the program ended"))
    }

    /// Ends the whole group: TERM, and KILL for what is left after `grace`.
    pub async fn end(&mut self, grace: Duration) {
        self.signal(Signal::TERM);
        let until = Instant::now() + grace;
        while !self.is_gone() && Instant::now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.signal(Signal::KILL);
        // KILL can't be refused.
        let _ = self.child.ended().await;
        self.forget();
    }

    /// Ends what a program left behind in its group, if it did.
    pub async fn end_leftovers(&mut self, grace: Duration) {
        if self.is_gone() {
            self.forget();
        } else {
            self.end(grace.min(LEFTOVERS)).await;
        }
    }

    fn is_gone(&self) -> bool {
        self.id.is_none_or(is_group_gone)
    }

    fn forget(&mut self) {
        self.id = None;
        self.watched = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id
            && let Err(error) = kill_process_group(id, signal)
        {
            tracing::debug!(?id, ?signal, %error, "the group is gone already");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// What it took to end processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndReport {
    /// How many there were.
    pub found: usize,
    /// How many of them did not obey TERM.
    pub killed: usize,
    /// Those that not even KILL has ended; they hang in the system.
    pub left: Vec<u32>,
}

/// Ends whatever `find` finds: TERM to each as soon as it is seen, KILL to what is left after `grace`, and to whatever
/// comes up meanwhile, until nothing is found any more.
pub async fn end_all<F>(find: Arc<F>, grace: Duration) -> EndReport
where
    F: Fn() -> Vec<Entry> + Send + Sync + 'static,
{
    let start = Instant::now();
    let mut asked = std::collections::HashSet::new();
    let mut killed = std::collections::HashSet::new();
    loop {
        let find = find.clone();
        // All processes are looked at.
        let looking = tokio::task::spawn_blocking(move || find());
        let Ok(living) = looking.await else {
            return EndReport::default();
        };
        let (waited, gone) = (start.elapsed(), living.is_empty());
        if gone || waited > grace + LEFTOVERS {
            return EndReport {
                found: asked.len(),
                killed: killed.len(),
                left: living.iter().map(|entry| plain(entry.pid)).collect(),
            };
        }
        for entry in living {
            if waited >= grace {
                entry.signal(Signal::KILL);
                asked.insert((entry.pid, entry.started.clone()));
                killed.insert((entry.pid, entry.started));
                continue;
            }
            if asked.insert((entry.pid, entry.started.clone())) {
                entry.signal(Signal::TERM);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
