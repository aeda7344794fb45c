//! Directories for one attempt that nobody else may look into: for the file of the description, and for the socket.
//!
//! Each has a lock that its agent holds. What a killed agent leaves behind is removed by the next one of the same user.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

const PREFIX: &str = "loom-work-";
/// As 0.1.0 named them.
const FORMER_PREFIX: &str = "loom-report-";
/// How much of a random id stands in a name: the path of a socket has to be short.
const RANDOM: usize = 16;
/// Locked for as long as the directory is in use.
const LOCK: &str = "lock";
/// How long one that nobody has locked is left alone: it may just be made.
const NEW: Duration = Duration::from_mins(1);
/// The same for one without a lock, as earlier versions made them.
const UNLOCKED: Duration = Duration::from_hours(24);
/// How many entries of a place are looked at, and how many directories removed at once.
const LOOK_AT: usize = 20_000;
const REMOVE: usize = 500;
/// How many of the lowest bits of a mode are of others than the owner.
const FOR_OTHERS: u32 = 6;
const DESCRIPTION: &str = "description";

/// A private directory; removed in the end.
#[derive(Debug)]
pub struct PrivateDir {
    path: PathBuf,
    _lock: File,
}

impl PrivateDir {
    /// Makes one.
    ///
    /// # Errors
    /// Nothing can be made in that place.
    pub fn create(place: &Path) -> io::Result<Self> {
        let mut name = Uuid::new_v4().simple().to_string();
        name.truncate(RANDOM);
        let path = place.join(format!("{PREFIX}{name}"));
        let lock = make(&path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Makes one among the temporary files with the description as a file in it, for a program that it is too long for otherwise.
    ///
    /// # Errors
    /// The directory for temporary files can't be written to.
    pub fn with_description(description: &str) -> io::Result<Self> {
        let made = Self::create(&std::env::temp_dir())?;
        fs::write(made.description(), description)?;
        Ok(made)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that the description stands in.
    pub fn description(&self) -> PathBuf {
        self.path.join(DESCRIPTION)
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::debug!(dir = %self.path.display(), %error, "a directory of an attempt stays behind");
        }
    }
}

/// Where a directory for a socket may be made, the best place first: the user's runtime directory, the one for temporary
/// files, and one whose path is short.
pub fn places() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|dir| dir.is_absolute() && is_private(dir));
    let mut places: Vec<PathBuf> = runtime.into_iter().collect();
    for place in [std::env::temp_dir(), PathBuf::from("/tmp")] {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// Whether a directory is this user's, and nobody else may look into it.
fn is_private(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|about| {
        about.is_dir()
            && about.uid() == rustix::process::geteuid().as_raw()
            && about.mode().trailing_zeros() >= FOR_OTHERS
    })
}

fn make(path: &Path) -> io::Result<File> {
    DirBuilder::new().mode(0o700).create(path)?;
    let lock = File::create(path.join(LOCK))?;
    lock.lock()?;
    Ok(lock)
}

/// Removes what agents of this user have left behind that were killed. The rest waits for the next one.
pub fn remove_stale() {
    let places: BTreeSet<PathBuf> = places().into_iter().collect();
    let removed: usize = places.iter().map(|place| remove_stale_in(place, NEW)).sum();
    if removed > 0 {
        tracing::info!(removed, "directories of killed agents are removed");
    }
}

/// Removes those that nobody has locked and nobody has changed for so long; gives how many.
fn remove_stale_in(dir: &Path, idle: Duration) -> usize {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let named = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        [PREFIX, FORMER_PREFIX]
            .iter()
            .any(|prefix| name.starts_with(prefix.as_bytes()))
    };
    let paths = entries.take(LOOK_AT).flatten().filter(named);
    let stale = paths
        .map(|entry| entry.path())
        .filter(|path| is_stale(path, idle));
    let removed = stale.take(REMOVE).filter(|path| {
        let removed = fs::remove_dir_all(path);
        if let Err(error) = &removed {
            tracing::debug!(path = %path.display(), %error, "a directory of an attempt stays behind");
        }
        removed.is_ok()
    });
    removed.count()
}

fn is_stale(path: &Path, idle: Duration) -> bool {
    let Ok(about) = fs::symlink_metadata(path) else {
        return false;
    };
    let ours = about.is_dir() && about.uid() == rustix::process::getuid().as_raw();
    let age = about.modified().ok().and_then(|at| at.elapsed().ok());
    let Some(age) = age.filter(|age| ours && *age >= idle) else {
        return false;
    };
    match File::open(path.join(LOCK)).map(|lock| lock.try_lock()) {
        Ok(Ok(())) => true,
        Ok(Err(TryLockError::WouldBlock | TryLockError::Error(_))) => false,
        Err(error) => error.kind() == io::ErrorKind::NotFound && age >= UNLOCKED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_agent_left_is_removed_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let in_use = make(&at("loom-work-used")).unwrap();
        drop(make(&at("loom-work-left")).unwrap());
        DirBuilder::new().create(at("loom-report-of-old")).unwrap();
        DirBuilder::new().create(at("other")).unwrap();
        File::create(at("loom-work-file")).unwrap();
        std::os::unix::fs::symlink(at("other"), at("loom-work-link")).unwrap();

        assert_eq!(remove_stale_in(temp.path(), NEW), 0, "it may just be made");
        assert_eq!(remove_stale_in(temp.path(), Duration::ZERO), 1);
        assert!(!at("loom-work-left").exists());
        drop(in_use);
        assert_eq!(remove_stale_in(temp.path(), Duration::ZERO), 1);
        assert!(!at("loom-work-used").exists());
        for stays in [
            "loom-report-of-old",
            "other",
            "loom-work-file",
            "loom-work-link",
        ] {
            assert!(at(stays).exists(), "{stays}");
        }
    }

    #[test]
    fn a_directory_is_for_its_user_alone_and_goes_with_its_end() {
        let temp = tempfile::tempdir().unwrap();
        let made = PrivateDir::create(temp.path()).unwrap();
        assert!(is_private(made.path()) && !is_private(Path::new("/tmp")));
        let path = made.path().to_owned();
        drop(made);
        assert!(!path.exists());
    }
}
