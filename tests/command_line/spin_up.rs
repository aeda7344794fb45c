//! `loom spin-up`, and what `loom targets` and `loom work explain` show of starts.

use serde_json::Value;

use crate::listing::on_terminal;
use crate::program::{Up, eventually};

/// Registers a target whose process is a line of shell.
fn target(up: &Up, name: &str, line: &str, more: &[&str]) {
    let mut args = vec![
        "targets",
        "add",
        name,
        "--type",
        "codex",
        "--capability",
        "rust",
    ];
    args.extend(["--mechanism", "local", "--command", line]);
    args.extend(more);
    let (code, _, stderr) = up.ask(&args);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn an_agent_is_started_by_hand_and_its_start_is_waited_for_listed_and_shown() {
    let up = Up::start(&["--set", "targets.birth_timeout.local=2s"]);
    // Room for two: the first has not ended when the second is asked for.
    target(
        &up,
        "broken",
        "echo no such program; exit 3",
        &["--max-agents", "2"],
    );
    target(&up, "slow", "exec sleep 60", &["--max-agents", "2"]);
    target(&up, "elsewhere", "exit 3", &["--project", "other"]);

    // Without --wait the id, with it what became of it: 1 where there is no agent.
    let (code, stdout, stderr) = up.ask(&["spin-up", "BROKEN"]);
    assert_eq!(code, 0, "{stderr}");
    let id = stdout.trim();
    assert_eq!((id.len(), stdout.lines().count()), (36, 1), "{stdout}");
    let (code, stdout, stderr) = up.ask(&["spin-up", "broken", "--wait"]);
    assert_eq!(code, 1, "{stdout}{stderr}");
    for part in ["failed", "broken (", "local", "no such program"] {
        assert!(stdout.contains(part), "{part:?} is not in {stdout}");
    }
    assert!(stderr.contains("waiting until it registers"), "{stderr}");
    // Why there is none is said without looking at each, in whatever little room.
    let (code, stdout, _) = up.ask(&["spin-up", "list", "--status", "failed"]);
    assert_eq!(code, 0);
    assert!(stdout.contains("no such program (it ended"), "{stdout}");
    let narrow = on_terminal(&up, 80, &["spin-up", "list", "--status", "failed"]);
    let told = narrow.iter().any(|row| row.contains("no such program"));
    assert!(told, "{narrow:?}");
    let begun = up.json(&["spin-up", "slow"]);
    assert_eq!(
        (&begun["success"], &begun["status"]),
        (&true.into(), &"in-progress".into())
    );
    let (code, stdout, _) = up.ask(&["spin-up", "slow", "--wait", "--json"]);
    let ended: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &ended["status"]), (1, &"timeout".into()), "{ended}");

    let shown = up.json(&["spin-up", "show", &id[..13]]);
    assert_eq!(
        (&shown["operationId"], &shown["status"]),
        (&id.into(), &"failed".into())
    );
    let count = |args: &[&str]| up.json(args)["operations"].as_array().unwrap().len();
    assert_eq!(count(&["spin-up", "list"]), 4);
    assert_eq!(count(&["spin-up", "list", "--target", "broken"]), 2);
    assert_eq!(count(&["spin-up", "list", "--limit", "1"]), 1);
    eventually("the other start takes too long as well", || {
        count(&["spin-up", "list", "--status", "timeout"]) == 2
    });
    let (_, stdout, _) = up.ask(&["spin-up", "list", "-q", "--all"]);
    assert!(
        stdout.lines().count() == 4 && stdout.trim_end().ends_with(id),
        "{stdout}"
    );
    let (_, stdout, _) = up.ask(&["spin-up", "list", "-o", "wide"]);
    for part in ["OPERATION", "broken", "slow", "timeout", "MECHANISM"] {
        assert!(stdout.contains(part), "{part:?} is not in {stdout}");
    }

    // Of all projects, each with its own.
    let (code, _, stderr) = up.ask(&["spin-up", "elsewhere", "--wait", "--project", "other"]);
    assert_eq!(code, 1, "{stderr}");
    let all = up.json(&["spin-up", "list", "-A"]);
    let first = &all["operations"][0];
    assert_eq!(
        (&all["total"], &first["projectId"], &first["targetName"]),
        (&5.into(), &"other".into(), &"elsewhere".into())
    );
    let id = first["operationId"].as_str().unwrap();
    let shown = up.json(&["spin-up", "show", id]);
    assert_eq!(
        shown["targetName"], "elsewhere",
        "it is found in whichever project"
    );
    let all = up.json(&["targets", "list", "-A"]);
    let of = |at: usize| {
        (
            &all["targets"][at]["name"],
            &all["targets"][at]["projectId"],
        )
    };
    assert_eq!(of(0), (&"broken".into(), &"default".into()));
    assert_eq!(of(2), (&"elsewhere".into(), &"other".into()));
    assert_eq!(up.json(&["targets", "-A", "--limit", "1"])["hasMore"], true);
    let (_, stdout, _) = up.ask(&["targets", "list", "-A", "-o", "wide"]);
    for part in [
        "PROJECT",
        "HEALTH",
        "unknown",
        "LAST START",
        "failed",
        "0/1",
    ] {
        assert!(stdout.contains(part), "{part:?} is not in {stdout}");
    }
    for args in [
        &["targets", "-A"][..],
        &["targets"],
        &["spin-up", "list", "-A"],
        &["spin-up", "list"],
    ] {
        let rows = on_terminal(&up, 40, args);
        assert!(rows.len() > 2, "{args:?}: {rows:?}");
        for row in rows {
            assert!(row.chars().count() <= 40, "{args:?}: {row:?}");
        }
    }
    let (_, stdout, _) = up.ask(&["targets", "show", "broken"]);
    for part in ["health", "last start", "failed at", "last used"] {
        assert!(stdout.contains(part), "{part:?} is not in {stdout}");
    }

    for (args, code, part) in [
        (&["spin-up"][..], 2, "TARGET"),
        (&["spin-up", "nobody"], 2, "there is no target nobody"),
        (
            &["spin-up", "show", "none"],
            2,
            "there is no start of an agent none",
        ),
        (
            &["spin-up", "slow", "list"],
            2,
            "take no target before them",
        ),
        (
            &["spin-up", "slow", "--for", "nobody"],
            2,
            "there is no work item nobody",
        ),
        (&["spin-up", "slow", "-A"], 2, "--project"),
        (&["spin-up", "list", "--status", "done"], 2, "status"),
        (&["spin-up", "list", "--cursor", "x", "-A"], 2, "--cursor"),
        (&["targets", "list", "--cursor", "x", "-A"], 2, "--cursor"),
    ] {
        let (ended, _, stderr) = up.ask(args);
        assert_eq!(ended, code, "{args:?}: {stderr}");
        assert!(
            stderr.contains(part),
            "{args:?}: {part:?} is not in {stderr}"
        );
    }
    let (code, ..) = up.ask(&["targets", "disable", "slow"]);
    assert_eq!(code, 0);
    let (code, _, stderr) = up.ask(&["spin-up", "slow", "--wait"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("disabled"), "{stderr}");
}

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn explain_shows_the_targets_and_what_is_being_started() {
    let up = Up::start(&[]);
    // Its process outlives the coordinator, but not for long.
    target(&up, "able", "exec sleep 10", &[]);
    target(&up, "off", "exit 3", &["--disabled"]);
    for name in ["baker", "tailor"] {
        let other = [
            "targets",
            "add",
            name,
            "--type",
            "codex",
            "--capability",
            "go",
        ];
        let other = [&other[..], &["--mechanism", "local", "--command", "exit 3"]].concat();
        assert_eq!(up.ask(&other).0, 0);
    }
    let (code, stdout, stderr) = up.ask(&["submit", "x", "-c", "rust"]);
    assert_eq!(code, 0, "{stderr}");
    let item = stdout.trim();
    eventually("an agent is being started", || {
        let answer = up.json(&["work", "explain", item]);
        answer["beingStarted"]
            .as_array()
            .is_some_and(|starts| starts.len() == 1)
    });
    let (code, stdout, stderr) = up.ask(&["work", "explain", item]);
    assert_eq!(code, 0, "{stderr}");
    // Below the sentences about the item and about what is being started.
    let of_targets = on_terminal(&up, 40, &["work", "explain", item]);
    let first = of_targets.iter().position(|row| row.starts_with("TARGET"));
    for row in &of_targets[first.unwrap()..] {
        assert!(row.chars().count() <= 40, "{row:?}");
    }
    for part in [
        "is being started by target able",
        "no agents are registered",
        "MAY START",
        "full",
        "disabled",
    ] {
        assert!(stdout.contains(part), "{part:?} is not in {stdout}");
    }
    // Those that have nothing to do with the item are counted, and shown where somebody asks; programs get all.
    assert!(!stdout.contains("baker"), "{stdout}");
    assert!(
        stderr.contains("2 targets for other capabilities"),
        "{stderr}"
    );
    let (code, stdout, stderr) = up.ask(&["work", "explain", item, "--all"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains("baker") && stdout.contains("tailor"),
        "{stdout}"
    );
    let answer = up.json(&["work", "explain", item]);
    assert_eq!(answer["targets"].as_array().map(Vec::len), Some(4));
}
