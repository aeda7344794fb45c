//! One value: whether it is of the kind that its key takes. The kind decides, never the look of the text.

use std::net::SocketAddr;

use loom_actors::settings::Kind;
use loom_protocol::ProjectId;
use loom_protocol::url::redacted;
use toml::Value;

/// Checks a value of the file.
pub(super) fn from_toml(kind: Kind, value: &Value) -> Result<Value, String> {
    match (kind, value) {
        (Kind::Secrets, Value::Array(tokens)) => tokens
            .iter()
            .map(|token| match token {
                Value::String(text) => check_token(text),
                _ => Err("holds something else than text; write tokens = [\"…\"]".into()),
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Value::Array),
        (Kind::SomeOf(words), Value::Array(list)) => list
            .iter()
            .map(|word| match word {
                Value::String(text) => from_text(Kind::OneOf(words), text),
                _ => Err("holds something else than text".into()),
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Value::Array),
        (Kind::SomeOf(words), _) => Err(format!(
            "is a list of texts; write for example [\"{}\"]",
            words[0]
        )),
        (Kind::Tables, Value::Array(list)) if list.iter().all(Value::is_table) => Ok(value.clone()),
        (Kind::Tables, other) => Err(format!(
            "is a table in double brackets for each, not {}",
            shape(other)
        )),
        (Kind::Secrets, _) => Err("is a list of texts; write tokens = [\"…\"]".into()),
        (Kind::Whole(min, max), Value::Integer(number)) => check_whole(*number, min, max),
        (Kind::Whole(..), other) => Err(format!(
            "is a whole number, not {}; write it without quotes",
            shape(other)
        )),
        (Kind::Flag, Value::Boolean(_)) => Ok(value.clone()),
        (Kind::Flag, other) => Err(format!(
            "is true or false, without quotes, not {}",
            shape(other)
        )),
        (Kind::Duration(_), Value::Integer(number)) => Err(format!(
            "= {number} has no unit; write \"{number}s\" (also ms, m, h, d)"
        )),
        (_, Value::String(text)) => from_text(kind, text),
        (Kind::Duration(_), other) => Err(format!(
            "is a length of time as text, like \"30s\", not {}",
            shape(other)
        )),
        (_, other) => Err(format!("is text in quotes, not {}", shape(other))),
    }
}

/// Checks a value of the environment or of the command line.
pub(super) fn from_text(kind: Kind, text: &str) -> Result<Value, String> {
    if text.trim().is_empty() && !matches!(kind, Kind::Secrets | Kind::SomeOf(_)) {
        return Err("is empty; leave it out to keep the default".into());
    }
    match kind {
        Kind::Text | Kind::Secret => Ok(Value::String(text.into())),
        Kind::Secrets => text
            .split(',')
            .map(str::trim)
            .filter(|token| !token.is_empty())
            .map(check_token)
            .collect::<Result<Vec<_>, _>>()
            .map(Value::Array),
        Kind::SomeOf(words) => text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(|word| from_text(Kind::OneOf(words), word))
            .collect::<Result<Vec<_>, _>>()
            .map(Value::Array),
        Kind::Tables => Err("stands in the file only, as a table in double brackets".into()),
        Kind::ServerUrl => check_urls(text),
        Kind::Address => text
            .parse::<SocketAddr>()
            .map(|_| Value::String(text.into()))
            .map_err(|_| format!("= {text:?} is no address; write it like \"127.0.0.1:4222\"")),
        Kind::Duration(least) => check_duration(text, least),
        Kind::Whole(min, max) => match text.trim().parse() {
            Ok(number) => check_whole(number, min, max),
            Err(_) => Err(format!("= {text:?} is no whole number")),
        },
        Kind::Flag => match text.trim() {
            "true" => Ok(Value::Boolean(true)),
            "false" => Ok(Value::Boolean(false)),
            _ => Err(format!("= {text:?} is neither true nor false")),
        },
        Kind::OneOf(words) if words.contains(&text) => Ok(Value::String(text.into())),
        Kind::OneOf(words) => Err(format!("= {text:?} is not one of {}", words.join(", "))),
        Kind::Project => ProjectId::new(text)
            .map(|_| Value::String(text.into()))
            .map_err(|error| format!("is no project id: {error}")),
    }
}

fn check_whole(number: i64, min: i64, max: i64) -> Result<Value, String> {
    if (min..=max).contains(&number) {
        Ok(Value::Integer(number))
    } else {
        Err(format!("= {number} is out of range; write {min} to {max}"))
    }
}

fn check_duration(text: &str, least_ms: u64) -> Result<Value, String> {
    let length = humantime::parse_duration(text).map_err(|error| {
        if text.trim().parse::<f64>().is_ok() {
            format!("= {text:?} has no unit; write \"{}s\" (also ms, m, h, d)", text.trim())
        } else {
            format!("= {text:?} is no length of time ({error}); write a number and a unit, like \"30s\", \"5m\" or \"24h\"")
        }
    })?;
    if length.as_millis() < u128::from(least_ms) {
        return Err(format!(
            "= {text:?} is too short; write at least \"{least_ms}ms\""
        ));
    }
    Ok(Value::String(text.into()))
}

fn check_urls(text: &str) -> Result<Value, String> {
    const SCHEMES: [&str; 4] = ["nats", "tls", "ws", "wss"];
    let shown = redacted(text);
    for url in shown.split(',') {
        let (scheme, rest) = url.trim().split_once("://").unwrap_or(("nats", url));
        if !SCHEMES.contains(&scheme) || rest.is_empty() {
            return Err(format!(
                "= {shown:?} is no NATS URL; write it like \"nats://host:4222\" (or tls, ws, wss)"
            ));
        }
    }
    Ok(Value::String(text.into()))
}

fn check_token(token: &str) -> Result<Value, String> {
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(
            "holds a token that is empty or has characters that no header can carry; write printable ASCII without spaces"
                .into(),
        );
    }
    Ok(Value::String(token.into()))
}

const fn shape(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_decides_and_not_the_look() {
        let read = |kind, text| from_text(kind, text).unwrap();
        assert_eq!(read(Kind::Text, "3000"), Value::String("3000".into()));
        assert_eq!(read(Kind::Secret, "true"), Value::String("true".into()));
        assert_eq!(read(Kind::Whole(0, 9), "7"), Value::Integer(7));
        assert_eq!(read(Kind::Flag, "true"), Value::Boolean(true));
        assert_eq!(
            read(Kind::Secrets, "a, b,"),
            Value::Array(vec!["a".into(), "b".into()])
        );
        assert_eq!(read(Kind::Secrets, ""), Value::Array(vec![]));
        let words = Kind::SomeOf(&["one", "two"]);
        assert_eq!(
            read(words, "two, one"),
            Value::Array(vec!["two".into(), "one".into()])
        );
    }

    #[test]
    fn a_number_without_a_unit_is_told_what_to_write() {
        let from_file = from_toml(Kind::Duration(1), &Value::Integer(30)).unwrap_err();
        assert_eq!(
            from_file,
            "= 30 has no unit; write \"30s\" (also ms, m, h, d)"
        );
        let from_env = from_text(Kind::Duration(1), "30").unwrap_err();
        assert!(from_env.contains("write \"30s\""), "{from_env}");
        assert!(from_text(Kind::Duration(1), "soon").is_err());
        assert!(from_text(Kind::Duration(10), "1ms").is_err());
    }

    #[test]
    fn wrong_values_are_refused_and_secrets_not_repeated() {
        assert!(from_toml(Kind::Whole(0, 9), &Value::Integer(10)).is_err());
        assert!(from_toml(Kind::Whole(0, 9), &Value::String("7".into())).is_err());
        assert!(from_toml(Kind::Text, &Value::Integer(7)).is_err());
        assert!(from_text(Kind::OneOf(&["safe"]), "fats").is_err());
        assert!(from_text(Kind::SomeOf(&["one", "two"]), "two, three").is_err());
        assert!(from_toml(Kind::SomeOf(&["one"]), &Value::String("one".into())).is_err());
        assert!(from_text(Kind::Address, "here").is_err());
        assert!(from_text(Kind::Project, "a.b").is_err());
        let error = from_text(Kind::ServerUrl, "http://me:hunter2@h").unwrap_err();
        assert!(error.contains("***") && !error.contains("hunter2"));
        let error = from_text(Kind::Secrets, "good,b d").unwrap_err();
        assert!(!error.contains("b d"));
    }
}
