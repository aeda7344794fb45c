//! `loom config`: what is in force, where it comes from, and whether it is sound.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use loom_actors::settings::Setting as _;
use serde_json::json;

use super::Context;
use super::exit::CliResult;
use super::output::{block, note};
use super::up;
use crate::settings::sample::sample;
use crate::settings::{Loaded, Origin, Sources, keys, load};

/// Show and check the configuration of the coordinator.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print what is in force, and where each value comes from
    Show(SetArgs),
    /// Say whether the configuration is sound; exit 2 if it is not
    Check(SetArgs),
    /// Print a file with every key, its default and its comment
    Sample,
}

#[derive(Debug, Args)]
struct SetArgs {
    /// A key of the configuration as `loom up --set` would have it; may be repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE", value_parser = up::set)]
    set: Vec<(String, String)>,
}

/// Does what the arguments say.
pub fn run(context: &Context, args: &ConfigArgs) -> CliResult {
    let read = |args: &SetArgs| {
        let flags = up::overrides(&args.set).collect();
        load(&Sources::of_process(context.config_file(), flags))
    };
    match &args.command {
        ConfigCommand::Sample => context.out.text(&sample()),
        ConfigCommand::Check(args) => {
            let loaded = read(args)?;
            let warnings = loaded.warnings();
            let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            let file = loaded.file.map(|path| path.display().to_string());
            if context.out.is_json() {
                let said = json!({"ok": true, "file": file, "warnings": warnings});
                return context.out.json(&said);
            }
            for warning in &warnings {
                note(warning);
            }
            let file = file.map_or("no file".into(), |file| format!("file {file}"));
            let text = format!("the configuration is sound ({file})");
            context.out.text(&block(&text))
        }
        ConfigCommand::Show(args) => {
            let loaded = read(args)?;
            if context.out.is_json() {
                let origins: serde_json::Map<_, _> = loaded
                    .origins
                    .iter()
                    .map(|(key, origin)| (key.clone(), origin.to_string().into()))
                    .collect();
                let shown = json!({"settings": loaded.settings.get(""), "origins": origins});
                return context.out.json(&shown);
            }
            context.out.text(&block(&in_force(&loaded)))
        }
    }
}

/// The settings as a file, each with its origin.
fn in_force(loaded: &Loaded) -> String {
    let known: Vec<&str> = keys::all().map(|key| key.path.as_str()).collect();
    let set = loaded.origins.keys().map(String::as_str);
    let of_actors = set.filter(|path| !known.contains(path));
    let mut text = String::new();
    let mut current = String::new();
    for path in known.iter().copied().chain(of_actors) {
        let Some(value) = loaded.settings.get(path) else {
            continue;
        };
        let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
        if section != current {
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}[{section}]");
            section.clone_into(&mut current);
        }
        let origin = loaded.origins.get(path).unwrap_or(&Origin::Default);
        let _ = writeln!(text, "{:<36} # {origin}", format!("{name} = {value}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_is_in_force_is_a_file_with_origins_and_without_secrets() {
        let environment = [
            ("API_TOKENS", "hunter2"),
            ("NATS_URL", "nats://me:hunter2@h:1"),
            ("LOOM__SUPERVISION__WORK_LEDGER__MAX_RESTARTS", "2"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let loaded = load(&Sources {
            environment: environment.into(),
            ..Sources::default()
        })
        .unwrap();
        let text = in_force(&loaded);
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("# API_TOKENS") && text.contains("# default"));
        assert!(text.contains("[supervision.work_ledger]\nmax_restarts = 2"));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        load(&Sources {
            file: Some(file.path().into()),
            ..Sources::default()
        })
        .unwrap();
    }
}
