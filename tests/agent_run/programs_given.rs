//! What the programs that Loom understands are given and denied, and what is said of one that is not there.

use serde_json::Value;

use crate::house::{House, Process};
use crate::programs::{agent_command, output, starts, submit};

const SECRETS: [&str; 4] = [
    "NATS_PASS",
    "LOOM_API_TOKEN",
    "ANTHROPIC_API_KEY",
    "GITHUB_TOKEN",
];

/// The variables that claude finds, and those of `--before`, for an agent with these options; and what the agent says.
async fn found(house: &House, options: &[&str]) -> (Value, String, String) {
    let hook = format!(
        "env > {0} && \"$LOOM_BIN\" work progress 40 told",
        house.path("hook")
    );
    let said = std::fs::File::create(house.path("said")).unwrap();
    let mut command = agent_command(house, "claude", options);
    command.args(["--once", "--before", &hook]).stderr(said);
    for name in SECRETS {
        command.env(name, "sesame-open");
    }
    let id = submit(house, "claude", "success").await;
    let ended = Process(command.spawn().unwrap()).ended().await;
    let said = std::fs::read_to_string(house.path("said")).unwrap();
    assert!(ended.success(), "{said}");
    let item = house.ended(id).await;
    assert_eq!(item.attempts, 0, "{item:?}");
    let hook = std::fs::read_to_string(house.path("hook")).unwrap();
    let last = starts(house).pop().unwrap();
    (last["env"].clone(), hook, said)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn programs_and_hooks_find_neither_nats_nor_keys_unless_they_are_named() {
    let house = House::open().await;
    let url = house.nats.url().clone();
    let (program, hook, said) = found(&house, &[]).await;
    for name in SECRETS.iter().chain(&["NATS_URL", "LOOM_NATS_URL"]) {
        assert!(program[name].is_null(), "{name}: {program}");
        assert!(!hook.contains(&format!("{name}=")), "{hook}");
    }
    assert!(hook.contains("LOOM_WORK_ITEM_ID="), "{hook}");
    assert!(!program.to_string().contains("sesame"), "{program}");
    assert!(!program.to_string().contains(&url), "{program}");
    let line = "withheld from the program: ANTHROPIC_API_KEY, GITHUB_TOKEN (";
    assert!(said.contains(line), "{said}");

    let named = ["--env", "ANTHROPIC_API_KEY", "--env", "LOOM_NATS_URL"];
    let (program, hook, said) = found(&house, &named).await;
    assert_eq!(program["ANTHROPIC_API_KEY"], "sesame-open");
    assert_eq!(program["LOOM_NATS_URL"], url.as_str());
    assert!(hook.contains("ANTHROPIC_API_KEY=sesame-open"), "{hook}");
    assert!(program["GITHUB_TOKEN"].is_null() && program["NATS_PASS"].is_null());
    assert!(said.contains("withheld from the program: GITHUB_TOKEN ("));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_program_that_is_not_there_can_be_shown_and_is_said_to_be_installed() {
    let house = House::open().await;
    let mut command = agent_command(&house, "codex", &["--print"]);
    let shown = output(command.env("PATH", "/nowhere")).await;
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.status.success() && text.starts_with("codex exec --json"));
    let mut command = agent_command(&house, "codex", &[]);
    let refused = output(command.env("PATH", "/nowhere")).await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    let sentence = "\"codex\" is not found in PATH; install it and sign in, then start this again";
    assert!(said.contains(sentence), "{said}");
    for (options, why) in [
        (["--env", "KEY=value"], "is no name of a variable"),
        (["--", "--{label.flag}"], "could be a flag"),
    ] {
        let refused = output(&mut agent_command(&house, "claude", &options)).await;
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    }
}
