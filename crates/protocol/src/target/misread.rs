//! Why a value of a configuration can't be read, in the words of whoever writes one: what it is, and what to write.

/// The sentence for an error of serde, without a field: `is "abc"; write a whole number from 0 to 65535`.
pub(super) fn sentence(error: &str) -> String {
    let told = |words: String| words.chars().take(MOST).collect();
    let Some((is, expected)) = error.rsplit_once(", expected ") else {
        return told(format!("can't be read: {error}"));
    };
    match what_it_is(is) {
        Some(is) => told(format!("is {is}; write {}", what_to_write(expected))),
        None => told(format!("can't be read: {error}")),
    }
}

/// How long a sentence is at the most, in characters.
const MOST: usize = 256;

/// The value, as it was written where it is short, or else its kind.
fn what_it_is(told: &str) -> Option<String> {
    if let Some(variant) = told.strip_prefix("unknown variant ") {
        return Some(format!("{:?}", variant.trim_matches('`')));
    }
    let value = told
        .strip_prefix("invalid type: ")
        .or_else(|| told.strip_prefix("invalid value: "))?;
    let kinds = ["string ", "integer ", "floating point ", "boolean "];
    let written = kinds.iter().find_map(|kind| value.strip_prefix(kind));
    Some(match (written, value) {
        (Some(written), _) => written.trim_matches('`').to_owned(),
        (None, "map") => "an object".into(),
        (None, "sequence") => "a list".into(),
        (None, other) => other.to_owned(),
    })
}

fn what_to_write(expected: &str) -> String {
    let words = match expected {
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, not below 0",
        "a string" | "string or map" => "text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => {
            let words: Vec<&str> = other.split('`').skip(1).step_by(2).collect();
            return match words.split_last() {
                Some((last, [])) => (*last).to_owned(),
                Some((last, others)) => format!("{} or {last}", others.join(", ")),
                None => other.to_owned(),
            };
        }
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{HttpMethod, KnownHosts};
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn of<T: DeserializeOwned>(value: Value) -> String {
        let read: Result<T, _> = serde_json::from_value(value);
        sentence(&read.err().expect("it is refused").to_string())
    }

    #[test]
    fn what_a_value_is_and_what_to_write_is_said_without_words_of_the_program() {
        for (said, expected) in [
            (
                of::<u16>(json!("abc")),
                "is \"abc\"; write a whole number from 0 to 65535",
            ),
            (
                of::<u16>(json!(99999)),
                "is 99999; write a whole number from 0 to 65535",
            ),
            (
                of::<u64>(json!(-1)),
                "is -1; write a whole number, not below 0",
            ),
            (
                of::<u64>(json!(1.5)),
                "is 1.5; write a whole number, not below 0",
            ),
            (
                of::<bool>(json!("maybe")),
                "is \"maybe\"; write true or false",
            ),
            (
                of::<u16>(json!("a, expected b")),
                "is \"a, expected b\"; write a whole number from 0 to 65535",
            ),
            (of::<String>(json!({})), "is an object; write text"),
            (of::<String>(json!(true)), "is true; write text"),
            (of::<Vec<u16>>(json!(200)), "is 200; write a list"),
            (
                of::<KnownHosts>(json!("maybe")),
                "is \"maybe\"; write strict or accept-new",
            ),
            (
                of::<HttpMethod>(json!("DELETE")),
                "is \"DELETE\"; write GET, POST or PUT",
            ),
        ] {
            assert_eq!(said, expected);
        }
        assert!(
            sentence(&format!(
                "invalid type: string {:?}, expected u16",
                "x".repeat(9000)
            ))
            .len()
                <= 4 * MOST
        );
        assert_eq!(sentence("a riddle"), "can't be read: a riddle");
    }
}
