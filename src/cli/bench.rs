//! `loom bench`. The measurement is `loom-bench`; what stands here is the nats-server it measures over, and the printing.

use clap::Args;
use loom_actors::nats::server::{ManagedOptions, ManagedServer, Profile};
use loom_bench::{BenchError, Findings, Server};

use super::Context;
use super::exit::{CliError, CliResult};
use super::output::{note, table};
use crate::coordinator::UpError;

/// Measure what this machine makes of Loom, beside the raw limit of its NATS.
#[derive(Debug, Args)]
pub struct MeasureArgs {
    /// A NATS server to use, with its coordinator if it has one; without it, both are started for
    /// the run: the server in a temporary folder with the profile `fast`.
    #[arg(long, value_name = "URL", conflicts_with_all = ["backlog", "memory"])]
    nats_url: Option<String>,
    #[command(flatten)]
    bench: loom_bench::BenchArgs,
}

/// Measures, prints, and leaves nothing running.
pub async fn run(context: &Context, args: &MeasureArgs) -> CliResult {
    tokio::select! {
        outcome = measure(context, args) => outcome,
        _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
    }
}

async fn measure(context: &Context, args: &MeasureArgs) -> CliResult {
    let program = std::env::current_exe()
        .map_err(|error| CliError::Failed(format!("the program itself is not found: {error}")))?;
    let findings = if let Some(url) = &args.nats_url {
        let server = Server {
            url: url.clone(),
            own_pid: None,
        };
        loom_bench::run(&args.bench, &program, server).await?
    } else {
        let folder = tempfile::Builder::new().prefix("loom-bench-").tempdir()?;
        let options = ManagedOptions {
            profile: Profile::Fast,
            ..ManagedOptions::new(folder.path().to_owned())
        };
        let own = ManagedServer::start(options).await.map_err(UpError::from)?;
        let server = Server {
            url: own.client_url(),
            own_pid: own.pid(),
        };
        let findings = loom_bench::run(&args.bench, &program, server).await;
        own.stop().await;
        findings?
    };
    print(context, &findings)
}

/// Prints; failed operations make the command fail.
fn print(context: &Context, findings: &Findings) -> CliResult {
    if context.out.is_json() {
        context.out.json(findings)?;
    } else {
        let sheet = findings.sheet();
        if let Some(headline) = &sheet.headline {
            context.out.text(headline)?;
        }
        let mut rows = table(sheet.columns);
        for row in sheet.rows {
            rows.add_row(row);
        }
        context.out.table(&rows, "nothing was measured")?;
    }
    let failures = findings.failures();
    for failure in &failures {
        note(failure);
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(CliError::WorkFailed)
    }
}

impl From<BenchError> for CliError {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Usage(text) => Self::Usage(text),
            BenchError::Unreachable(text) => Self::Unreachable(text),
            BenchError::Failed(text) => Self::Failed(text),
        }
    }
}
