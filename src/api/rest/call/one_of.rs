//! Parameters of a query that are one of a few words.

use super::{Call, find};
use crate::api::rest::error::{RestError, RestResult};
use crate::settings::keys::did_you_mean;

/// In which order a list may be.
const ORDERS: [&str; 2] = ["asc", "desc"];
/// How much of a wrong word is repeated, in characters.
const SHOWN: usize = 64;

impl Call {
    /// A parameter that is one of a few words.
    ///
    /// # Errors
    /// It is another one: the parameter, what it says, and which there are.
    pub fn one_of<T: Copy>(
        &self,
        name: &str,
        all: &[T],
        word: impl Fn(T) -> &'static str,
    ) -> RestResult<Option<T>> {
        let text = find(&self.query, name);
        text.map(|text| chosen(name, text, all, word)).transpose()
    }

    /// In which order a list is wanted: the oldest first (`asc`), or the newest (`desc`).
    ///
    /// # Errors
    /// It is another word.
    pub fn order(&self) -> RestResult<Option<String>> {
        let order = self.one_of("order", &ORDERS, |order| order)?;
        Ok(order.map(str::to_owned))
    }

    /// A parameter that is several of a few words, with commas between them; as it stands in the query.
    ///
    /// # Errors
    /// One of them is another word.
    pub fn some_of<T: Copy>(
        &self,
        name: &str,
        all: &[T],
        word: impl Fn(T) -> &'static str,
    ) -> RestResult<Option<String>> {
        let text = find(&self.query, name);
        for part in text.iter().flat_map(|text| text.split(',')) {
            chosen(name, part.trim(), all, &word)?;
        }
        Ok(text.map(str::to_owned))
    }
}

/// The one that a text means.
pub(in crate::api::rest) fn chosen<T: Copy>(
    name: &str,
    text: &str,
    all: &[T],
    word: impl Fn(T) -> &'static str,
) -> RestResult<T> {
    let found = all.iter().copied().find(|known| word(*known) == text);
    found.ok_or_else(|| {
        let words: Vec<&str> = all.iter().map(|known| word(*known)).collect();
        let shown: String = text.chars().take(SHOWN).collect();
        let known = words.join(", ");
        let hint = did_you_mean(&shown, &words);
        let hint = hint.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        RestError::invalid(format!("{name} = {shown:?} is none of {known}{hint}"))
    })
}
