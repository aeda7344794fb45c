//! A private nats-server for tests, on a port and a store of its own.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use loom_testkit::nats::TestNats;
//!
//! let nats = TestNats::shared().await?;
//! let client = nats.connect().await?;
//! let project = TestNats::unique_project();
//! # let _ = (client, project);
//! # Ok(())
//! # }
//! ```
//!
//! The server dies with the test process (on Linux even when that is killed), and its folder is removed when the last
//! handle is dropped. Folders of processes that were killed are removed by the next start.
//!
//! Where the environment has `NATS_URL`, [`TestNats::shared`] is that server: it is never stopped or killed by a test,
//! and each test keeps to its [`TestNats::unique_project`]. [`TestNats::start`] starts a private one all the same.

use std::env;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use anyhow::{Context as _, Result, bail};
use loom_actors::nats::connection::round_trip;
use loom_actors::nats::server::{NatsServer, Profile, ServerOptions, find_server};
use loom_protocol::ProjectId;
use loom_protocol::url::without_credentials;
use tempfile::TempDir;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::cluster::{SERVERS, TestCluster, connect};
use crate::store_folder::new_folder;

/// The one that [`TestNats::shared`] gives out, while anybody has it.
static SHARED: Mutex<Weak<TestNats>> = Mutex::const_new(Weak::new());

/// A nats-server with JetStream for tests.
#[derive(Debug)]
pub struct TestNats(Kind);

#[derive(Debug)]
enum Kind {
    // The server is dropped, and so killed, before its folder is removed.
    Own {
        server: Box<NatsServer>,
        folder: TempDir,
    },
    Cluster {
        cluster: TestCluster,
        /// Which one is killed next.
        next: AtomicUsize,
    },
    Foreign {
        url: String,
    },
}

/// What a test's server holds less of than others.
#[derive(Debug, Clone, Copy, Default)]
struct Limits {
    max_file_store: Option<u64>,
    max_payload: Option<usize>,
}

impl TestNats {
    /// The server that all tests of this process share. Started by the first one, removed after the last one.
    pub async fn shared() -> Result<Arc<Self>> {
        let mut shared = SHARED.lock().await;
        if let Some(nats) = shared.upgrade() {
            return Ok(nats);
        }
        let nats = match Self::foreign() {
            Some(nats) => nats,
            None => Self::start().await?,
        };
        let nats = Arc::new(nats);
        *shared = Arc::downgrade(&nats);
        Ok(nats)
    }

    /// The server of `NATS_URL`, where there is one.
    pub(crate) fn foreign() -> Option<Self> {
        let url = env::var("NATS_URL").ok().filter(|url| !url.is_empty())?;
        Some(Self(Kind::Foreign { url }))
    }

    /// A server for one test alone, whatever `NATS_URL` says: for those that stop, kill or pause it, or start a
    /// coordinator of their own on it.
    pub async fn start() -> Result<Self> {
        Self::start_with(Profile::Fast).await
    }

    /// As [`TestNats::start`], with another durability.
    pub async fn start_with(profile: Profile) -> Result<Self> {
        Self::start_limited(profile, None).await
    }

    /// As [`TestNats::start_with`], on a store that `fill` puts into its folder first.
    pub async fn start_on(
        profile: Profile,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        Self::start_in(profile, Limits::default(), fill).await
    }

    /// As [`TestNats::start_with`]; JetStream holds at most so many bytes, and refuses what is more.
    pub async fn start_limited(profile: Profile, max_file_store: Option<u64>) -> Result<Self> {
        let limits = Limits {
            max_file_store,
            ..Limits::default()
        };
        Self::start_in(profile, limits, |_empty| Ok(())).await
    }

    /// As [`TestNats::start_with`], where messages may carry so many bytes.
    pub async fn start_so(profile: Profile, max_payload: Option<usize>) -> Result<Self> {
        let limits = Limits {
            max_payload,
            ..Limits::default()
        };
        Self::start_in(profile, limits, |_empty| Ok(())).await
    }

    async fn start_in(
        profile: Profile,
        limits: Limits,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let binary = find_server(None)?;
        let folder = new_folder()?;
        fill(folder.path())?;
        let server = NatsServer::start(ServerOptions {
            profile,
            max_payload: limits.max_payload,
            max_file_store: limits.max_file_store,
            ..ServerOptions::new(binary, folder.path().to_owned())
        })
        .await?;
        Ok(Self(Kind::Own {
            server: Box::new(server),
            folder,
        }))
    }

    /// Ends the server and starts one on its store and port whose messages carry so many bytes.
    pub async fn restart_with(&mut self, max_payload: usize) -> Result<()> {
        let Kind::Own { server, folder } = &mut self.0 else {
            bail!("the nats-server of NATS_URL is not a test's to restart");
        };
        server.stop().await;
        let url = server.client_url();
        let address = url.rsplit('/').next().unwrap_or_default();
        let options = ServerOptions {
            listen: address.parse().context("read the server's own address")?,
            profile: Profile::Fast,
            max_payload: Some(max_payload),
            ..ServerOptions::new(find_server(None)?, folder.path().to_owned())
        };
        **server = NatsServer::start(options).await?;
        Ok(())
    }

    /// The folder of its store.
    ///
    /// # Errors
    /// It is a cluster, or the server of `NATS_URL`.
    pub fn folder(&self) -> Result<&Path> {
        match &self.0 {
            Kind::Own { folder, .. } => Ok(folder.path()),
            Kind::Cluster { .. } | Kind::Foreign { .. } => {
                bail!("this test looks into the store of its nats-server, and has no private one")
            }
        }
    }

    /// Three servers that are one cluster. [`TestNats::kill`] kills one after the other, and [`TestNats::restart`]
    /// starts those that are down.
    pub async fn cluster() -> Result<Self> {
        Ok(Self(Kind::Cluster {
            cluster: TestCluster::start().await?,
            next: AtomicUsize::new(0),
        }))
    }

    /// A project id that no other test uses.
    pub fn unique_project() -> ProjectId {
        let random = Uuid::new_v4().simple().to_string();
        match format!("test-{}", &random[..12]).parse() {
            Ok(project) => project,
            Err(_) => unreachable!("hex digits and dashes are a project id"),
        }
    }

    /// Where clients connect to. Stays the same over restarts.
    pub fn url(&self) -> String {
        match &self.0 {
            Kind::Own { server, .. } => server.client_url(),
            Kind::Cluster { cluster, .. } => cluster.url(),
            Kind::Foreign { url } => url.clone(),
        }
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<async_nats::Client> {
        connect(&self.url()).await
    }

    /// Ends the server in order.
    pub async fn stop(&self) -> Result<()> {
        self.own("stop")?.stop().await;
        Ok(())
    }

    /// `kill -9`.
    pub async fn kill(&self) -> Result<()> {
        if let Kind::Cluster { cluster, next } = &self.0 {
            cluster.kill(next.fetch_add(1, Ordering::Relaxed)).await;
            return Ok(());
        }
        self.own("kill")?.kill().await;
        Ok(())
    }

    /// Starts it again on the same store and port; one that runs is stopped first.
    pub async fn restart(&self) -> Result<()> {
        if let Kind::Cluster { cluster, .. } = &self.0 {
            let down = (0..SERVERS).filter(|place| cluster.server(*place).pid().is_none());
            for place in down {
                cluster.restart(place).await?;
            }
            return Ok(());
        }
        Ok(self.own("restart")?.restart().await?)
    }

    /// Where it keeps its streams. To be touched only while it is stopped or killed.
    pub fn store(&self) -> Result<std::path::PathBuf> {
        Ok(self.own("touch the store of")?.dir().join("store"))
    }

    /// `kill -9`, and a start on the same port with an empty store.
    pub async fn lose_the_store(&self) -> Result<()> {
        self.kill().await?;
        std::fs::remove_dir_all(self.store()?)
            .context("remove the store of a test's nats-server")?;
        self.restart().await
    }

    /// Ends the server in order, keeps a copy of its store for [`TestNats::go_back_to`], and starts it again.
    pub async fn keep_a_copy(&self) -> Result<TempDir> {
        self.stop().await?;
        let copy = tempfile::tempdir().context("make a folder for the copy of a store")?;
        copy_folder(&self.store()?, copy.path())?;
        self.restart().await?;
        Ok(copy)
    }

    /// `kill -9`, and a start on the same port with the copy of its store.
    pub async fn go_back_to(&self, copy: &TempDir) -> Result<()> {
        self.kill().await?;
        let store = self.store()?;
        std::fs::remove_dir_all(&store).context("remove the store of a test's nats-server")?;
        copy_folder(copy.path(), &store)?;
        self.restart().await
    }

    /// Lets it stand still with its connections open, as a suspended machine would.
    pub fn pause(&self) -> Result<()> {
        Ok(self.own("pause")?.pause()?)
    }

    /// The end of [`TestNats::pause`].
    pub fn resume(&self) -> Result<()> {
        Ok(self.own("resume")?.resume()?)
    }

    /// The server as a private one; an error with NATS_URL.
    fn own(&self, action: &str) -> Result<&NatsServer> {
        match &self.0 {
            Kind::Own { server, .. } => Ok(server),
            Kind::Cluster { .. } => bail!("no test can {action} a cluster as a whole"),
            Kind::Foreign { url } => bail!(
                "this test needs to {action} its nats-server, but NATS_URL names one that is not its own ({}); \
                 unset NATS_URL to give each test a private server",
                without_credentials(url)
            ),
        }
    }
}

/// Waits until the server has read what this client has subscribed to, so that what is caused afterwards, by whomever, is
/// heard. A flush only writes. Of a cluster it is the server of this client that has read it; the others learn it later.
pub async fn until_subscribed(client: &async_nats::Client) -> Result<()> {
    round_trip(client)
        .await
        .context("have the server confirm what was subscribed to")
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in from.read_dir()? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_folder(&from, &to)?;
        } else {
            std::fs::copy(&from, &to)
                .with_context(|| format!("copy {} of a store", from.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_ids_are_unique() {
        assert_ne!(TestNats::unique_project(), TestNats::unique_project());
    }

    #[tokio::test]
    async fn a_foreign_server_is_never_killed() {
        let url = "nats://user:secret@example.org:4222".to_owned();
        let nats = TestNats(Kind::Foreign { url });
        let error = nats.kill().await.unwrap_err().to_string();
        assert!(
            error.contains("NATS_URL") && error.contains("nats://example.org:4222"),
            "{error}"
        );
        assert!(!error.contains("secret"), "{error}");
    }

    #[tokio::test]
    #[ignore = "needs a nats-server: run `cargo xtask test`"]
    async fn a_private_server_leaves_nothing_behind() {
        let nats = TestNats::start().await.unwrap();
        let folder = nats.folder().unwrap().to_owned();
        nats.connect().await.unwrap();
        assert!(folder.exists());
        drop(nats);
        assert!(!folder.exists());
    }

    #[tokio::test]
    #[ignore = "needs a nats-server: run `cargo xtask test`"]
    async fn the_shared_server_is_one() {
        let (one, other) = tokio::join!(TestNats::shared(), TestNats::shared());
        assert_eq!(one.unwrap().url(), other.unwrap().url());
    }
}
