//! `tasks.jsonl`: one work item per line, as `POST /api/work` takes it; lines that begin with `#` are
//! comments.
//!
//! The file is read twice, line by line: every line is checked before the first is sent. Values are
//! carried as they were written, so that nothing in a context is rounded on its way.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use loom_actors::clock::Clock;
use loom_protocol::Encoding;
use loom_protocol::work::SubmitRequest;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest as _, Sha256};

use crate::service::{Ignored, check_submission};

/// The fields of one item, as JSON text each.
pub type Fields = BTreeMap<String, Box<RawValue>>;

/// The longest line: what one request may hold.
const LONGEST_LINE: usize = 1024 * 1024;
/// What of that an item may take, beside the frame of a request.
const LONGEST_ITEM: usize = LONGEST_LINE - 1024;
/// What some programs begin a file with.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// How much of a refused line is in memory while it is put aside.
const COPIED_AT_A_TIME: usize = 64 * 1024;

/// A file, or standard input copied to one, that is read from the beginning more than once.
#[derive(Debug)]
pub struct TasksFile {
    name: String,
    reader: BufReader<File>,
    number: usize,
    /// How many bytes were read.
    read: u64,
    digest: Sha256,
}

/// A line that holds an item, or should.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: usize,
    /// Where in the file its bytes are.
    pub bytes: Range<u64>,
    /// What it says, without the space around it; or why it can't be read.
    pub text: Result<String, String>,
}

impl TasksFile {
    /// Opens a file; `-` is standard input. What can be read once only is copied to a temporary file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (name, file) = if path == Path::new("-") {
            ("stdin".to_owned(), copied(io::stdin().lock())?)
        } else {
            let file = File::open(path)?;
            let is_plain = file.metadata()?.is_file();
            let file = if is_plain { file } else { copied(file)? };
            (path.display().to_string(), file)
        };
        Ok(Self {
            name,
            reader: BufReader::new(file),
            number: 0,
            read: 0,
            digest: Sha256::new(),
        })
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where a line stands, for messages.
    pub fn place(&self, number: usize) -> String {
        format!("{}:{number}: ", self.name)
    }

    /// Whether a path leads to this file.
    pub fn is_at(&self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let here = self.reader.get_ref().metadata();
        let there = std::fs::metadata(path);
        here.ok()
            .zip(there.ok())
            .is_some_and(|(here, there)| (here.dev(), here.ino()) == (there.dev(), there.ino()))
    }

    /// Back to the beginning; gives a digest of what was read since the last time.
    pub fn rewind(&mut self) -> io::Result<String> {
        self.reader.rewind()?;
        (self.number, self.read) = (0, 0);
        let digest = std::mem::take(&mut self.digest).finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Ok(format!("{:016x}", u64::from_be_bytes(first)))
    }

    /// The next line that holds something. No line takes more memory than a request may be long.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            let (mut bytes, begin) = (Vec::new(), self.read);
            let most = LONGEST_LINE as u64 + 1;
            let length = (&mut self.reader)
                .take(most)
                .read_until(b'\n', &mut bytes)?;
            if length == 0 {
                return Ok(None);
            }
            self.digest.update(&bytes);
            self.read += length as u64;
            self.number += 1;
            let whole = bytes.len() <= LONGEST_LINE || bytes.last() == Some(&b'\n');
            if !whole {
                self.pass_over_the_rest()?;
            }
            let text = match std::str::from_utf8(&bytes) {
                _ if is_comment(&bytes) => continue,
                _ if !whole => Err(format!("is longer than {LONGEST_LINE} bytes")),
                Err(_) => Err("is not UTF-8".into()),
                Ok(text) => Ok(text.trim_start_matches(BYTE_ORDER_MARK).trim().to_owned()),
            };
            if text.as_ref().is_ok_and(String::is_empty) {
                continue;
            }
            return Ok(Some(Line {
                number: self.number,
                bytes: begin..self.read,
                text,
            }));
        }
    }

    /// Writes a line as it stands in the file, and a line feed where it has none.
    ///
    /// # Errors
    /// The file cannot be read, or `to` not be written.
    pub fn copy(&self, line: &Range<u64>, to: &mut impl io::Write) -> io::Result<()> {
        let mut buffer = vec![0; COPIED_AT_A_TIME];
        let (mut at, mut last) = (line.start, None);
        while at < line.end {
            let left = usize::try_from(line.end - at).unwrap_or(usize::MAX);
            let part = &mut buffer[..left.min(COPIED_AT_A_TIME)];
            self.reader.get_ref().read_exact_at(part, at)?;
            to.write_all(part)?;
            last = part.last().copied();
            at += part.len() as u64;
        }
        match last {
            Some(b'\n') => Ok(()),
            _ => to.write_all(b"\n"),
        }
    }

    fn pass_over_the_rest(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.reader.fill_buf()?;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let length = end.map_or(buffer.len(), |end| end + 1);
            self.digest.update(&buffer[..length]);
            self.reader.consume(length);
            self.read += length as u64;
            if end.is_some() || length == 0 {
                return Ok(());
            }
        }
    }
}

/// Whether nobody is to read it, whatever its bytes are.
fn is_comment(line: &[u8]) -> bool {
    let marked = line.strip_prefix(BYTE_ORDER_MARK.to_string().as_bytes());
    let line = marked.unwrap_or(line);
    line.trim_ascii_start().first() == Some(&b'#')
}

fn copied(mut from: impl io::Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(&mut from, &mut file)?;
    file.rewind()?;
    Ok(file)
}

impl Line {
    /// The item of the line, with what `defaults` add to it.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn item(&self, defaults: &Fields) -> Result<Fields, String> {
        let text = self.text.as_ref().map_err(String::clone)?;
        let own: Fields = serde_json::from_str(text).map_err(|error| {
            let why = without_line(&error);
            format!(
                "is no JSON object ({why}); write one item per line, like {{\"description\": \"…\", \"capability\": \"…\"}}"
            )
        })?;
        serde_json::from_str::<SubmitRequest>(text)
            .map_err(|error| format!("is no work item: {}", without_line(&error)))?;
        merged(own, defaults)
    }
}

/// An item with its own fields, and those of `defaults` that it lacks; checked by every rule that
/// needs no coordinator.
///
/// # Errors
/// A sentence about what is missing or wrong.
pub fn merged(own: Fields, defaults: &Fields) -> Result<Fields, String> {
    let mut fields = defaults.clone();
    let labels = merged_labels(&own, defaults)?;
    fields.extend(own);
    if let Some(labels) = labels {
        fields.insert("labels".into(), labels);
    }
    // What is to be done is said by each line; the rest may come from a flag.
    for (required, flag) in [("description", ""), ("capability", ", or --capability")] {
        if !fields.contains_key(required) {
            return Err(format!("has no {required}; add one{flag}"));
        }
    }
    if fields.contains_key("items") {
        return Err("holds items; write each of them on a line of its own".into());
    }
    let bytes = serde_json::to_vec(&fields).map_err(|error| error.to_string())?;
    if bytes.len() > LONGEST_ITEM {
        let size = bytes.len();
        return Err(format!(
            "makes an item of {size} bytes; at most {LONGEST_ITEM} go into a request"
        ));
    }
    let mut ignored = Ignored::default();
    let request = Encoding::Json
        .decode_noting::<SubmitRequest>(&bytes, &mut |path| {
            // These are for the door.
            if path != "projectId" && path != "classification" {
                ignored.note(&path);
            }
        })
        .map_err(|error| error.to_string())?;
    check_submission(request, &ignored, Clock::system().now()).map_err(|error| error.message)?;
    Ok(fields)
}

fn merged_labels(own: &Fields, defaults: &Fields) -> Result<Option<Box<RawValue>>, String> {
    let (Some(own), Some(defaults)) = (own.get("labels"), defaults.get("labels")) else {
        return Ok(None);
    };
    let read = |raw: &RawValue| serde_json::from_str::<BTreeMap<String, String>>(raw.get());
    let merged = read(defaults).and_then(|mut labels| {
        labels.extend(read(own)?);
        to_raw_value(&labels)
    });
    merged
        .map(Some)
        .map_err(|error| format!("has labels that are not all text: {error}"))
}

/// The error with its column only: its line is always the first.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.replace(" at line 1 column 0", "")
        .replace("line 1 column", "column")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(text: &[u8]) -> TasksFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        TasksFile::open(file.path()).unwrap()
    }

    fn lines(file: &mut TasksFile) -> Vec<Line> {
        std::iter::from_fn(|| file.next_line().unwrap()).collect()
    }

    fn problem(text: &str) -> String {
        line(text).item(&Fields::new()).unwrap_err()
    }

    fn line(text: &str) -> Line {
        Line {
            number: 1,
            bytes: 0..0,
            text: Ok(text.to_owned()),
        }
    }

    #[test]
    fn lines_take_what_they_lack_from_the_flags() {
        let text = "\u{feff}{\"description\":\"a\",\"labels\":{\"x\":\"1\"}}\r\n\n# a comment\n\
                    {\"description\":\"b\",\"capability\":\"rust\",\"contextData\":{\"n\":123456789012345678901234567890}}\n";
        let flags: Fields =
            serde_json::from_str(r#"{"capability":"go","labels":{"x":"0","y":"2"}}"#).unwrap();
        let lines = lines(&mut file(text.as_bytes()));
        let field =
            |line: usize, name: &str| lines[line].item(&flags).unwrap()[name].get().to_owned();
        assert_eq!(field(0, "capability"), "\"go\"");
        assert_eq!(field(0, "labels"), r#"{"x":"1","y":"2"}"#);
        assert_eq!(field(1, "capability"), "\"rust\"");
        assert_eq!((lines.len(), lines[1].number), (2, 4));
        assert!(field(1, "contextData").contains("123456789012345678901234567890"));
    }

    #[test]
    fn every_rule_that_needs_no_coordinator_is_checked() {
        for (line, part) in [
            (
                "{\"description\":\"a\"}",
                "has no capability; add one, or --capability",
            ),
            ("{\"capability\":\"c\"}", "has no description; add one"),
            (
                "{\"description\":\"a\",,}",
                "is no JSON object (key must be a string at column 20)",
            ),
            ("[1]", "is no JSON object"),
            (
                "{\"description\":7,\"capability\":\"c\"}",
                "is no work item: invalid type: integer `7`",
            ),
            (
                "{\"items\":[],\"description\":\"a\",\"capability\":\"c\"}",
                "holds items",
            ),
            (
                "{\"description\":\"a\",\"capability\":\"c\",\"priority\":11}",
                "priority is 11",
            ),
            (
                "{\"description\":\"a\",\"capability\":\"a \"}",
                "capability",
            ),
            (
                "{\"description\":\" \",\"capability\":\"c\"}",
                "description",
            ),
            (
                "{\"description\":\"a\",\"capability\":\"c\",\"id\":\"x\"}",
                "UUID",
            ),
            (
                "{\"description\":\"a\",\"capability\":\"c\",\"group\":\"x\"}",
                "reserved",
            ),
            (
                "{\"description\":\"a\",\"capability\":\"c\",\"colour\":1,\"strict\":true}",
                "colour",
            ),
        ] {
            let problem = problem(line);
            assert!(problem.contains(part), "{part:?} is not in {problem}");
            assert!(!problem.contains("--description"), "{problem}");
        }
        let fine = "{\"description\":\"a\",\"capability\":\"c\",\"colour\":1,\"projectId\":\"p\"}";
        assert!(line(fine).item(&Fields::new()).is_ok());
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_than_a_request() {
        let mut text = vec![b'x'; 3 * LONGEST_LINE];
        text.extend(b"\n{}\n\xff\n{}");
        let mut file = file(&text);
        let read = lines(&mut file);
        assert!(read[0].text.as_ref().unwrap_err().contains("longer"));
        assert_eq!((read[1].number, &read[1].text), (2, &Ok("{}".to_owned())));
        assert!(read[2].text.as_ref().unwrap_err().contains("UTF-8"));
        assert_eq!((read[3].number, read.len()), (4, 4));
        // The digest is one of all there is, and the second reading gives the same.
        let first = file.rewind().unwrap();
        assert_eq!(lines(&mut file), read);
        assert_eq!(file.rewind().unwrap(), first);
        let other = &mut self::file(&text[1..]);
        lines(other);
        assert_ne!(other.rewind().unwrap(), first);
    }

    #[test]
    fn every_line_is_put_aside_as_it_came() {
        let long = [&vec![b'x'; 3 * LONGEST_LINE][..], b"\n"].concat();
        let parts: [&[u8]; 5] = [
            "\u{feff} {} \r\n".as_bytes(),
            b"# \xff is nobody's, and so is this\n",
            &long,
            b" \xff\xfe\r\n",
            b"{\"a\": \xff}",
        ];
        let mut file = file(&parts.concat());
        let read = lines(&mut file);
        assert_eq!(read.len(), 4, "{read:?}");
        for (line, part) in read.iter().zip([parts[0], parts[2], parts[3], parts[4]]) {
            let mut copied = Vec::new();
            file.copy(&line.bytes, &mut copied).unwrap();
            assert!(copied.starts_with(part), "{}", line.number);
            let end: &[u8] = if part.ends_with(b"\n") { b"" } else { b"\n" };
            assert_eq!(&copied[part.len()..], end);
        }
    }
}
