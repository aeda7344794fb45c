//! The lines that a child has written, and a way to wait for one.

use std::io::{BufRead as _, BufReader, PipeReader};

use tokio::sync::watch;

/// Read by a thread of its own, so that the child never waits for a reader.
#[derive(Debug)]
pub(super) struct Lines(watch::Receiver<Written>);

#[derive(Debug, Default)]
struct Written {
    lines: Vec<String>,
    /// Nobody can write any more.
    ended: bool,
}

impl Lines {
    pub(super) fn of(pipe: PipeReader) -> Self {
        let (written, seen) = watch::channel(Written::default());
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                written.send_modify(|written| written.lines.push(text));
                line.clear();
            }
            written.send_modify(|written| written.ended = true);
        });
        Self(seen)
    }

    /// All of it, up to now.
    pub(super) fn text(&self) -> String {
        let written = self.0.borrow();
        written.lines.iter().flat_map(|line| [line, "\n"]).collect()
    }

    /// All of it, when the last writer has gone.
    pub(super) async fn whole(&self) -> String {
        // An error says that the reading thread is gone, and so the writers.
        let _ = self.0.clone().wait_for(|written| written.ended).await;
        self.text()
    }

    /// What `find` makes of the first line that it takes, which may still have to be written; none where it ended
    /// without such a line.
    pub(super) async fn find_map<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let mut seen = self.0.clone();
        let mut found = None;
        let mut place = 0;
        let _ = seen
            .wait_for(|written| {
                found = written.lines[place..].iter().find_map(|line| find(line));
                place = written.lines.len();
                found.is_some() || written.ended
            })
            .await;
        found
    }
}
