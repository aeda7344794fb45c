//! `loom targets add`: flags, before a file, before answers.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::Args;
use loom_protocol::target::{Mechanism, RegisterTarget};

use super::fields::{Fields, flag, given};
use crate::cli::exit::{CliError, CliResult};
use crate::cli::output::beside;
use crate::settings::targets::TargetInFile;

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
    /// The request, and how what is wrong with it is named; what is missing is asked for where somebody can answer.
    pub fn request(&self) -> CliResult<(RegisterTarget, Named<'_>)> {
        let file = self.from_file.as_deref().map(read_file).transpose()?;
        let request = file.as_ref().map(|file| file.request.clone());
        let mut request = request.unwrap_or_default();
        for (to, given) in [
            (&mut request.name, &self.name),
            (&mut request.agent_type, &self.agent_type),
        ] {
            if let Some(given) = given {
                to.clone_from(given);
            }
        }
        request.mechanism = self.mechanism.or(request.mechanism);
        if self.disabled {
            request.enabled = Some(false);
        }
        if io::stdin().is_terminal() && io::stderr().is_terminal() {
            ask_for_what_is_missing(&mut request, &self.fields, &mut answered)?;
        } else {
            self.fields.go_before(&mut request)?;
        }
        Ok((request, Named { args: self, file }))
    }
}

/// How the fields of a registration are named to whoever wrote them: by the flag, or as the file spells them.
pub(super) struct Named<'a> {
    args: &'a AddArgs,
    file: Option<TargetInFile>,
}

impl Named<'_> {
    /// A field of the wire, in those words.
    pub fn of(&self, field: &str) -> String {
        let is_given = match field {
            "name" => self.args.name.is_some(),
            "agentType" => self.args.agent_type.is_some(),
            "mechanism" => self.args.mechanism.is_some(),
            other => self.args.fields.flag_given(other).is_some(),
        };
        match &self.file {
            Some(file) if !is_given => file.spelled(field),
            _ => flag(field),
        }
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

/// What flags give is not asked for.
fn ask_for_what_is_missing(
    request: &mut RegisterTarget,
    fields: &Fields,
    ask: &mut impl FnMut(&str) -> CliResult<String>,
) -> CliResult {
    if request.name.is_empty() {
        request.name = ask("name of the target")?;
    }
    if request.agent_type.is_empty() {
        request.agent_type = ask("type of its agents, like claude-code")?;
    }
    if let Some(names) = given(&fields.capabilities) {
        request.capabilities = names;
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
    fields.go_before(request)?;
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

fn read_file(path: &Path) -> CliResult<TargetInFile> {
    let wrong = |why: String| CliError::Usage(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    if path.extension().is_some_and(|ending| ending == "json") {
        let value = serde_json::from_str(&text);
        let value =
            value.map_err(|e| wrong(format!("it is not JSON, from line {} on", e.line())))?;
        return TargetInFile::of_json(value).map_err(wrong);
    }
    let table = toml::from_str(&text)
        .map_err(|error: toml::de::Error| wrong(format!("it is not TOML: {}", error.message())))?;
    TargetInFile::of_toml(table).map_err(wrong)
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
        ask_for_what_is_missing(&mut request, &Fields::default(), &mut |what| {
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
}
