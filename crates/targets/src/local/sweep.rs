//! Removes what starts have left in the folder of the coordinator that nobody asks for any more: their ends are known no
//! longer, or nobody came to remove it.

use std::fs::{self, DirEntry};
use std::path::Path;
use std::time::Duration;

use loom_protocol::SpinUpId;

use super::files::Files;

/// How many entries of the folder are looked at in one sweep.
const MOST: usize = 100_000;

/// Removes the files of starts that nothing lives of and that were last written longer than `age` ago. Other files stay,
/// as does whatever somebody holds. How many starts it has removed.
pub fn sweep(folder: &Path, age: Duration) -> usize {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let mut removed = 0;
    for entry in entries.take(MOST).filter_map(Result::ok) {
        let Some(id) = start_of(&entry) else {
            continue;
        };
        let files = Files::new(folder, id);
        // Each start has two entries: with the first of them both go.
        if files.are_there() && files.are_older_than(age) && !files.is_held() {
            files.remove();
            removed += usize::from(!files.are_there());
        }
    }
    removed
}

/// The start that a file is of, if it is one of ours.
fn start_of(entry: &DirEntry) -> Option<SpinUpId> {
    if !entry.file_type().ok()?.is_file() {
        return None;
    }
    let name = entry.file_name();
    let name = name.to_str()?.strip_prefix("spin-up-")?;
    let id = name
        .strip_suffix(".lock")
        .or_else(|| name.strip_suffix(".out"))?;
    id.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    const AGE: Duration = Duration::from_mins(15);

    fn write(folder: &Path, name: &str, ago: Duration) -> File {
        let file = File::create_new(folder.join(name)).unwrap();
        let written = file.metadata().unwrap().modified().unwrap();
        file.set_modified(written - ago).unwrap();
        file
    }

    #[test]
    fn what_is_old_and_held_by_nobody_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(sweep(&folder.join("none"), AGE), 0);
        let [old, alone, held, half] = [(); 4].map(|()| SpinUpId::generate());
        for ending in ["lock", "out"] {
            write(folder, &format!("spin-up-{old}.{ending}"), 2 * AGE);
        }
        write(folder, &format!("spin-up-{alone}.out"), 2 * AGE);
        let lock = write(folder, &format!("spin-up-{held}.lock"), 2 * AGE);
        lock.lock().unwrap();
        // Its output was written not long ago.
        write(folder, &format!("spin-up-{half}.lock"), 2 * AGE);
        write(folder, &format!("spin-up-{half}.out"), AGE / 2);
        for other in ["spin-up-x.lock", "notes.out", "spin-up-.lock"] {
            write(folder, other, 2 * AGE);
        }
        assert_eq!(sweep(folder, AGE), 2);
        let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
        let mut left: Vec<String> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        let mut expected = vec![
            format!("spin-up-{held}.lock"),
            format!("spin-up-{half}.lock"),
            format!("spin-up-{half}.out"),
            "spin-up-x.lock".to_owned(),
            "notes.out".to_owned(),
            "spin-up-.lock".to_owned(),
        ];
        left.sort();
        expected.sort();
        assert_eq!(left, expected);
    }
}
