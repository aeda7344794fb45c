//! `github-actions`: a stand-in for GitHub, whose runner does what the workflow of the docs does.

use anyhow::{Result, ensure};
use loom_testkit::github::{TOKEN, TestGithub};
use loom_testkit::outside::Outside;
use serde_json::json;

use crate::house::{House, LOOM, TYPE};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_run_of_the_workflow_of_the_docs_is_the_agent() -> Result<()> {
    let github = TestGithub::start().await?;
    github.set(|settings| {
        let names = ["spin_up", "ticket", "nats_url"];
        settings.inputs = names.map(|name| (name.to_owned(), true)).into();
    });
    let house = House::open(&[("GITHUB_TOKEN", TOKEN)]).await?;
    // As in the docs, but for the type, which `sh` does not tell as `claude` does. The project is the default one.
    let words = house.agent(&["--capability", "rust", "--agent-type", TYPE]);
    let words: Vec<&str> = words[1..].iter().map(String::as_str).collect();
    let agents = Outside::new(LOOM, &words)?;
    let runner = agents.clone();
    github.on_dispatch(move |run| {
        let runner = runner.clone();
        tokio::spawn(async move {
            run.begin();
            let input = |name: &str| run.inputs.get(name).cloned().unwrap_or_default();
            let variables = [
                ("LOOM_NATS_URL", "nats_url"),
                ("LOOM_SPIN_UP_ID", "spin_up"),
                ("LOOM_TICKET", "ticket"),
            ];
            let variables = variables.map(|(name, of)| (name.to_owned(), input(of)));
            let ended = runner
                .run(&input("spin_up"), &variables, run.cancelled())
                .await;
            let is_success = matches!(ended, Ok(Some(status)) if status.success());
            run.finish(if is_success { "success" } else { "failure" });
        });
    });
    let inputs =
        json!({"spin_up": "{{spinUpId}}", "ticket": "{{ticket}}", "nats_url": "{{natsUrl}}"});
    let config = json!({
        "repo": TestGithub::REPO, "workflow": TestGithub::WORKFLOW, "apiUrl": github.api_url(), "inputs": inputs,
    });
    house.target("github-actions", config).await?;
    let lived = house.work_gets_an_agent().await?;
    house.the_agent_goes(&lived).await?;
    let is_over = async || (agents.running() == 0).then_some(());
    house.project.eventually("its run is over", is_over).await?;
    let dispatched = github.dispatched();
    ensure!(
        dispatched.len() == 1 && agents.started() == 1,
        "{dispatched:?}: {}",
        agents.said()
    );
    ensure!(
        dispatched[0].1["spin_up"] == lived.spin_up,
        "{dispatched:?}"
    );
    Ok(())
}
