//! The same by the program: `loom targets`, the file, and what stands in the log.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use loom_testkit::process::{LoomProcess, LoomUp};
use serde_json::Value;
use tokio::process::Command;

use crate::SECRET;

/// A command of the program against a coordinator: its code, and what it says.
async fn loom(up: &LoomProcess, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let ended = Command::new(env!("CARGO_BIN_EXE_loom"))
        .args(arguments)
        .args(["--url", up.api_url()])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .await?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((ended.status.code(), text(ended.stdout), text(ended.stderr)))
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn targets_are_managed_by_the_command_line_and_no_secret_is_logged() -> Result<()> {
    let up = LoomUp::new(env!("CARGO_BIN_EXE_loom"))
        .argument("--log-level")
        .argument("trace,async_nats=info,hyper=info,h2=info");
    let up = up.start().await?;
    let ok = async |arguments: &[&str]| -> Result<String> {
        let (code, stdout, stderr) = loom(&up, arguments).await?;
        ensure!(code == Some(0), "{arguments:?}: {stderr}");
        ensure!(!stdout.contains(SECRET), "{stdout}");
        Ok(stdout)
    };
    let env = format!("TOKEN={SECRET}");
    let added = ok(&[
        "targets",
        "add",
        "here",
        "--type",
        "claude-code",
        "--capability",
        "rust,go",
        "--mechanism",
        "local",
        "--command",
        "run it",
        "--env",
        &env,
        "--tag",
        "mine",
    ])
    .await?;
    assert!(added.starts_with("here is registered ("));
    let (code, seen, _) = loom(&up, &["targets", "test", "here"]).await?;
    assert_eq!(code, Some(1), "{seen}");
    assert!(
        seen.starts_with("here is unhealthy (") && seen.contains("\"run\""),
        "{seen}"
    );
    ok(&["targets", "update", "here", "--command", "true it"]).await?;
    let seen = ok(&["targets", "test", "here"]).await?;
    assert!(seen.starts_with("here is healthy ("), "{seen}");
    ok(&["targets", "update", "here", "--command", "run it"]).await?;

    let folder = tempfile::tempdir()?;
    let file = folder.path().join("target.toml");
    let text = format!(
        r#"
        name = "there"
        agent_type = "codex"
        capabilities = ["go"]
        mechanism = "ssh"
        max_agents = 2
        boundaries = ["eu"]
        [config]
        host = "build-2"
        user = "me"
        command = "agent"
        env = {{ A_TOKEN = "{SECRET}" }}
        "#
    );
    std::fs::write(&file, &text)?;
    let file = file.to_str().context("a path of text")?;
    let variant = |name: &str, from: &str, to: &str| -> Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, text.replace(from, to))?;
        Ok(path.to_str().context("a path of text")?.to_owned())
    };
    let misspelt = &*variant("misspelt.toml", "max_agents", "max_agnets")?;
    let wrong = &*variant("wrong.toml", "max_agents = 2", "max_agents = 0")?;
    let flags = ["--max-agents", "3", "--host", "127.0.0.1"];
    ok(&[&["targets", "add", "--from-file", file][..], &flags].concat()).await?;

    let clear = ["targets", "update", "there", "--boundary", "", "--json"];
    let cleared: Value = serde_json::from_str(&ok(&clear).await?)?;
    assert_eq!(cleared["boundaries"], serde_json::json!([]));
    let other = ["targets", "show", "there", "--json"];
    let other: Value = serde_json::from_str(&ok(&other).await?)?;
    assert_eq!(
        other["config"]["host"], "127.0.0.1",
        "a flag goes before the file"
    );
    let listed: Value = serde_json::from_str(&ok(&["targets", "--json"]).await?)?;
    assert_eq!(
        (&listed["total"], &listed["targets"][1]["maxAgents"]),
        (&2.into(), &3.into())
    );
    let table = ok(&["targets", "list", "--capability", "rust"]).await?;
    assert!(
        table.contains("here") && !table.contains("there"),
        "{table}"
    );
    let id = ok(&["targets", "list", "--tag", "mine", "-q"]).await?;
    let shown = ok(&["targets", "show", &id.trim()[..8]]).await?;
    assert!(shown.contains("run it") && shown.contains("***"), "{shown}");

    let changed = [
        "targets",
        "update",
        "HERE",
        "--set",
        "workingDirectory=/tmp",
        "--max-agents",
        "2",
    ];
    let changed: Value = serde_json::from_str(&ok(&[&changed[..], &["--json"]].concat()).await?)?;
    assert_eq!(
        (&changed["maxAgents"], &changed["config"]["command"]),
        (&2.into(), &"run it".into())
    );
    assert_eq!(changed["config"]["workingDirectory"], "/tmp");
    assert!(
        ok(&["targets", "disable", "here", "there"])
            .await?
            .contains("here is disabled")
    );
    assert!(ok(&["targets"]).await?.contains("no targets"));
    ok(&["targets", "enable", "there"]).await?;
    ok(&["targets", "remove", "here"]).await?;

    for (arguments, code, part) in [
        (
            &["targets", "show", "here"][..],
            2,
            "there is no target here",
        ),
        (
            &["targets", "add", "THERE", "--from-file", file],
            2,
            "already",
        ),
        (
            &["targets", "add", "x", "--type", "t", "--capability", "c"],
            2,
            "mechanism",
        ),
        (
            &["targets", "add", "x", "--mechanism", "carrier"],
            2,
            "kubernetes",
        ),
        (
            &["targets", "update", "there"],
            2,
            "nothing is to be changed",
        ),
        (
            &["targets", "update", "there", "--address", "http://h"],
            2,
            "--address is for the mechanism webhook, and this target's is ssh",
        ),
        (
            &["targets", "update", "there", "--max-agents", "0"],
            2,
            "--max-agents is 0",
        ),
        (
            &["targets", "add", "x", "--from-file", misspelt],
            2,
            "did you mean max_agents?",
        ),
        (
            &["targets", "add", "x", "--from-file", wrong],
            2,
            "max_agents is 0",
        ),
        (
            &[
                "targets",
                "add",
                "x",
                "--from-file",
                wrong,
                "--max-agents",
                "5000",
            ],
            2,
            "--max-agents is 5000",
        ),
        (
            &["targets", "add", "deadbeef", "--from-file", file],
            2,
            "NAME \"deadbeef\" begins with",
        ),
        (&["targets", "test", "there"], 1, ""),
        (
            &["targets", "--tag", "x", "show", "there"],
            2,
            "after `list`",
        ),
        (
            &["targets", "add", "--from-file", "/nowhere.toml"],
            2,
            "/nowhere.toml",
        ),
    ] {
        let (ended, _, stderr) = loom(&up, arguments).await?;
        assert_eq!(ended, Some(code), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains(part) && !stderr.contains(SECRET),
            "{arguments:?}: {stderr}"
        );
    }
    let log = up.stderr();
    assert!(log.contains("this coordinator owns"), "it logs");
    assert!(!log.contains(SECRET), "a secret is logged");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_file_that_defines_a_wrong_target_is_refused_at_the_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("loom.toml");
    let text = "[[targets.define]]\nname = \"x\"\nagent_type = \"t\"\ncapabilities = [\"c\"]\nmechanism = \"ssh\"\nconfig = { user = \"u\", command = \"c\" }\n";
    std::fs::write(&file, text)?;
    let file = file.to_str().context("a path of text")?;
    let ended = LoomUp::new(env!("CARGO_BIN_EXE_loom"))
        .env("LOOM_CONFIG", file)
        .run_to_its_end()
        .await?;
    assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
    for part in ["loom.toml:1: targets.define", "target \"x\"", "host"] {
        assert!(
            ended.stderr.contains(part),
            "{part:?} is not in {}",
            ended.stderr
        );
    }
    Ok(())
}
