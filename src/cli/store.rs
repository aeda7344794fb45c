//! `loom store`: which store the coordinator works with, what was in one that is gone, and going on with another one.

use std::io::{self, IsTerminal as _, Write as _};

use clap::{Args, Subcommand};
use loom_protocol::store::{AcceptAnswer, AcceptRequest, LostAnswer, StoreAnswer};

use super::Context;
use super::exit::{CliError, CliResult};
use super::output::{note, table};
use super::table::Column;
use crate::api_client::ApiClient;

/// Which store the coordinator works with; go on with another one.
#[derive(Debug, Args)]
pub struct StoreArgs {
    #[command(subcommand)]
    command: Option<StoreCommand>,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Its id, and what is wrong with it
    Show,
    /// What was known and is not in the store that is there: id, task, capability, status (the bodies are gone)
    Lost,
    /// Go on with the store that is there, though it is not the one that was worked with
    Accept {
        /// Do not ask back.
        #[arg(long, short)]
        yes: bool,
    },
}

/// Does what the arguments say.
pub async fn run(context: &Context, args: StoreArgs) -> CliResult {
    let api = context.api()?;
    match args.command.unwrap_or(StoreCommand::Show) {
        StoreCommand::Show => show(context, &api).await,
        StoreCommand::Lost => lost(context, &api).await,
        StoreCommand::Accept { yes } => accept(context, &api, yes).await,
    }
}

async fn show(context: &Context, api: &ApiClient) -> CliResult {
    let store: StoreAnswer = api.get(&["store"], &[]).await?;
    if context.out.is_json() {
        return context.out.json(&store);
    }
    let id = store.id.as_deref().unwrap_or("not known yet");
    context.out.text(&format!("id {id}\n"))?;
    for sentence in store.problems.iter().chain(&store.warnings) {
        context.out.text(&format!("{sentence}\n"))?;
    }
    Ok(())
}

async fn lost(context: &Context, api: &ApiClient) -> CliResult {
    let lost: LostAnswer = api.get(&["store", "lost"], &[]).await?;
    if context.out.is_json() {
        return context.out.json(&lost);
    }
    if lost.total == 0 {
        let store: StoreAnswer = api.get(&["store"], &[]).await?;
        let mut sentences = store.problems.iter().chain(&store.warnings).peekable();
        if sentences.peek().is_none() {
            return context.out.text("nothing is known to be lost");
        }
        // Where the coordinator never read the store that is gone, it knows that it is gone and not what was in it.
        for sentence in sentences {
            context.out.text(&format!("{sentence}\n"))?;
        }
        return context
            .out
            .text("what was in it is not known here: no item can be named");
    }
    let mut rows = table(&[
        Column::spare("PROJECT", 4),
        Column::whole("ID"),
        Column::cut("TASK", 8, 1).at_most(40),
        Column::cut("CAPABILITY", 8, 2).at_most(24),
        Column::spare("STATUS", 3),
        Column::spare("IN STORE", 5),
    ]);
    for item in &lost.items {
        rows.add_row([
            item.project_id.clone(),
            item.id.to_string(),
            item.task_id.clone(),
            item.capability.clone(),
            item.status.to_string(),
            item.in_store
                .map_or_else(|| "no".into(), |status| status.to_string()),
        ]);
    }
    context.out.table(&rows, "")?;
    note(&format!(
        "{} of {} items; descriptions, context and results are gone with the store",
        lost.items.len(),
        lost.total
    ));
    Ok(())
}

async fn accept(context: &Context, api: &ApiClient, yes: bool) -> CliResult {
    if !yes {
        let store: StoreAnswer = api.get(&["store"], &[]).await?;
        let lost: LostAnswer = api.get(&["store", "lost"], &[]).await?;
        ask_back(&store, lost.total)?;
    }
    let answer: AcceptAnswer = api
        .post(&["store", "accept"], &AcceptRequest::default())
        .await?;
    if context.out.is_json() {
        return context.out.json(&answer);
    }
    let accepted = match (answer.whole, answer.projects.as_slice()) {
        (false, []) => "the store is the one that was worked with: nothing to accept".to_owned(),
        (true, []) => "the store is accepted".to_owned(),
        (_, projects) => format!(
            "the store is accepted for {}; {} items that were known are not in it",
            projects.join(", "),
            answer.lost
        ),
    };
    context.out.text(&format!("{accepted}\n"))
}

/// Asks at the terminal; nobody who could answer is no yes.
fn ask_back(store: &StoreAnswer, lost: usize) -> CliResult {
    if !io::stdin().is_terminal() {
        let text = "what is not in the store that is there is given up: write --yes where nobody can be asked";
        return Err(CliError::Usage(text.into()));
    }
    for problem in &store.problems {
        note(problem);
    }
    eprint!(
        "{lost} items that were known are not in it (`loom store lost`). Go on with the store that is there? [y/N] "
    );
    io::stderr().flush().ok();
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.map_err(|error| CliError::Failed(format!("the answer cannot be read: {error}")))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(CliError::Failed("nothing was accepted".into()))
}
