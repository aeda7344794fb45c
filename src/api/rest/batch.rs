//! What batches have in common: which members they have, and how each of them went.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;

use futures_util::{StreamExt as _, stream};
use loom_actors::clock::Clock;
use loom_protocol::rest::BatchResult;
use loom_protocol::work::limits;
use loom_protocol::{AtMost, WireError};

use super::error::{RestError, RestResult};
use crate::service::{BatchFilter, Named, check_scope};

/// How many members of a batch are under way at a time.
const BATCH_IN_FLIGHT: usize = 16;

/// The members of a batch.
#[derive(Debug)]
pub(super) struct Chosen {
    /// Their ids.
    pub ids: Vec<String>,
    /// Whether the filter names more.
    pub has_more: bool,
}

impl Chosen {
    /// Those of a list, those that a filter names, or all: one of the three is given.
    pub fn of<F: BatchFilter, Id: Display>(
        field: &str,
        ids: Option<AtMost<{ limits::ITEMS }, String>>,
        filter: Option<F>,
        all: bool,
        named: impl FnOnce(&F) -> Result<Named<Id>, WireError>,
    ) -> RestResult<Self> {
        match (ids, filter) {
            (Some(AtMost(ids)), None) if !all => {
                check_batch(field, &ids)?;
                Ok(Self {
                    ids,
                    has_more: false,
                })
            }
            (None, filter) if filter.is_some() || all => {
                let filter = filter.unwrap_or_default();
                check_scope(!filter.is_empty(), all, F::FIELDS)?;
                let named = named(&filter)?;
                Ok(Self {
                    ids: named.ids.iter().map(ToString::to_string).collect(),
                    has_more: named.has_more,
                })
            }
            _ => Err(RestError::invalid(format!(
                "name either {field}, as {{\"{field}\": [\"…\"]}}, or a filter, as {{\"filter\": {{…}}}}, or all: true"
            ))),
        }
    }
}

/// Refuses a batch of nothing; one of too many was refused when it was read.
pub(super) fn check_batch(field: &str, ids: &[String]) -> RestResult<()> {
    if ids.is_empty() {
        let message = format!("{field} is missing or empty; write {{\"{field}\": [\"…\"]}}");
        return Err(RestError::invalid(message));
    }
    Ok(())
}

/// Does the same with each id, a few at a time, and says how each of them went.
pub(super) async fn run_batch<F>(ids: Vec<String>, each: impl Fn(String) -> F) -> BatchResult
where
    F: Future<Output = Result<(), WireError>>,
{
    let outcomes: Vec<(String, Result<(), WireError>)> = stream::iter(ids)
        .map(|id| {
            let done = each(id.clone());
            async move { (id, done.await) }
        })
        .buffered(BATCH_IN_FLIGHT)
        .collect()
        .await;
    let total_processed = outcomes.len();
    let (mut success, mut failed, mut errors) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (id, outcome) in outcomes {
        match outcome {
            Ok(()) => success.push(id),
            Err(error) => {
                errors.insert(id.clone(), error.message);
                failed.push(id);
            }
        }
    }
    BatchResult {
        count: success.len(),
        success_rate: percentage(success.len(), total_processed),
        success,
        failed,
        errors,
        completed_at: Clock::system().now(),
        total_processed,
    }
}

#[allow(clippy::cast_precision_loss, reason = "no batch has so many members")]
pub(super) fn percentage(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        100.0
    } else {
        part as f64 * 100.0 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_batch_answers_for_each_in_order() {
        let ids = vec!["a".to_owned(), "b".into(), "c".into()];
        let result = run_batch(ids, |id| async move {
            match id.as_str() {
                "b" => Err(WireError::invalid("no b")),
                _ => Ok(()),
            }
        })
        .await;
        assert_eq!(result.success, ["a", "c"]);
        assert_eq!(result.failed, ["b"]);
        assert_eq!(result.errors["b"], "no b");
        assert_eq!((result.count, result.total_processed), (2, 3));
        assert!((result.success_rate - 66.6).abs() < 0.1);
    }

    #[test]
    fn a_batch_of_nothing_is_refused() {
        assert!(check_batch("ids", &[]).is_err());
        assert!(check_batch("ids", &["x".into()]).is_ok());
    }
}
