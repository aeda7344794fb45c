//! Whether a run changed anything in its directory.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// How many entries are looked at; nothing is known of a larger directory.
const MOST: usize = 50_000;

/// A number that differs where anything in a directory was changed: `None` where it is too large, or can't be read.
/// Of git's own files only the history of the checked-out commit counts.
pub fn fingerprint(directory: &Path) -> Option<u64> {
    let mut sum = 0_u64;
    let mut left = MOST;
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(&next).ok()? {
            left = left.checked_sub(1)?;
            let path = entry.ok()?.path();
            if path.file_name().is_some_and(|name| name == ".git") {
                sum = sum.wrapping_add(of_entry(&path.join("logs").join("HEAD")).unwrap_or(0));
                continue;
            }
            let Ok(about) = std::fs::symlink_metadata(&path) else {
                // It has gone meanwhile.
                continue;
            };
            if about.is_dir() {
                waiting.push(path.clone());
            }
            // In whatever order they come.
            sum = sum.wrapping_add(of_entry(&path).unwrap_or(0));
        }
    }
    Some(sum)
}

fn of_entry(path: &PathBuf) -> Option<u64> {
    let about = std::fs::symlink_metadata(path).ok()?;
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    about.mode().hash(&mut hasher);
    if !about.is_dir() {
        let times = (
            about.mtime(),
            about.mtime_nsec(),
            about.ctime(),
            about.ctime_nsec(),
        );
        (about.len(), about.ino(), times).hash(&mut hasher);
    }
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_made_changed_or_removed_makes_a_difference_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir_all(at(".git/logs")).unwrap();
        fs::write(at("a/b/c"), "one").unwrap();
        let look = || fingerprint(dir.path()).unwrap();
        let mut before = look();
        assert_eq!(look(), before);
        fs::write(at(".git/index"), "looked at").unwrap();
        assert_eq!(look(), before, "git has looked");
        let changes: [&dyn Fn(); 5] = [
            &|| fs::write(at("a/new"), "").unwrap(),
            &|| fs::write(at("a/b/c"), "three").unwrap(),
            &|| fs::remove_file(at("a/new")).unwrap(),
            &|| fs::rename(at("a/b/c"), at("a/c")).unwrap(),
            &|| fs::write(at(".git/logs/HEAD"), "a commit").unwrap(),
        ];
        for change in changes {
            change();
            let after = look();
            assert_ne!(after, before);
            before = after;
        }
        assert_eq!(fingerprint(&at("not there")), None);
    }
}
