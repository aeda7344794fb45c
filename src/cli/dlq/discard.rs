//! `loom dlq discard`: by ids, by a filter, or all.

use futures_util::{StreamExt as _, stream};
use loom_protocol::ErrorCode;
use loom_protocol::rest::DeadLettersPage;
use loom_protocol::work::limits;
use serde_json::json;

use super::selection::Selection;
use crate::api_client::{ApiClient, ApiError};
use crate::cli::each;
use crate::cli::exit::{CliError, CliResult};
use crate::cli::output::{Output, note};
use crate::cli::pages;

/// How many are deleted at a time.
const AT_A_TIME: usize = 8;
/// How many of those that could not be deleted are named.
const NAMED: usize = 20;

/// Deletes them. Those that are written meanwhile stay.
pub(super) async fn run(out: Output, api: &ApiClient, letters: Selection) -> CliResult {
    if !letters.ids.is_empty() {
        let discard = async |id: String| api.delete(&["dlq", &id]).await;
        return each::for_each(out, letters.ids, discard).await;
    }
    let (mut count, mut failed, mut cursor) = (0_usize, 0_usize, None);
    loop {
        let query = pages::query([
            ("capability", letters.capability.clone()),
            ("reason", letters.reason.clone()),
            ("order", Some("desc".to_owned())),
            ("limit", Some(limits::PAGE.to_string())),
            ("cursor", cursor.take()),
        ]);
        let page: DeadLettersPage = api.get(&["dlq"], &query).await?;
        let ids = page.items.iter().map(|letter| letter.id.to_string());
        let mut discarded = stream::iter(ids)
            .map(|id| async move { (api.delete::<serde_json::Value>(&["dlq", &id]).await, id) })
            .buffer_unordered(AT_A_TIME);
        while let Some((outcome, id)) = discarded.next().await {
            match outcome {
                Ok(_) => count += 1,
                // Somebody else was faster.
                Err(ApiError::Refused(refusal)) if refusal.code == ErrorCode::NotFound => {}
                Err(ApiError::Refused(refusal)) => {
                    failed += 1;
                    if failed <= NAMED {
                        note(&format!("{id}: {}", refusal.message));
                    }
                }
                Err(error) => {
                    note(&format!(
                        "{count} are discarded so far; the same command again goes on"
                    ));
                    return Err(error.into());
                }
            }
        }
        cursor = page.page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let out = out.doing("");
    if out.is_json() {
        out.json(&json!({"discarded": count, "failed": failed}))?;
    } else {
        out.text(&match count {
            1 => "1 dead letter is discarded".to_owned(),
            count => format!("{count} dead letters are discarded"),
        })?;
    }
    match failed {
        0 => Ok(()),
        count => Err(CliError::Failed(format!(
            "{count} dead letters could not be discarded"
        ))),
    }
}
