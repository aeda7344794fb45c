//! A real ssh server on loopback: throw-away keys, the account of whoever runs the tests.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use loom_testkit::sshd::TestSshd;
//!
//! let Some(sshd) = TestSshd::start().await? else {
//!     return Ok(()); // `cargo xtask test` found none and could install none, and has said so.
//! };
//! println!("ssh -p {} -i {} {}@127.0.0.1", sshd.port(), sshd.private_key().display(), sshd.user());
//! # Ok(())
//! # }
//! ```
//!
//! `sshd` is Debian's openssh-server. `cargo xtask test` installs it where it is missing and may be.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use loom_process::{OwnChild, ParentDeath, stat};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;

/// Set by `cargo xtask test` where there is no sshd, with the reason.
pub const MISSING: &str = "LOOM_SSHD_MISSING";
/// Where systems keep it.
const PLACES: [&str; 3] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"];
/// How long it may take to listen, or to end.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often another port is tried, since somebody else may take it first.
const TRIES: usize = 5;

/// A server that runs. Dropped, it and its connections are gone.
#[derive(Debug)]
pub struct TestSshd {
    folder: TempDir,
    program: PathBuf,
    server: Option<OwnChild>,
    port: u16,
    user: String,
}

/// The program, where there is one.
pub fn program() -> Option<PathBuf> {
    PLACES.iter().map(PathBuf::from).find(|path| path.is_file())
}

impl TestSshd {
    /// Starts one; none where `cargo xtask test` has said that there can be none.
    ///
    /// # Errors
    /// It is missing or does not start.
    pub async fn start() -> Result<Option<Self>> {
        let Some(program) = program() else {
            if let Ok(why) = std::env::var(MISSING) {
                println!("ignored: {why}");
                return Ok(None);
            }
            bail!("there is no sshd: install openssh-server, or run `cargo xtask test`");
        };
        let folder = tempfile::Builder::new().prefix("loom-sshd-").tempdir()?;
        let user = output(Command::new("id").arg("-un"))?;
        let mut sshd = Self {
            folder,
            program,
            server: None,
            port: 0,
            user,
        };
        sshd.make_keys()?;
        let mut last = None;
        for _ in 0..TRIES {
            sshd.port = free_port()?;
            match sshd.listen().await {
                Ok(()) => return Ok(Some(sshd)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no port was tried")))
    }

    /// Its port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The account that it lets in.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The key that it lets in.
    pub fn private_key(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    /// A file of known hosts of its own; empty until somebody connects.
    pub fn known_hosts(&self) -> PathBuf {
        self.folder.path().join("known hosts")
    }

    /// A configuration of the client with nothing in it, so that the user's own plays no part.
    pub fn client_config(&self) -> PathBuf {
        self.folder.path().join("client")
    }

    /// Its folder, for whatever a test keeps there.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the server and all of its connections. What they have started lives on.
    pub async fn stop(&mut self) -> Result<()> {
        self.cut_connections();
        if let Some(server) = self.server.take() {
            server.signal(Signal::KILL);
            let ended = tokio::time::timeout(PATIENCE, server.ended()).await;
            ended.context("sshd does not end")?;
        }
        self.cut_connections();
        Ok(())
    }

    /// Starts it again at the same port.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.listen().await
    }

    /// Cuts every connection, as a network does that is gone.
    pub fn cut_connections(&self) {
        let Some(server) = &self.server else {
            return;
        };
        let table = stat::table();
        let mut cut = vec![server.pid().cast_signed()];
        let mut at = 0;
        while let Some(parent) = cut.get(at).copied() {
            at += 1;
            // What was started there is no connection: it has another program.
            let children = table.iter().filter(|entry| entry.parent == parent);
            let connections = children.filter(|entry| is_sshd(entry));
            cut.extend(connections.map(|entry| entry.pid.as_raw_nonzero().get()));
        }
        for entry in table
            .iter()
            .filter(|entry| cut[1..].contains(&entry.pid.as_raw_nonzero().get()))
        {
            entry.signal(Signal::KILL);
        }
    }

    fn make_keys(&self) -> Result<()> {
        let folder = self.folder.path();
        for name in ["key", "host_key"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.join(name))
                .status()
                .context("ssh-keygen could not be run; install openssh-client")?;
            ensure!(made.success(), "ssh-keygen ended with {made}");
        }
        fs::copy(folder.join("key.pub"), folder.join("authorized_keys"))?;
        fs::write(self.client_config(), "")?;
        fs::set_permissions(self.client_config(), fs::Permissions::from_mode(0o600))?;
        if rustix::process::geteuid().is_root() {
            // Debian's wants it, and makes it only when the system starts it.
            fs::create_dir_all("/run/sshd").ok();
        }
        Ok(())
    }

    async fn listen(&mut self) -> Result<()> {
        let folder = self.folder.path();
        let in_folder = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPubkeyAuthentication yes\n\
             PermitRootLogin yes\nAllowTcpForwarding yes\nPrintMotd no\nMaxStartups 200\nLogLevel VERBOSE\n\
             SetEnv TMPDIR={}\n",
            self.port,
            in_folder("host_key"),
            in_folder("authorized_keys"),
            // What is kept there goes with the folder.
            folder.display(),
        );
        fs::write(folder.join("config"), config)?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("log"))?;
        let mut command = Command::new(&self.program);
        command
            .args(["-D", "-e", "-f"])
            .arg(folder.join("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let server = OwnChild::spawn(command, ParentDeath::Kill).await?;
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            if server.has_ended() || Instant::now() > until {
                bail!("sshd does not listen: {}", self.log());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.server = Some(server);
        Ok(())
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for TestSshd {
    fn drop(&mut self) {
        self.cut_connections();
    }
}

fn is_sshd(entry: &stat::Entry) -> bool {
    let program = fs::read_link(format!("/proc/{}/exe", entry.pid.as_raw_nonzero()));
    let name = program
        .as_ref()
        .ok()
        .and_then(|program| program.file_name());
    name.is_some_and(|name| name.to_string_lossy().starts_with("sshd"))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
