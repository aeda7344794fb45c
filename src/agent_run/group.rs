//! A program in a process group of its own, and the end of all of it.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

/// How often it is looked whether a group is gone.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long what a program left behind may take to obey TERM.
const LEFTOVERS: Duration = Duration::from_secs(2);

/// A running program and whatever it has started in its group. Dropping it kills the group.
#[derive(Debug)]
pub struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Group {
    /// Starts a program in a group of its own.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.process_group(0).kill_on_drop(true).spawn()?;
        let id = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        Ok(Self { child, id })
    }

    /// The pipes to and from the program; each can be taken once.
    pub fn pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        let child = &mut self.child;
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    }

    /// Waits until the program itself has ended; others of its group may live on.
    pub async fn exited(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends the whole group: TERM, and KILL for what is left after `grace`.
    pub async fn end(&mut self, grace: Duration) {
        self.signal(Signal::TERM);
        let until = Instant::now() + grace;
        while !self.is_gone() && Instant::now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.signal(Signal::KILL);
        // Not to leave a zombie; KILL can't be refused.
        let _ = self.child.wait().await;
        self.id = None;
    }

    /// Ends what a program left behind in its group, if it did.
    pub async fn end_leftovers(&mut self, grace: Duration) {
        if self.is_gone() {
            self.id = None;
        } else {
            self.end(grace.min(LEFTOVERS)).await;
        }
    }

    /// Whether nobody of the group lives. The program's own zombie is taken away on the way; those of
    /// its children are somebody else's to take away, and may lie there for long.
    fn is_gone(&mut self) -> bool {
        let _ = self.child.try_wait();
        self.id
            .is_none_or(|id| test_kill_process_group(id).is_err() || only_zombies(id))
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id
            && let Err(error) = kill_process_group(id, signal)
        {
            tracing::debug!(?id, ?signal, %error, "the group is gone already");
        }
    }
}

/// Whether all that is left of a group are zombies, as far as `/proc` can tell.
fn only_zombies(group: Pid) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return false;
    };
    let group = group.as_raw_nonzero().to_string();
    let mut members = processes
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter_map(|stat| {
            // pid (name) state parent group …; the name may contain anything.
            let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
            let state = fields.next()?.to_owned();
            (fields.nth(1)? == group).then_some(state)
        });
    members.all(|state| matches!(state.as_str(), "Z" | "X"))
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
