//! The program itself, with a nats-server at hand.

use std::env;

use anyhow::Result;

use crate::nats;
use crate::shell::{become_command, cargo};

/// `loom up`: needs no server of ours where NATS_URL names one.
pub fn up(arguments: &[String]) -> Result<()> {
    let needs_server = env::var_os("NATS_URL").is_none_or(|url| url.is_empty());
    loom("up", Build::Fast, needs_server, arguments)
}

/// `loom demo`
pub fn demo(arguments: &[String]) -> Result<()> {
    loom("demo", Build::Fast, true, arguments)
}

/// `loom bench`
pub fn bench(arguments: &[String]) -> Result<()> {
    loom("bench", Build::Release, true, arguments)
}

/// What is to be fast: the build or the program.
#[derive(Clone, Copy, PartialEq)]
enum Build {
    Fast,
    Release,
}

fn loom(verb: &str, build: Build, needs_server: bool, arguments: &[String]) -> Result<()> {
    let (release, arguments) = match arguments.split_first() {
        Some((first, rest)) if first == "--release" => (true, rest),
        _ => (build == Build::Release, arguments),
    };
    let mut command = cargo();
    command.args(["run", "--package", "loom-coordinator", "--bin", "loom"]);
    if release {
        command.arg("--release");
    }
    if needs_server {
        command.env(nats::VARIABLE, nats::server()?);
    }
    command.arg("--").arg(verb).args(arguments);
    become_command(command)
}
