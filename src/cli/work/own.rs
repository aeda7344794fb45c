//! `loom work show` and `loom work submit` inside a program: by the socket of its attempt, never by the API.

use loom_agent::inside::{self, SubmitArgs};
use loom_agent::socket::client::Problem;
use loom_protocol::work::{WorkItem, WorkStatus};

use crate::cli::exit::{CliError, CliResult};
use crate::cli::output::{Output, note};
use crate::cli::show::show_item;

/// Shows the item that the program works on.
pub(super) async fn show(out: Output) -> CliResult {
    print(out, &inside::show().await?)
}

/// Submits work in the course of that item, and waits for it where that was asked for.
pub(super) async fn submit(out: Output, args: &SubmitArgs) -> CliResult {
    let answer = inside::submit(args).await?;
    if !args.wait {
        return if out.is_json() {
            out.json(&answer)
        } else {
            out.text(&answer.id.to_string())
        };
    }
    note(&format!(
        "item {} is submitted; waiting for its end",
        answer.id
    ));
    let ended = inside::wait(answer.id).await?;
    print(out.doing(""), &ended)?;
    match ended.status {
        WorkStatus::Completed => Ok(()),
        _ => Err(CliError::WorkFailed),
    }
}

fn print(out: Output, item: &WorkItem) -> CliResult {
    if out.is_json() {
        out.json(item)
    } else {
        show_item(out, item)
    }
}

impl From<Problem> for CliError {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Usage(text) => Self::Usage(text),
            Problem::Gone(text) => Self::Unreachable(text),
            Problem::Refused(refusal) => Self::Refused(refusal.code, refusal.message),
        }
    }
}
