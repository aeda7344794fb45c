//! The directory of an item, from the template of `--workdir`. Pure.
//!
//! Two items have one directory only if all that the template names is the same for both. So what a value
//! can't have in a file's name is written as `%XX`, and so is what would make it run into the next value of
//! the same name: `{label.a}-{label.b}` with `x-y` and `z` is `x%2Dy-z`.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::template::{self, Values};

/// The longest that one value may be in a name, in bytes. File systems take 255 for all of it.
const LONGEST: usize = 96;
/// How much of a longer one is left before its digest, in bytes.
const READABLE: usize = 48;
/// How many bytes of the digest are written.
const DIGEST: usize = 16;
/// What stands for an empty value.
const EMPTY: &str = "%0";
/// What stands before a digest.
const LONG: &str = "%L";

/// A name of a path: text and placeholders by turns, text first and last.
type Name<'a> = Vec<&'a str>;

/// The directory for these values. A value can neither leave its directory nor add one.
pub fn directory(template: &str, values: &Values<'_>) -> String {
    let marked = marked(template);
    let names = marked.split('/').map(|name| {
        let parts: Name<'_> = name.split('\0').collect();
        let free = placeholders(&parts).filter(|name| is_free(name)).count();
        let mut filled = String::new();
        for (n, part) in parts.iter().enumerate() {
            if n % 2 == 0 {
                filled.push_str(part);
                continue;
            }
            let runs_on = free > 1 && n + 2 < parts.len() && is_free(part);
            let stop = parts[n + 1].chars().next().filter(|_| runs_on);
            filled.push_str(&escaped(&values.of(part).unwrap_or_default(), stop));
        }
        filled
    });
    names.collect::<Vec<_>>().join("/")
}

/// Whether two items can't share a directory by this template.
///
/// # Errors
/// Two values of it would run into each other; says which.
pub fn check(template: &str) -> Result<(), String> {
    let marked = marked(template);
    for name in marked.split('/') {
        let parts: Name<'_> = name.split('\0').collect();
        if placeholders(&parts).filter(|name| !is_fixed(name)).count() < 2 {
            continue;
        }
        for pair in parts[1..].chunks(2).collect::<Vec<_>>().windows(2) {
            let ([first, between], second) = (pair[0], pair[1][0]) else {
                continue;
            };
            let separates = |c: char| !c.is_ascii_alphanumeric() && c != '%';
            let is_clear = is_fixed(first) || between.chars().next().is_some_and(separates);
            if !is_clear {
                return Err(format!(
                    "--workdir: {{{first}}} and {{{second}}} run into each other, and two items could share a directory; write something like '-' behind {{{first}}}"
                ));
            }
        }
    }
    Ok(())
}

/// The template with NUL bytes around the names of its placeholders.
fn marked(template: &str) -> String {
    template::replaced(template, |name| {
        template::is_known(name).then(|| format!("\0{name}\0"))
    })
}

fn placeholders<'a>(parts: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    parts.iter().skip(1).step_by(2).copied()
}

/// Whether all values of a placeholder are of one length.
fn is_fixed(name: &str) -> bool {
    matches!(name, "id" | "agent")
}

/// Whether its values may hold anything.
fn is_free(name: &str) -> bool {
    !is_fixed(name) && name != "attempt"
}

/// A value as a part of a name; `stop` is what stands behind it.
fn escaped(value: &str, stop: Option<char>) -> String {
    if value.is_empty() {
        return EMPTY.into();
    }
    let mut escaped = String::with_capacity(value.len());
    for (at, c) in value.char_indices() {
        let is_plain =
            !(matches!(c, '/' | '%') || c.is_control() || Some(c) == stop || (c == '.' && at == 0));
        if is_plain {
            escaped.push(c);
        } else {
            push_hex(&mut escaped, "%", c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    if escaped.len() > LONGEST {
        escaped.truncate(escaped.floor_char_boundary(READABLE));
        escaped.push_str(LONG);
        push_hex(&mut escaped, "", &Sha256::digest(value)[..DIGEST]);
    }
    escaped
}

/// Writes bytes as two digits each, with this before each of them.
pub fn push_hex(text: &mut String, before: &str, bytes: &[u8]) {
    for byte in bytes {
        let written = write!(text, "{before}{byte:02X}");
        debug_assert!(written.is_ok(), "a String takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::item;
    use loom_protocol::work::WorkItem;
    use proptest::prelude::*;

    fn named(template: &str, item: &WorkItem, attempt: u32) -> String {
        let values = Values {
            item,
            attempt,
            agent: "the-guid".into(),
            handle: "ann",
            workdir: String::new(),
            description_file: String::new(),
        };
        directory(template, &values)
    }

    fn of_task(template: &str, task: &str) -> String {
        let mut item = item();
        item.task_id = task.into();
        named(template, &item, 3)
    }

    #[test]
    fn a_path_stays_in_its_directory() {
        for (task, path) in [
            ("../../etc/passwd", "/work/%2E.%2F..%2Fetc%2Fpasswd"),
            ("..", "/work/%2E."),
            ("", "/work/%0"),
            ("a/b", "/work/a%2Fb"),
            ("a_b", "/work/a_b"),
            ("a%2Fb", "/work/a%252Fb"),
            ("Fix the UI.v2-b", "/work/Fix the UI.v2-b"),
            ("a\0\nb", "/work/a%00%0Ab"),
        ] {
            assert_eq!(of_task("/work/{taskId}", task), path);
        }
    }

    #[test]
    fn ids_stay_as_they_are() {
        let item = item();
        let path = named("/work/{id}-{attempt}/{capability}", &item, 3);
        assert_eq!(path, format!("/work/{}-3/c", item.id));
    }

    #[test]
    fn a_long_value_is_cut_and_keeps_its_digest() {
        let (first, second) = ("ü".repeat(300) + "1", "ü".repeat(300) + "2");
        let [first, second] = [first, second].map(|task| of_task("/w/{taskId}", &task));
        assert_ne!(first, second);
        assert!(
            first.len() <= "/w/".len() + LONGEST && first.starts_with("/w/üüü"),
            "{first}"
        );
    }

    #[test]
    fn values_that_run_into_each_other_are_refused() {
        for good in [
            "/w/{id}",
            "/w/{id}{attempt}",
            "/w/{label.a}/{label.b}",
            "/w/{label.a}-{label.b}",
            "/w/{taskId}x",
            "/w/x{attempt}",
            "/w/{id}{label.a}",
            "/w/{label.a}_{attempt}_{taskId}",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "/w/{label.a}{attempt}",
            "/w/{label.a}x{label.b}",
            "/w/{attempt}%{taskId}",
        ] {
            let error = check(bad).unwrap_err();
            assert!(error.contains("run into each other"), "{bad}: {error}");
        }
    }

    fn value() -> impl Strategy<Value = String> {
        let long = Just("long-".repeat(30));
        prop_oneof![4 => "[a-b./%-]{0,4}", 2 => "[%0-9A-F]{0,5}", 1 => ".{0,6}", 1 => long]
    }

    proptest! {
        /// Whatever the labels hold: one directory means one set of values, and it is one level deep.
        #[test]
        fn different_values_have_different_directories(
            first in (value(), value(), 1_u32..30), second in (value(), value(), 1_u32..30),
        ) {
            for template in ["/w/{label.a}-{label.b}_{attempt}", "/w/{label.a}.{attempt}-{label.b}"] {
                prop_assert_eq!(check(template), Ok(()));
                let [one, other] = [&first, &second].map(|(a, b, attempt)| {
                    let mut item = item();
                    item.labels.insert("a".into(), a.clone());
                    item.labels.insert("b".into(), b.clone());
                    named(template, &item, *attempt)
                });
                prop_assert_eq!(one == other, first == second, "{} {}", one, other);
                prop_assert_eq!(one.matches('/').count(), 2);
                prop_assert!(one.len() < 255 && !one.contains('\0'));
            }
        }
    }
}
