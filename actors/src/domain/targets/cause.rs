//! Why no agent came of a start, in one sentence, wherever that is told: what became of it, and what its program said last.

use loom_protocol::target::SAID_LAST;

/// How much of what it said is repeated, in characters; the whole is in the operation.
const SAID: usize = 200;

/// The sentence. `output`: the end of what was said, without secrets.
pub(super) fn cause(error: &str, output: Option<&str>) -> String {
    let mut lines = output.unwrap_or_default().lines().rev().map(str::trim);
    let last = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let said: String = last.chars().take(SAID).collect();
    if said.is_empty() || error.contains(&said) {
        return error.to_owned();
    }
    let is_cut = said.len() < last.len();
    let more = if is_cut { "…" } else { "" };
    format!("{error}{SAID_LAST}{said}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_was_said_is_told_once_and_not_at_length() {
        let error = "it ended: exit status: 127";
        for (output, expected) in [
            (None, error.to_owned()),
            (Some(" \n\n"), error.to_owned()),
            (
                Some("starting\nsh: 1: agnet: not found\n\n"),
                format!("{error}; it said: sh: 1: agnet: not found"),
            ),
            (Some("exit status: 127"), error.to_owned()),
            (
                Some(&*"é".repeat(300)),
                format!("{error}; it said: {}…", "é".repeat(SAID)),
            ),
        ] {
            assert_eq!(cause(error, output), expected);
        }
        let told = cause(error, Some("no such model"));
        assert_eq!(cause(&told, None), told, "it is not told twice");
        assert_eq!(cause(&told, Some("no such model")), told);
    }
}
