//! What Loom handed out in confidence, to be taken out of what a program says: the password or the token of
//! NATS, credentials in its URL, the token of the API, a ticket, the keys that `--env` passes on.

use std::path::Path;

use loom_client::{ClientOptions, Credentials};
use loom_protocol::url::{percent_decoded, split};

use super::environment::is_key;

pub use loom_process::secrets::{Scrubber, Secrets};

/// The variables that hold a secret for this process.
const VARIABLES: [&str; 3] = ["LOOM_TICKET", "LOOM_API_TOKEN", "NATS_PASS"];

/// What is known by these options, and by the environment of this process; the keys among `passed`, variables that are
/// passed on by name, among it.
pub fn of(options: &ClientOptions, passed: &[String]) -> Secrets {
    known_by(options, passed, |name| std::env::var(name).ok())
}

/// The same by these variables.
fn known_by(
    options: &ClientOptions,
    passed: &[String],
    variable: impl Fn(&str) -> Option<String>,
) -> Secrets {
    let keys = passed
        .iter()
        .map(String::as_str)
        .filter(|name| is_key(name));
    let mut texts: Vec<String> = VARIABLES
        .into_iter()
        .chain(keys)
        .filter_map(variable)
        .collect();
    texts.extend(split(&options.url).flat_map(of_address));
    match &options.credentials {
        Credentials::UserPassword(user, password) => {
            texts.extend([password.clone(), format!("{user}:{password}")]);
        }
        Credentials::Token(token) => texts.push(token.clone()),
        Credentials::File(path) => texts.extend(of_file(path)),
        _ => {}
    }
    Secrets::new(texts)
}

/// What is secret in one address: the password or the token, as written and as meant.
fn of_address(address: &str) -> Vec<String> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let Some((credentials, _)) = rest.rsplit_once('@') else {
        return Vec::new();
    };
    let secret = credentials
        .split_once(':')
        .map_or(credentials, |(_, password)| password);
    [secret, credentials]
        .into_iter()
        .flat_map(|text| [text.to_owned(), percent_decoded(text)])
        .collect()
}

/// The key and the token of a `.creds` file: its long lines that are no headings.
fn of_file(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(str::trim);
    let is_secret = |line: &&str| line.len() >= 32 && !line.contains(['-', ' ', '*']);
    // A JWT has dashes in it, a heading begins with them.
    let is_token = |line: &&str| line.starts_with("eyJ");
    lines
        .filter(|line| is_secret(line) || is_token(line))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
