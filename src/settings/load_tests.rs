use std::io::Write as _;
use std::time::Duration;

use loom_actors::actor_name::ActorName;

use super::*;

fn from_file(text: &str) -> Result<Loaded, SettingsError> {
    let mut file = tempfile::Builder::new()
        .suffix("loom.toml")
        .tempfile()
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
    load(&Sources {
        file: Some(file.path().into()),
        ..Sources::default()
    })
}

fn from_env(variables: &[(&str, &str)]) -> Result<Loaded, SettingsError> {
    load(&Sources {
        environment: variables
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        ..Sources::default()
    })
}

#[track_caller]
fn refused(result: Result<Loaded, SettingsError>, parts: &[&str]) {
    let error = result.unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn a_key_with_a_hyphen_is_named_by_a_variable_too() {
    let loaded = from_env(&[("LOOM__TARGETS__BIRTH_TIMEOUT__GITHUB_ACTIONS", "1m")]);
    let births = loaded.unwrap().settings.targets.births();
    let of = |mechanism| births.birth_timeout.of(mechanism);
    assert_eq!(of(Mechanism::GithubActions), Duration::from_mins(1));
    assert_eq!(of(Mechanism::Local), Duration::from_secs(30));
}

#[test]
fn an_unknown_key_names_file_line_and_the_near_one() {
    refused(
        from_file("[agents]\nstale_after = \"1m\"\nhartbeat_every = \"5s\"\n"),
        &[
            "loom.toml:3:",
            "agents.hartbeat_every",
            "did you mean heartbeat_every?",
        ],
    );
    refused(
        from_file("[agent]\nx = 1\n"),
        &["loom.toml:1:", "[agent]", "did you mean [agents]?"],
    );
    refused(
        from_file("[federation]\nmost = 1\n"),
        &["there is no section [federation]; there are nats, api"],
    );
    refused(from_file("port = 1\n"), &["there is no section [port]"]);
}

#[test]
fn a_wrong_unit_is_told_what_to_write() {
    refused(
        from_file("[agents]\n\nstale_after = 30\n"),
        &["loom.toml:3:", "agents.stale_after", "write \"30s\""],
    );
}

#[test]
fn stale_after_is_three_heartbeats_at_least() {
    refused(
        from_file("[agents]\nheartbeat_every = \"20s\"\n"),
        &["loom.toml:2:", "at least 3 times", "stale_after = \"1m\""],
    );
}

#[test]
fn all_problems_come_at_once_and_broken_toml_has_a_line() {
    let error = from_file("[api]\nport = 70000\nhots = \"x\"\n").unwrap_err();
    assert_eq!(error.problems.len(), 2);
    refused(
        from_file("[api]\nport = = 1\n"),
        &["loom.toml:2:", "is not TOML"],
    );
    refused(from_file("api = 3\n"), &["api is a section"]);
}

#[test]
fn a_missing_file_is_named() {
    let sources = Sources {
        file: Some("/no/such/loom.toml".into()),
        ..Sources::default()
    };
    refused(load(&sources), &["/no/such/loom.toml", "--config"]);
}

#[test]
fn variables_of_the_environment() {
    let loaded = from_env(&[
        ("NATS_URL", "nats://me:pw@h:1"),
        ("NATS_USER", ""),
        ("API_PORT", "8080"),
        ("API_TOKENS", "a,b"),
        ("API_HOST", "0.0.0.0"),
        ("LOOMINAL_PROJECT_ID", "old"),
        ("LOOM_PROJECT_ID", "new"),
        ("IDLE_TIMEOUT_MS", "1500"),
        ("LOOM__WORK__RETRY__BACKOFF_FIRST", "2s"),
        ("LOOM__SUPERVISION__WORK_LEDGER__MAX_RESTARTS", "2"),
    ])
    .unwrap();
    let settings = loaded.settings;
    assert_eq!(settings.nats.url.unwrap().expose(), "nats://me:pw@h:1");
    assert_eq!(settings.nats.user, None);
    assert_eq!((settings.api.port, settings.api.tokens.len()), (8080, 2));
    assert_eq!(settings.projects.default.as_str(), "new");
    assert_eq!(settings.agents.idle_timeout, Duration::from_millis(1500));
    assert_eq!(settings.work.retry.backoff_first, Duration::from_secs(2));
    let policy = settings.supervision.policy(ActorName::WorkLedger);
    assert_eq!(policy.max_restarts, 2);
    assert_eq!(
        loaded.origins["projects.default"],
        Origin::Environment("LOOM_PROJECT_ID".into())
    );
}

#[test]
fn bad_variables_are_named() {
    refused(from_env(&[("API_PORT", "http")]), &["API_PORT: api.port"]);
    refused(
        from_env(&[("LOOM__AGENTS__HARTBEAT_EVERY", "5s")]),
        &[
            "LOOM__AGENTS__HARTBEAT_EVERY",
            "did you mean heartbeat_every",
        ],
    );
    refused(
        from_env(&[("LOOM__AGNTS__STALE_AFTER", "5s")]),
        &["did you mean [agents]"],
    );
    refused(from_env(&[("IDLE_TIMEOUT_MS", "5s")]), &["milliseconds"]);
    refused(
        from_env(&[("LOOM__WORK__RETRI__BACKOFF_MAX", "5s")]),
        &["work.retri is no key of [work]; did you mean retry?"],
    );
    refused(
        from_env(&[("LOOM__WORK__RETRY", "5s")]),
        &["work.retry is a section; name one of its keys: backoff_first, backoff_max"],
    );
    refused(
        from_env(&[("LOOM__API__PORT__X", "5s")]),
        &["api.port is a key and no section"],
    );
    refused(
        from_env(&[("API_HOST", "0.0.0.0")]),
        &["API_HOST: api.host", "allow_open"],
    );
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[api]\nport = 1\nhost = \"::1\"\n[projects]\nmax = 5\n")
        .unwrap();
    let loaded = load(&Sources {
        file: Some(file.path().into()),
        environment: [
            ("API_PORT".into(), "2".into()),
            ("LOOM__PROJECTS__MAX".into(), "6".into()),
        ]
        .into(),
        flags: vec![Override {
            flag: "--port".into(),
            key: "api.port".into(),
            value: "3".into(),
        }],
    })
    .unwrap();
    let settings = loaded.settings;
    assert_eq!((settings.api.port, settings.projects.max), (3, 6));
    assert_eq!(settings.api.host, "::1");
    assert_eq!(loaded.origins["api.port"], Origin::Flag("--port".into()));
}

#[test]
fn the_strategy_of_before_is_taken_with_a_warning_and_an_unknown_one_is_refused() {
    let strategies = |general, own| {
        format!(
            "[supervision]\nstrategy = \"{general}\"\n[supervision.gc_reaper]\nstrategy = \"{own}\"\n"
        )
    };
    let silent = from_file(&strategies("one-for-one", "one-for-one")).unwrap();
    assert_eq!(silent.warnings(), []);
    assert_eq!(from_env(&[]).unwrap().warnings(), []);
    let loaded = from_file(&strategies("rest-for-one", "rest-for-one")).unwrap();
    let said: Vec<String> = loaded.warnings().iter().map(ToString::to_string).collect();
    for (text, place) in said.iter().zip([
        "loom.toml:2: supervision.strategy = \"rest-for-one\" has no effect any more",
        "loom.toml:4: supervision.gc_reaper.strategy = \"rest-for-one\" has no effect",
    ]) {
        assert!(text.contains(place), "{place:?} is not in: {text}");
    }
    assert_eq!(said.len(), 2);
    refused(
        from_file(&strategies("all-for-one", "one-for-one")),
        &["loom.toml:2: supervision.strategy", "rest-for-one"],
    );
}

#[test]
fn an_actor_that_is_not_there_is_refused_with_those_that_are() {
    let mut known = ActorName::ALL.map(ActorName::key).to_vec();
    known.push("project");
    let known = known.join(", ");
    for refusal in [
        from_file("[supervision.nobody]\nwithin = \"1m\"\n"),
        from_env(&[("LOOM__SUPERVISION__NOBODY__WITHIN", "1m")]),
    ] {
        refused(
            refusal,
            &["supervision.nobody is no key of [supervision]", &known],
        );
    }
    refused(
        from_file("[supervision.work_ledgr]\nwithin = \"1m\"\n"),
        &["did you mean work_ledger?"],
    );
    refused(
        from_file("[supervision.gc_reaper]\nwithin = \"0s\"\n"),
        &["loom.toml:2: supervision.gc_reaper.within", "at least"],
    );
}

#[test]
fn a_project_keeps_what_nobody_sets_of_its_own_supervision() {
    for (text, max_restarts) in [
        ("[supervision]\nwithin = \"2m\"\n", 3),
        ("[supervision.gc_reaper]\nmax_restarts = 1\n", 3),
        ("[supervision.project]\nmax_restarts = 7\n", 7),
    ] {
        let settings = from_file(text).unwrap().settings;
        let policy = settings.supervision.project_policy();
        assert_eq!(policy.max_restarts, max_restarts, "{text}");
        assert_eq!(policy.within, Duration::from_mins(10), "{text}");
    }
}

#[test]
fn every_variable_with_a_name_of_its_own_sets_a_key() {
    for (name, path) in VARIABLES {
        assert!(matches!(keys::at(path), Some(Shape::Key(_))), "{name}");
    }
}

/// Each key that 0.1.0 had, with another value than its default.
const OF_0_1_0: &str = include_str!("../../tests/fixtures/loom-0.1.0.toml");

#[test]
fn what_0_1_0_took_is_taken() {
    let loaded = from_file(OF_0_1_0).unwrap();
    let changes_nothing =
        |(path, _): &(&String, &Origin)| loaded.settings.get(path) == Settings::default().get(path);
    let unchanged: Vec<_> = loaded.origins.iter().filter(changes_nothing).collect();
    assert_eq!(unchanged, []);
    from_file("[nats]\ncredentials = \"/etc/loom/nats.creds\"\n").unwrap();
}

#[test]
fn where_everybody_is_let_in_local_and_ssh_targets_come_by_request_only_if_that_is_written() {
    let mechanisms = |variables: &[(&str, &str)]| {
        let loaded = from_env(variables).unwrap();
        let shown = loaded.settings.targets.api_mechanisms;
        shown
            .iter()
            .map(|one| one.as_str())
            .collect::<Vec<_>>()
            .join(",")
    };
    let all = "local,ssh,kubernetes,github-actions,webhook";
    let open = [("API_HOST", "0.0.0.0"), ("LOOM__API__ALLOW_OPEN", "true")];
    assert_eq!(mechanisms(&[]), all);
    assert_eq!(mechanisms(&open), "kubernetes,github-actions,webhook");
    assert_eq!(mechanisms(&[open[0], ("API_TOKENS", "t")]), all);
    let written = ("LOOM__TARGETS__API_MECHANISMS", "ssh");
    assert_eq!(mechanisms(&[open[0], open[1], written]), "ssh");
}

#[test]
fn a_definition_that_is_refused_is_named_with_its_line() {
    let one = |name: &str, command: &str| {
        format!(
            "[[targets.define]]\nname = {name:?}\nagent_type = \"codex\"\ncapabilities = [\"rust\"]\nmechanism = \"local\"\nconfig = {{ command = {command:?} }}\n"
        )
    };
    let sound = one("first", "run");
    assert!(from_file(&sound).is_ok());
    for (second, says) in [
        (one("second", ""), "target \"second\": config.command"),
        (one("FIRST", "run"), "target \"FIRST\" stands there twice"),
        (
            one("second", "run").replace("codex\"", "codex\"\nmax_agents = 0"),
            "max_agents is 0",
        ),
    ] {
        let text = format!(
            "[api]\nport = 0\n\n{sound}\n{second}\n{}",
            one("third", "run")
        );
        refused(from_file(&text), &["loom.toml:11: targets.define ", says]);
    }
    let inline = "[targets]\ndefine = [\n  { name = \"a\" },\n]\n";
    refused(from_file(inline), &["loom.toml:3: targets.define "]);
}
