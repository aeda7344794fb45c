//! Text for a shell: quoted so that it stays what it is, and a line looked into.

use std::borrow::Cow;

/// One word of a line, whatever is in it: spaces, quotes, newlines, `$`. Nothing but NUL can't be written, and is left
/// out; configurations and names have none.
pub(crate) fn quoted(text: &str) -> String {
    let text: Cow<'_, str> = if text.contains('\0') {
        text.replace('\0', "").into()
    } else {
        text.into()
    };
    // In single quotes everything is itself; a single quote is written outside of them.
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The program that a line begins with, where it is written without anything that a shell would work out.
pub(crate) fn first_word(line: &str) -> Option<String> {
    let word = line.split_whitespace().next()?;
    let plain = |c: char| c.is_alphanumeric() || "._-/+@:,%".contains(c);
    let is_builtin = BUILT_IN.contains(&word);
    (word.chars().all(plain) && !is_builtin).then(|| word.to_owned())
}

/// Words that a shell understands by itself.
const BUILT_IN: [&str; 22] = [
    ".", ":", "cd", "exec", "export", "eval", "set", "unset", "umask", "ulimit", "trap", "if",
    "for", "while", "until", "case", "test", "command", "exit", "wait", "read", "shift",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn the_first_word_is_told_where_it_is_a_program() {
        for (line, word) in [
            ("loom agent run", Some("loom")),
            ("  /opt/a-b/c --x", Some("/opt/a-b/c")),
            ("A=1 x", None),
            ("cd /x && y", None),
            ("$X y", None),
            ("'a b' c", None),
            ("", None),
        ] {
            assert_eq!(first_word(line).as_deref(), word, "{line}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_shell_reads_what_was_quoted(texts in prop::collection::vec("[a-z'\"$`\\\\ \n\t!*?~#;&|<>(){}\\[\\]-]{0,12}|\\PC{0,6}", 1..4)) {
            let words: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
            let line = format!("printf '%s\\0' {}", words.join(" "));
            let said = Command::new("sh").args(["-c", &line]).output().unwrap().stdout;
            let expected = texts.join("\0") + "\0";
            prop_assert_eq!(String::from_utf8(said).unwrap(), expected);
        }
    }
}
