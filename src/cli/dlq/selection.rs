//! Which dead letters a command is about.

use clap::{ArgGroup, Args};

use crate::cli::naming::name;

/// Letters by their ids, by a filter, or all; one of these has to be given.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group = ArgGroup::new("which").required(true).multiple(true).args(["ids", "capability", "reason", "all"]))]
pub(super) struct Selection {
    /// The letters: ids, beginnings of them, or taskIds.
    #[arg(value_parser = name, conflicts_with_all = ["capability", "reason", "all"])]
    pub ids: Vec<String>,
    /// Those of this capability.
    #[arg(long)]
    pub capability: Option<String>,
    /// Those of this reason, like agent-error, timeout or poison.
    #[arg(long)]
    pub reason: Option<String>,
    /// All of them.
    #[arg(long, conflicts_with_all = ["capability", "reason"])]
    pub all: bool,
}
