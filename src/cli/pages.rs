//! Listings: page by page from the coordinator, printed in one of the forms.

use std::cmp::Reverse;
use std::collections::HashSet;

use clap::Args;
use loom_protocol::agent::Agent;
use loom_protocol::dead_letter::DeadLetter;
use loom_protocol::rest::{
    AgentsPage, DeadLettersPage, PageInfo, ProjectsAnswer, SpinUpsPage, TargetsPage, WorkPage,
};
use loom_protocol::target::{SpinUpOperation, TargetAnswer};
use loom_protocol::work::{WorkItem, limits};
use loom_protocol::{ProjectId, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::exit::{CliError, CliResult};
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
    /// What is listed.
    type Item;
    /// Where it stands in the listing.
    fn info(&mut self) -> &mut PageInfo;
    /// What is on it.
    fn items(&mut self) -> &mut Vec<Self::Item>;
    /// Takes in the page that follows; gives how many things there are now.
    fn extend(&mut self, mut next: Self) -> usize {
        self.items().append(next.items());
        *self.info() = std::mem::take(next.info());
        self.items().len()
    }
}

macro_rules! page {
    ($page:ty, $items:ident: $item:ty) => {
        impl Page for $page {
            type Item = $item;

            fn info(&mut self) -> &mut PageInfo {
                &mut self.page
            }

            fn items(&mut self) -> &mut Vec<Self::Item> {
                &mut self.$items
            }
        }
    };
}

page!(WorkPage, work_items: WorkItem);
page!(AgentsPage, agents: Agent);
page!(DeadLettersPage, items: DeadLetter);
page!(TargetsPage, targets: TargetAnswer);
page!(SpinUpsPage, operations: SpinUpOperation);

/// How much of a listing, and from where on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ExtentArgs {
    /// At most so many; 50 where absent.
    #[arg(long, value_name = "NUMBER", conflicts_with = "all")]
    limit: Option<usize>,
    /// Begin where the last page ended.
    #[arg(long, conflicts_with = "all_projects")]
    cursor: Option<String>,
    /// All of them, page by page.
    #[arg(long)]
    all: bool,
}

impl ExtentArgs {
    /// How much.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted::of(self.all, self.limit)
    }

    /// From where on.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }
}

/// What a command was asked to list, of one project or of all.
pub(super) trait Listing {
    /// As the coordinator answers.
    type Page: Page;
    /// Where it is asked for.
    const PATH: &str;
    /// The query of one page.
    fn query(&self, cursor: Option<&str>) -> Query;
    /// How much, and from where on.
    fn extent(&self) -> &ExtentArgs;
    /// Whether the oldest come first, and else the newest.
    fn oldest_first(&self) -> bool;
    /// How old one is, in the order of the coordinator.
    fn time(item: &<Self::Page as Page>::Item) -> Timestamp;
    /// The order that is not the coordinator's.
    fn put_in_order(&self, items: &mut [<Self::Page as Page>::Item]);
}

/// What is asked for, as one page.
pub(super) async fn listed<L: Listing>(api: &ApiClient, listing: &L) -> CliResult<L::Page> {
    let extent = listing.extent();
    let (wanted, cursor) = (extent.wanted(), extent.cursor.as_deref());
    let query = |cursor: Option<&str>| listing.query(cursor);
    let mut page: L::Page = fetch(api, L::PATH, wanted, cursor, query).await?;
    listing.put_in_order(page.items());
    Ok(page)
}

/// The same of all projects: each is asked for as many as are wanted.
pub(super) async fn listed_everywhere<L: Listing>(
    api: &ApiClient,
    listing: &L,
) -> CliResult<L::Page> {
    let mut page =
        fetch_everywhere(api, async |api: &ApiClient| listed(api, listing).await).await?;
    if listing.oldest_first() {
        page.items().sort_by_key(L::time);
    } else {
        page.items().sort_by_key(|item| Reverse(L::time(item)));
    }
    if let Wanted::Most(most) = listing.extent().wanted()
        && page.items().len() > most
    {
        page.items().truncate(most);
        page.info().count = most;
        page.info().has_more = true;
    }
    listing.put_in_order(page.items());
    Ok(page)
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

/// Every project that is awake, or the first where all sleep; of those that sleep, which have no agents and nothing to do, it
/// is said how many there are.
pub(super) async fn projects(api: &ApiClient) -> CliResult<Vec<ProjectId>> {
    let answer: ProjectsAnswer = api.get(&["stats", "projects"], &[]).await?;
    let sleeping = answer.details.iter().filter(|project| project.asleep);
    let asleep: HashSet<&str> = sleeping
        .map(|project| project.project_id.as_str())
        .collect();
    let names = answer.projects.iter().map(String::as_str);
    let mut wanted: Vec<&str> = names.filter(|name| !asleep.contains(name)).collect();
    if wanted.is_empty() {
        wanted.extend(answer.projects.first().map(String::as_str));
    }
    let left = answer.projects.len() - wanted.len();
    if left > 0 {
        note(&format!(
            "{left} projects sleep and are not looked into: `loom projects` names them, --project NAME wakes one"
        ));
    }
    let projects: Result<_, _> = wanted.into_iter().map(ProjectId::new).collect();
    projects.map_err(|error| CliError::Failed(error.to_string()))
}

/// What is wanted of every project, as one page: `of_one` of each. There is no cursor into it.
async fn fetch_everywhere<P: Page>(
    api: &ApiClient,
    of_one: impl AsyncFn(&ApiClient) -> CliResult<P>,
) -> CliResult<P> {
    let mut whole: Option<P> = None;
    let mut info = PageInfo::default();
    for project in projects(api).await? {
        let mut page = of_one(&api.of_project(project)).await?;
        info.count += page.info().count;
        info.total += page.info().total;
        info.has_more |= page.info().next_cursor.is_some();
        match &mut whole {
            None => whole = Some(page),
            Some(whole) => drop(whole.extend(page)),
        }
    }
    let message = "the coordinator names no project; it is one of another version";
    let mut whole = whole.ok_or_else(|| CliError::Failed(message.into()))?;
    *whole.info() = info;
    Ok(whole)
}

/// Prints a listing in the form that is asked for. `rows`: the table, from the ids as they are to
/// be shown and whether all columns are wanted.
pub(super) fn print(
    out: Output,
    form: Form,
    answer: &impl Serialize,
    ids: &[String],
    rows: impl FnOnce(&[String], bool) -> Table,
    empty: &str,
) -> CliResult {
    match form {
        Form::Json => out.json(answer),
        Form::Id if ids.is_empty() => Ok(()),
        Form::Id => out.text(&ids.join("\n")),
        Form::Wide => out.whole_table(&rows(ids, true), empty),
        Form::Table => out.table(&rows(&short_ids(ids), false), empty),
    }
}

/// Says how the rest is had, where there is more and people read it.
pub(super) fn tell_more(page: &PageInfo, form: Form) {
    match &page.next_cursor {
        _ if form == Form::Json => {}
        Some(cursor) => note(&format!("there are more: --cursor {cursor}, or --all")),
        None if page.has_more => note("there are more: --all, or name one --project"),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Json;
    use axum::extract::Query as Asked;
    use axum::routing::get;
    use loom_protocol::work::sample_item as item;
    use std::collections::HashMap;

    /// A coordinator with 7 pages of which every other one is empty, and the others hold one item.
    async fn peer() -> ApiClient {
        let page = |asked: Asked<HashMap<String, String>>| async move {
            let at: usize = asked
                .0
                .get("cursor")
                .map_or(0, |cursor| cursor.parse().unwrap());
            let items = if at % 2 == 1 {
                vec![item()]
            } else {
                Vec::new()
            };
            let next = (at < 6).then(|| (at + 1).to_string());
            let page = PageInfo {
                count: items.len(),
                total: 3,
                has_more: next.is_some(),
                next_cursor: next,
                prev_cursor: None,
            };
            Json(WorkPage {
                work_items: items,
                page,
            })
        };
        let router = axum::Router::new().route("/api/work", get(page));
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });
        ApiClient::new(&url, None, None).unwrap()
    }

    #[tokio::test]
    async fn a_short_page_is_gone_on_from_until_it_is_full_or_all_was_seen() {
        let api = peer().await;
        let cursor = |cursor: Option<&str>| query([("cursor", cursor.map(Into::into))]);
        let fetch = async |wanted| {
            fetch::<WorkPage>(&api, "work", wanted, None, cursor)
                .await
                .unwrap()
        };
        let page = fetch(Wanted::Most(2)).await;
        assert_eq!((page.work_items.len(), page.page.count), (2, 2));
        assert_eq!(page.page.next_cursor.as_deref(), Some("4"));
        for wanted in [Wanted::Most(50), Wanted::All] {
            let page = fetch(wanted).await;
            assert_eq!((page.work_items.len(), page.page.count), (3, 3));
            assert!(page.page.next_cursor.is_none() && !page.page.has_more);
        }
    }
}
