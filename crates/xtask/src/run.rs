//! The program itself, with a nats-server at hand.

use std::env;

use anyhow::{Result, bail};

use crate::nats;
use crate::shell::{become_command, cargo, target};

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

/// A chaos run against the program as it is now.
pub fn chaos(arguments: &[String]) -> Result<()> {
    let (release, arguments) = release(arguments);
    let profile: &[&str] = if release { &["--release"] } else { &[] };
    let mut build = cargo();
    build.args(["build", "--package", "loom-coordinator", "--bin", "loom"]);
    let built = build.args(profile).status()?;
    if !built.success() {
        bail!("the program loom cannot be built, see above");
    }
    let folder = if release { "release" } else { "debug" };
    let mut command = cargo();
    command
        .args(["run", "--package", "loom-testkit", "--bin", "chaos"])
        .args(profile)
        .env(nats::VARIABLE, nats::server()?)
        .args(["--", "--program"])
        .arg(target().join(folder).join("loom"))
        .args(arguments);
    become_command(command)
}

/// What is to be fast: the build or the program.
#[derive(Clone, Copy, PartialEq)]
enum Build {
    Fast,
    Release,
}

fn loom(verb: &str, build: Build, needs_server: bool, arguments: &[String]) -> Result<()> {
    let (asked, arguments) = release(arguments);
    let release = asked || build == Build::Release;
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

/// Whether the first argument asks for a program that is built for speed, and the others.
fn release(arguments: &[String]) -> (bool, &[String]) {
    match arguments.split_first() {
        Some((first, rest)) if first == "--release" => (true, rest),
        _ => (false, arguments),
    }
}
