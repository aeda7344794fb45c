//! What each mechanism refuses, by the name of the field.

use serde_json::json;

use super::config::{
    GithubActionsConfig, KubernetesConfig, LocalConfig, MechanismConfig, SshConfig, WebhookConfig,
};
use super::secret::{MASK, SecretMap};
use super::template::BodyTemplate;
use super::{HealthCheck, limits};
use crate::error::WireError;

/// An error that names its field, for programs too.
pub(super) fn refused(prefix: &str, field: &str, problem: &str) -> WireError {
    let field = format!("{prefix}{field}");
    with_field(WireError::invalid(format!("{field} {problem}")), &field)
}

pub(super) fn with_field(error: WireError, field: &str) -> WireError {
    error.with_details(json!({ "field": field }))
}

/// Checks a configuration. `prefix` is what its fields' names begin with, as the sender wrote them.
pub(super) fn config(config: &MechanismConfig, prefix: &str) -> Result<(), WireError> {
    let check = Check { prefix };
    match config {
        MechanismConfig::Local(config) => check.local(config),
        MechanismConfig::Ssh(config) => check.ssh(config),
        MechanismConfig::Kubernetes(config) => check.kubernetes(config),
        MechanismConfig::GithubActions(config) => check.github(config),
        MechanismConfig::Webhook(config) => check.webhook(config),
    }
}

/// Checks how often a target is looked at.
pub(super) fn health_check(check: &HealthCheck) -> Result<(), WireError> {
    let interval = limits::HEALTH_INTERVAL_MS;
    if !interval.contains(&check.interval_ms) {
        let problem = format!(
            "is {}; write {} to {}",
            check.interval_ms,
            interval.start(),
            interval.end()
        );
        return Err(refused("healthCheck.", "intervalMs", &problem));
    }
    Check {
        prefix: "healthCheck.",
    }
    .timeout("timeoutMs", check.timeout_ms)
}

struct Check<'a> {
    prefix: &'a str,
}

impl Check<'_> {
    fn no(&self, field: &str, problem: &str) -> WireError {
        refused(self.prefix, field, problem)
    }

    /// A text that must be there.
    fn required(&self, field: &str, value: &str, what: &str) -> Result<(), WireError> {
        if value.is_empty() {
            return Err(self.no(field, &format!("is missing or empty; write {what}")));
        }
        self.not_blank(field, value, what)
    }

    fn not_blank(&self, field: &str, value: &str, what: &str) -> Result<(), WireError> {
        if value.trim().is_empty() {
            let is = if value.is_empty() {
                "is empty"
            } else {
                "is only spaces"
            };
            return Err(self.no(field, &format!("{is}; write {what}")));
        }
        self.text(field, value)
    }

    /// A text that can be handed to a program.
    fn text(&self, field: &str, value: &str) -> Result<(), WireError> {
        if value.contains('\0') {
            Err(self.no(field, "contains a NUL character; write it without"))
        } else {
            Ok(())
        }
    }

    /// A text that may be absent, but not empty.
    fn optional(&self, field: &str, value: Option<&str>) -> Result<(), WireError> {
        match value {
            None => Ok(()),
            Some(value) => self.not_blank(field, value, "it, or leave the field out"),
        }
    }

    /// A text of these characters that no program can take for an option.
    fn plain(&self, field: &str, value: &str, also: &str) -> Result<(), WireError> {
        if value.starts_with('-') {
            return Err(self.no(field, "begins with '-', which programs take for an option"));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
        if let Some(bad) = value.chars().find(|c| !allowed(*c)) {
            let problem = format!("contains {bad:?}; write letters, digits and any of {also}");
            return Err(self.no(field, &problem));
        }
        if value.len() > 255 {
            return Err(self.no(field, "has more than 255 characters"));
        }
        Ok(())
    }

    fn timeout(&self, field: &str, ms: u64) -> Result<(), WireError> {
        if (1..=limits::TIMEOUT_MS).contains(&ms) {
            return Ok(());
        }
        let problem = format!("is {ms}; write 1 to {} (milliseconds)", limits::TIMEOUT_MS);
        Err(self.no(field, &problem))
    }

    fn environment(&self, env: &SecretMap) -> Result<(), WireError> {
        for (name, value) in env.expose() {
            let field = format!("env.{}", shown(name));
            if !is_variable(name) {
                return Err(self.no(
                    &field,
                    "is no name of a variable; write letters, digits and _, no digit first",
                ));
            }
            self.secret(&field, value)?;
        }
        Ok(())
    }

    fn secret(&self, field: &str, value: &str) -> Result<(), WireError> {
        if value == MASK {
            return Err(self.no(
                field,
                "is ***, which stands for a value that is kept; write the value",
            ));
        }
        self.text(field, value)
    }

    fn local(&self, config: &LocalConfig) -> Result<(), WireError> {
        self.required("command", &config.command, "the program to start")?;
        if config.shell && !config.args.is_empty() {
            return Err(self.no(
                "args",
                "is not for a line that a shell reads; write them into command, or shell: false",
            ));
        }
        for (place, argument) in config.args.iter().enumerate() {
            self.text(&format!("args.{place}"), argument)?;
        }
        self.optional("workingDirectory", config.working_directory.as_deref())?;
        self.environment(&config.env)
    }

    fn ssh(&self, config: &SshConfig) -> Result<(), WireError> {
        self.required("host", &config.host, "the name or address of the machine")?;
        self.plain("host", &config.host, "._-:")?;
        self.required("user", &config.user, "the account on that machine")?;
        self.plain("user", &config.user, "._-+")?;
        self.required("command", &config.command, "the command to start there")?;
        if config.port == 0 {
            return Err(self.no("port", "is 0; write 1 to 65535"));
        }
        self.optional("privateKeyPath", config.private_key_path.as_deref())?;
        if config
            .private_key_path
            .as_ref()
            .is_some_and(|path| path.contains(['%', '$']))
        {
            return Err(self.no(
                "privateKeyPath",
                "contains '%' or '$', which ssh replaces; rename the file",
            ));
        }
        self.optional("workingDirectory", config.working_directory.as_deref())?;
        self.timeout("connectionTimeoutMs", config.connection_timeout_ms)?;
        if let Some(jump) = &config.jump_host {
            self.not_blank(
                "jumpHost",
                jump,
                "[user@]host[:port], or leave the field out",
            )?;
            self.plain("jumpHost", jump, "._-+:@")?;
            if config.jump_parts().is_none() {
                return Err(self.no("jumpHost", "is not [user@]host[:port]"));
            }
        }
        self.environment(&config.env)
    }

    fn kubernetes(&self, config: &KubernetesConfig) -> Result<(), WireError> {
        self.required("namespace", &config.namespace, "the namespace of the jobs")?;
        self.dns_label("namespace", &config.namespace, 63)?;
        self.required(
            "jobNamePrefix",
            &config.job_name_prefix,
            "what names of jobs begin with",
        )?;
        // Room for the id behind it.
        self.dns_label("jobNamePrefix", &config.job_name_prefix, 40)?;
        self.required("image", &config.image, "the image of the agent")?;
        self.plain("image", &config.image, "._-:/@")?;
        for (field, name) in [
            ("imagePullSecret", &config.image_pull_secret),
            ("serviceAccount", &config.service_account),
        ] {
            self.optional(field, name.as_deref())?;
            self.plain(field, name.as_deref().unwrap_or_default(), ".-")?;
        }
        for (field, texts) in [("command", &config.command), ("args", &config.args)] {
            for (place, text) in texts.iter().enumerate() {
                self.text(&format!("{field}.{place}"), text)?;
            }
        }
        for (field, quantity) in config
            .resources
            .iter()
            .flat_map(|of| [("resources.cpu", &of.cpu), ("resources.memory", &of.memory)])
        {
            self.optional(field, quantity.as_deref())?;
            self.plain(field, quantity.as_deref().unwrap_or_default(), ".")?;
        }
        self.optional("context", config.context.as_deref())?;
        self.environment(&config.env)
    }

    fn dns_label(&self, field: &str, value: &str, most: usize) -> Result<(), WireError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if value.len() > most
            || !value.chars().all(allowed)
            || value.starts_with('-')
            || value.ends_with('-')
        {
            let problem = format!(
                "is no name of Kubernetes; write 1 to {most} lower-case letters, digits and '-', no '-' at either end"
            );
            return Err(self.no(field, &problem));
        }
        Ok(())
    }

    fn github(&self, config: &GithubActionsConfig) -> Result<(), WireError> {
        self.required("repo", &config.repo, "owner/repo")?;
        self.plain("repo", &config.repo, "._-/")?;
        match config.repo.split_once('/') {
            Some((owner, repo)) if !owner.is_empty() && !repo.is_empty() && !repo.contains('/') => {
            }
            _ => return Err(self.no("repo", "is not owner/repo")),
        }
        self.required(
            "workflow",
            &config.workflow,
            "the file name of the workflow",
        )?;
        self.plain("workflow", &config.workflow, "._-")?;
        self.required("ref", &config.reference, "a branch or tag")?;
        self.plain("ref", &config.reference, "._-/+#@")?;
        self.variable("tokenEnvVar", &config.token_env_var)?;
        for (name, value) in &config.inputs {
            let field = format!("inputs.{}", shown(name));
            self.plain(&field, name, "_-")?;
            BodyTemplate::parse(value).map_err(|error| self.no(&field, &error.to_string()))?;
        }
        if let Some(limit) = config.start_timeout_ms {
            self.timeout("startTimeoutMs", limit)?;
        }
        match &config.api_url {
            None => Ok(()),
            Some(url) => self.url("apiUrl", url),
        }
    }

    fn webhook(&self, config: &WebhookConfig) -> Result<(), WireError> {
        self.required("url", &config.url, "the address to call")?;
        self.url("url", &config.url)?;
        for (name, value) in config.headers.expose() {
            let field = format!("headers.{}", shown(name));
            let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.is_empty() || !name.chars().all(allowed) {
                return Err(self.no(&field, "is no name of a header"));
            }
            if ["host", "content-length", "transfer-encoding", "connection"]
                .contains(&name.to_ascii_lowercase().as_str())
            {
                return Err(self.no(&field, "is set by the request itself; leave it out"));
            }
            self.secret(&field, value)?;
            if value.chars().any(|c| c.is_control() && c != '\t') {
                return Err(self.no(&field, "contains a control character; write it in one line"));
            }
        }
        if let Some(template) = &config.body_template {
            BodyTemplate::parse(template).map_err(|e| self.no("bodyTemplate", &e.to_string()))?;
        }
        if config.success_codes.is_empty() {
            return Err(self.no("successCodes", "is empty; no answer would be a success"));
        }
        if let Some(bad) = config
            .success_codes
            .iter()
            .find(|code| !(200..=399).contains(*code))
        {
            return Err(self.no(
                "successCodes",
                &format!("contains {bad}; write codes from 200 to 399"),
            ));
        }
        self.timeout("timeoutMs", config.timeout_ms)?;
        match &config.secret_env_var {
            None => Ok(()),
            Some(name) => self.variable("secretEnvVar", name),
        }
    }

    fn variable(&self, field: &str, name: &str) -> Result<(), WireError> {
        if is_variable(name) {
            Ok(())
        } else {
            Err(self.no(
                field,
                "is no name of a variable; write letters, digits and _, no digit first",
            ))
        }
    }

    /// An address that can be called, without credentials in it.
    fn url(&self, field: &str, url: &str) -> Result<(), WireError> {
        let scheme = url.split_once("://").filter(|(scheme, _)| {
            ["http", "https"]
                .iter()
                .any(|known| scheme.eq_ignore_ascii_case(known))
        });
        let Some((_, rest)) = scheme else {
            return Err(self.no(field, "is no URL; write http://… or https://…"));
        };
        if url
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '\\')
        {
            return Err(self.no(
                field,
                "contains a space, a control character or a backslash; write them percent-encoded",
            ));
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(self.no(
                field,
                "has credentials in it; write them as a header (Authorization)",
            ));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(inner) => inner
                .split_once(']')
                .map_or(("", ""), |(host, port)| (host, port)),
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        if host.is_empty() {
            return Err(self.no(field, "names no host"));
        }
        let port = port.strip_prefix(':').unwrap_or(port);
        if !port.is_empty() && !port.parse::<u16>().is_ok_and(|port| port != 0) {
            return Err(self.no(field, "has a port that is none; write 1 to 65535"));
        }
        Ok(())
    }
}

impl SshConfig {
    /// The machine on the way, taken apart: account, host, port.
    pub fn jump_parts(&self) -> Option<(Option<&str>, &str, Option<u16>)> {
        let jump = self.jump_host.as_deref()?;
        let (user, rest) = match jump.split_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, jump),
        };
        let (host, port) = match rest.split_once(':') {
            // Several colons are an address of IPv6.
            Some((host, port)) if !port.contains(':') => {
                (host, Some(port.parse().ok().filter(|port| *port != 0)?))
            }
            _ => (rest, None),
        };
        let is_name =
            |name: &str| !name.is_empty() && !name.starts_with('-') && !name.contains('@');
        (user.is_none_or(is_name) && is_name(host)).then_some((user, host, port))
    }
}

fn is_variable(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty()
        && name.len() <= 255
        && name.chars().all(allowed)
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn shown(name: &str) -> String {
    let short: String = name.chars().take(64).collect();
    short.escape_debug().to_string()
}
