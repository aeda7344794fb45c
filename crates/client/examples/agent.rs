//! An agent with one capability, `echo`, until Ctrl-C.
//!
//! `cargo run -p loom-client --example agent -- nats://127.0.0.1:4222`

use std::time::Duration;

use loom_client::{Agent, Client, ClientOptions, Job, JobError, JobResult};
use loom_protocol::ProjectId;

async fn echo(job: Job) -> Result<JobResult, JobError> {
    println!("{}: {}", job.item().id, job.item().description);
    for step in 1..=4 {
        job.progress(f64::from(step) * 25.0, format!("step {step} of 4"));
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(250)) => {}
            () = job.cancelled().cancelled() => return Err(JobError::recoverable("told to stop")),
        }
    }
    Ok(JobResult::summary(job.item().description.to_uppercase()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    let client = Client::connect(ClientOptions::new(url, ProjectId::new("default")?)).await?;
    let agent = Agent::builder(&client)
        .agent_type("example")
        .capability("echo")
        .slots(2)
        .start(echo)?;
    println!("agent {} waits for work", agent.guid());

    let stopper = agent.stopper();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stopper.shut_down("Ctrl-C", Duration::from_secs(10));
        }
    });
    let report = agent.ended().await?;
    println!("{} completed, {} failed", report.completed, report.failed);
    Ok(())
}
