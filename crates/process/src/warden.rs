//! Ends the programs of an agent that was killed: all of each program's process group, not only the
//! program itself, of which alone the system could be asked.
//!
//! A process of its own, `loom agent warden`, that the agent starts and tells by a pipe which groups
//! there are. When the pipe ends although groups are left, the agent is dead: they get TERM, and KILL
//! after the grace. Out of its reach is what has left its group (`setsid`), and whatever lived when
//! somebody killed the warden too.

use std::io::{self, BufRead, Write};
use std::num::NonZeroI32;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use tokio::signal::unix::{SignalKind, signal};

use crate::stat::is_group_gone;

/// How often it is looked whether the groups of a dead agent are gone.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The agent's end of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Warden {
    shared: Arc<Mutex<Shared>>,
    grace: Duration,
}

#[derive(Debug)]
struct Shared {
    child: Child,
    groups: Vec<Pid>,
}

/// A group that is watched over; no longer when this is dropped.
#[derive(Debug)]
pub struct Watched {
    warden: Warden,
    group: Pid,
}

impl Warden {
    /// Starts one that leaves `grace` between TERM and KILL.
    ///
    /// # Errors
    /// This program can't be started a second time.
    pub fn start(grace: Duration) -> io::Result<Self> {
        let child = spawn(grace)?;
        let groups = Vec::new();
        Ok(Self {
            shared: Arc::new(Mutex::new(Shared { child, groups })),
            grace,
        })
    }

    /// Watches over a group for as long as what it gives is kept.
    pub fn watch(&self, group: Pid) -> Watched {
        let mut shared = self.shared.lock();
        shared.groups.push(group);
        if shared.tell('+', group).is_err() {
            // Somebody has ended it.
            if let Err(error) = shared.replace(self.grace) {
                tracing::warn!(%error, "nobody ends what programs have started if this agent is killed");
            }
        }
        Watched {
            warden: self.clone(),
            group,
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut shared = self.warden.shared.lock();
        shared.groups.retain(|group| *group != self.group);
        // One that is gone is replaced when the next group comes.
        let _ = shared.tell('-', self.group);
    }
}

impl Shared {
    fn tell(&mut self, sign: char, group: Pid) -> io::Result<()> {
        let line = format!("{sign}{}\n", group.as_raw_nonzero());
        match &mut self.child.stdin {
            Some(pipe) => pipe.write_all(line.as_bytes()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn replace(&mut self, grace: Duration) -> io::Result<()> {
        let mut old = std::mem::replace(&mut self.child, spawn(grace)?);
        // It reads no more; most likely it is a zombie.
        let _ = old.kill();
        old.wait()?;
        for group in self.groups.clone() {
            self.tell('+', group)?;
        }
        Ok(())
    }
}

fn spawn(grace: Duration) -> io::Result<Child> {
    Command::new(this_program()?)
        .arg0("loom")
        .args(["agent", "warden", "--grace"])
        .arg(humantime::format_duration(grace).to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env_clear()
        .current_dir("/")
        // A Ctrl-C in the terminal, and a signal to the agent's group, are not for it.
        .process_group(0)
        .spawn()
}

/// This program, also where its file has been replaced since.
fn this_program() -> io::Result<std::path::PathBuf> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe()
}

/// The life of `loom agent warden`: listens on standard input until it ends, then ends the groups
/// that are left.
///
/// # Errors
/// Signals can't be listened to, or standard input can't be read.
pub async fn keep(grace: Duration) -> io::Result<()> {
    // It ends after the agent, however many processes are told to end together.
    let _deaf = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    ];
    let listening = tokio::task::spawn_blocking(|| listen(io::stdin().lock()));
    let mut groups = listening.await??;
    send(&groups, Signal::TERM);
    let until = Instant::now() + grace;
    while !groups.is_empty() && Instant::now() < until {
        tokio::time::sleep(LOOK_EVERY).await;
        groups.retain(|id| !is_group_gone(*id));
    }
    send(&groups, Signal::KILL);
    Ok(())
}

/// The groups that are left when nothing more comes.
fn listen(orders: impl BufRead) -> io::Result<Vec<Pid>> {
    let mut groups: Vec<Pid> = Vec::new();
    for order in orders.lines() {
        let order = order?;
        let id = order.get(1..).and_then(|id| id.parse::<NonZeroI32>().ok());
        // 1 would be everybody.
        let Some(id) = id
            .filter(|id| id.get() > 1)
            .and_then(|id| Pid::from_raw(id.get()))
        else {
            continue;
        };
        groups.retain(|group| *group != id);
        if order.starts_with('+') {
            groups.push(id);
        }
    }
    Ok(groups)
}

fn send(groups: &[Pid], what: Signal) {
    for group in groups {
        // One that is gone by itself is what is wanted.
        let _ = rustix::process::kill_process_group(*group, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_taken_back_is_left() {
        let orders = "+12\n+34\n-12\nnonsense\n+1\n+-5\n+34\n";
        let left = listen(orders.as_bytes()).unwrap();
        assert_eq!(left, [Pid::from_raw(34).unwrap()]);
    }
}
