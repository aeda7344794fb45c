//! The same request for several ids, each answered by itself.

use serde_json::Value;

use super::exit::{CliError, CliResult};
use super::output::{Output, cell, note};
use crate::api_client::ApiError;

/// Sends one request after the other, prints what each says, and gives the first refusal.
pub(super) async fn for_each(
    out: Output,
    ids: Vec<String>,
    send: impl AsyncFn(String) -> Result<Value, ApiError>,
) -> CliResult {
    let (out, alone) = (out.doing(""), ids.len() == 1);
    let mut answers = Vec::new();
    let mut first_refusal = None;
    for id in ids {
        match send(id.clone()).await {
            Ok(answer) if out.is_json() => answers.push(answer),
            Ok(answer) => {
                let message = answer["message"].as_str().unwrap_or("done");
                out.text(&cell(message, usize::MAX))?;
            }
            Err(error) if alone => return Err(error.into()),
            Err(error) => {
                let error = CliError::from(error);
                note(&format!("{id}: {error}"));
                first_refusal.get_or_insert(error);
            }
        }
    }
    if out.is_json() {
        out.json(&answers)?;
    }
    first_refusal.map_or(Ok(()), |first| Err(of_several(out, first)))
}

/// How a command ends of whose refusals each was said: people are not told the first once more, programs read it at the
/// end.
pub(super) fn of_several(out: Output, first: CliError) -> CliError {
    if out.is_json() {
        first
    } else {
        CliError::Noted(Box::new(first))
    }
}
