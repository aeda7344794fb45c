//! What is kept of a program's output: the end of it, and the last line of JSON. Bounded memory.

use std::borrow::Cow;

use bytes::Bytes;
use loom_client::Job;
use loom_protocol::Body;
use loom_protocol::work::limits;

use super::lines::{self, Line, Splitter};
use super::program::facts::Facts;
use super::program::listener::Listener;
use super::secrets::{Scrubber, Secrets};
use loom_process::tail::Tail;

/// Lines longer than this come in pieces; no result can be longer, in bytes.
pub const LONGEST_LINE: usize = limits::RESULT;
/// How much of one line goes to the logs subject, in bytes.
const LOGGED: usize = 8 * 1024;
/// Enough of the end to see that there is any, in bytes.
const MARKED: usize = 256;
/// How many empty lines one after the other are kept.
const BLANK: usize = 16;

/// What is kept of one stream; nothing yet to begin with. Secrets are taken out before anything else
/// looks at it.
#[derive(Debug)]
pub struct Capture {
    scrubber: Scrubber,
    splitter: Splitter,
    kept: Kept,
    heard: Heard,
}

/// What of a stream is a sign of life.
#[derive(Debug)]
enum Heard {
    /// Whatever is written; and how often.
    Anything(u64),
    /// The events of a known program; other lines are text.
    Events(Box<Listener>),
    /// Nothing: its life is seen elsewhere.
    Nothing,
}

/// What the lines of a stream leave behind.
#[derive(Debug, Default)]
struct Kept {
    /// The end of it, without progress lines, and without `held`.
    tail: Tail,
    /// The last line, where that is a JSON object or array; empty lines may follow it.
    held: Option<Body>,
    /// The last such line of those that stand in the tail.
    earlier: Option<Body>,
    /// How many empty lines the tail ends with.
    blank: usize,
    /// What is wrong with the last line that looked like JSON, where it could not be taken.
    problem: Option<String>,
}

impl Default for Capture {
    fn default() -> Self {
        Self::new(&Secrets::default())
    }
}

impl Capture {
    /// Without these secrets.
    pub fn new(secrets: &Secrets) -> Self {
        Self {
            scrubber: Scrubber::new(secrets.clone()),
            splitter: Splitter::new(LONGEST_LINE),
            kept: Kept::default(),
            heard: Heard::Anything(0),
        }
    }

    /// Whose events are heard.
    #[must_use]
    pub fn heard_by(mut self, listener: Listener) -> Self {
        self.heard = Heard::Events(Box::new(listener));
        self
    }

    /// Nothing that is written is a sign of life.
    #[must_use]
    pub fn not_heard(mut self) -> Self {
        self.heard = Heard::Nothing;
        self
    }

    /// How many signs of life there were.
    pub fn signs(&self) -> u64 {
        match &self.heard {
            Heard::Anything(signs) => *signs,
            Heard::Events(listener) => listener.events,
            Heard::Nothing => 0,
        }
    }

    /// What the events say, where they are heard.
    pub fn facts(&self) -> Option<&Facts> {
        match &self.heard {
            Heard::Events(listener) => Some(&listener.facts),
            _ => None,
        }
    }

    /// Takes what has come; tells the job of progress, and sends the lines to the logs.
    pub fn feed(&mut self, bytes: &[u8], job: &Job) {
        if let Heard::Anything(signs) = &mut self.heard {
            *signs += 1;
        }
        let (splitter, kept, heard) = (&mut self.splitter, &mut self.kept, &mut self.heard);
        self.scrubber.feed(bytes, |bytes| {
            splitter.feed(bytes, |line| kept.hear(heard, &line, job));
        });
    }

    /// The stream has ended.
    pub fn finish(&mut self, job: &Job) {
        let (splitter, kept, heard) = (&mut self.splitter, &mut self.kept, &mut self.heard);
        self.scrubber
            .finish(|bytes| splitter.feed(bytes, |line| kept.hear(heard, &line, job)));
        splitter.finish(|line| kept.hear(heard, &line, job));
    }

    /// The end of all that was said.
    pub fn tail(&self) -> Cow<'_, Tail> {
        let Some(json) = &self.kept.held else {
            return Cow::Borrowed(&self.kept.tail);
        };
        let mut tail = self.kept.tail.clone();
        tail.push(json.as_bytes());
        tail.push(b"\n");
        Cow::Owned(tail)
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.tail().text(MARKED).is_empty()
    }

    /// The last line that is not empty, where it is a JSON object or array, and the end of what stands
    /// before it.
    pub fn last_line_of_json(&self) -> Option<(&Body, &Tail)> {
        Some((self.kept.held.as_ref()?, &self.kept.tail))
    }

    /// The last line of JSON wherever it stands, where it is not the last line.
    pub const fn earlier_json(&self) -> Option<&Body> {
        self.kept.earlier.as_ref()
    }

    /// Why the last line that looks like JSON is none.
    pub fn problem(&self) -> Option<&str> {
        self.kept.problem.as_deref()
    }
}

impl Kept {
    fn hear(&mut self, heard: &mut Heard, line: &Line<'_>, job: &Job) {
        let Heard::Events(listener) = heard else {
            return self.take(line, job);
        };
        job.log(logged(line.bytes));
        if let Some(text) = listener.take(line, job) {
            self.tail.push(text.as_bytes());
            self.tail.push(b"\n");
        }
    }

    fn take(&mut self, line: &Line<'_>, job: &Job) {
        job.log(logged(line.bytes));
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
        let content = line.bytes.trim_ascii();
        if line.whole && content.is_empty() {
            // It does not follow JSON, and many of them push out no text.
            if self.held.is_none() && self.blank < BLANK {
                self.blank += 1;
                self.tail.push(b"\n");
            }
            return;
        }
        self.blank = 0;
        if let Some(json) = self.held.take() {
            self.tail.push(json.as_bytes());
            self.tail.push(b"\n");
            self.earlier = Some(json);
        }
        if line.whole && looks_like_json(content) {
            match Body::from_json(Bytes::copy_from_slice(content)) {
                Ok(json) => {
                    self.held = Some(json);
                    self.problem = None;
                    return;
                }
                Err(error) => self.problem = Some(error.to_string()),
            }
        } else if !line.whole && line.ends {
            self.problem = Some(format!(
                "a line has more than {LONGEST_LINE} bytes, and a result may not"
            ));
        }
        self.tail.push(line.bytes);
        if line.ends {
            self.tail.push(b"\n");
        }
    }
}

/// Whether a line is meant as a JSON object or array. (A number or a word may be JSON too, but is not
/// meant so.)
const fn looks_like_json(line: &[u8]) -> bool {
    matches!(line, [b'{', .., b'}'] | [b'[', .., b']'])
}

/// A line for the logs: its beginning, and how much more there was.
fn logged(line: &[u8]) -> Bytes {
    if line.len() <= LOGGED {
        return Bytes::copy_from_slice(line);
    }
    let mut logged = line[..LOGGED].to_vec();
    let left_out = line.len() - LOGGED;
    logged.extend_from_slice(format!(" [… {left_out} bytes left out]").as_bytes());
    logged.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::job;
    use loom_process::tail::KEPT;

    fn captured(chunks: &[&[u8]]) -> Capture {
        let job = job();
        let mut capture = Capture::default();
        for chunk in chunks {
            capture.feed(chunk, &job);
        }
        capture.finish(&job);
        capture
    }

    fn text(body: &Body) -> &str {
        std::str::from_utf8(body.as_bytes()).unwrap()
    }

    #[test]
    fn json_is_held_apart_while_nothing_follows_it() {
        let capture = captured(&[b"prose\n{\"n\":1}\n[2]\n \n\r\n"]);
        let (json, before) = capture.last_line_of_json().unwrap();
        assert_eq!(text(json), "[2]");
        assert_eq!(before.text(1000), "prose\n{\"n\":1}");
        assert_eq!(text(capture.earlier_json().unwrap()), "{\"n\":1}");
        assert_eq!(capture.tail().text(1000), "prose\n{\"n\":1}\n[2]");
    }

    #[test]
    fn json_that_something_follows_stays_in_its_place() {
        let capture = captured(&[b"{\"n\":1}\n[2]\n{not json}\n42\n\"text\"\nbye\n"]);
        assert!(capture.last_line_of_json().is_none());
        assert_eq!(text(capture.earlier_json().unwrap()), "[2]");
        let all = "{\"n\":1}\n[2]\n{not json}\n42\n\"text\"\nbye";
        assert_eq!(capture.tail().text(1000), all);
    }

    #[test]
    fn json_behind_a_progress_bar_is_seen() {
        let capture = captured(&[b"10%\r50%\r100%\r{\"n\":1}\r\n"]);
        assert_eq!(text(capture.last_line_of_json().unwrap().0), "{\"n\":1}");
    }

    #[test]
    fn json_that_nests_too_deep_is_text_and_the_reason_is_told() {
        for deep in [101, 150_000] {
            let line = format!("{}{}\n", "[".repeat(deep), "]".repeat(deep));
            let capture = captured(&[b"before\n", line.as_bytes()]);
            assert!(capture.last_line_of_json().is_none());
            assert!(capture.problem().unwrap().contains("levels deep"));
            assert!(capture.tail().text(1000).ends_with("]]]"));
        }
    }

    #[test]
    fn progress_lines_are_not_output() {
        let capture = captured(&[b"a\n::progress 5 x\nb\n{}\n::progress 6\n"]);
        assert_eq!(capture.tail().text(1000), "a\nb\n{}");
        assert!(capture.last_line_of_json().is_some());
    }

    #[test]
    fn output_without_newlines_stays_bounded_and_whole_at_its_end() {
        let chunk = vec![b'x'; 100_000];
        let mut chunks = vec![&chunk[..]; 20];
        chunks.push(b"the end");
        let capture = captured(&chunks);
        assert!(capture.problem().unwrap().contains("more than"));
        let text = capture.tail().text(KEPT);
        let (mark, kept) = text.split_once('\n').unwrap();
        assert_eq!(
            mark,
            format!("[… {} bytes left out]", 2_000_007 - kept.len())
        );
        assert!(kept.ends_with("xthe end") && !kept.contains('\n'), "{mark}");
    }

    #[test]
    fn empty_lines_push_out_no_text() {
        let lines = vec![b'\n'; 300_000];
        let capture = captured(&[b"text", &lines]);
        assert_eq!(capture.tail().text(1000), "text");
    }

    #[test]
    fn a_character_that_is_cut_in_two_by_a_read_stays_one() {
        let capture = captured(&[b"na\xc3", b"\xafve\n"]);
        assert_eq!(capture.tail().text(1000), "naïve");
    }

    #[test]
    fn a_secret_is_in_nothing_that_is_kept() {
        let secrets = Secrets::new(["hunter2hunter2".to_owned()]);
        let (mut capture, job) = (Capture::new(&secrets), job());
        let long = "x".repeat(LONGEST_LINE - 4);
        for chunk in [
            "{\"pass\":\"hunter2",
            "hunter2\"}\n",
            &long,
            "hunter2hunter2",
        ] {
            capture.feed(chunk.as_bytes(), &job);
        }
        capture.finish(&job);
        assert_eq!(text(capture.earlier_json().unwrap()), "{\"pass\":\"***\"}");
        assert!(capture.tail().text(KEPT).ends_with("x***"));
    }

    #[test]
    fn a_long_line_goes_to_the_logs_with_its_cut_told() {
        assert_eq!(logged(b"short"), "short");
        let line = logged(&vec![b'y'; LOGGED + 5]);
        assert!(line.ends_with("y [… 5 bytes left out]".as_bytes()));
    }
}
