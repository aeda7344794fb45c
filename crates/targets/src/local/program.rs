//! The program of a local target: found before it is started, so that what is missing is said by its name.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use loom_protocol::target::LocalConfig;

/// The shell that reads a line.
const SHELL: &str = "/bin/sh";

/// The command that a target starts, without its environment.
pub(super) fn command(config: &LocalConfig) -> Command {
    let mut command = if config.shell {
        let mut shell = Command::new(SHELL);
        shell.args(["-c", &config.command]);
        shell
    } else {
        let program = resolved(config).unwrap_or_else(|| PathBuf::from(&config.command));
        let mut command = Command::new(program);
        command.args(&config.args);
        command
    };
    if let Some(dir) = directory(config) {
        command.current_dir(dir);
    }
    command
}

/// Where it runs; `~` is the home directory.
fn directory(config: &LocalConfig) -> Option<PathBuf> {
    let dir = config.working_directory.as_deref()?;
    let in_home = dir
        .strip_prefix('~')
        .filter(|rest| rest.is_empty() || rest.starts_with('/'));
    match (in_home, std::env::var("HOME")) {
        (Some(rest), Ok(home)) => Some(format!("{home}{rest}").into()),
        _ => Some(dir.into()),
    }
}

/// Whether the command could be started: what was seen, or what is missing and what to do.
pub(super) fn check(config: &LocalConfig) -> Result<String, String> {
    if let Some(dir) = &directory(config) {
        let shown = dir.display();
        match std::fs::metadata(dir) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                return Err(format!(
                    "the working directory {shown} is no directory; write another workingDirectory"
                ));
            }
            Err(error) => {
                return Err(format!(
                    "the working directory {shown} can't be used ({error}); make it, or write another workingDirectory"
                ));
            }
        }
    }
    let name = if config.shell {
        // A line is looked into as far as its first word tells a program.
        match crate::shell::first_word(&config.command) {
            Some(word) => word,
            None => return Ok("the line is for a shell to read".to_owned()),
        }
    } else {
        config.command.clone()
    };
    let config = LocalConfig {
        command: name,
        ..config.clone()
    };
    let name = &config.command;
    match resolved(&config) {
        Some(found) if is_executable(&found) => Ok(format!("{} is executable", found.display())),
        Some(found) => {
            let found = found.display();
            Err(format!(
                "the command {name:?} is not executable ({found}); give it the right to be executed (chmod +x), or write another command"
            ))
        }
        None => Err(format!(
            "the command {name:?} was not found; install it, or write its path as command"
        )),
    }
}

/// The file of the program: in `PATH`, as the agent will have it, or relative to its directory.
fn resolved(config: &LocalConfig) -> Option<PathBuf> {
    let name = Path::new(&config.command);
    let dir = &directory(config).unwrap_or_else(|| ".".into());
    if name.components().count() > 1 || name.is_absolute() {
        let path = if name.is_absolute() {
            name.to_owned()
        } else {
            std::path::absolute(dir).ok()?.join(name)
        };
        return path.is_file().then_some(path);
    }
    let own = config.env.expose().find(|(name, _)| *name == "PATH");
    let path = match own {
        Some((_, path)) => path.to_owned(),
        None => std::env::var("PATH").unwrap_or_default(),
    };
    let candidates = std::env::split_paths(&path)
        .map(|folder| std::path::absolute(dir).map(|dir| dir.join(folder).join(name)));
    let candidates: Vec<PathBuf> = candidates.flatten().filter(|path| path.is_file()).collect();
    let executable = candidates.iter().find(|path| is_executable(path));
    executable.or(candidates.first()).cloned()
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o111 != 0)
}
