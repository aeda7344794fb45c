//! Logs: to stderr, quiet for commands that end by themselves.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

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

/// Libraries that write what passes through them, secrets too, below `info`: they do so only where they are named.
const CARRIERS: [&str; 7] = [
    "async_nats",
    "h2",
    "hyper",
    "hyper_util",
    "reqwest",
    "rustls",
    "tungstenite",
];

/// The text is no log level.
#[derive(Debug, thiserror::Error)]
#[error(
    "{level:?} is no log level ({why}); write error, warn, info, debug or trace, or module=level with commas between them"
)]
pub struct LevelError {
    level: String,
    why: String,
}

/// The filter takes a word that is no level for the name of a module, and then logs nothing.
fn filter(level: &str) -> Result<EnvFilter, LevelError> {
    let wrong = |why: String| LevelError {
        level: level.into(),
        why,
    };
    let alone = level.split(',').map(str::trim);
    let alone = alone.filter(|part| !part.is_empty() && !part.contains(['=', '[', ']']));
    let mut says_all = false;
    for part in alone {
        let Ok(of_all) = part.parse::<LevelFilter>() else {
            return Err(wrong(format!(
                "{part:?} is neither a level nor module=level"
            )));
        };
        says_all |= of_all > LevelFilter::INFO;
    }
    let is_named = |carrier: &str| {
        let mut parts = level.split(',').map(str::trim);
        parts.any(|part| part.split(['=', '[', ':']).next() == Some(carrier))
    };
    let carriers = CARRIERS.into_iter();
    let quiet = carriers.filter(|carrier| says_all && !is_named(carrier));
    let quiet = quiet.map(|carrier| format!("{carrier}=info"));
    let parts: Vec<String> = std::iter::once(level.to_owned()).chain(quiet).collect();
    EnvFilter::try_new(parts.join(",")).map_err(|error| wrong(error.to_string()))
}

/// Begins to log. A second call changes nothing.
///
/// # Errors
/// The level cannot be read.
pub fn init(level: &str, format: LogFormat) -> Result<(), LevelError> {
    let filter = filter(level)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_no_module_either() {
        for level in [
            SERVER_LEVEL,
            AGENT_LEVEL,
            COMMAND_LEVEL,
            "DEBUG",
            "off",
            "info,loom=trace",
            "loom[{x}]=info",
        ] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in ["bad", "info,loom_actors", "loom=loud", "inf"] {
            let error = filter(level).unwrap_err().to_string();
            assert!(
                error.contains(level) && error.contains("module=level"),
                "{error}"
            );
        }
    }

    /// What is read from the buckets and sent to them holds the secrets of targets.
    #[test]
    fn libraries_tell_what_passes_through_them_only_where_they_are_named() {
        for level in ["trace", "debug", "info,debug", "loom=info,trace"] {
            let filter = filter(level).unwrap().to_string();
            assert!(filter.contains("async_nats=info"), "{level}: {filter}");
        }
        for level in ["info", "error", "loom=trace", SERVER_LEVEL] {
            let filter = filter(level).unwrap().to_string();
            assert!(!filter.contains("async_nats=info"), "{level}: {filter}");
        }
        let named = filter("trace,async_nats::connection=trace")
            .unwrap()
            .to_string();
        assert!(named.contains("async_nats::connection=trace"), "{named}");
        assert!(!named.contains("async_nats=info"), "{named}");
        assert!(named.contains("hyper=info"), "{named}");
    }
}
