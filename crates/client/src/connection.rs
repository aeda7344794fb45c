//! The connection to NATS: made once, kept for ever.

use std::time::Duration;

use async_nats::{ConnectErrorKind, ConnectOptions, Event};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::error::{ClientError, ErrorKind};
use crate::options::{ClientOptions, Credentials};

const RECONNECT_MAX: Duration = Duration::from_millis(500);
const PING_EVERY: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection, and whether it is up.
pub(crate) struct Connection {
    pub(crate) nats: async_nats::Client,
    pub(crate) up: watch::Receiver<bool>,
}

/// Connects, trying until `connect_deadline` is over; wrong credentials are an error at once.
pub(crate) async fn connect(options: &ClientOptions) -> Result<Connection, ClientError> {
    let (addresses, credentials) = options.addresses()?;
    let deadline = Instant::now() + options.connect_deadline;
    loop {
        let (told, up) = watch::channel(true);
        let nats_options = nats_options(options, &credentials, told).await?;
        let error = match nats_options.connect(&addresses[..]).await {
            Ok(nats) => return Ok(Connection { nats, up }),
            Err(error) => error,
        };
        let hopeless = matches!(
            error.kind(),
            ConnectErrorKind::AuthorizationViolation
                | ConnectErrorKind::Authentication
                | ConnectErrorKind::ServerParse
        );
        if hopeless || Instant::now() + RECONNECT_MAX >= deadline {
            return Err(refused(options, &error));
        }
        tokio::time::sleep(RECONNECT_MAX).await;
    }
}

fn refused(options: &ClientOptions, error: &async_nats::ConnectError) -> ClientError {
    let url = options.shown_url();
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            let message = format!(
                "NATS at {url} refuses the credentials ({error}); check user, password, token or creds file"
            );
            ClientError::new(ErrorKind::Credentials, message)
        }
        ConnectErrorKind::ServerParse => {
            let message = format!("{url} is not a NATS address ({error})");
            ClientError::new(ErrorKind::Options, message)
        }
        _ => {
            let message = format!(
                "NATS at {url} can't be reached ({error}); start a server there, or give another address"
            );
            ClientError::new(ErrorKind::Connect, message)
        }
    }
}

async fn nats_options(
    options: &ClientOptions,
    credentials: &Credentials,
    up: watch::Sender<bool>,
) -> Result<ConnectOptions, ClientError> {
    let inbox_prefix = options
        .inbox_prefix
        .clone()
        .unwrap_or_else(|| format!("_INBOX.loom-{}", Uuid::new_v4().simple()));
    let nats_options = ConnectOptions::new()
        .name(&options.name)
        .custom_inbox_prefix(inbox_prefix)
        .request_timeout(Some(options.request_timeout))
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_EVERY)
        .max_reconnects(None)
        .reconnect_delay_callback(|attempts| {
            let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
            Duration::from_millis(20)
                .saturating_mul(attempts)
                .min(RECONNECT_MAX)
        })
        .event_callback(move |event| {
            match event {
                Event::Connected => drop(up.send_replace(true)),
                Event::Disconnected => drop(up.send_replace(false)),
                ref other => tracing::debug!(event = %other, "NATS"),
            }
            std::future::ready(())
        });
    Ok(match credentials {
        Credentials::FromUrl => nats_options,
        Credentials::UserPassword(user, password) => {
            nats_options.user_and_password(user.clone(), password.clone())
        }
        Credentials::Token(token) => nats_options.token(token.clone()),
        Credentials::File(path) => nats_options.credentials_file(path).await.map_err(|e| {
            ClientError::new(
                ErrorKind::Options,
                format!("the credentials file {} can't be read: {e}", path.display()),
            )
        })?,
    })
}
