//! `loom agents --unreadable`: entries that cannot be taken for agents.

use loom_protocol::rest::UnreadablePage;

use super::exit::CliResult;
use super::output::{Output, note, table};
use super::pages;
use super::table::Column;
use crate::api_client::ApiClient;

/// Lists them, each with the reason.
pub(super) async fn list(out: Output, api: &ApiClient, limit: Option<usize>) -> CliResult {
    let query = pages::query([
        ("unreadable", Some("true".to_owned())),
        ("limit", limit.map(|limit| limit.to_string())),
    ]);
    let page: UnreadablePage = api.get(&["agents"], &query).await?;
    if out.is_json() {
        return out.json(&page);
    }
    let mut rows = table(&[
        Column::cut("BUCKET", 14, 2).at_most(48),
        Column::whole("KEY"),
        Column::cut("PROJECT", 8, 1).at_most(64),
        Column::text("REASON", 24),
    ]);
    for entry in page.unreadable {
        let project = entry.project_id.unwrap_or_else(|| "-".to_owned());
        rows.add_row([entry.bucket, entry.key, project, entry.reason]);
    }
    out.table(&rows, "every entry can be read")?;
    if page.total > page.count {
        let (shown, all) = (page.count, page.total);
        note(&format!("{shown} of {all}; --limit shows more"));
    }
    Ok(())
}
