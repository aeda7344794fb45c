//! What this coordinator notes of one dispatch, before and after it: a dispatch can't be repeated, so that it was sent,
//! or may have been, has to outlive a crash. A lock on the note is held while a start is under way.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use loom_protocol::{SpinUpId, Timestamp};

use crate::lock_file::{self, options};

/// Notes are not longer, in bytes.
const MOST: u64 = 4096;
const SENT: &[u8] = b"sent\n";

/// The note of one start.
#[derive(Debug, Clone)]
pub(super) struct Note {
    folder: PathBuf,
    path: PathBuf,
}

/// What a note says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// There is none: nothing was begun here, but perhaps by another coordinator, or with another folder.
    Nothing,
    /// A start was begun, and nothing was sent for it.
    Prepared(Option<Timestamp>),
    /// It may have been sent. When it was ordered, where that can be read.
    Sent(Option<Timestamp>),
}

impl Noted {
    /// When it was ordered.
    pub(super) const fn ordered_at(self) -> Option<Timestamp> {
        match self {
            Self::Nothing => None,
            Self::Prepared(at) | Self::Sent(at) => at,
        }
    }
}

/// A start that is under way here, and nowhere else on this machine.
#[derive(Debug)]
pub(super) struct Held(File);

impl Note {
    pub(super) fn new(folder: &Path, spin_up: SpinUpId) -> Self {
        Self {
            folder: folder.to_owned(),
            path: folder.join(format!("spin-up-{spin_up}.dispatch")),
        }
    }

    /// Takes the note, and makes it where there is none; none while somebody else holds it. What is made is on the disk.
    pub(super) fn hold(&self, ordered_at: Timestamp) -> io::Result<Option<(Held, Noted)>> {
        let Some(held) = lock_file::take(&self.path)?.map(Held) else {
            return Ok(None);
        };
        let noted = held.read()?;
        if noted != Noted::Prepared(None) {
            return Ok(Some((held, noted)));
        }
        held.write(format!("{ordered_at}\n").as_bytes())?;
        File::open(&self.folder)?.sync_all()?;
        Ok(Some((held, Noted::Prepared(Some(ordered_at)))))
    }

    /// What it says; none while somebody holds it, so that what is said stays true until somebody begins.
    pub(super) fn read(&self) -> io::Result<Option<Noted>> {
        let file = match options().open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(Noted::Nothing));
            }
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => Held(file).read().map(Some),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Removes it, where nobody holds it.
    pub(super) fn remove(&self) {
        let Some(_held) = lock_file::take_existing(&self.path) else {
            return;
        };
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the note of a dispatch stays behind");
        }
    }
}

impl Held {
    /// Notes that it is being sent. It is on the disk when this is done; where it can't be, nothing is noted.
    pub(super) fn mark_sent(&self) -> io::Result<()> {
        let mut file = &self.0;
        file.seek(SeekFrom::End(0))?;
        let noted = file.write_all(SENT).and_then(|()| file.sync_all());
        if noted.is_err() {
            // Half of the word may be there.
            let _ = self.mark_unsent();
        }
        noted
    }

    /// Notes that nothing came of it, for sure.
    pub(super) fn mark_unsent(&self) -> io::Result<()> {
        let text = self.text()?;
        let line = text.iter().position(|byte| *byte == b'\n');
        let kept = line.map_or(0, |at| at + 1);
        self.0.set_len(u64::try_from(kept).unwrap_or_default())?;
        self.0.sync_all()
    }

    fn write(&self, text: &[u8]) -> io::Result<()> {
        let mut file = &self.0;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(text)?;
        file.sync_all()
    }

    fn text(&self) -> io::Result<Vec<u8>> {
        let mut file = &self.0;
        file.rewind()?;
        let mut text = Vec::new();
        file.take(MOST).read_to_end(&mut text)?;
        Ok(text)
    }

    fn read(&self) -> io::Result<Noted> {
        Ok(meaning(&self.text()?))
    }
}

/// What a note means. The first line is when it was ordered; anything behind it, also half of a word, means that it may
/// have been sent. Half of a first line is on no disk before that line is.
fn meaning(text: &[u8]) -> Noted {
    let Some(at) = text.iter().position(|byte| *byte == b'\n') else {
        return Noted::Prepared(None);
    };
    let ordered_at = std::str::from_utf8(&text[..at]).ok();
    let ordered_at = ordered_at.and_then(|text| text.parse().ok());
    if text.len() > at + 1 {
        Noted::Sent(ordered_at)
    } else {
        Noted::Prepared(ordered_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AT: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    #[test]
    fn a_note_says_what_may_have_been_sent_whoever_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let note = Note::new(&folder.path().join("starts"), SpinUpId::generate());
        let later = AT.after(std::time::Duration::from_secs(9));
        let hold = || note.hold(later).unwrap();
        assert_eq!(note.read().unwrap(), Some(Noted::Nothing));
        let (held, noted) = note.hold(AT).unwrap().unwrap();
        assert_eq!(noted, Noted::Prepared(Some(AT)));
        assert!(hold().is_none() && note.read().unwrap().is_none());
        note.remove();
        held.mark_sent().unwrap();
        drop(held);
        assert_eq!(note.read().unwrap(), Some(Noted::Sent(Some(AT))));
        let (held, noted) = hold().unwrap();
        assert_eq!(noted, Noted::Sent(Some(AT)), "the first one counts");
        held.mark_unsent().unwrap();
        drop(held);
        assert_eq!(note.read().unwrap(), Some(Noted::Prepared(Some(AT))));
        note.remove();
        assert_eq!(note.read().unwrap(), Some(Noted::Nothing));
    }

    proptest! {
        #[test]
        fn a_note_that_is_cut_off_never_hides_that_it_was_sent(cut in 0..40_usize) {
            let whole = [format!("{AT}\n").as_bytes(), SENT].concat();
            let line = whole.len() - SENT.len();
            let cut = cut.min(whole.len());
            let is_sent = matches!(meaning(&whole[..cut]), Noted::Sent(_));
            prop_assert_eq!(is_sent, cut > line);
        }
    }
}
