//! Stub programs that speak like Claude Code, Codex, Gemini CLI and Copilot CLI, and refuse what those refuse. What one
//! does stands in its prompt: `scenario=NAME`.
//!
//! | scenario | what it does |
//! |---|---|
//! | `success` | makes a file, answers |
//! | `exit-one` | the same, and ends with exit code 1 |
//! | `hang` | the same, and does not exit |
//! | `slow` | the same, after four seconds with an event every half second |
//! | `noise` | the same, with odd lines, events that nobody knows, and one of 30 MB |
//! | `mentions-a-limit` | makes a file, and its answer speaks of a limit |
//! | `is-error` | says that it failed; Claude beside `subtype: success` |
//! | `denied` | is denied a tool, changes nothing and calls that a success |
//! | `limit-by-event`, `limit-by-text`, `limit-by-text-only` | meets a limit: by an event, in its result, on standard error without any event |
//! | `outage`, `account` | its provider is in trouble, a person has to act |
//! | `no-result`, `half`, `stderr-only` | ends without a result: with exit code 0, in the middle of its line, without any event |
//! | `obey` | runs each line of its prompt that begins with `run: ` by the shell; each is a line of the file STUB_OBEYED as JSON (`command`, `code`, `out`, `err`); then answers |
//! | `long`, `silent` | makes a file and goes on for ever; says nothing but on standard error |
//!
//! They need `python3`.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The names of the programs.
pub const NAMES: [&str; 4] = ["claude", "codex", "gemini", "copilot"];

const STUB: &str = include_str!("programs/stub.py");

/// Makes all of them in a directory, and gives a `PATH` in which they are found first.
///
/// # Errors
/// A file can't be made there.
pub fn install(dir: &Path) -> io::Result<String> {
    std::fs::create_dir_all(dir)?;
    for name in NAMES {
        let path = dir.join(name);
        std::fs::write(&path, STUB)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    let path = std::env::var("PATH").unwrap_or_default();
    Ok(format!("{}:{path}", dir.display()))
}
