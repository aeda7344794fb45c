//! Spawns agents of different behaviour on a private fleet and shows who got what done.
//!
//! ```text
//! cargo run -p loom-testkit --example spawn_agents
//! ```

use std::time::Duration;

use loom_protocol::event::WorkEventKind;
use loom_testkit::agent::Behaviour;
use loom_testkit::fleet::{Fleet, Role};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;

    let diligent = project
        .agent("rust")
        .slots(4)
        .behaviour(Behaviour::Diligent);
    let diligent = diligent.spawn().await?;
    let slow = Behaviour::Late(Duration::from_millis(200));
    let slow = project.agent("rust").behaviour(slow).spawn().await?;

    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(project.submit_plain("rust").await?);
    }
    project.kill(Role::WorkDispatcher)?;
    for id in ids {
        signals.work(WorkEventKind::Completed, id).await?;
    }
    println!("diligent: {} items", diligent.done().completed.len());
    println!("slow:     {} items", slow.done().completed.len());
    println!(
        "the dispatcher was killed and started again {} time",
        project.restarts(Role::WorkDispatcher)?
    );
    Ok(())
}
