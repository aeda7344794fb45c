//! `loom targets add`: flags, before a file, before answers.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::Args;
use loom_protocol::target::{Mechanism, RegisterTarget};
use loom_protocol::token::{check_name, check_token, list_of};
use serde_json::Value;

use super::fields::{Fields, given};
use crate::cli::exit::{CliError, CliResult};
use crate::cli::output::{beside, note};
use crate::settings::line_of;
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
    ///
    /// # Errors
    /// What was given says nothing, or what is needed was not given; all of that is named.
    pub fn request(&self) -> CliResult<(RegisterTarget, Named<'_>)> {
        self.check_not_empty()?;
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
        let named = Named { args: self, file };
        named.check_there(&request)?;
        Ok((request, named))
    }

    fn check_not_empty(&self) -> CliResult {
        for (named, given, what) in [
            ("NAME", &self.name, "the name of the target"),
            (
                "--type",
                &self.agent_type,
                "the type of its agents, like claude-code",
            ),
        ] {
            if given.as_ref().is_some_and(String::is_empty) {
                return Err(CliError::Usage(format!("{named} is empty; write {what}")));
            }
        }
        self.fields.check_not_empty(true)
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
            _ => self.args.fields.flag_of(field),
        }
    }

    /// Refuses a registration that lacks what each needs: everything that is missing at once.
    fn check_there(&self, request: &RegisterTarget) -> CliResult {
        let needed = [
            ("name", request.name.is_empty()),
            ("agentType", request.agent_type.is_empty()),
            ("capabilities", request.capabilities.is_empty()),
            ("mechanism", request.mechanism.is_none()),
        ];
        let missing = needed.into_iter().filter(|(_, is_missing)| *is_missing);
        let known = Mechanism::ALL.map(Mechanism::as_str).join(", ");
        let named = |field: &str| match field {
            "mechanism" => format!("{} ({known})", self.of(field)),
            field => self.of(field),
        };
        let missing: Vec<String> = missing.map(|(field, _)| named(field)).collect();
        let what = match missing.split_last() {
            None => return Ok(()),
            Some((last, [])) => format!("{last} is missing"),
            Some((last, others)) => format!("{} and {last} are missing", others.join(", ")),
        };
        Err(CliError::Usage(format!("{what}; {EXAMPLE}")))
    }
}

/// A line that lacks nothing.
const EXAMPLE: &str = "write it like `loom targets add here --type claude-code --capability rust --mechanism local --command 'loom agent run -- claude -p'`";

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
        request.name = accepted(ask, "name of the target", |name| {
            let checked = check_name("the name", name);
            checked.map_or_else(|error| Err(error.to_string()), |()| Ok(name.into()))
        })?;
    }
    if request.agent_type.is_empty() {
        let what = "type of its agents, like claude-code";
        request.agent_type = accepted(ask, what, |name| {
            let checked = check_token("the type", name);
            checked.map_or_else(|error| Err(error.to_string()), |()| Ok(name.into()))
        })?;
    }
    if let Some(names) = given(&fields.capabilities) {
        request.capabilities = names;
    }
    if request.capabilities.is_empty() {
        request.capabilities = accepted(ask, "what they can do, with commas", |names| {
            let names = list_of(names);
            (!names.is_empty())
                .then_some(names)
                .ok_or_else(|| "write at least one, like rust".into())
        })?;
    }
    let chosen = if let Some(mechanism) = request.mechanism {
        mechanism
    } else {
        let known = Mechanism::ALL.map(Mechanism::as_str).join(", ");
        accepted(ask, &format!("mechanism ({known})"), mechanism)?
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
            let answer = accepted(ask, what, |answer| match answer {
                "" => Err("it is needed".into()),
                answer => Ok(Value::from(answer)),
            })?;
            config.0.insert((*field).into(), answer);
        }
    }
    Ok(())
}

/// Asks until an answer will do, and says why one does not.
fn accepted<T>(
    ask: &mut impl FnMut(&str) -> CliResult<String>,
    what: &str,
    accept: impl Fn(&str) -> Result<T, String>,
) -> CliResult<T> {
    loop {
        match accept(&ask(what)?) {
            Ok(answer) => return Ok(answer),
            Err(why) => note(&why),
        }
    }
}

/// Asks a person.
fn answered(what: &str) -> CliResult<String> {
    beside(&format!("{what}:"));
    let mut answer = String::new();
    if io::stdin().lock().read_line(&mut answer)? == 0 {
        let message = "the answers ended before all was answered; nothing is registered";
        return Err(CliError::Usage(message.into()));
    }
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
    let table = toml::from_str(&text).map_err(|error: toml::de::Error| {
        let line = error.span().map(|span| line_of(&text, span.start));
        let line = line.map_or_else(String::new, |line| format!(", from line {line} on"));
        wrong(format!("it is not TOML{line}: {}", error.message()))
    })?;
    TargetInFile::of_toml(table).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(given: impl FnOnce(&mut AddArgs)) -> String {
        let mut args = AddArgs {
            name: Some("x".into()),
            from_file: None,
            agent_type: Some("t".into()),
            mechanism: Some(Mechanism::Local),
            disabled: false,
            fields: Fields::default(),
        };
        args.fields.capabilities = vec!["rust".into()];
        given(&mut args);
        let refused = args.request().err();
        refused.map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_is_missing_is_told_from_what_is_empty() {
        let empty = || Some(String::new());
        assert_eq!(refused(|_| {}), "");
        for (said, starts) in [
            (
                refused(|args| (args.name, args.agent_type) = (None, None)),
                "NAME and --type are missing; ",
            ),
            (
                refused(|args| args.mechanism = None),
                "--mechanism (local, ssh, kubernetes, github-actions, webhook) is missing; ",
            ),
            (
                refused(|args| args.fields.capabilities.clear()),
                "--capability is missing; ",
            ),
            (refused(|args| args.name = empty()), "NAME is empty; "),
            (
                refused(|args| args.agent_type = empty()),
                "--type is empty; ",
            ),
            (
                refused(|args| args.fields.capabilities = vec![String::new()]),
                "--capability is empty; ",
            ),
        ] {
            assert!(said.starts_with(starts), "{said}");
        }
    }

    #[test]
    fn what_is_missing_is_asked_for_and_nothing_else() {
        let mut asked = Vec::new();
        let mut answers = vec![
            "run it",
            "",
            "local",
            "somehow",
            "rust, go,",
            ",",
            "here",
            "he re",
            "",
        ];
        let mut request = RegisterTarget {
            agent_type: "claude-code".into(),
            ..RegisterTarget::default()
        };
        ask_for_what_is_missing(&mut request, &Fields::default(), &mut |what| {
            asked.push(what.to_owned());
            Ok(answers.pop().unwrap().to_owned())
        })
        .unwrap();
        // What will not do is asked for again.
        assert_eq!(asked.len(), 9);
        asked.dedup();
        assert_eq!(asked.len(), 4);
        let target = request.check().unwrap();
        assert_eq!(target.capabilities, ["rust", "go"]);
        let answered = target.config.answered().unwrap();
        assert_eq!(answered["command"], json!("run it"));
    }
}
