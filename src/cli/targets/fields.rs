//! What a target is, as flags say it: what they mean for a mechanism, and how they go before a file.

use clap::Args;
use loom_protocol::target::{Mechanism, RawConfig, RegisterTarget, TargetUpdates};
use serde_json::{Map, Value};

use crate::cli::exit::{CliError, CliResult};
use crate::cli::naming::name;
use crate::settings::keys::did_you_mean;

/// The flags that are fields of a configuration: the field, the flag, and the mechanisms that have it.
const OF_CONFIG: [(&str, &str, &[Mechanism]); 5] = [
    ("command", "--command", &[Mechanism::Local, Mechanism::Ssh]),
    ("host", "--host", &[Mechanism::Ssh]),
    ("user", "--user", &[Mechanism::Ssh]),
    ("url", "--address", &[Mechanism::Webhook]),
    (
        "env",
        "--env",
        &[Mechanism::Local, Mechanism::Ssh, Mechanism::Kubernetes],
    ),
];

/// What `add` and `update` have in common.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Fields {
    /// What its agents can do; once for each, or with commas.
    #[arg(long = "capability", value_name = "NAME", value_delimiter = ',')]
    pub(super) capabilities: Vec<String>,
    /// The boundaries that it serves; any where there is none. '' is none.
    #[arg(long = "boundary", value_name = "NAME", value_delimiter = ',')]
    pub(super) boundaries: Vec<String>,
    /// What people should know of it.
    #[arg(long)]
    pub(super) description: Option<String>,
    /// Marks to find it by. '' is none.
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',')]
    pub(super) tags: Vec<String>,
    /// How many agents it may have at a time.
    #[arg(long, value_name = "NUMBER")]
    pub(super) max_agents: Option<u32>,
    /// The account whose usage limit its agents share.
    #[arg(long, value_name = "NAME")]
    pub(super) limit_group: Option<String>,
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
    /// Any other field of the configuration, like image=agent:1. The value is JSON, or else text; where the field takes
    /// text (bodyTemplate) it is that text as it stands. Without a value it is removed.
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

/// The names that a flag gives, if it was given: `''` is none at all.
pub(super) fn given(names: &[String]) -> Option<Vec<String>> {
    let is_cleared = names.iter().all(String::is_empty);
    match (names.is_empty(), is_cleared) {
        (true, _) => None,
        (false, true) => Some(Vec::new()),
        (false, false) => Some(names.to_vec()),
    }
}

/// What `--set` gives to a field.
fn value_of(field: &str, written: &str) -> Value {
    let as_it_stands = || Value::from(written);
    match serde_json::from_str(written) {
        _ if written.is_empty() => Value::Null,
        Ok(Value::String(quoted)) => quoted.into(),
        // JSON for somebody else, a number as the name of a branch: text all the same.
        Ok(_) if Mechanism::is_text_field(field) => as_it_stands(),
        Ok(value) => value,
        Err(_) => as_it_stands(),
    }
}

impl Fields {
    /// Refuses what was given and says nothing, where that is no way to take something away. `is_new`: of a target that
    /// is registered with it.
    pub(super) fn check_not_empty(&self, is_new: bool) -> CliResult {
        let texts = [
            ("--command", &self.command, "the program to start"),
            ("--host", &self.host, "the name or address of the machine"),
            ("--user", &self.user, "the account on that machine"),
            ("--address", &self.address, "the address to call"),
        ];
        for (flag, text, what) in texts {
            if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
                return Err(CliError::Usage(format!("{flag} is empty; write {what}")));
            }
        }
        if given(&self.capabilities).is_some_and(|names| names.is_empty()) {
            let else_ = if is_new {
                ""
            } else {
                ", or leave it out to change nothing"
            };
            let message =
                format!("--capability is empty; write what its agents can do, like rust{else_}");
            return Err(CliError::Usage(message));
        }
        for (flag, names) in [
            ("--capability", &self.capabilities),
            ("--boundary", &self.boundaries),
            ("--tag", &self.tags),
        ] {
            let is_mixed = names.len() > 1 && names.iter().any(String::is_empty);
            if is_mixed && given(names).is_some_and(|names| !names.is_empty()) {
                let message = format!(
                    "{flag} has an empty name among others ({}); write one between two commas",
                    names.join(",")
                );
                return Err(CliError::Usage(message));
            }
        }
        Ok(())
    }

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
            config.insert(field.clone(), value_of(field, value));
        }
        if !self.env.is_empty() {
            let env = self.env.iter();
            let env = env.map(|(name, value)| (name.clone(), Value::from(value.as_str())));
            config.insert("env".into(), Value::Object(env.collect()));
        }
        config
    }

    /// Refuses a flag that means nothing for this mechanism.
    pub(super) fn check_for(&self, mechanism: Mechanism) -> CliResult {
        let given = self.config();
        for (field, flag, of) in OF_CONFIG {
            if given.contains_key(field) && !self.sets(field) && !of.contains(&mechanism) {
                let of = of.iter().map(|of| of.as_str()).collect::<Vec<_>>();
                let message = format!(
                    "{flag} is for the mechanism {}, and this target's is {mechanism}; leave it out",
                    of.join(" or ")
                );
                return Err(CliError::Usage(message));
            }
        }
        for (field, _) in &self.set {
            if mechanism.has_field(field) && field != mechanism.key() {
                continue;
            }
            let known = mechanism.fields();
            let hint = match did_you_mean(field, known) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("there are {}", known.join(", ")),
            };
            let shown: String = field.chars().take(64).collect();
            let message = format!(
                "--set {shown}: a target of the mechanism {mechanism} has no such field; {hint}"
            );
            return Err(CliError::Usage(message));
        }
        Ok(())
    }

    /// Puts what was given before what a file or an answer says.
    pub(super) fn go_before(&self, request: &mut RegisterTarget) -> CliResult {
        if let Some(names) = given(&self.capabilities) {
            request.capabilities = names;
        }
        if let Some(names) = given(&self.boundaries) {
            request.boundaries = names;
            // The old word for the same.
            request.classifications.clear();
        }
        if let Some(names) = given(&self.tags) {
            request.tags = names;
        }
        request.max_agents = self.max_agents.or(request.max_agents);
        for (to, given) in [
            (&mut request.description, &self.description),
            (&mut request.limit_group, &self.limit_group),
        ] {
            if let Some(text) = given {
                *to = Some(text.clone()).filter(|text| !text.is_empty());
            }
        }
        if let Some(mechanism) = request.mechanism {
            self.check_for(mechanism)?;
        }
        let changes = self.config();
        if changes.is_empty() {
            return Ok(());
        }
        let config = match &mut request.config {
            Some(config) => config,
            none => none.insert(std::mem::take(&mut request.fields)),
        };
        let key = request.mechanism.map_or("", Mechanism::key);
        let config = match config.0.get_mut(key) {
            Some(Value::Object(nested)) => nested,
            _ => &mut config.0,
        };
        self.merge(request.mechanism, config, changes);
        Ok(())
    }

    fn merge(
        &self,
        mechanism: Option<Mechanism>,
        config: &mut Map<String, Value>,
        changes: Map<String, Value>,
    ) {
        let names = |field: &str| changes.contains_key(field);
        // A line, whatever program with arguments the file has.
        let is_line = self.command.is_some() && mechanism == Some(Mechanism::Local);
        if is_line && !names("shell") {
            config.remove("shell");
            if !names("args") {
                config.remove("args");
                config.insert("shell".into(), true.into());
            }
        }
        for (field, value) in changes {
            match (config.get_mut(&field), value) {
                (Some(Value::Object(there)), Value::Object(entries)) => there.extend(entries),
                (_, Value::Null) => drop(config.remove(&field)),
                (_, value) => drop(config.insert(field, value)),
            }
        }
    }

    /// Whether `--set` gives a field of the configuration.
    fn sets(&self, field: &str) -> bool {
        self.set.iter().any(|(name, _)| name == field)
    }

    /// The flag for a field of the wire: the one that gave it, or else the one that would.
    pub(super) fn flag_of(&self, field: &str) -> String {
        match of_config(field) {
            Some((name, below)) if self.sets(name) => set_flag(name, below),
            _ => flag(field),
        }
    }

    /// The flag that a field of the wire was given by.
    pub(super) fn flag_given(&self, field: &str) -> Option<String> {
        let is_given = match field {
            "capabilities" => !self.capabilities.is_empty(),
            "boundaries" => !self.boundaries.is_empty(),
            "tags" => !self.tags.is_empty(),
            "description" => self.description.is_some(),
            "maxAgents" => self.max_agents.is_some(),
            "limitGroup" => self.limit_group.is_some(),
            _ => {
                let (name, below) = of_config(field)?;
                match (self.config().get(name), below) {
                    (Some(Value::Object(entries)), Some(below)) => entries.contains_key(below),
                    (value, _) => value.is_some(),
                }
            }
        };
        is_given.then(|| self.flag_of(field))
    }
}

/// A field of a configuration without what stands before it: its name, and what is below it.
fn of_config(field: &str) -> Option<(&str, Option<&str>)> {
    let field = field.strip_prefix("config.").unwrap_or(field);
    let nested = |of: &Mechanism| field.strip_prefix(of.key())?.strip_prefix('.');
    let field = Mechanism::ALL.iter().find_map(nested).unwrap_or(field);
    let is_known = |name: &str| Mechanism::ALL.iter().any(|of| of.has_field(name));
    match field.split_once('.') {
        Some((name, below)) => is_known(name).then_some((name, Some(below))),
        None => is_known(field).then_some((field, None)),
    }
}

/// The flag that a field of the wire is usually given by.
fn flag(field: &str) -> String {
    let plain = match field {
        "name" => "NAME",
        "agentType" => "--type",
        "mechanism" => "--mechanism",
        "capabilities" => "--capability",
        "boundaries" => "--boundary",
        "tags" => "--tag",
        "description" => "--description",
        "maxAgents" => "--max-agents",
        "limitGroup" => "--limit-group",
        _ => "",
    };
    if !plain.is_empty() {
        return plain.to_owned();
    }
    let Some((name, below)) = of_config(field) else {
        return field.to_owned();
    };
    let known = OF_CONFIG.iter().find(|(known, ..)| *known == name);
    match (known, below) {
        (Some((_, flag, _)), Some(below)) => format!("{flag} {below}"),
        (Some((_, flag, _)), None) => (*flag).to_owned(),
        (None, below) => set_flag(name, below),
    }
}

/// `--set`, with the entry below its field where that has a name.
fn set_flag(name: &str, below: Option<&str>) -> String {
    let is_place = |below: &&str| below.bytes().all(|byte| byte.is_ascii_digit());
    match below.filter(|below| !is_place(below)) {
        Some(below) => format!("--set {name} ({below})"),
        None => format!("--set {name}"),
    }
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
    /// A field of the wire, as it was written here.
    pub fn named(&self, field: &str) -> String {
        self.fields.flag_of(field)
    }

    /// Which target.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Refuses a flag that means nothing for the mechanism of the target.
    pub fn check_for(&self, mechanism: Mechanism) -> CliResult {
        self.fields.check_for(mechanism)
    }

    /// What changes.
    ///
    /// # Errors
    /// Nothing does, or what was given says nothing.
    pub fn updates(&self) -> CliResult<TargetUpdates> {
        let fields = &self.fields;
        fields.check_not_empty(false)?;
        let config = fields.config();
        let updates = TargetUpdates {
            description: fields.description.clone(),
            capabilities: given(&fields.capabilities),
            boundaries: given(&fields.boundaries),
            config: (!config.is_empty()).then_some(RawConfig(config)),
            tags: given(&fields.tags),
            max_agents: fields.max_agents,
            limit_group: fields.limit_group.clone(),
            ..TargetUpdates::default()
        };
        if updates == TargetUpdates::default() {
            let message = "nothing is to be changed; name a field, like --max-agents 2";
            return Err(CliError::Usage(message.into()));
        }
        Ok(updates)
    }
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
