//! `ssh`: a real server on loopback.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use loom_testkit::sshd::TestSshd;
use serde_json::{Value, json};

use crate::house::House;

/// A folder with an `ssh` that is the system's, and leaves the known hosts of whoever runs the tests alone.
pub(crate) fn folder_of_client(sshd: &TestSshd) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join("ssh"));
    let ssh = places
        .find(|ssh| ssh.is_file())
        .context("there is no ssh: install openssh-client")?;
    let folder = sshd.folder().join("client-program");
    fs::create_dir(&folder)?;
    let program = folder.join("ssh");
    let line = format!(
        "#!/bin/sh\nexec '{}' -F '{}' -o UserKnownHostsFile='\"{}\"' \"$@\"\n",
        ssh.display(),
        sshd.client_config().display(),
        sshd.known_hosts().display()
    );
    fs::write(&program, line)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// What is kept of starts in the account of the machine; none where no start ever made the directory for it.
pub(crate) fn kept_there(sshd: &TestSshd) -> Option<usize> {
    let mut entries = fs::read_dir(sshd.folder()).ok()?.flatten();
    let of_starts = entries.find(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with("loom-spin-ups-")
    })?;
    Some(fs::read_dir(of_starts.path()).ok()?.count())
}

/// A target on that machine, whose agent is `loom agent run`.
pub(crate) fn config(sshd: &TestSshd, house: &House) -> Value {
    let words = house.agent(&[]);
    let quoted = words
        .iter()
        .map(|word| format!("'{}'", word.replace('\'', "'\\''")));
    let command = format!("exec {}", quoted.collect::<Vec<_>>().join(" "));
    json!({
        "host": "127.0.0.1", "port": sshd.port(), "user": sshd.user(), "privateKeyPath": sshd.private_key(),
        "command": command, "connectionTimeoutMs": 20_000,
    })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server and an ssh server: run `cargo xtask test`"]
async fn an_agent_of_another_machine_is_started_over_ssh_and_leaves_nothing_there() -> Result<()> {
    let Some(sshd) = TestSshd::start().await? else {
        return Ok(());
    };
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", folder_of_client(&sshd)?.display());
    let house = House::open(&[("PATH", &path)]).await?;
    let config = config(&sshd, &house);
    house.target("ssh", config).await?;
    let lived = house.work_gets_an_agent().await?;
    house.the_agent_goes(&lived).await?;
    let empty = async || (kept_there(&sshd) == Some(0)).then_some(());
    house
        .project
        .eventually("nothing is kept there", empty)
        .await
}
