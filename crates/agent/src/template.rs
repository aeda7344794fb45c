//! Placeholders in the arguments of the program. Pure.
//!
//! Each argument is filled in by itself, and what is filled in is never read again: a description
//! can't add arguments, and no shell sees it. A name in braces that is none of ours is refused at the start; other
//! braces (`awk '{print $1}'`, JSON) stay as they are.

use loom_protocol::work::WorkItem;

use super::feedback;

/// The names that may stand in braces. `{label.NAME}` and `{context.NAME}` come on top.
pub const NAMES: [&str; 14] = [
    "description",
    "descriptionFile",
    "id",
    "taskId",
    "capability",
    "boundary",
    "priority",
    "attempt",
    "project",
    "agent",
    "handle",
    "workdir",
    "context",
    "feedback",
];
/// What makes a directory differ from item to item; only these may stand in `--workdir`.
pub const PATH_NAMES: [&str; 6] = ["id", "attempt", "taskId", "capability", "boundary", "agent"];

/// How alike a mistyped name must be to one that exists to be taken for it.
const ALIKE: f64 = 0.88;

/// What the placeholders stand for.
pub struct Values<'a> {
    /// The item.
    pub item: &'a WorkItem,
    /// The attempt.
    pub attempt: u32,
    /// The guid of the agent.
    pub agent: String,
    /// The name of the agent.
    pub handle: &'a str,
    /// The directory that the program runs in.
    pub workdir: String,
    /// The file that the description stands in.
    pub description_file: String,
}

impl Values<'_> {
    /// What a name stands for; `None` where it is no placeholder.
    pub fn of(&self, name: &str) -> Option<String> {
        let item = self.item;
        Some(match name {
            "description" => item.description.clone(),
            "descriptionFile" => self.description_file.clone(),
            "id" => item.id.to_string(),
            "taskId" => item.task_id.clone(),
            "capability" => item.capability.clone(),
            "boundary" => item.boundary.clone(),
            "priority" => item.priority.to_string(),
            "attempt" => self.attempt.to_string(),
            "project" => item.project_id.clone(),
            "agent" => self.agent.clone(),
            "handle" => self.handle.to_owned(),
            "workdir" => self.workdir.clone(),
            "context" => match &item.context_data {
                Some(body) => String::from_utf8_lossy(body.as_bytes()).into_owned(),
                None => String::new(),
            },
            "feedback" => feedback::text(item),
            _ => match name.split_once('.') {
                Some(("label", label)) => item.labels.get(label).cloned().unwrap_or_default(),
                Some(("context", field)) => self.context_field(field),
                _ => return None,
            },
        })
    }

    /// A field of the context: a text as it is, anything else as JSON, nothing where it is absent.
    fn context_field(&self, field: &str) -> String {
        let context = self.item.context_data.as_ref();
        let context = context.and_then(|body| body.parse::<serde_json::Value>().ok());
        match context.as_ref().and_then(|context| context.get(field)) {
            None | Some(serde_json::Value::Null) => String::new(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }
}

/// Fills in one argument.
pub fn fill(argument: &str, values: &Values<'_>) -> String {
    replaced(argument, |name| values.of(name))
}

/// Whether an argument has a placeholder.
pub fn has_placeholder(argument: &str) -> bool {
    let mut found = false;
    replaced(argument, |name| {
        found |= is_known(name);
        None
    });
    found
}

/// What is wrong with the placeholders of an argument: a sentence about the first that does not exist, with those that do.
pub fn unknown(argument: &str) -> Option<String> {
    let mut found = None;
    replaced(argument, |name| {
        if found.is_none() && is_meant(name) && !is_known(name) {
            found = Some(name.to_owned());
        }
        None
    });
    let name = found?;
    let lower = name.to_lowercase();
    let alike = |known: &str| strsim::jaro_winkler(&lower, &known.to_lowercase());
    let meant = NAMES
        .into_iter()
        .filter(|known| alike(known) > ALIKE)
        .max_by(|one, other| alike(one).total_cmp(&alike(other)));
    let meant = meant.map(|known| format!("; did you mean {{{known}}}?"));
    let known = NAMES.map(|known| format!("{{{known}}}")).join(" ");
    Some(format!(
        "{{{name}}} is no placeholder{} There are: {known} {{context.FIELD}} {{label.NAME}}; {{{{{name}}}}} is written for the text {{{name}}} itself",
        meant.as_deref().unwrap_or(".")
    ))
}

/// Whether a name in braces is a placeholder.
pub fn is_known(name: &str) -> bool {
    NAMES.contains(&name) || name.starts_with("label.") || name.starts_with("context.")
}

/// Whether a name in braces is meant as a placeholder; `{1..3}` and `{.ID}` are not.
fn is_meant(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// Replaces each `{name}` for which there is a value. `{{name}}` is written for a literal `{name}`,
/// and `${name}` is left to the shell that it is meant for.
pub fn replaced(text: &str, mut value_of: impl FnMut(&str) -> Option<String>) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let (before, from_brace) = rest.split_at(start);
        filled.push_str(before);
        let literal = from_brace
            .strip_prefix("{{")
            .and_then(|inner| inner.split_once("}}"))
            .filter(|(name, _)| is_name(name) && is_meant(name));
        if let Some((name, after)) = literal {
            filled.extend(["{", name, "}"]);
            rest = after;
            continue;
        }
        let named = from_brace[1..]
            .split_once('}')
            .filter(|(name, _)| is_name(name) && !before.ends_with('$'));
        if let Some((value, after)) = named.and_then(|(name, after)| Some((value_of(name)?, after)))
        {
            filled.push_str(&value);
            rest = after;
        } else {
            filled.push('{');
            rest = &from_brace[1..];
        }
    }
    filled.push_str(rest);
    filled
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::item;

    fn filled(argument: &str, item: &WorkItem) -> String {
        fill(argument, &values(item))
    }

    fn values(item: &WorkItem) -> Values<'_> {
        Values {
            item,
            attempt: 3,
            agent: "the-guid".into(),
            handle: "ann",
            workdir: "/w".into(),
            description_file: "/d/description".into(),
        }
    }

    #[test]
    fn known_names_are_filled_in() {
        let mut item = item();
        item.description = "fix it".into();
        item.labels.insert("area".into(), "ui".into());
        item.context_data =
            Some(loom_protocol::Body::of(&serde_json::json!({"n": 4, "repo": "r"})).unwrap());
        assert_eq!(filled("{description}", &item), "fix it");
        assert_eq!(filled("{id}/{attempt}", &item), format!("{}/3", item.id));
        assert_eq!(filled("{label.area}-{label.none}", &item), "ui-");
        assert_eq!(filled("{context.repo}{context.n}", &item), "r4");
        assert_eq!(filled("{context}", &item), r#"{"n":4,"repo":"r"}"#);
        assert_eq!(filled("{handle}@{workdir}", &item), "ann@/w");
        assert_eq!(filled("@{descriptionFile}", &item), "@/d/description");
        assert_eq!(filled("[{feedback}]", &item), "[]");
    }

    #[test]
    fn what_is_filled_in_is_not_read_again() {
        let mut item = item();
        item.description = "{id} $(rm -rf /) {{id}}".into();
        assert_eq!(
            filled("do: {description}", &item),
            format!("do: {}", item.description)
        );
    }

    #[test]
    fn other_braces_stay() {
        let item = item();
        for plain in [
            "{print $1}",
            "{}",
            "{",
            "}{",
            "${id}",
            r#"{"id": 1}"#,
            "{print}",
            "{unknown.thing}",
            "{{.ID}} {{ name }} {1..3}",
        ] {
            assert_eq!(filled(plain, &item), plain);
        }
        assert_eq!(
            filled("{{id}} {{description}}", &item),
            "{id} {description}"
        );
        assert_eq!(filled("{{attempt}", &item), "{3");
        assert_eq!(filled("awk '{{print}}'", &item), "awk '{print}'");
    }

    #[test]
    fn a_placeholder_that_does_not_exist_is_refused_with_those_that_do() {
        for (argument, meant) in [
            ("{descripton}", "{description}"),
            ("{Description}", "{description}"),
            ("{taskid}", "{taskId}"),
            ("{descriptionfile}", "{descriptionFile}"),
        ] {
            let problem = unknown(argument).unwrap();
            let told = format!("{argument} is no placeholder; did you mean {meant}?");
            assert!(problem.starts_with(&told), "{problem}");
            assert!(problem.contains("{id} {taskId}") && problem.contains("{label.NAME}"));
        }
        let problem = unknown("a {{id}} {prompt}").unwrap();
        assert!(problem.starts_with("{prompt} is no placeholder. There are: {description}"));
        assert!(problem.contains("{{prompt}} is written for the text {prompt} itself"));
        for fine in [
            "{description}",
            "{context.a}{label.b}",
            "${HOME}",
            "{print $1}",
            "{}",
            "{{print}}",
            "{1..3}",
            "{a,b}",
            "{{.ID}}",
            "{\"a\":1}",
        ] {
            assert_eq!(unknown(fine), None, "{fine}");
        }
        assert!(has_placeholder("a{id}b") && !has_placeholder("{print}"));
    }
}
