//! Other programs, and where this project is.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

/// What an outer `cargo run` tells xtask about itself. An inner cargo that inherits it would build some dependencies
/// again, because their build scripts watch these variables.
const OUTER_CARGO: [&str; 5] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_BIN_",
    "CARGO_CRATE_",
    "CARGO_PRIMARY_",
];

/// The folder of the workspace.
pub fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).map(PathBuf::from).unwrap_or(own)
}

/// Where everything that is fetched or built goes.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A program that runs in the folder of the workspace.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        let inherited = name.to_string_lossy();
        if OUTER_CARGO
            .iter()
            .any(|prefix| inherited.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// The cargo that runs this.
pub fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Becomes `command`, so that signals and the exit code are its own. Returns only if it can't be started.
#[cfg(unix)]
pub fn become_command(mut command: Command) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let program = command.get_program().to_string_lossy().into_owned();
    Err(command.exec()).with_context(|| format!("start {program}"))
}

/// Runs `command` to its end: this system can't replace a process by another.
#[cfg(not(unix))]
pub fn become_command(mut command: Command) -> Result<()> {
    let status = command.status().context("start a program")?;
    std::process::exit(status.code().unwrap_or(1));
}

/// What a program that ended well wrote to its standard output; none where it is missing or ended otherwise.
pub fn output_of(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first number-dot-number-dot-number in a text.
pub fn version_in(text: &str) -> Option<(u32, u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.trim_start_matches('v').splitn(3, '.');
        let mut next = || {
            let digits = parts.next()?.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok()
        };
        Some((next()?, next()?, next()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        assert_eq!(version_in("nats-server: v2.15.1\n"), Some((2, 15, 1)));
        assert_eq!(version_in("cargo-deny 0.20.2"), Some((0, 20, 2)));
        assert_eq!(version_in("2.12.5-preview.1"), Some((2, 12, 5)));
        assert_eq!(version_in("no version"), None);
    }
}
