use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;

/// The contract.
const CONTRACT: &str = include_str!("../../../../docs/protocol.md");

/// What a verb takes.
pub(super) struct Types {
    verb: VerbName,
    reads_request: fn(Value) -> Result<(), serde_json::Error>,
}

fn read<T: DeserializeOwned>(value: Value) -> Result<(), serde_json::Error> {
    serde_json::from_value::<T>(value).map(drop)
}

impl Types {
    pub(super) const fn of<Request: DeserializeOwned>(verb: VerbName) -> Self {
        Self {
            verb,
            reads_request: read::<Request>,
        }
    }
}

fn section(from: &str, to: &str) -> &'static str {
    let begin = CONTRACT.find(from).expect("the section is there") + from.len();
    let end = CONTRACT[begin..]
        .find(to)
        .expect("the next section is there");
    &CONTRACT[begin..begin + end]
}

#[test]
fn every_verb_has_one_row_one_name_and_one_path() {
    let (mut names, mut routes) = (HashSet::new(), HashSet::new());
    for (place, row) in VERBS.iter().enumerate() {
        assert_eq!(row.verb as usize, place, "{}", row.name);
        assert_eq!(row.verb.row().name, row.name);
        assert!(names.insert(row.name), "{} is there twice", row.name);
        if let Some(route) = row.route {
            assert!(routes.insert(route), "{route:?} is there twice");
        }
        assert!(
            row.route.is_some() || row.subjects != Subjects::None,
            "{} can be asked for nowhere",
            row.name
        );
    }
}

#[test]
fn who_names_an_agent_as_the_sender_needs_the_role_to_work() {
    for row in VERBS {
        let of_an_agent = row.sender != Sender::Nobody;
        assert_eq!(of_an_agent, row.role == Role::Work, "{}", row.name);
        assert!(row.sender.holds_liveness_check() || !row.sender.is_sign_of_life());
    }
}

#[test]
fn a_subject_names_a_verb_where_that_is_asked_for_and_nowhere_else() {
    for row in VERBS {
        for (project, subject) in [
            (Some("shop"), format!("coord.shop.{}", row.name)),
            (None, format!("coord.global.{}", row.name)),
        ] {
            let expected = match row.subjects {
                Subjects::None => false,
                Subjects::Project => project.is_some(),
                Subjects::Global => project.is_none(),
                Subjects::Both => true,
            };
            let found = Addressed::read(&subject);
            let verb = row.verb;
            let addressed = Addressed {
                project,
                verb,
                id: None,
            };
            assert_eq!(found, expected.then_some(addressed), "{subject}");
        }
    }
    let by_id = Addressed::read("coord.shop.work.status.01a203ca");
    let by_id = by_id.map(|addressed| (addressed.verb, addressed.id));
    assert_eq!(by_id, Some((VerbName::WorkGet, Some("01a203ca"))));
    for nothing in [
        "coord.shop",
        "coord.shop.",
        "coord.global.barrier.7",
        "loom.shop.work.get",
        "coord.shop.work.get.more",
        "coord.shop.spin-up.stop",
    ] {
        assert_eq!(Addressed::read(nothing), None, "{nothing}");
    }
}

proptest! {
    #[test]
    fn whatever_stands_in_a_subject_is_read_or_passed_over(subject in "(coord\\.)?[a-z.*>]{0,12}(\\.[a-z.-]{0,16})?") {
        if let Some(Addressed { project, verb, id }) = Addressed::read(&subject) {
            let name = id.map_or_else(|| verb.as_str().to_owned(), |id| format!("{STATUS_OF}{id}"));
            prop_assert_eq!(&subject, &format!("coord.{}.{name}", project.unwrap_or("global")));
        }
    }
}

/// The table as it stands in the contract.
fn shown() -> String {
    let mut shown = String::from(
        "| verb | over NATS | over REST | role | sign of life |\n|---|---|---|---|---|\n",
    );
    for row in VERBS {
        let subjects = match row.subjects {
            Subjects::None => "–",
            Subjects::Project => "`coord.{p}`",
            Subjects::Global => "`coord.global`",
            Subjects::Both => "`coord.{p}`, `coord.global`",
        };
        let route = row.route.map_or_else(
            || "–".to_owned(),
            |Route { method, path }| format!("`{method} {path}`"),
        );
        let alive = if row.sender.is_sign_of_life() {
            "yes"
        } else {
            "–"
        };
        let (name, role) = (row.name, row.role.as_str());
        writeln!(
            shown,
            "| `{name}` | {subjects} | {route} | `{role}` | {alive} |"
        )
        .unwrap();
    }
    shown
}

#[test]
fn the_contract_has_the_same_table() {
    let shown = shown();
    assert!(
        CONTRACT.contains(&shown),
        "the section \"All verbs\" of docs/protocol.md is to have this table:\n\n{shown}"
    );
}

/// The paths that the section about REST explains, as `METHOD /path`.
fn explained_paths() -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for line in section("\n## REST\n", "\n## Which store\n").lines() {
        let Some(first) = line
            .strip_prefix("| `")
            .and_then(|row| row.split(" | ").next())
        else {
            continue;
        };
        let (mut method, mut before) = (String::new(), String::new());
        for code in first.split('`') {
            let (named, path) = code.split_once(' ').unwrap_or(("", code));
            if ["GET", "POST", "PUT", "DELETE"].contains(&named) {
                named.clone_into(&mut method);
            }
            let path = path.split('?').next().unwrap_or_default();
            let path = path.replace("{guid}", "{id}");
            let path = match path.strip_prefix("…/{id}") {
                Some(rest) => before.clone() + rest,
                None => path,
            };
            if path.starts_with('/') {
                paths.insert(format!("{method} {path}"));
                before = path;
            }
        }
    }
    paths
}

#[test]
fn the_contract_explains_every_path_and_no_other() {
    let routes = VERBS.iter().filter_map(|row| row.route);
    let mut routes: BTreeSet<String> = routes
        .map(|Route { method, path }| format!("{method} {path}"))
        .collect();
    routes.extend(OPEN_PATHS.map(|path| format!("GET {path}")));
    assert_eq!(explained_paths(), routes);
}

#[test]
fn the_contract_explains_every_verb_of_nats() {
    let explained = section("\n## Requests\n", "\n### All verbs\n");
    for row in VERBS.iter().filter(|row| row.subjects != Subjects::None) {
        let name = match row.subjects {
            Subjects::Global if row.verb == VerbName::Projects => "`.projects`".to_owned(),
            Subjects::Global => format!("`.{}`", row.name),
            _ => format!("`{}`", row.name),
        };
        assert!(explained.contains(&name), "{name} is not explained");
    }
}

/// The requests among the examples of the contract: what is left out of them (`…`) is filled in, so that they can be read.
fn example_requests() -> Vec<(VerbName, String, Value)> {
    let (mut examples, mut explained) = (Vec::new(), "");
    let mut lines = section("\n## Requests\n", "\n## An item's life\n")
        .lines()
        .peekable();
    while let Some(line) = lines.next() {
        if let Some((name, _)) = line
            .strip_prefix("**`")
            .and_then(|rest| rest.split_once("`**"))
        {
            explained = name;
        }
        let Some(said) = line.strip_prefix("→ ") else {
            continue;
        };
        let mut said = said.to_owned();
        while let Some(more) = lines.next_if(|next| next.starts_with(' ')) {
            said += more.trim();
        }
        let (named, body) = said.split_at(said.find('{').expect("a body"));
        let named = match named.trim() {
            "" => explained,
            named => named,
        };
        let subject = match named.strip_prefix("coord.") {
            Some(_) => named.to_owned(),
            None => format!("coord.shop.{named}"),
        };
        let Addressed { verb, .. } = Addressed::read(&subject).expect(&subject);
        examples.push((verb, said.clone(), whole(body)));
    }
    examples
}

/// An example with what was left out of it.
fn whole(example: &str) -> Value {
    const ID: &str = "01a203ca-603d-7b4e-8d3f-0123456789ab";
    let has_gap = example.contains("{…,");
    let mut text = example.replace("{…,", "{");
    while let Some(end) = text.find("-…\"") {
        let begin = text[..end].rfind('"').expect("an id in quotes") + 1;
        let id = text[begin..=end].to_owned() + &ID[end + 1 - begin..];
        text.replace_range(begin..end + "-…".len(), &id);
    }
    let mut value: Value = serde_json::from_str(&text).expect(&text);
    if let (true, Value::Object(fields)) = (has_gap, &mut value) {
        for field in ["id", "guid"] {
            fields.entry(field).or_insert_with(|| ID.into());
        }
    }
    value
}

#[test]
fn every_request_among_the_examples_of_the_contract_can_be_read() {
    let examples = example_requests();
    assert!(
        examples.len() >= 12,
        "{} examples are found",
        examples.len()
    );
    for (verb, said, request) in examples {
        let types = &TYPES[verb as usize];
        assert_eq!(types.verb, verb);
        let read = (types.reads_request)(request);
        assert!(read.is_ok(), "{verb}: {said}: {read:?}");
    }
}

/// The schema itself, where it only names another one.
fn followed<'a>(schema: &'a Value, definitions: &'a Value) -> &'a Value {
    let Some(name) = schema["$ref"].as_str() else {
        return schema;
    };
    let name = name.strip_prefix("#/$defs/").expect("one of ours");
    definitions.get(name).expect("what is referred to is there")
}

fn assert_refers_to_what_is_there(schema: &Value, definitions: &Value) {
    match schema {
        Value::Object(fields) => {
            followed(schema, definitions);
            for inner in fields.values() {
                assert_refers_to_what_is_there(inner, definitions);
            }
        }
        Value::Array(inner) => {
            for inner in inner {
                assert_refers_to_what_is_there(inner, definitions);
            }
        }
        _ => {}
    }
}

#[test]
fn every_verb_has_schemas_that_are_complete() {
    let mut generator = schemars::SchemaGenerator::default();
    let schemas: Vec<_> = VERBS
        .iter()
        .map(|row| row.verb.schemas(&mut generator))
        .collect();
    let definitions = Value::Object(generator.take_definitions(false));
    assert_refers_to_what_is_there(&definitions, &definitions);
    for (row, schemas) in VERBS.iter().zip(schemas) {
        for schema in [schemas.request, schemas.answer] {
            let schema = schema.to_value();
            assert_refers_to_what_is_there(&schema, &definitions);
            let schema = followed(&schema, &definitions);
            let says_something = ["type", "anyOf", "oneOf"]
                .iter()
                .any(|word| schema.get(word).is_some());
            assert!(says_something, "{}: {schema}", row.name);
        }
    }
}

#[test]
fn the_examples_of_the_contract_have_the_fields_of_their_schemas() {
    for (verb, said, request) in example_requests() {
        let mut generator = schemars::SchemaGenerator::default();
        let schema = verb.schemas(&mut generator).request.to_value();
        let definitions = Value::Object(generator.take_definitions(false));
        let schema = followed(&schema, &definitions);
        let fields = request.as_object().expect("an object");
        for field in fields.keys() {
            let known = schema["properties"].get(field).is_some();
            // One example shows what becomes of a field that nobody knows.
            assert!(known || field == "colour", "{verb}: {field} of {said}");
        }
        for required in schema["required"].as_array().into_iter().flatten() {
            let is_there = fields.contains_key(required.as_str().expect("a name"));
            assert!(
                is_there,
                "{verb}: {required} is required, and not in {said}"
            );
        }
    }
}
