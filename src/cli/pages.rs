//! Listings that come page by page.

use loom_protocol::rest::{DeadLettersPage, PageInfo, WorkPage};
use loom_protocol::work::limits;
use serde::de::DeserializeOwned;

use super::exit::CliResult;
use super::output::note;
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

/// How many things to ask for at once.
pub(super) fn page_size(all: bool, limit: Option<usize>) -> Option<String> {
    let size = if all { Some(limits::PAGE) } else { limit };
    size.map(|size| size.to_string())
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

/// The page that begins at `cursor`, or all from there as one. `query`: of the page at a cursor.
pub(super) async fn fetch<P: Page>(
    api: &ApiClient,
    path: &str,
    all: bool,
    cursor: Option<&str>,
    query: impl Fn(Option<&str>) -> Query,
) -> CliResult<P> {
    let mut whole: P = api.get(&[path], &query(cursor)).await?;
    while let Some(cursor) = whole.info().next_cursor.take_if(|_| all) {
        let next: P = api.get(&[path], &query(Some(&cursor))).await?;
        whole.info().count = whole.extend(next);
    }
    Ok(whole)
}

/// Says how the rest is had, where there is more; `or`: another way than page by page.
pub(super) fn tell_more(page: &PageInfo, or: &str) {
    if let Some(cursor) = &page.next_cursor {
        note(&format!("there are more: --cursor {cursor}{or}"));
    }
}
