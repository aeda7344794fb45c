//! What our own nats-server says of its store in its log: it is the only one who knows that it got stuck, because it
//! leaves the writes to a broken stream without an answer.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

/// The line with which a run of the server begins.
const BEGINNING: &str = "Starting nats-server";
/// The line that says that a stream is broken until the next start.
const BROKEN: &str = "critical write error: ";
/// How much of the log is read at a time; of a longer piece the end.
const MOST: u64 = 1024 * 1024;

/// Reads what is new in a log.
#[derive(Debug)]
pub(super) struct LogTail {
    path: PathBuf,
    read: u64,
}

impl LogTail {
    /// Begins with what is there already: the server may have been running for long.
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: 0 }
    }

    /// Why the present run of the server got stuck, if what is new says so. No log: no.
    pub fn stuck(&mut self) -> Option<String> {
        let mut file = File::open(&self.path).ok()?;
        let length = file.metadata().ok()?.len();
        if length < self.read {
            // A new file in the place of one that grew too long.
            self.read = 0;
        }
        if length == self.read {
            return None;
        }
        let from = self.read.max(length.saturating_sub(MOST));
        file.seek(SeekFrom::Start(from)).ok()?;
        let mut new = Vec::new();
        file.take(length - from).read_to_end(&mut new).ok()?;
        // A line that is half written is read again with its end.
        let whole = new
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        self.read = from + u64::try_from(whole).unwrap_or_default();
        stuck_in(&String::from_utf8_lossy(&new[..whole])).map(str::to_owned)
    }
}

/// The reason of the first failed write since the last beginning.
fn stuck_in(text: &str) -> Option<&str> {
    let present = text.rfind(BEGINNING).map_or(text, |at| &text[at..]);
    present.lines().find_map(|line| {
        let at = line.to_ascii_lowercase().find(BROKEN)?;
        let why = line.get(at + BROKEN.len()..)?;
        // `write /path/to/1.blk: no space left on device`
        Some(why.rsplit_once(": ").map_or(why, |(_, reason)| reason))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const STUCK: &str = "[7] 2026/01/01 00:00:00 [ERR] Filestore [KV_a] Critical write error: write /a/1.blk: no space left on device\n";

    #[test]
    fn only_the_present_run_counts() {
        let began = format!("[7] [INF] {BEGINNING}\n");
        assert_eq!(stuck_in(&began), None);
        assert_eq!(stuck_in(STUCK), Some("no space left on device"));
        assert_eq!(stuck_in(&format!("{STUCK}{began}")), None);
        assert_eq!(
            stuck_in(&format!("{STUCK}{began}{STUCK}")),
            Some("no space left on device")
        );
    }

    #[test]
    fn each_line_is_read_once_and_whole_and_a_new_file_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut tail = LogTail::new(path.clone());
        assert_eq!(tail.stuck(), None, "there is none yet");
        let mut file = File::create(&path).unwrap();
        let (half, rest) = STUCK.split_at(60);
        file.write_all(half.as_bytes()).unwrap();
        assert_eq!(tail.stuck(), None, "half a line");
        file.write_all(rest.as_bytes()).unwrap();
        assert!(tail.stuck().is_some());
        assert_eq!(tail.stuck(), None, "told once");
        std::fs::write(&path, "short\n").unwrap();
        assert_eq!(tail.stuck(), None);
        std::fs::write(&path, STUCK).unwrap();
        assert!(tail.stuck().is_some());
    }
}
