//! What the agent says that it is: by the command line, else by what the target that started it says in the environment.
//!
//! | what | from the first of these that says it |
//! |---|---|
//! | type | `--agent-type`, `LOOM_AGENT_TYPE`, the name of the program |
//! | capabilities | `--capability`, `LOOM_CAPABILITIES` |
//! | boundaries | `--boundary`, `LOOM_BOUNDARIES`, `default` |
//!
//! An agent with a ticket (`LOOM_TICKET`) offers no more than the target says, whatever the command line says: the
//! coordinator would refuse it. Without a ticket what a target says is no more than a default.

use std::path::Path;

use loom_client::AgentBuilder;
use loom_protocol::token::{check_token, list_of};

use super::args::AgentRunArgs;

/// What a target has told an agent that it started.
#[derive(Debug, Clone, Default)]
pub struct Told {
    ticket: Option<String>,
    agent_type: Option<String>,
    capabilities: Vec<String>,
    boundaries: Vec<String>,
    target: Option<String>,
    spin_up: Option<String>,
}

impl Told {
    /// What stands in the environment of this process.
    pub fn by_environment() -> Self {
        Self::by(|name| std::env::var(name).ok())
    }

    /// What these variables say; an empty one says nothing.
    pub fn by(variable: impl Fn(&str) -> Option<String>) -> Self {
        let text = |name: &str| variable(name).filter(|text| !text.is_empty());
        let list = |name: &str| text(name).map(|text| list_of(&text)).unwrap_or_default();
        Self {
            ticket: text("LOOM_TICKET"),
            agent_type: text("LOOM_AGENT_TYPE"),
            capabilities: list("LOOM_CAPABILITIES"),
            boundaries: list("LOOM_BOUNDARIES"),
            target: text("LOOM_TARGET_NAME").or_else(|| text("LOOM_TARGET_ID")),
            spin_up: text("LOOM_SPIN_UP_ID"),
        }
    }
}

/// What an agent says that it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its type.
    pub agent_type: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Where it works; empty: in the default boundary.
    pub boundaries: Vec<String>,
    /// What the command line names, and the target does not allow.
    pub left_out: Vec<String>,
    /// The target that started it, where it has a ticket of that.
    pub target: Option<String>,
    ticket: Option<String>,
    spin_up: Option<String>,
}

impl Identity {
    /// What the agent of this command line is, that was told this.
    ///
    /// # Errors
    /// A sentence: nothing of what the command line names is allowed to it.
    pub fn of(args: &AgentRunArgs, told: Told) -> Result<Self, String> {
        let is_born = told.ticket.is_some();
        let mut left_out = Vec::new();
        let capabilities = offered(
            ("capability", &args.capabilities),
            told.capabilities,
            is_born,
            &mut left_out,
        )?;
        let boundaries = offered(
            ("boundary", &args.boundaries),
            told.boundaries,
            is_born,
            &mut left_out,
        )?;
        let agent_type = match (&args.agent_type, told.agent_type) {
            (Some(given), Some(allowed)) if is_born && *given != allowed => {
                return Err(format!(
                    "--agent-type is {given:?}, and the target that started this agent starts agents of the type {allowed:?}; leave --agent-type out, or change the target"
                ));
            }
            (Some(given), _) => given.clone(),
            (None, Some(told)) => told,
            (None, None) => name_of_program(args).unwrap_or_else(|| "custom".into()),
        };
        Ok(Self {
            agent_type,
            capabilities,
            boundaries,
            left_out,
            target: told.target.filter(|_| is_born),
            spin_up: told.spin_up.filter(|_| is_born),
            ticket: told.ticket,
        })
    }

    /// The agent with all of that.
    pub fn describe(&self, mut agent: AgentBuilder, args: &AgentRunArgs) -> AgentBuilder {
        let mut about = about(args);
        if let Some(spin_up) = &self.spin_up {
            about["spinUpId"] = spin_up.as_str().into();
        }
        agent = agent.agent_type(&self.agent_type).metadata(about);
        for capability in &self.capabilities {
            agent = agent.capability(capability);
        }
        for boundary in &self.boundaries {
            agent = agent.boundary(boundary);
        }
        match &self.ticket {
            Some(ticket) => agent.ticket(ticket),
            None => agent,
        }
    }
}

/// What is run, and with how much power, for people who look at the agent.
fn about(args: &AgentRunArgs) -> serde_json::Value {
    let mut about = match args.program {
        Some(known) => serde_json::json!({
            "program": known.adapter().executable(),
            "allow": args.allow.unwrap_or_default().name(),
        }),
        None => serde_json::json!({ "program": args.command.first() }),
    };
    if !args.may_submit.is_empty() {
        about["maySubmit"] = serde_json::json!(args.may_submit);
    }
    about
}

/// What is offered of what was given, or else was told. `is_born`: no more than what was told, where something was.
fn offered(
    (flag, given): (&str, &[String]),
    told: Vec<String>,
    is_born: bool,
    left_out: &mut Vec<String>,
) -> Result<Vec<String>, String> {
    if given.is_empty() {
        return Ok(told);
    }
    if !is_born || told.is_empty() {
        return Ok(given.to_vec());
    }
    let (allowed, beyond): (Vec<_>, Vec<_>) =
        given.iter().cloned().partition(|name| told.contains(name));
    if allowed.is_empty() {
        return Err(format!(
            "--{flag} names {:?}, and the target that started this agent allows {:?}; leave --{flag} out, or change the target",
            given.join(", "),
            told.join(", ")
        ));
    }
    left_out.extend(beyond);
    Ok(allowed)
}

fn name_of_program(args: &AgentRunArgs) -> Option<String> {
    if let Some(known) = args.program {
        return Some(known.adapter().agent_type().to_owned());
    }
    let name = Path::new(args.command.first()?).file_name()?;
    let name = name.to_string_lossy().into_owned();
    check_token("agentType", &name).ok()?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: AgentRunArgs,
    }

    fn args(flags: &[&str]) -> AgentRunArgs {
        let line = ["agent"].iter().chain(flags).chain(&["--", "/bin/parrot"]);
        Line::parse_from(line).args
    }

    const BORN: [(&str, &str); 5] = [
        ("LOOM_TICKET", "t"),
        ("LOOM_AGENT_TYPE", "claude-code"),
        ("LOOM_CAPABILITIES", "rust,docs"),
        ("LOOM_BOUNDARIES", "[\"a,b\"]"),
        ("LOOM_TARGET_NAME", "here"),
    ];

    fn told(variables: &[(&str, &str)]) -> Told {
        Told::by(|name| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn the_power_of_a_known_program_is_told() {
        let known = [
            "--program",
            "claude",
            "--allow",
            "edit",
            "--may-submit",
            "docs",
        ];
        let expected =
            serde_json::json!({"program": "claude", "allow": "edit", "maySubmit": ["docs"]});
        assert_eq!(about(&args(&known)), expected);
        let usual = about(&args(&["--program", "codex"]));
        assert_eq!(usual["allow"], "test");
        assert_eq!(
            about(&args(&[])),
            serde_json::json!({"program": "/bin/parrot"})
        );
    }

    #[test]
    fn who_is_told_nothing_is_what_the_flags_say() {
        let identity = Identity::of(&args(&["-c", "x"]), Told::default()).unwrap();
        assert_eq!(identity.agent_type, "parrot");
        assert_eq!(identity.capabilities, ["x"]);
        assert!(identity.boundaries.is_empty() && identity.ticket.is_none());
    }

    #[test]
    fn who_is_told_everything_needs_no_flag() {
        let identity = Identity::of(&args(&[]), told(&BORN)).unwrap();
        assert_eq!(identity.agent_type, "claude-code");
        assert_eq!(identity.capabilities, ["rust", "docs"]);
        assert_eq!(identity.boundaries, ["a,b"]);
        assert_eq!(identity.ticket.as_deref(), Some("t"));
        assert_eq!(identity.target.as_deref(), Some("here"));
    }

    #[test]
    fn flags_win_up_to_what_the_ticket_allows() {
        let identity = Identity::of(&args(&["-c", "docs", "-c", "go"]), told(&BORN)).unwrap();
        assert_eq!(identity.capabilities, ["docs"]);
        assert_eq!(identity.left_out, ["go"]);
        for refused in [
            &["-c", "go"][..],
            &["-b", "other"],
            &["--agent-type", "codex"],
        ] {
            assert!(
                Identity::of(&args(refused), told(&BORN)).is_err(),
                "{refused:?}"
            );
        }
    }

    /// A program of an agent that was born may be an agent itself: it has no ticket.
    #[test]
    fn without_a_ticket_a_target_is_no_more_than_a_default() {
        let flags = ["-c", "go", "--agent-type", "codex"];
        for none in [&BORN[1..], &[("LOOM_TICKET", ""), BORN[2]]] {
            let identity = Identity::of(&args(&flags), told(none)).unwrap();
            assert_eq!(identity.capabilities, ["go"]);
            assert_eq!(identity.agent_type, "codex");
            assert!(identity.ticket.is_none() && identity.target.is_none());
        }
    }
}
