//! Listings: page by page from the coordinator, printed in one of the forms.

use loom_protocol::rest::{AgentsPage, DeadLettersPage, PageInfo, WorkPage};
use loom_protocol::work::limits;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::exit::CliResult;
use super::naming::{Form, short_ids};
use super::output::{Output, Table, note};
use crate::api_client::ApiClient;

/// What is asked of one page.
pub(super) type Query = Vec<(&'static str, String)>;

/// The fields that are given.
pub(super) fn query<const N: usize>(fields: [(&'static str, Option<String>); N]) -> Query {
    let given = fields.into_iter();
    given
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// A page of a listing.
pub(super) trait Page: DeserializeOwned {
    /// Where it stands in the listing.
    fn info(&mut self) -> &mut PageInfo;
    /// Takes in the page that follows; gives how many things there are now.
    fn extend(&mut self, next: Self) -> usize;
}

impl Page for WorkPage {
    fn info(&mut self) -> &mut PageInfo {
        &mut self.page
    }

    fn extend(&mut self, next: Self) -> usize {
        self.work_items.extend(next.work_items);
        self.page = next.page;
        self.work_items.len()
    }
}

impl Page for AgentsPage {
    fn info(&mut self) -> &mut PageInfo {
        &mut self.page
    }

    fn extend(&mut self, next: Self) -> usize {
        self.agents.extend(next.agents);
        self.page = next.page;
        self.agents.len()
    }
}

impl Page for DeadLettersPage {
    fn info(&mut self) -> &mut PageInfo {
        &mut self.page
    }

    fn extend(&mut self, next: Self) -> usize {
        self.items.extend(next.items);
        self.page = next.page;
        self.items.len()
    }
}

/// How many things are wanted of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All there are.
    All,
    /// At most so many.
    Most(usize),
}

impl Wanted {
    /// What `--all` and `--limit` say.
    pub fn of(all: bool, limit: Option<usize>) -> Self {
        if all {
            Self::All
        } else {
            Self::Most(limit.unwrap_or(limits::DEFAULT_PAGE))
        }
    }

    /// How many to ask for when there are so many already; none: it is enough.
    fn next(self, have: usize) -> Option<usize> {
        match self {
            Self::All => Some(limits::PAGE),
            Self::Most(most) if have < most => Some((most - have).min(limits::PAGE)),
            Self::Most(_) => None,
        }
    }
}

/// What is wanted, from `cursor` on, as one page: a short page of the coordinator is not the end,
/// its cursor says where to go on. `query`: of the page at a cursor.
pub(super) async fn fetch<P: Page>(
    api: &ApiClient,
    path: &str,
    wanted: Wanted,
    cursor: Option<&str>,
    query: impl Fn(Option<&str>) -> Query,
) -> CliResult<P> {
    let page = |cursor: Option<&str>, limit: usize| {
        let mut query = query(cursor);
        query.push(("limit", limit.to_string()));
        query
    };
    // A limit of 0 is for the coordinator to refuse.
    let first = wanted.next(0).unwrap_or(0);
    let mut whole: P = api.get(&[path], &page(cursor, first)).await?;
    let mut have = whole.info().count;
    let previous = whole.info().prev_cursor.take();
    while let Some(limit) = wanted.next(have)
        && let Some(cursor) = whole.info().next_cursor.take()
    {
        let next: P = api.get(&[path], &page(Some(&cursor), limit)).await?;
        have = whole.extend(next);
        whole.info().count = have;
    }
    whole.info().prev_cursor = previous;
    Ok(whole)
}

/// Prints a listing in the form that is asked for. `rows`: the table, from the ids as they are to
/// be shown and whether all columns are wanted.
pub(super) fn print(
    out: Output,
    form: Form,
    answer: &impl Serialize,
    ids: Vec<String>,
    rows: impl FnOnce(&[String], bool) -> Table,
    empty: &str,
) -> CliResult {
    match form {
        Form::Json => out.json(answer),
        Form::Id if ids.is_empty() => Ok(()),
        Form::Id => out.text(&ids.join("\n")),
        Form::Wide => out.whole_table(&rows(&ids, true), empty),
        Form::Table => out.table(&rows(&short_ids(&ids), false), empty),
    }
}

/// Says how the rest is had, where there is more and people read it.
pub(super) fn tell_more(page: &PageInfo, form: Form) {
    if let Some(cursor) = page.next_cursor.as_ref().filter(|_| form != Form::Json) {
        note(&format!("there are more: --cursor {cursor}, or --all"));
    }
}
