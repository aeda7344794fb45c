//! A file in the coordinator's folder that a start locks while it is under way: nobody else's to read, no link, and the
//! same file for all that ask, although it may be removed at any time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use loom_process::is_at;

/// How such a file is opened to be read.
pub(crate) fn options() -> OpenOptions {
    let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).mode(0o600).custom_flags(no_link);
    options
}

/// Takes the lock, and makes the file and its folder where they are not there; none while somebody else holds it.
pub(crate) fn take(path: &Path) -> io::Result<Option<File>> {
    if let Some(folder) = path.parent() {
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700).create(folder)?;
    }
    loop {
        let mut writable = options();
        writable.write(true).create(true).truncate(false);
        let file = writable.open(path)?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path) => return Ok(Some(file)),
            // It was removed in between.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Takes the lock of a file that is there; none where there is none, or somebody else holds it.
pub(crate) fn take_existing(path: &Path) -> Option<File> {
    let file = options().open(path).ok()?;
    (file.try_lock().is_ok() && is_at(&file, path)).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_lock_is_one_s_alone_and_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("starts/one.lock");
        assert!(take_existing(&path).is_none());
        let held = take(&path).unwrap().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(take(&path).unwrap().is_none() && take_existing(&path).is_none());
        drop(held);
        let held = take_existing(&path).unwrap();
        // Removed while it is held, it is another one's.
        std::fs::remove_file(&path).unwrap();
        let other = take(&path).unwrap().unwrap();
        drop((held, other));

        let target = folder.path().join("target");
        std::fs::write(&target, "").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(take(&link).is_err() && take_existing(&link).is_none());
    }
}
