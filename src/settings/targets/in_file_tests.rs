use serde_json::json;

use super::*;

fn toml(text: &str) -> Result<TargetInFile, String> {
    TargetInFile::of_toml(toml::from_str(text).unwrap())
}

fn error_of(text: &str) -> String {
    match toml(text).and_then(TargetInFile::check) {
        Ok(_) => panic!("{text} is taken"),
        Err(error) => error,
    }
}

const HEAD: &str = "name = \"x\"\nagent_type = \"t\"\ncapabilities = [\"c\"]\n";

#[test]
fn a_key_that_nobody_reads_is_refused_wherever_it_stands() {
    for (text, parts) in [
        (
            "mechanism = \"local\"\ncommend = \"run\"",
            ["commend is no key", "did you mean command?"],
        ),
        (
            "mechanism = \"local\"\ncommand = \"run\"\ncolour = \"red\"",
            ["colour is no key", "limit_group"],
        ),
        (
            "mechanism = \"local\"\ncommand = \"run\"\nhost = \"h\"",
            ["host is no key", "there are"],
        ),
        (
            "mechanism = \"local\"\nworking_directory = \"/\"\nconfig = { command = \"run\" }",
            ["working_directory stands beside config", "belongs into it"],
        ),
        (
            "mechanism = \"local\"\nconfig = { command = \"run\", working_dir = \"/\" }",
            ["config.working_dir is no key", "working_directory?"],
        ),
        (
            "mechanism = \"ssh\"\nconfig.ssh = { host = \"h\", user = \"u\", command = \"c\", prot = 22 }",
            ["config.ssh.prot is no key", "did you mean port?"],
        ),
        (
            "mechanism = \"github-actions\"\nconfig.github_actions = { repo = \"o/r\", workflw = \"w\" }",
            [
                "config.github_actions.workflw is no key",
                "did you mean workflow?",
            ],
        ),
        (
            "mechanism = \"ssh\"\nconfig = { extra = 1, ssh = { host = \"h\", user = \"u\", command = \"c\" } }",
            ["config.extra is no key", "ssh"],
        ),
        (
            "mechanism = \"local\"\ncommand = \"run\"\nhealth_check = { interval = 3 }",
            ["health_check.interval is no key", "interval_ms?"],
        ),
        (
            "mechanism = \"kubernetes\"\nconfig = { namespace = \"n\", resources = { ram = \"1Gi\" } }",
            ["config.resources.ram is no key", "memory"],
        ),
        (
            "mechanism = \"local\"\nagentType = \"t\"\ncommand = \"run\"",
            ["stands there twice", "two ways"],
        ),
    ] {
        let error = error_of(&format!("{HEAD}{text}"));
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
}

#[test]
fn names_of_somebody_else_are_left_as_they_are() {
    let text = "mechanism = \"github-actions\"\nrepo = \"o/r\"\nworkflow_file = \"w\"\ninputs = { my_input = \"a\" }";
    let new = toml(&format!("{HEAD}{text}")).unwrap().check().unwrap();
    assert_eq!(
        new.config.answered().unwrap()["inputs"],
        json!({"my_input": "a"})
    );
}

#[test]
fn what_is_wrong_is_named_as_the_file_spells_it() {
    let ssh = "mechanism = \"ssh\"\n[config.ssh]\nuser = \"u\"\ncommand = \"c\"\n";
    for (text, begins) in [
        (
            "mechanism = \"local\"\ncommand = \"\"".to_owned(),
            "command is missing",
        ),
        ("command = \"c\"".to_owned(), "mechanism is missing"),
        (
            "mechanism = \"x\"".to_owned(),
            "mechanism is none that there is",
        ),
        (ssh.to_owned(), "config.ssh.host is missing"),
        (
            format!("{ssh}host = \"h\"\nprivate_key_path = \"$x\""),
            "config.ssh.private_key_path contains",
        ),
        (
            format!("{ssh}host = \"h\"\nprivateKeyPath = \"$x\""),
            "config.ssh.privateKeyPath contains",
        ),
        (
            format!("{ssh}host = \"h\"\nenv = {{ \"a b\" = \"x\" }}"),
            "config.ssh.env.a b is no name",
        ),
        (
            "mechanism = \"local\"\nmax_agents = \"3\"".to_owned(),
            "max_agents has a value of another type",
        ),
        (
            "mechanism = \"local\"\ncommand = \"c\"\nlimit_group = \"a b\"".to_owned(),
            "limit_group",
        ),
    ] {
        let error = error_of(&format!("{HEAD}{text}"));
        assert!(
            error.starts_with(begins),
            "{error:?} does not begin with {begins:?}"
        );
    }
}

#[test]
fn json_is_spelled_as_on_the_wire() {
    let fields = json!({
        "name": "x", "agentType": "t", "capabilities": ["c"], "mechanism": "local", "command": "run",
    });
    assert!(
        TargetInFile::of_json(fields.clone())
            .unwrap()
            .check()
            .is_ok()
    );
    for (key, near) in [
        ("maxAgent", "did you mean maxAgents?"),
        ("max_agents", "maxAgents"),
    ] {
        let mut wrong = fields.clone();
        wrong[key] = 3.into();
        let error = TargetInFile::of_json(wrong).err().unwrap();
        assert!(error.contains(key) && error.contains(near), "{error}");
    }
    assert!(TargetInFile::of_json(json!([])).is_err());
}
