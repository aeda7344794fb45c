//! What a target is, as flags, a file and answers say it.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::Args;
use loom_protocol::target::{Mechanism, RawConfig, RegisterTarget, TargetUpdates};
use serde_json::{Map, Value};

use crate::cli::exit::{CliError, CliResult};
use crate::cli::naming::name;
use crate::cli::output::beside;
use crate::settings::targets::target_of_table;

/// What `add` and `update` have in common.
#[derive(Debug, Clone, Default, Args)]
struct Fields {
    /// What its agents can do; once for each, or with commas.
    #[arg(long = "capability", value_name = "NAME", value_delimiter = ',')]
    capabilities: Vec<String>,
    /// The boundaries that it serves; any where there is none.
    #[arg(long = "boundary", value_name = "NAME", value_delimiter = ',')]
    boundaries: Vec<String>,
    /// What people should know of it.
    #[arg(long)]
    description: Option<String>,
    /// Marks to find it by.
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',')]
    tags: Vec<String>,
    /// How many agents it may have at a time.
    #[arg(long, value_name = "NUMBER")]
    max_agents: Option<u32>,
    /// The account whose usage limit its agents share.
    #[arg(long, value_name = "NAME")]
    limit_group: Option<String>,
    /// local, ssh: what is executed, a line for a shell.
    #[arg(long, value_name = "LINE")]
    command: Option<String>,
    /// ssh: the machine.
    #[arg(long)]
    host: Option<String>,
    /// ssh: the user there.
    #[arg(long)]
    user: Option<String>,
    /// webhook: whom to ask.
    #[arg(long, value_name = "URL")]
    address: Option<String>,
    /// A variable of the agent's environment. Its value is never shown again.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Any other field of the configuration, like image=agent:1; the value is JSON, or else text. Without a value
    /// it is removed.
    #[arg(long = "set", value_name = "FIELD=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if name.is_empty() {
        return Err("write NAME=VALUE".into());
    }
    Ok((name.to_owned(), value.to_owned()))
}

impl Fields {
    /// The fields of the configuration, flat.
    fn config(&self) -> Map<String, Value> {
        let mut config = Map::new();
        let plain = [
            ("command", &self.command),
            ("host", &self.host),
            ("user", &self.user),
            ("url", &self.address),
        ];
        for (field, value) in plain {
            if let Some(value) = value {
                config.insert(field.into(), value.clone().into());
            }
        }
        for (field, value) in &self.set {
            let value = match value.as_str() {
                "" => Value::Null,
                text => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
            };
            config.insert(field.clone(), value);
        }
        if !self.env.is_empty() {
            let env = self.env.iter();
            let env = env.map(|(name, value)| (name.clone(), Value::from(value.as_str())));
            config.insert("env".into(), Value::Object(env.collect()));
        }
        config
    }
}

/// `loom targets add`
#[derive(Debug, Clone, Args)]
pub(super) struct AddArgs {
    /// Its name: unique in its project, whatever the case.
    name: Option<String>,
    /// Read it from a file: TOML, or JSON where its name ends in .json. Flags go before what it says.
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// The type of its agents, like claude-code.
    #[arg(long = "type", value_name = "TYPE")]
    agent_type: Option<String>,
    /// How they are started: local, ssh, kubernetes, github-actions or webhook.
    #[arg(long, value_parser = mechanism)]
    mechanism: Option<Mechanism>,
    /// Register it switched off.
    #[arg(long)]
    disabled: bool,
    #[command(flatten)]
    fields: Fields,
}

fn mechanism(text: &str) -> Result<Mechanism, String> {
    let found = Mechanism::ALL.into_iter().find(|one| one.as_str() == text);
    let known = Mechanism::ALL.map(Mechanism::as_str).join(", ");
    found.ok_or_else(|| format!("write one of {known}"))
}

impl AddArgs {
    /// The request; what is missing is asked for where somebody can answer.
    pub fn request(&self) -> CliResult<RegisterTarget> {
        let file = self.from_file.as_deref();
        let mut request = file.map(read_file).transpose()?.unwrap_or_default();
        let fields = &self.fields;
        for (to, given) in [
            (&mut request.name, &self.name),
            (&mut request.agent_type, &self.agent_type),
        ] {
            if let Some(given) = given {
                to.clone_from(given);
            }
        }
        for (to, given) in [
            (&mut request.capabilities, &fields.capabilities),
            (&mut request.boundaries, &fields.boundaries),
            (&mut request.tags, &fields.tags),
        ] {
            if !given.is_empty() {
                to.clone_from(given);
            }
        }
        request.mechanism = self.mechanism.or(request.mechanism);
        request.max_agents = fields.max_agents.or(request.max_agents);
        request.description = fields.description.clone().or(request.description);
        request.limit_group = fields.limit_group.clone().or(request.limit_group);
        if self.disabled {
            request.enabled = Some(false);
        }
        let given = fields.config();
        if !given.is_empty() {
            let config = match &mut request.config {
                Some(config) => config,
                none => none.insert(std::mem::take(&mut request.fields)),
            };
            config.0.extend(given);
        }
        if io::stdin().is_terminal() && io::stderr().is_terminal() {
            ask_for_what_is_missing(&mut request, &mut answered)?;
        }
        Ok(request)
    }
}

/// What a configuration of each mechanism cannot do without.
const fn essentials(mechanism: Mechanism) -> &'static [(&'static str, &'static str)] {
    match mechanism {
        Mechanism::Local => &[("command", "command to start an agent with")],
        Mechanism::Ssh => &[
            ("host", "host"),
            ("user", "user there"),
            ("command", "command to start an agent with there"),
        ],
        Mechanism::Kubernetes => &[
            ("namespace", "namespace"),
            ("jobNamePrefix", "what the names of its Jobs begin with"),
            ("image", "image of the agent"),
        ],
        Mechanism::GithubActions => &[
            ("repo", "repository, like owner/name"),
            ("workflow", "file of the workflow"),
        ],
        Mechanism::Webhook => &[("url", "URL to ask")],
    }
}

fn ask_for_what_is_missing(
    request: &mut RegisterTarget,
    ask: &mut impl FnMut(&str) -> CliResult<String>,
) -> CliResult {
    if request.name.is_empty() {
        request.name = ask("name of the target")?;
    }
    if request.agent_type.is_empty() {
        request.agent_type = ask("type of its agents, like claude-code")?;
    }
    if request.capabilities.is_empty() {
        let names = ask("what they can do, with commas")?;
        let names = names.split(',').map(str::trim);
        request.capabilities = names
            .filter(|one| !one.is_empty())
            .map(Into::into)
            .collect();
    }
    let chosen = if let Some(mechanism) = request.mechanism {
        mechanism
    } else {
        let known = Mechanism::ALL.map(Mechanism::as_str).join(", ");
        mechanism(&ask(&format!("mechanism ({known})"))?).map_err(CliError::Usage)?
    };
    request.mechanism = Some(chosen);
    let config = match &mut request.config {
        // Nested: whoever wrote it knows what it takes.
        Some(config) if config.0.contains_key(chosen.key()) => return Ok(()),
        Some(config) => config,
        none => none.insert(std::mem::take(&mut request.fields)),
    };
    for (field, what) in essentials(chosen) {
        if !config.0.contains_key(*field) {
            let answer = ask(what)?;
            if !answer.is_empty() {
                config.0.insert((*field).into(), answer.into());
            }
        }
    }
    Ok(())
}

/// Asks a person.
fn answered(what: &str) -> CliResult<String> {
    beside(&format!("{what}:"));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}

fn read_file(path: &Path) -> CliResult<RegisterTarget> {
    let wrong = |why: String| CliError::Usage(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    if path.extension().is_some_and(|ending| ending == "json") {
        return serde_json::from_str(&text).map_err(|error| {
            wrong(format!(
                "it is no target as JSON, from line {} on",
                error.line()
            ))
        });
    }
    let table = toml::from_str(&text)
        .map_err(|error: toml::de::Error| wrong(format!("it is not TOML: {}", error.message())))?;
    target_of_table(table).map_err(wrong)
}

/// `loom targets update`
#[derive(Debug, Clone, Args)]
pub(super) struct UpdateArgs {
    /// The target: its id, the beginning of it, or its name in whatever case.
    #[arg(value_parser = name)]
    target: String,
    #[command(flatten)]
    fields: Fields,
}

impl UpdateArgs {
    /// Which target.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// What changes.
    ///
    /// # Errors
    /// Nothing does.
    pub fn updates(&self) -> CliResult<TargetUpdates> {
        let fields = &self.fields;
        let given = |names: &Vec<String>| (!names.is_empty()).then(|| names.clone());
        let config = fields.config();
        let updates = TargetUpdates {
            description: fields.description.clone(),
            capabilities: given(&fields.capabilities),
            boundaries: given(&fields.boundaries),
            config: (!config.is_empty()).then_some(RawConfig(config)),
            health_check: None,
            tags: given(&fields.tags),
            max_agents: fields.max_agents,
            limit_group: fields.limit_group.clone(),
        };
        if updates == TargetUpdates::default() {
            let message = "nothing is to be changed; name a field, like --max-agents 2";
            return Err(CliError::Usage(message.into()));
        }
        Ok(updates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_missing_is_asked_for_and_nothing_else() {
        let mut asked = Vec::new();
        let mut answers = vec!["run it", "local", "rust, go,", "here"];
        let mut request = RegisterTarget {
            agent_type: "claude-code".into(),
            ..RegisterTarget::default()
        };
        ask_for_what_is_missing(&mut request, &mut |what| {
            asked.push(what.to_owned());
            Ok(answers.pop().unwrap().to_owned())
        })
        .unwrap();
        assert_eq!(asked.len(), 4);
        let target = request.check().unwrap();
        assert_eq!(target.capabilities, ["rust", "go"]);
        let answered = target.config.answered().unwrap();
        assert_eq!(answered["command"], json!("run it"));
    }

    #[test]
    fn flags_are_a_flat_configuration_with_values_of_their_kind() {
        let fields = Fields {
            host: Some("build-2".into()),
            env: vec![("A".into(), "1".into())],
            set: vec![
                ("port".into(), "22".into()),
                ("identityFile".into(), "/k".into()),
                ("jumpHost".into(), String::new()),
            ],
            ..Fields::default()
        };
        let expected = json!({
            "host": "build-2", "env": {"A": "1"}, "port": 22, "identityFile": "/k", "jumpHost": null,
        });
        assert_eq!(Value::Object(fields.config()), expected);
        assert!(pair("no").is_err() && pair("=x").is_err());
    }
}
