//! An ssh server for the tests of agents on other machines: the machine's own, or Debian's, installed where that may be
//! done. Where there is none those tests are ignored, and say why.

use std::path::Path;

use crate::shell::command;

/// Tells the tests why there is none.
pub const MISSING: &str = "LOOM_SSHD_MISSING";

/// Where systems keep it.
const PLACES: [&str; 3] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"];

/// Why there is no ssh server, where there is none and none can be installed.
pub fn missing() -> Option<String> {
    if is_there() {
        return None;
    }
    println!("there is no sshd: openssh-server is installed, where that may be done");
    let install = [
        "install",
        "-y",
        "--no-install-recommends",
        "openssh-server",
        "openssh-client",
    ];
    let installed = command("apt-get")
        .args(install)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status();
    if installed.is_ok_and(|status| status.success()) && is_there() {
        return None;
    }
    let why = "there is no sshd, and openssh-server can't be installed here; install it";
    eprintln!("xtask: the tests over ssh are ignored: {why}");
    Some(why.to_owned())
}

fn is_there() -> bool {
    PLACES.iter().any(|place| Path::new(place).is_file())
}
