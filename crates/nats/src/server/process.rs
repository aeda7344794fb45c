//! The process of a server: a child of ours, or one that a process which is gone left behind.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use loom_process::OwnChild;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

/// How often is looked whether a process that is not our child still runs.
const SURVIVOR_POLL: Duration = Duration::from_millis(200);

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
            Self::Survivor(survivor) => survivor.pid.as_raw_nonzero().get().cast_unsigned(),
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
            Self::Child(child) => child.has_ended(),
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
