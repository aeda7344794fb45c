//! The directory of an item, which no other item has meanwhile.
//!
//! A lock of the system on a file beside the directory (`.NAME.loom-lock`). It holds between all agents of one machine,
//! whatever name they know the directory by. The programs inherit it, and all that they start: where an agent was
//! killed, it stands until the last of them is gone, in whatever group or session. In the file stands which process
//! group works there, for programs that close what they inherit. A lock that is given up in order goes with its file:
//! what a program leaves running on purpose then holds up nobody. Where no file can be made beside the directory, it
//! is in the directory for temporary files. (On NFS a lock is not inherited; there the group alone counts.)

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Pid;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::directory_name::push_hex;
use loom_process::is_at;
use loom_process::stat::{is_group_gone, started_at};

/// How often a directory is made again that somebody else removes at that very moment.
const MOST_TRIES: u32 = 100;
/// How long to wait between two looks, at first and at the most.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// A directory that nobody else has. Dropping it lets others have it.
#[derive(Debug)]
pub struct Workdir {
    /// Where it is.
    pub path: PathBuf,
    lock: File,
    lock_path: PathBuf,
}

impl Workdir {
    /// Makes a directory and waits until nobody else has it. `waits` is called once if that is not at once.
    /// Dropping the future gives up.
    ///
    /// # Errors
    /// It can't be made, or not be locked.
    pub async fn take(path: &Path, waits: impl FnOnce()) -> io::Result<Self> {
        let mut waits = Some(waits);
        let mut pause = LOOK.0;
        let mut opened = None;
        loop {
            let (lock, lock_path) = match opened.take() {
                Some(opened) => opened,
                None => open_for(path)?,
            };
            let is_locked = match lock.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(error)) => return Err(error),
            };
            if is_locked && !is_at(&lock, &lock_path) {
                // Whoever had it has removed the file meanwhile.
                continue;
            }
            if is_locked && !is_used(&lock) {
                fs::create_dir_all(path)?;
                return Ok(Self {
                    path: path.to_owned(),
                    lock,
                    lock_path,
                });
            }
            if let Some(waits) = waits.take() {
                waits();
            }
            opened = Some((lock, lock_path));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK.1);
        }
    }

    /// Has a program hold the lock too, and all that it starts, wherever they go: where the agent is killed,
    /// nobody else has the directory before the last of them has ended (or closed what it has inherited).
    ///
    /// # Errors
    /// The system gives out no more descriptors.
    pub fn lend(&self, command: &mut Command) -> io::Result<()> {
        loom_process::lend(command, self.lock.try_clone()?);
        Ok(())
    }

    /// Writes down which process group works there.
    pub fn note(&self, group: Option<Pid>) {
        let noted = || -> io::Result<()> {
            let Some(group) = group else {
                return Ok(());
            };
            let group = group.as_raw_nonzero().get();
            let mut file = &self.lock;
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{group} {}", start_of(group).unwrap_or_default())
        };
        if let Err(error) = noted() {
            tracing::debug!(path = %self.lock_path.display(), %error, "not noted who works there");
        }
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        // Before the lock is given up: afterwards it may be another one's.
        if is_at(&self.lock, &self.lock_path)
            && let Err(error) = fs::remove_file(&self.lock_path)
        {
            tracing::debug!(path = %self.lock_path.display(), %error, "a lock file stays behind");
        }
    }
}

/// Makes a directory where it is not there, makes another one in it, locks a file there and writes to it; all of that is
/// removed again.
///
/// # Errors
/// The step that did not work.
pub fn try_out(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let inside = dir.join(format!(".loom-try-{}", Uuid::new_v4().simple()));
    fs::create_dir(&inside)?;
    let tried = || -> io::Result<()> {
        let mut file = File::create(inside.join("lock"))?;
        file.try_lock()?;
        file.write_all(&[0; 4096])
    };
    let tried = tried();
    let removed = fs::remove_dir_all(&inside);
    tried.and(removed)
}

/// Makes a directory, and opens the file that stands for it.
fn open_for(path: &Path) -> io::Result<(File, PathBuf)> {
    let path = made(path)?;
    let beside = path.file_name().map(|name| {
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".loom-lock");
        path.with_file_name(hidden)
    });
    if let Some(beside) = beside
        && let Ok(file) = open(&beside)
    {
        return Ok((file, beside));
    }
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let mut name = String::new();
    push_hex(&mut name, "", &digest[..16]);
    let elsewhere = std::env::temp_dir().join(format!("loom-workdir-{name}.lock"));
    Ok((open(&elsewhere)?, elsewhere))
}

/// The true path of a directory, made where it is not there: who had it before may remove it in between.
fn made(path: &Path) -> io::Result<PathBuf> {
    let mut tries = 0;
    loop {
        fs::create_dir_all(path)?;
        match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < MOST_TRIES => {
                tries += 1;
            }
            made => return made,
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(no_link);
    let own = options
        .clone()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    match own {
        // Another user's can be locked all the same.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => options.open(path),
        own => own,
    }
}

/// Whether the group that is written down lives on, although the agent that wrote it is gone.
fn is_used(mut lock: &File) -> bool {
    let mut note = String::new();
    if lock.rewind().is_err() || lock.take(64).read_to_string(&mut note).is_err() {
        return false;
    }
    let mut words = note.split_whitespace();
    let Some(id) = words
        .next()
        .and_then(|id| id.parse::<i32>().ok())
        .filter(|id| *id > 1)
    else {
        return false;
    };
    let is_another = match (words.next(), start_of(id)) {
        (Some(before), Some(now)) => before != now,
        // Without its leader, the id of a group is nobody else's while one of the group lives.
        _ => false,
    };
    !is_another && Pid::from_raw(id).is_some_and(|id| !is_group_gone(id))
}

/// When the leader of a group was started, where that can be told.
fn start_of(group: i32) -> Option<String> {
    u32::try_from(group).ok().and_then(started_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;
    use std::process::Stdio;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::time::timeout;

    const LIMIT: Duration = Duration::from_secs(30);

    async fn take(path: &Path) -> Workdir {
        timeout(LIMIT, Workdir::take(path, || {}))
            .await
            .unwrap()
            .unwrap()
    }

    #[tokio::test]
    async fn only_one_has_a_directory_whatever_it_is_called() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a");
        let alias = temp.path().join("alias");
        let first = take(&path).await;
        std::os::unix::fs::symlink(&path, &alias).unwrap();
        let waiting = std::sync::Arc::new(tokio::sync::Notify::new());
        let told = waiting.clone();
        let second =
            tokio::spawn(async move { Workdir::take(&alias, || told.notify_one()).await.unwrap() });
        timeout(LIMIT, waiting.notified()).await.unwrap();
        let other = take(&temp.path().join("b")).await;
        assert!(other.path.is_dir() && !second.is_finished());
        drop(first);
        timeout(LIMIT, second).await.unwrap().unwrap();
        let left = fs::read_dir(temp.path()).unwrap().flatten();
        let left =
            left.filter(|entry| entry.file_name().to_string_lossy().ends_with("a.loom-lock"));
        assert_eq!(left.count(), 0, "no lock stays behind");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_take_it_one_after_the_other() {
        static INSIDE: AtomicUsize = AtomicUsize::new(0);
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a");
        let many = (0..20).map(|_| {
            let path = path.clone();
            tokio::spawn(async move {
                let taken = take(&path).await;
                assert_eq!(INSIDE.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                fs::remove_dir(&path).unwrap();
                INSIDE.fetch_sub(1, Ordering::SeqCst);
                drop(taken);
            })
        });
        for one in many.collect::<Vec<_>>() {
            one.await.unwrap();
        }
        let left: Vec<_> = fs::read_dir(temp.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[tokio::test]
    async fn what_a_killed_agent_left_running_is_waited_for() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a");
        let mut program = Command::new("sleep");
        let mut program = program
            .arg("600")
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let left = take(&path).await;
        let id = i32::try_from(program.id()).unwrap();
        left.note(Pid::from_raw(id));
        let (lock_path, note) = (left.lock_path.clone(), fs::read(&left.lock_path).unwrap());
        drop(left);
        fs::write(&lock_path, &note).unwrap();
        let waiting = std::sync::Arc::new(tokio::sync::Notify::new());
        let told = waiting.clone();
        let next = tokio::spawn(async move { Workdir::take(&path, || told.notify_one()).await });
        timeout(LIMIT, waiting.notified()).await.unwrap();
        program.kill().unwrap();
        program.wait().unwrap();
        timeout(LIMIT, next).await.unwrap().unwrap().unwrap();

        // The same number, started at another time, is somebody else.
        let file = open(&lock_path).unwrap();
        fs::write(&lock_path, format!("{} 1\n", std::process::id())).unwrap();
        assert!(!is_used(&file));
        fs::write(&lock_path, "nonsense").unwrap();
        assert!(!is_used(&file));
    }
}
