//! Three nats-servers that are one cluster, each of which can be killed and started again.
//!
//! They listen on loopback only, and die with the test process. A cluster goes on while two of them live; without a
//! majority nothing can be written, until one is back.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_nats::ServerAddr;
use async_nats::jetstream::{self, stream};
use futures_util::future::try_join_all;
use loom_actors::nats::server::{ClusterOptions, NatsServer, Profile, ServerOptions, find_server};
use loom_protocol::url::split;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::store_folder::new_folder;

/// How many servers a cluster has.
pub const SERVERS: usize = 3;
/// How long it may take until the servers have found each other and elected a leader.
const FORMED_WITHIN: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Below those that systems give to outgoing connections.
const PORTS: std::ops::Range<u16> = 14_000..30_000;

/// Three nats-servers with JetStream. Dropped, they are killed and their stores removed.
#[derive(Debug)]
pub struct TestCluster {
    // Killed before the folder is removed.
    servers: Vec<NatsServer>,
    _folder: TempDir,
}

impl TestCluster {
    /// Starts all of them, and waits until they store with three copies.
    pub async fn start() -> Result<Self> {
        let binary = find_server(None)?;
        let folder = new_folder()?;
        let routes = free_addresses(SERVERS)?;
        let starting = (0..SERVERS).map(|place| {
            let others = routes
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != place);
            let dir = folder.path().join(place.to_string());
            NatsServer::start(ServerOptions {
                profile: Profile::Fast,
                cluster: Some(ClusterOptions {
                    server_name: format!("test-{place}"),
                    routes_listen: routes[place],
                    routes: others.map(|(_, route)| *route).collect(),
                }),
                ..ServerOptions::new(binary.clone(), dir)
            })
        });
        let servers = try_join_all(starting).await?;
        let cluster = Self {
            servers,
            _folder: folder,
        };
        cluster.until_formed().await?;
        Ok(cluster)
    }

    /// Where clients connect to: all addresses, with commas between them.
    pub fn url(&self) -> String {
        let urls: Vec<_> = self.servers.iter().map(NatsServer::client_url).collect();
        urls.join(",")
    }

    /// One of the servers.
    pub fn server(&self, place: usize) -> &NatsServer {
        &self.servers[place % SERVERS]
    }

    /// `kill -9` of one.
    pub async fn kill(&self, place: usize) {
        self.server(place).kill().await;
    }

    /// Starts one again, on its store and its port.
    pub async fn restart(&self, place: usize) -> Result<()> {
        Ok(self.server(place).restart().await?)
    }

    async fn until_formed(&self) -> Result<()> {
        let client = connect(&self.url()).await?;
        let jetstream = jetstream::new(client);
        let deadline = Instant::now() + FORMED_WITHIN;
        let config = stream::Config {
            name: "FORMED".into(),
            num_replicas: SERVERS,
            ..Default::default()
        };
        while let Err(error) = jetstream.create_stream(config.clone()).await {
            if Instant::now() > deadline {
                bail!("the cluster was not formed within {FORMED_WITHIN:?}: {error}");
            }
            sleep(LOOK_EVERY).await;
        }
        jetstream.delete_stream("FORMED").await?;
        Ok(())
    }
}

/// A connection to a server, or to a cluster by several addresses.
pub(crate) async fn connect(url: &str) -> Result<async_nats::Client> {
    let addresses = split(url)
        .map(str::parse)
        .collect::<Result<Vec<ServerAddr>, _>>();
    let connecting = async_nats::connect(addresses?);
    connecting
        .await
        .with_context(|| format!("connect to the test's nats-server at {url}"))
}

/// Addresses of this machine where nobody listens just now.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    let mut held = Vec::new();
    for _ in 0..1_000 {
        if held.len() == count {
            break;
        }
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), fastrand::u16(PORTS));
        held.extend(TcpListener::bind(address).ok());
    }
    let addresses = held.iter().map(TcpListener::local_addr);
    Ok(addresses.collect::<Result<_, _>>()?)
}
