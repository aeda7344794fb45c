//! The block itself, and where it stands in a text. Pure.

use std::fmt;
use std::ops::Range;

/// The line before it.
const BEGIN: &str =
    "<!-- loom: begin (written by `loom init`, which replaces what stands between these marks) -->";
/// How every version began it.
const BEGINS_WITH: &str = "<!-- loom: begin";
/// The line behind it.
const END: &str = "<!-- loom: end -->";

const TEXT: &str = include_str!("block.md");

/// What is not understood about a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// The block that begins in this line does not end.
    NoEnd(usize),
    /// A block ends in this line that has not begun.
    NoBegin(usize),
    /// Another block begins in this line.
    Second(usize),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEnd(line) => write!(
                f,
                "the block that begins in line {line} has no end ({END}); write it behind what is Loom's, or take the first mark out"
            ),
            Self::NoBegin(line) => write!(
                f,
                "a block ends in line {line} that has not begun; take that mark out"
            ),
            Self::Second(line) => {
                write!(
                    f,
                    "another block begins in line {line}; take one of them out"
                )
            }
        }
    }
}

/// The block with its marks, and a line feed of this kind at the end of each line.
pub fn whole(line_feed: &str) -> String {
    let text = format!("{BEGIN}\n{}\n{END}\n", TEXT.trim());
    if line_feed == "\n" {
        return text;
    }
    text.replace('\n', line_feed)
}

/// Whether there is one.
pub fn is_in(text: &str) -> bool {
    matches!(place(text), Ok(Some(_)))
}

/// The text with the block of this version; `None` where it has that.
///
/// # Errors
/// What is Loom's in it is not known.
pub fn with(text: &str) -> Result<Option<String>, Broken> {
    let line_feed = line_feed_of(text);
    let block = whole(line_feed);
    let Some(place) = place(text)? else {
        let gap = match text {
            "" => String::new(),
            text if text.ends_with('\n') => line_feed.to_owned(),
            _ => line_feed.repeat(2),
        };
        return Ok(Some(format!("{text}{gap}{block}")));
    };
    // The last line of a file may lack its line feed.
    let is_current = text[place.clone()].trim_end() == block.trim_end();
    let replaced = || format!("{}{block}{}", &text[..place.start], &text[place.end..]);
    Ok((!is_current).then(replaced))
}

/// The text without a block, and without the empty line that was put before it; `None` where there is none.
///
/// # Errors
/// What is Loom's in it is not known.
pub fn without(text: &str) -> Result<Option<String>, Broken> {
    let Some(place) = place(text)? else {
        return Ok(None);
    };
    let (before, behind) = (&text[..place.start], &text[place.end..]);
    let gap = before.strip_suffix(line_feed_of(text));
    let gapless = gap.filter(|gapless| behind.is_empty() && gapless.ends_with('\n'));
    let before = gapless.unwrap_or(before);
    Ok(Some(format!("{before}{behind}")))
}

/// From the mark at the beginning to the end of the line of the other one.
fn place(text: &str) -> Result<Option<Range<usize>>, Broken> {
    let (mut begun, mut place, mut at) = (None, None, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let (number, behind) = (number + 1, at + line.len());
        let words = line.trim();
        if words.starts_with(BEGINS_WITH) && words.ends_with("-->") {
            if begun.is_some() || place.is_some() {
                return Err(Broken::Second(number));
            }
            begun = Some((number, at));
        } else if words == END {
            let (_, from) = begun.take().ok_or(Broken::NoBegin(number))?;
            place = Some(from..behind);
        }
        at = behind;
    }
    match begun {
        Some((number, _)) => Err(Broken::NoEnd(number)),
        None => Ok(place),
    }
}

/// The kind of line feeds that a text has: that of its first line.
fn line_feed_of(text: &str) -> &'static str {
    let first = text.split_inclusive('\n').next().unwrap_or_default();
    if first.ends_with("\r\n") {
        "\r\n"
    } else {
        "\n"
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
