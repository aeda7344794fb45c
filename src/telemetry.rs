//! Logs: to stderr, quiet for commands that end by themselves.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What a long-running command logs where nobody says otherwise.
pub const SERVER_LEVEL: &str = "info,async_nats=warn";
/// What an agent logs where nobody says otherwise.
pub const AGENT_LEVEL: &str = "warn,async_nats=error";
/// What a command that ends by itself logs where nobody says otherwise.
pub const COMMAND_LEVEL: &str = "error,async_nats=off";

/// The text is no log level.
#[derive(Debug, thiserror::Error)]
#[error(
    "{level:?} is no log level ({source}); write error, warn, info, debug or trace, or module=level with commas between them"
)]
pub struct LevelError {
    level: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Begins to log. A second call changes nothing.
///
/// # Errors
/// The level cannot be read.
pub fn init(level: &str, format: LogFormat) -> Result<(), LevelError> {
    let filter = EnvFilter::try_new(level).map_err(|source| LevelError {
        level: level.into(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    let begun = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // It fails only where somebody logs already, and then there is nothing to do.
    drop(begun);
    Ok(())
}
