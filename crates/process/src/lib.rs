//! Child processes that do not outlive whoever started them, unless they are meant to.
//!
//! A child is started by a thread of its own that lives exactly as long as the child, for two reasons: Linux ties "die
//! with your parent" to the *thread* that forked, and the same thread can wait for the child's end without any runtime,
//! so that a child may be shared by several of them.
//!
//! Beside them: [`group`], a program with whatever it has started; [`warden`], the end of such groups where the process
//! that started them was killed; [`stat`], the system's table of processes; [`tail`] and [`secrets`], what of a
//! program's output is kept and what must not be in it.

pub mod group;
pub mod secrets;
pub mod stat;
pub mod tail;
pub mod warden;

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::sync::{oneshot, watch};

/// What becomes of a child when the process that started it dies without stopping it.
///
/// Linux only; elsewhere a child always outlives its parent, and a server is adopted by the next coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentDeath {
    /// It gets SIGKILL: gone at once, even when paused.
    Kill,
    /// It gets SIGTERM: it writes down what makes its next start fast, and ends.
    Terminate,
    /// It goes on.
    Outlive,
}

/// A child process that dies with its parent. Dropped, it is killed, and gone after that.
#[derive(Debug)]
pub struct OwnChild {
    pid: Pid,
    /// True once the pid may belong to somebody else. Locked while a signal is sent.
    reaped: Arc<Mutex<bool>>,
    end: watch::Receiver<Option<ExitStatus>>,
    /// Lives as long as the child.
    thread: Option<JoinHandle<()>>,
    /// Whether it goes on without this.
    released: bool,
}

/// A child process that goes on, whatever becomes of this process.
#[derive(Debug)]
pub struct Released {
    /// Its process id.
    pub pid: u32,
    /// Its end, while this process lives.
    pub end: watch::Receiver<Option<ExitStatus>>,
}

impl OwnChild {
    /// Starts `command` in a process group of its own, so that a Ctrl-C in the terminal is not the child's.
    ///
    /// # Errors
    /// There is no such program, or it may not be started.
    pub async fn spawn(command: Command, death: ParentDeath) -> io::Result<Self> {
        Self::spawn_as(command, death, false).await
    }

    /// As [`OwnChild::spawn`] and [`OwnChild::release`] at once: from its fork on nothing kills it, not even that the
    /// future is dropped. Others may have found it by then.
    ///
    /// # Errors
    /// As [`OwnChild::spawn`].
    pub async fn spawn_released(command: Command, death: ParentDeath) -> io::Result<Released> {
        let child = Self::spawn_as(command, death, true).await?;
        Ok(Released {
            pid: child.pid(),
            end: child.release(),
        })
    }

    async fn spawn_as(
        mut command: Command,
        death: ParentDeath,
        released: bool,
    ) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        command.process_group(0);
        tie_to_parent(&mut command, death);
        let (started, outcome) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("child".to_owned())
            .spawn(move || run(command, released, started))?;
        let lost = |_| Err(io::Error::other("the thread that starts it was lost"));
        let mut child = outcome.await.unwrap_or_else(lost)?;
        child.thread = Some(thread);
        Ok(child)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        plain(self.pid)
    }

    /// Sends a signal; false where it has ended.
    pub fn signal(&self, signal: Signal) -> bool {
        let reaped = self.reaped.lock();
        !*reaped && kill_process(self.pid, signal).is_ok()
    }

    /// Sends SIGSTOP and waits the moment until every thread stands still; false where it has ended.
    pub fn pause(&self) -> bool {
        let paused = self.signal(Signal::STOP);
        if paused {
            wait_for(self.pid, WaitIdOptions::STOPPED);
        }
        paused
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Returns when it has ended, with its status.
    pub async fn ended(&self) -> Option<ExitStatus> {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await;
        ended.ok().and_then(|end| *end)
    }
}

impl OwnChild {
    /// Lets it go on, whatever becomes of this process: nothing kills it any more. While this process lives, its end is
    /// told, and it leaves no zombie.
    pub fn release(mut self) -> watch::Receiver<Option<ExitStatus>> {
        self.released = true;
        self.end.clone()
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        self.signal(Signal::KILL);
        if let Some(thread) = self.thread.take() {
            // A matter of milliseconds: it waits for a killed process.
            let _ = thread.join();
        }
    }
}

pub(crate) fn plain(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().cast_unsigned()
}

/// The life of a child's thread.
fn run(mut command: Command, released: bool, started: oneshot::Sender<io::Result<OwnChild>>) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            // What was lent to the command is given back before that is told.
            drop(command);
            let _ = started.send(Err(error));
            return;
        }
    };
    // The parent's copy of the lock file goes with the command: from now on only the child holds it.
    drop(command);
    let Some(pid) = Pid::from_raw(child.id().cast_signed()) else {
        return;
    };
    let reaped = Arc::new(Mutex::new(false));
    let (end, ended) = watch::channel(None);
    let own = OwnChild {
        pid,
        reaped: Arc::clone(&reaped),
        end: ended,
        thread: None,
        released,
    };
    // Where nobody waits for it any more, it is dropped and so killed, unless it is released.
    drop(started.send(Ok(own)));
    let status = wait(&mut child, pid, &reaped);
    end.send_replace(Some(status));
}

/// Waits without reaping, and reaps under the lock: as long as somebody may signal the pid, it is the child's.
fn wait(child: &mut Child, pid: Pid, reaped: &Mutex<bool>) -> ExitStatus {
    wait_for(pid, WaitIdOptions::empty());
    let mut reaped = reaped.lock();
    *reaped = true;
    child.wait().unwrap_or_default()
}

/// Returns when the child has ended, or is in one of `states`. Leaves it to be reaped.
fn wait_for(pid: Pid, states: WaitIdOptions) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | states;
    while waitid(WaitId::Pid(pid), options).is_err_and(|e| e == rustix::io::Errno::INTR) {}
}

/// Whether an open file is still the one that a path names. A lock on one that was removed meanwhile keeps nobody out.
pub fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::symlink_metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

/// Leaves a file open for a command, and so for all that it starts: a lock on it stands until the last of them has
/// ended, whatever becomes of this process.
#[allow(
    unsafe_code,
    reason = "the standard library has no safe way to leave a descriptor open for a child; between fork and exec \
              the closure makes one system call and touches nothing else"
)]
pub fn lend(command: &mut Command, file: File) {
    use std::os::unix::process::CommandExt;

    use rustix::io::{FdFlags, fcntl_setfd};

    let keep_open = move || Ok(fcntl_setfd(&file, FdFlags::empty())?);
    // SAFETY: the closure neither allocates nor locks; fcntl is async-signal-safe.
    unsafe {
        command.pre_exec(keep_open);
    }
}

#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "the standard library has no safe way to set the parent-death signal; between fork and exec the closure \
              makes three system calls and touches nothing else"
)]
fn tie_to_parent(command: &mut Command, death: ParentDeath) {
    use std::os::unix::process::CommandExt;

    use rustix::process::{getpid, getppid, set_parent_process_death_signal};

    let signal = match death {
        ParentDeath::Kill => Signal::KILL,
        ParentDeath::Terminate => Signal::TERM,
        ParentDeath::Outlive => return,
    };
    let parent = getpid();
    let before_exec = move || {
        set_parent_process_death_signal(Some(signal))?;
        // A parent that died before the call above will not be noticed any more.
        if getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::Error::from(rustix::io::Errno::SRCH))
        }
    };
    // SAFETY: the closure neither allocates nor locks; prctl and getppid are async-signal-safe.
    unsafe {
        command.pre_exec(before_exec);
    }
}

#[cfg(not(target_os = "linux"))]
fn tie_to_parent(_command: &mut Command, _death: ParentDeath) {}
