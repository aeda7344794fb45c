//! `loom targets add` and `update`: what is wrong is said in the words of whoever wrote it, and nothing is registered.

use serde_json::json;

use crate::program::Up;

/// A line of `loom targets add` that lacks nothing, with other flags instead of some.
fn add<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["targets", "add", name];
    for [flag, value] in [
        ["--type", "codex"],
        ["--capability", "rust"],
        ["--mechanism", "local"],
        ["--command", "exit 3"],
    ] {
        let is_local_only = more.contains(&"--mechanism") && flag == "--command";
        if !more.contains(&flag) && !is_local_only {
            args.extend([flag, value]);
        }
    }
    args.extend(more);
    args
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn what_is_wrong_with_a_target_is_said_in_the_words_that_were_written() {
    let up = Up::start(&[]);
    assert_eq!(up.ask(&add("here", &[])).0, 0);
    let long = "x".repeat(300);
    let ssh = |more: &[&'static str]| {
        let mut args = vec!["--mechanism", "ssh", "--host", "h", "--user", "u"];
        args.extend(["--command", "c"]);
        args.extend(more);
        args
    };
    let hook = |more: &[&'static str]| {
        let mut args = vec!["--mechanism", "webhook", "--address", "http://h/"];
        args.extend(more);
        args
    };
    let taken = "there is a target here already";
    for (args, says) in [
        (add("HERE", &[]), taken),
        (add("a b", &[]), "NAME \"a b\" contains ' '"),
        (add(&long, &[]), "has 300 characters; at most 64"),
        (add("", &[]), "NAME is empty"),
        (add("x", &["--type", ""]), "--type is empty"),
        (add("x", &["--capability", ""]), "--capability is empty"),
        (add("x", &["--command", ""]), "--command is empty"),
        (add("x", &["--mechanism", "carrier"]), "write one of local"),
        (add("x", &["--max-agents", "0"]), "--max-agents is 0"),
        (
            vec!["targets", "add", "x", "--mechanism", "local"],
            "--type and --capability are missing",
        ),
        (
            add("x", &["--mechanism", "local"]),
            "--command is missing or empty; write the program to start",
        ),
        (
            add(
                "x",
                &["--mechanism", "ssh", "--user", "u", "--command", "c"],
            ),
            "--host is missing or empty",
        ),
        (
            add("x", &["--host", "h"]),
            "--host is for the mechanism ssh",
        ),
        (
            add("x", &ssh(&["--set", "port=abc"])),
            "--set port is \"abc\"; write a whole number from 0 to 65535",
        ),
        (
            add("x", &ssh(&["--set", "knownHosts=maybe"])),
            "--set knownHosts is \"maybe\"; write strict or accept-new",
        ),
        (
            add("x", &hook(&["--set", "method=DELETE"])),
            "--set method is \"DELETE\"; write GET, POST or PUT",
        ),
        (
            add("x", &hook(&["--set", "successCodes=[200, 99999]"])),
            "--set successCodes is 99999; write a whole number",
        ),
        (
            add("x", &hook(&["--set", r#"bodyTemplate={"id":"{{whom}}"}"#])),
            "--set bodyTemplate has the placeholder {{whom}}, which does not exist; there are targetId",
        ),
        (
            vec!["targets", "update", "here", "--command", ""],
            "--command is empty",
        ),
        (
            vec!["targets", "update", "here", "--set", "detached=perhaps"],
            "--set detached is \"perhaps\"; write true or false",
        ),
        (
            vec!["targets", "--status", "done"],
            "possible values: available",
        ),
    ] {
        let (code, stdout, stderr) = up.ask(&args);
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
    // JSON for somebody else is text.
    let hook = hook(&["--set", r#"bodyTemplate={"id":"{{targetId}}"}"#]);
    let (code, _, stderr) = up.ask(&add("hook", &hook));
    assert_eq!(code, 0, "{stderr}");
    let shown = up.json(&["targets", "show", "hook"]);
    assert_eq!(shown["config"]["bodyTemplate"], r#"{"id":"{{targetId}}"}"#);
    let listed = up.json(&["targets"]);
    assert_eq!(listed["total"], 2, "{listed}");
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn a_file_that_is_too_large_or_wrong_is_refused_by_its_name() {
    let (up, dir) = (Up::start(&[]), tempfile::tempdir().unwrap());
    let config = json!({"command": "x".repeat(10_000_000)});
    let large = json!({
        "name": "x", "agentType": "t", "capabilities": ["c"], "mechanism": "local", "config": config,
    });
    for (name, text, says) in [
        ("large.json", large.to_string(), "over 1048576 bytes"),
        (
            "broken.toml",
            "name = \"x\"\nx = [".into(),
            "from line 2 on",
        ),
        (
            "broken.json",
            "{\n\n".into(),
            "it is not JSON, from line 3 on",
        ),
        (
            "other.toml",
            "name = \"x\"\nmechanism = \"local\"\n[config]\nhost = \"h\"\n".into(),
            "config.host is no key of a target",
        ),
        (
            "lacks.toml",
            "name = \"x\"\nmechanism = \"local\"\ncommand = \"c\"\n".into(),
            "agent_type and capabilities are missing",
        ),
    ] {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let (code, _, stderr) = up.ask(&["targets", "add", "--from-file", file]);
        assert_eq!(code, 2, "{name}: {stderr}");
        assert!(stderr.contains(says), "{name}: {stderr}");
    }
}
