//! What is kept of a program's output: the end of it, and the last line of JSON. Bounded memory.

use bytes::Bytes;
use loom_client::Job;
use loom_protocol::work::limits;
use serde::de::IgnoredAny;

use super::lines::{self, Line, Splitter};

/// How much of the end of a stream is kept, in bytes.
const TAIL: usize = 64 * 1024;
/// Lines longer than this come in pieces; no result can be longer.
const LONGEST_LINE: usize = limits::RESULT;
/// How much of one line goes to the logs subject.
const LOGGED: usize = 8 * 1024;

/// The end of a stream of bytes.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    /// Takes more; forgets the beginning where it is too much.
    pub fn push(&mut self, more: &[u8]) {
        let keep = &more[more.len().saturating_sub(TAIL)..];
        self.bytes.extend_from_slice(keep);
        self.cut |= keep.len() < more.len();
        if self.bytes.len() > 2 * TAIL {
            self.bytes.drain(..self.bytes.len() - TAIL);
            self.cut = true;
        }
    }

    /// Whether there was more than is kept.
    pub fn is_cut(&self) -> bool {
        self.cut || self.bytes.len() > TAIL
    }

    /// The last `max` bytes as text, from the beginning of a line if there is one.
    pub fn text(&self, max: usize) -> String {
        let start = self.bytes.len().saturating_sub(max.min(TAIL));
        let mut bytes = &self.bytes[start..];
        if start > 0 || self.cut {
            let line_start = bytes.iter().position(|byte| *byte == b'\n');
            bytes = line_start.map_or(bytes, |end| &bytes[end + 1..]);
        }
        String::from_utf8_lossy(bytes).trim().to_owned()
    }
}

/// What is kept of one stream; nothing yet to begin with.
#[derive(Debug)]
pub struct Capture {
    splitter: Splitter,
    /// The end of it, without progress lines.
    pub tail: Tail,
    /// The last whole line that is a JSON object or array.
    pub last_json: Option<Bytes>,
    /// Whether a line was too long to be a result.
    pub overlong: bool,
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            splitter: Splitter::new(LONGEST_LINE),
            tail: Tail::default(),
            last_json: None,
            overlong: false,
        }
    }
}

impl Capture {
    /// Takes what has come; tells the job of progress, and sends the lines to the logs.
    pub fn feed(&mut self, bytes: &[u8], job: &Job) {
        let mut kept = Kept {
            tail: &mut self.tail,
            last_json: &mut self.last_json,
            overlong: &mut self.overlong,
        };
        self.splitter.feed(bytes, |line| kept.take(&line, job));
    }

    /// The stream has ended.
    pub fn finish(&mut self, job: &Job) {
        let mut kept = Kept {
            tail: &mut self.tail,
            last_json: &mut self.last_json,
            overlong: &mut self.overlong,
        };
        self.splitter.finish(|line| kept.take(&line, job));
    }
}

/// The parts of a [`Capture`] that a line changes.
struct Kept<'a> {
    tail: &'a mut Tail,
    last_json: &'a mut Option<Bytes>,
    overlong: &'a mut bool,
}

impl Kept<'_> {
    fn take(&mut self, line: &Line<'_>, job: &Job) {
        let logged = &line.bytes[..line.bytes.len().min(LOGGED)];
        job.log(Bytes::copy_from_slice(logged));
        if line.whole
            && let Some(progress) = lines::progress(line.bytes)
        {
            match (progress.percent, progress.message) {
                (Some(percent), message) => job.progress(percent, message.unwrap_or_default()),
                (None, Some(message)) => job.message(message),
                (None, None) => {}
            }
            return;
        }
        self.tail.push(line.bytes);
        self.tail.push(b"\n");
        if !line.whole {
            *self.overlong = true;
        } else if is_json(line.bytes) {
            *self.last_json = Some(Bytes::copy_from_slice(line.bytes.trim_ascii()));
        }
    }
}

/// Whether a line is a JSON object or array. (A number or a word may be JSON too, but is not meant so.)
fn is_json(line: &[u8]) -> bool {
    matches!(line.trim_ascii(), [b'{', .., b'}'] | [b'[', .., b']'])
        && serde_json::from_slice::<IgnoredAny>(line).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent_run::testing::job;

    fn captured(chunks: &[&[u8]]) -> Capture {
        let job = job();
        let mut capture = Capture::default();
        for chunk in chunks {
            capture.feed(chunk, &job);
        }
        capture.finish(&job);
        capture
    }

    #[test]
    fn the_last_line_of_json_is_kept_whatever_follows() {
        let capture = captured(&[b"{\"n\":1}\n[2]\n{not json}\n42\n\"text\"\nbye\n"]);
        assert_eq!(capture.last_json.as_deref(), Some(&b"[2]"[..]));
        assert!(capture.tail.text(1000).ends_with("bye"));
    }

    #[test]
    fn progress_lines_are_not_output() {
        let capture = captured(&[b"a\n::progress 5 x\nb\n"]);
        assert_eq!(capture.tail.text(1000), "a\nb");
    }

    #[test]
    fn the_tail_is_bounded_and_begins_with_a_line() {
        let mut tail = Tail::default();
        for n in 0..200_000 {
            tail.push(format!("line {n}\n").as_bytes());
        }
        assert!(tail.bytes.len() <= 2 * TAIL && tail.is_cut());
        let text = tail.text(1000);
        assert!(
            text.starts_with("line ") && text.ends_with("line 199999"),
            "{text}"
        );
        assert!(text.len() <= 1000);
    }

    #[test]
    fn binary_output_without_newlines_stays_bounded() {
        let chunk = vec![0xff_u8; 100_000];
        let capture = captured(&[&chunk[..]; 20]);
        assert!(capture.overlong && capture.last_json.is_none());
        assert!(capture.tail.bytes.len() <= 2 * TAIL);
        assert!(capture.tail.text(TAIL).contains('\u{fffd}'));
    }
}
