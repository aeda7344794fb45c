//! The command line of `ssh`. Nothing of it is secret, and nothing that comes from a target can be taken for an option.

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use loom_protocol::target::{KnownHosts, SshConfig};

use super::{Forward, SshProgram};
use crate::environment;
use crate::shell::quoted;

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Use<'a> {
    /// To run the script that comes by standard input.
    Script,
    /// To be a tunnel.
    Tunnel(&'a Forward, u16),
}

/// The command for a connection.
pub(super) fn command(config: &SshConfig, ssh: &SshProgram, for_what: Use<'_>) -> Command {
    let mut command = Command::new(&ssh.program);
    command
        .env_clear()
        .envs(environment::inherited())
        .envs(std::env::var_os("SSH_AUTH_SOCK").map(|socket| ("SSH_AUTH_SOCK", socket)))
        .current_dir("/")
        .args(common(config, ssh));
    if let Some((user, host, port)) = config.jump_parts() {
        command.arg("-o").arg(proxy(config, ssh, user, host, port));
    }
    match for_what {
        Use::Script => {
            command.args([
                "-T",
                "-o",
                "ClearAllForwardings=yes",
                "-o",
                "LogLevel=ERROR",
            ]);
        }
        Use::Tunnel(forward, port) => {
            let forward = format!(
                "127.0.0.1:{port}:{}:{}",
                bracketed(&forward.host),
                forward.port
            );
            // What it tells of the forwarding it tells at this level.
            command.args([
                "-N",
                "-T",
                "-o",
                "ExitOnForwardFailure=yes",
                "-o",
                "LogLevel=DEBUG1",
                "-R",
                &forward,
            ]);
        }
    }
    command.args([
        "-p",
        &config.port.to_string(),
        "-l",
        &config.user,
        "--",
        &config.host,
    ]);
    if matches!(for_what, Use::Script) {
        // Every login shell understands this.
        command.arg("exec /bin/sh -s");
    }
    command
}

/// What holds on the way too.
fn common(config: &SshConfig, ssh: &SshProgram) -> Vec<OsString> {
    let limit = Duration::from_millis(config.connection_timeout_ms);
    // In whole seconds, and not 0, which would be no limit.
    let seconds = limit.as_millis().div_ceil(1000).max(1);
    let known = match config.known_hosts {
        KnownHosts::Strict => "yes",
        KnownHosts::AcceptNew => "accept-new",
    };
    let mut arguments: Vec<OsString> = Vec::new();
    if let Some(file) = &ssh.config_file {
        arguments.extend(["-F".into(), file.into()]);
    }
    for option in [
        "BatchMode=yes".to_owned(),
        format!("ConnectTimeout={seconds}"),
        "ServerAliveInterval=5".to_owned(),
        "ServerAliveCountMax=3".to_owned(),
        format!("StrictHostKeyChecking={known}"),
        "ForwardAgent=no".to_owned(),
        "ForwardX11=no".to_owned(),
        "PermitLocalCommand=no".to_owned(),
        "ControlMaster=no".to_owned(),
        "ControlPath=none".to_owned(),
    ] {
        arguments.extend(["-o".into(), option.into()]);
    }
    if let Some(file) = &ssh.known_hosts_file {
        let mut option = OsString::from("UserKnownHostsFile=");
        // In an option a space would begin another file.
        option.push(option_value(&file.to_string_lossy()));
        arguments.extend(["-o".into(), option]);
    }
    if let Some(key) = &config.private_key_path {
        arguments.extend(["-o", "IdentitiesOnly=yes", "-i", key].map(Into::into));
    }
    arguments
}

/// The machine on the way: as `-J`, but with the same key, known hosts and limits, which `-J` would not use.
fn proxy(
    config: &SshConfig,
    ssh: &SshProgram,
    user: Option<&str>,
    host: &str,
    port: Option<u16>,
) -> OsString {
    let mut words = vec![quoted(&ssh.program.to_string_lossy())];
    let common = common(config, ssh);
    words.extend(common.iter().map(|word| quoted(&word.to_string_lossy())));
    let port = port.unwrap_or(22).to_string();
    words.extend(
        [
            "-o",
            "LogLevel=ERROR",
            "-o",
            "ClearAllForwardings=yes",
            "-p",
            &port,
        ]
        .map(quoted),
    );
    if let Some(user) = user {
        words.extend(["-l", user].map(quoted));
    }
    // A percent sign is one of `ssh`'s own placeholders.
    let words: Vec<String> = words.iter().map(|word| word.replace('%', "%%")).collect();
    format!(
        "ProxyCommand={} -W '[%h]:%p' -- {}",
        words.join(" "),
        quoted(host)
    )
    .into()
}

fn option_value(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%");
    format!("\"{escaped}\"")
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}
