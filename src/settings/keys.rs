//! Every key, read off the types: its path, what it takes, and the sentence that `config/loom.toml` carries.

use std::sync::LazyLock;

pub use loom_actors::settings::Kind;
use loom_actors::settings::{Setting as _, Shape};

use super::types::Settings;

/// One key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Section and name, like `work.retry.backoff_first`.
    pub path: String,
    /// The name within its section.
    pub name: &'static str,
    /// What it means, a sentence.
    pub sentence: &'static str,
    /// What stands (commented out) in the sample where there is no default.
    pub example: &'static str,
}

/// A section with keys of its own.
#[derive(Debug, Clone)]
pub struct KeySection {
    /// Its path, without brackets.
    pub path: String,
    /// What it is about, a sentence.
    pub sentence: &'static str,
    /// Its keys.
    pub keys: Vec<Key>,
}

/// The sections in the order of the sample. Those below `[supervision]` repeat its keys and are left out.
pub static SECTIONS: LazyLock<Vec<KeySection>> = LazyLock::new(|| {
    let mut sections = Vec::new();
    collect("", Settings::SHAPE, "", &mut sections);
    sections
});

/// The keys in the order of the sample.
pub fn all() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| &section.keys)
}

fn collect(path: &str, shape: Shape, sentence: &'static str, sections: &mut Vec<KeySection>) {
    let mut keys = Vec::new();
    let mut below = Vec::new();
    for field in shape.fields() {
        let path = join(path, field.name);
        match field.shape {
            Shape::Key(_) => keys.push(Key {
                path,
                name: field.name,
                sentence: field.sentence,
                example: field.example.unwrap_or_default(),
            }),
            Shape::Section(_) => collect(&path, field.shape, field.sentence, &mut below),
        }
    }
    if !keys.is_empty() {
        let path = path.to_owned();
        sections.push(KeySection {
            path,
            sentence,
            keys,
        });
    }
    sections.append(&mut below);
}

/// The path of a name in a section.
pub fn join(section: &str, name: &str) -> String {
    if section.is_empty() {
        name.to_owned()
    } else {
        format!("{section}.{name}")
    }
}

/// What stands at a path, if there is such a key or section; at the empty one everything.
pub fn at(path: &str) -> Option<Shape> {
    let mut names = path.split('.').filter(|_| !path.is_empty());
    names.try_fold(Settings::SHAPE, |shape, name| {
        let field = shape.all().find(|field| field.name == name)?;
        Some(field.shape)
    })
}

/// What may stand inside a section: names of keys and of sections below it.
pub fn names_in(section: &str) -> Vec<&'static str> {
    let shape = at(section);
    let fields = shape.into_iter().flat_map(Shape::all);
    fields.map(|field| field.name).collect()
}

/// The name among `names` that was probably meant, if one is near enough.
pub fn did_you_mean<'a>(wrong: &str, names: &[&'a str]) -> Option<&'a str> {
    nearest(&wrong.to_ascii_lowercase().replace('-', "_"), names)
}

/// The same, of names that are written as they are.
pub fn nearest<'a>(wrong: &str, names: &[&'a str]) -> Option<&'a str> {
    names
        .iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(wrong, name), *name))
        .filter(|(likeness, name)| {
            *likeness >= 0.65 || (wrong.len() >= 4 && name.starts_with(wrong))
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
