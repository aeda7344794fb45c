//! Connections: bounded in number, and none may dawdle over its headers or over the answer.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Layer as _;

use super::access_guard::Peer;
use super::events::Stopping;
use super::outgoing::{Patient, TAKEN_WITHIN};
use crate::settings::ApiSettings;

/// How many connections may be open; one above waits to be accepted.
const MAX_CONNECTIONS: usize = 2048;
/// How long a connection may take over the headers of a request, or be idle between two.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// How long open requests may take to end after the shutdown began.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// The pause after an accept that failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct BindError {
    message: String,
    source: io::Error,
}

/// Takes the address of the settings.
///
/// # Errors
/// One sentence with the remedy: the port is taken, the address is not of this machine, or the
/// port takes more rights.
pub async fn bind(settings: &ApiSettings) -> Result<TcpListener, BindError> {
    let (host, port) = (settings.host.as_str(), settings.port);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    TcpListener::bind((bare, port))
        .await
        .map_err(|source| BindError {
            message: match source.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "port {port} on {host} is taken, perhaps by another coordinator; stop that one, or choose another port with --port or API_PORT"
                ),
                io::ErrorKind::AddrNotAvailable => format!(
                    "{host} is no address of this machine; set --host or API_HOST to one that is"
                ),
                io::ErrorKind::PermissionDenied => format!(
                    "port {port} takes more rights than this user has; choose one above 1023 with --port or API_PORT"
                ),
                _ => format!(
                    "cannot listen on {host}:{port} ({source}); check --host and --port"
                ),
            },
            source,
        })
}

/// Serves until `shutdown` ends; then lets the open requests finish, for a few seconds.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN);
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let tasks = TaskTracker::new();
    let stopping = CancellationToken::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let next = async {
            let slot = connections.clone().acquire_owned().await.ok();
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            next = next => next,
            () = &mut shutdown => break,
        };
        let (stream, from): (_, SocketAddr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let known = Extension(Stopping(stopping.clone())).layer(router.clone());
        let known = Extension(Peer(from)).layer(known);
        let service = TowerToHyperService::new(known);
        let connection = http
            .serve_connection(TokioIo::new(Patient::new(stream, TAKEN_WITHIN)), service)
            .with_upgrades();
        let stopping = stopping.clone();
        tasks.spawn(async move {
            let _slot = slot;
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = &mut connection => ended,
                () = stopping.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%from, %error, "a connection ended badly");
            }
        });
    }
    drop(listener);
    tasks.close();
    stopping.cancel();
    if tokio::time::timeout(DRAIN_WITHIN, tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("open HTTP requests did not end in time and are cut off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_one_sentence_with_a_remedy() {
        let first = bind(&ApiSettings {
            port: 0,
            ..ApiSettings::default()
        })
        .await
        .unwrap();
        let port = first.local_addr().unwrap().port();
        let error = bind(&ApiSettings {
            port,
            ..ApiSettings::default()
        })
        .await
        .unwrap_err()
        .to_string();
        assert!(
            error.contains(&port.to_string()) && error.contains("--port"),
            "{error}"
        );
    }
}
