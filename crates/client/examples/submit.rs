//! Submits a task and awaits its result.
//!
//! `cargo run -p loom-client --example submit -- nats://127.0.0.1:4222 echo "say hello"`

use std::time::Duration;

use loom_client::{Client, ClientOptions, NewWork, WorkOutcome};
use loom_protocol::ProjectId;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    let capability = arguments.next().unwrap_or_else(|| "echo".into());
    let description = arguments.next().unwrap_or_else(|| "say hello".into());

    let client = Client::connect(ClientOptions::new(url, ProjectId::new("default")?)).await?;
    let submitted = client
        .submit(&NewWork::new(capability, description))
        .await?;
    println!("submitted {}", submitted.id);

    match client.wait(submitted.id, Duration::from_mins(1)).await? {
        WorkOutcome::Completed(item) => {
            let summary = item.result.and_then(|result| result.summary);
            println!("completed: {}", summary.unwrap_or_default());
        }
        other => println!("{}: {:?}", other.item().status, other.item().error),
    }
    Ok(())
}
