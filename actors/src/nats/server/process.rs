//! The process of a server. A child is started by a thread of its own that lives exactly as long as the child, for two
//! reasons: Linux ties "die with your parent" to the *thread* that forked, and the same thread can wait for the child's
//! end without any runtime, so that a server may be shared by several of them.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::sync::{oneshot, watch};

/// How often is looked whether a process that is not our child still runs.
const SURVIVOR_POLL: Duration = Duration::from_millis(200);

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

/// Killed when it is dropped; a child is gone after that.
#[derive(Debug)]
pub(super) enum Process {
    /// Started by us.
    Child(OwnChild),
    /// Started by a process that is gone.
    Survivor(Survivor),
}

impl Process {
    pub(super) fn pid(&self) -> u32 {
        match self {
            Self::Child(child) => child.pid(),
            Self::Survivor(survivor) => plain(survivor.pid),
        }
    }

    /// Sends a signal; false where the process has ended.
    pub(super) fn signal(&self, signal: Signal) -> bool {
        match self {
            Self::Child(child) => child.signal(signal),
            Self::Survivor(survivor) => survivor.signal(signal),
        }
    }

    /// Sends SIGSTOP; a child stands still after that. False where it has ended.
    pub(super) fn pause(&self) -> bool {
        match self {
            Self::Child(child) => child.pause(),
            Self::Survivor(survivor) => survivor.signal(Signal::STOP),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::Child(child) => child.end.borrow().is_some(),
            Self::Survivor(survivor) => !survivor.is_alive(),
        }
    }

    /// Returns when it has ended; with its status where it was our child.
    pub(super) async fn ended(&self) -> Option<ExitStatus> {
        match self {
            Self::Child(child) => child.ended().await,
            Self::Survivor(survivor) => {
                while survivor.is_alive() {
                    tokio::time::sleep(SURVIVOR_POLL).await;
                }
                None
            }
        }
    }
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
}

impl OwnChild {
    /// Starts `command` in a process group of its own, so that a Ctrl-C in the terminal is not the child's.
    ///
    /// # Errors
    /// There is no such program, or it may not be started.
    pub async fn spawn(mut command: Command, death: ParentDeath) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        command.process_group(0);
        tie_to_parent(&mut command, death);
        let (started, outcome) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("child".to_owned())
            .spawn(move || run(command, started))?;
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

    /// Returns when it has ended, with its status.
    pub async fn ended(&self) -> Option<ExitStatus> {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await;
        ended.ok().and_then(|end| *end)
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if let Some(thread) = self.thread.take() {
            // A matter of milliseconds: it waits for a killed process.
            let _ = thread.join();
        }
    }
}

fn plain(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().cast_unsigned()
}

/// The life of a child's thread.
fn run(mut command: Command, started: oneshot::Sender<io::Result<OwnChild>>) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
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
    };
    // Where nobody waits for it any more, it is dropped and so killed.
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

/// A server whose parent is gone. It holds its lock file, which proves that it lives and that its pid is its own.
#[derive(Debug)]
pub(super) struct Survivor {
    pid: Pid,
    lock: PathBuf,
    /// Once it has ended the lock is left alone: looking means taking it for a moment.
    ended: Mutex<bool>,
}

impl Survivor {
    /// The process that holds `lock`; its pid must be known from elsewhere.
    pub(super) fn new(pid: u32, lock: PathBuf) -> Option<Self> {
        let pid = Pid::from_raw(pid.cast_signed())?;
        let ended = Mutex::new(false);
        Some(Self { pid, lock, ended })
    }

    fn signal(&self, signal: Signal) -> bool {
        self.is_alive() && kill_process(self.pid, signal).is_ok()
    }

    fn is_alive(&self) -> bool {
        let mut ended = self.ended.lock();
        *ended = *ended || !is_locked(&self.lock);
        !*ended
    }
}

impl Drop for Survivor {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Whether a process holds the lock. Takes it for a moment if none does.
pub(super) fn is_locked(lock: &Path) -> bool {
    matches!(
        File::open(lock).map(|file| file.try_lock()),
        Ok(Err(TryLockError::WouldBlock))
    )
}
