//! The client: one request and its answer, with retries.

use std::sync::Arc;
use std::time::Duration;

use async_nats::client::{Request, RequestErrorKind};
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use loom_protocol::codec::CONTENT_TYPE;
use loom_protocol::error::{ERROR_CODE_HEADER, ERROR_HEADER};
use loom_protocol::{Encoding, ErrorCode, ProjectId, WireError, names};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::background::Background;
use crate::connection;
use crate::error::{ClientError, ErrorKind};
use crate::options::ClientOptions;
use crate::retry::Backoff;

/// A connection to one project of a coordinator. Cheap to clone; all clones share the connection.
///
/// Requests that meet a transient refusal (`overloaded`, `unavailable`), nobody who answers, or
/// silence are repeated with jittered pauses until the deadline: the caller's, or
/// [`ClientOptions::request_deadline`]. That is safe because whatever writes carries an id that was
/// made before the first try.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    nats: async_nats::Client,
    jetstream: async_nats::jetstream::Context,
    up: watch::Receiver<bool>,
    options: ClientOptions,
    background: Background,
}

/// How patient one request is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For one try.
    pub(crate) per_try: Duration,
    /// For all of them.
    pub(crate) until: Instant,
}

impl Client {
    /// Connects. From then on the client reconnects by itself, for ever.
    ///
    /// # Errors
    /// [`ErrorKind::Options`] for options that make no sense, [`ErrorKind::Connect`] if no server can
    /// be reached within [`ClientOptions::connect_deadline`], [`ErrorKind::Credentials`] if the server
    /// refuses them.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let background = Background::start()?;
        let connecting = {
            let options = options.clone();
            background.spawn(async move { connection::connect(&options).await })
        };
        let connection = connecting.await.map_err(|e| {
            ClientError::new(ErrorKind::Connect, format!("connecting was cut off: {e}"))
        })??;
        let mut jetstream = async_nats::jetstream::new(connection.nats.clone());
        jetstream.set_timeout(options.request_timeout);
        Ok(Self {
            inner: Arc::new(Inner {
                jetstream,
                nats: connection.nats,
                up: connection.up,
                options,
                background,
            }),
        })
    }

    /// The project that every request is about.
    pub fn project(&self) -> &ProjectId {
        &self.inner.options.project
    }

    /// The options that it was connected with.
    pub fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    /// The connection beneath, for what this crate has no word for.
    pub fn nats(&self) -> &async_nats::Client {
        &self.inner.nats
    }

    /// Whether NATS is reachable just now.
    pub fn is_connected(&self) -> bool {
        *self.inner.up.borrow()
    }

    /// Waits until everything published so far has left.
    pub async fn flush(&self) -> Result<(), ClientError> {
        self.inner
            .nats
            .flush()
            .await
            .map_err(|e| ClientError::new(ErrorKind::Disconnected, e.to_string()))
    }

    /// Sends the request `coord.{project}.{action}` and reads its answer, trying until
    /// [`ClientOptions::request_deadline`] is over. `action` is a [`VerbName`](loom_protocol::VerbName), or its name,
    /// written `resource.action`.
    pub async fn request<R: DeserializeOwned>(
        &self,
        action: impl AsRef<str>,
        request: &impl Serialize,
    ) -> Result<R, ClientError> {
        let deadline = self.inner.options.request_deadline;
        self.request_within(action, request, deadline).await
    }

    /// As [`Client::request`], trying for as long as `deadline`.
    pub async fn request_within<R: DeserializeOwned>(
        &self,
        action: impl AsRef<str>,
        request: &impl Serialize,
        deadline: Duration,
    ) -> Result<R, ClientError> {
        let payload = self.encode(request)?;
        let patience = self.patience(deadline);
        let message = self.call(action.as_ref(), payload, patience).await?;
        self.decode(&message)
    }

    pub(crate) fn patience(&self, deadline: Duration) -> Patience {
        Patience {
            per_try: self.inner.options.request_timeout,
            until: Instant::now() + deadline,
        }
    }

    pub(crate) fn encode(&self, request: &impl Serialize) -> Result<Bytes, ClientError> {
        Ok(self.inner.options.encoding.encode(request)?.into())
    }

    pub(crate) fn decode<R: DeserializeOwned>(&self, message: &Message) -> Result<R, ClientError> {
        Ok(self.encoding_of(message).decode(&message.payload)?)
    }

    /// Sends a request until it is answered other than transiently, or the patience is over.
    pub(crate) async fn call(
        &self,
        action: &str,
        payload: Bytes,
        patience: Patience,
    ) -> Result<Message, ClientError> {
        let mut backoff = Backoff::of_request();
        loop {
            let left = patience.until.saturating_duration_since(Instant::now());
            let error = match self
                .call_once(action, payload.clone(), patience.per_try.min(left))
                .await
            {
                Err(error) if error.is_transient() => error,
                settled => return settled,
            };
            let asked_for = error.wire().and_then(|wire| wire.retry_after_ms);
            let pause = backoff.pause(asked_for.map(Duration::from_millis));
            if Instant::now() + pause >= patience.until {
                return Err(error);
            }
            tracing::debug!(action, %error, ?pause, "a request is repeated");
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends a request once.
    pub(crate) async fn call_once(
        &self,
        action: &str,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Message, ClientError> {
        let started = Instant::now();
        self.wait_until_up(timeout).await?;
        let encoding = self.inner.options.encoding;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, encoding.content_type());
        let request = Request::new()
            .headers(headers)
            .payload(payload)
            .timeout(Some(timeout.saturating_sub(started.elapsed())));
        let subject = names::request(&self.inner.options.project, action);
        let message = self
            .inner
            .nats
            .send_request(subject, request)
            .await
            .map_err(|e| self.explained(action, timeout, &e))?;
        match self.refusal(&message) {
            None => Ok(message),
            Some(wire) => Err(wire.into()),
        }
    }

    /// Waits for the connection, so that requests don't pile up while there is none.
    async fn wait_until_up(&self, timeout: Duration) -> Result<(), ClientError> {
        let mut up = self.inner.up.clone();
        if *up.borrow_and_update() {
            return Ok(());
        }
        match tokio::time::timeout(timeout, up.wait_for(|up| *up)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ClientError::new(
                ErrorKind::Disconnected,
                format!(
                    "NATS at {} is away; the client goes on trying to reconnect",
                    self.inner.options.shown_url()
                ),
            )),
        }
    }

    fn explained(
        &self,
        action: &str,
        timeout: Duration,
        error: &async_nats::client::RequestError,
    ) -> ClientError {
        let project = &self.inner.options.project;
        match error.kind() {
            RequestErrorKind::NoResponders => ClientError::new(
                ErrorKind::NoCoordinator,
                format!(
                    "no coordinator answers {action} of project {project}; start one with `loom up`"
                ),
            ),
            RequestErrorKind::TimedOut => ClientError::new(
                ErrorKind::Timeout,
                format!("no answer to {action} of project {project} within {timeout:?}"),
            ),
            RequestErrorKind::MaxPayloadExceeded => ClientError::new(
                ErrorKind::TooLarge,
                format!("{action} is over what the NATS server takes in one message: {error}"),
            ),
            RequestErrorKind::InvalidSubject => ClientError::new(
                ErrorKind::Options,
                format!("{action:?} is no action; write it like work.get"),
            ),
            RequestErrorKind::Other => ClientError::new(
                ErrorKind::Disconnected,
                format!("{action} was cut off: {error}"),
            ),
        }
    }

    fn encoding_of(&self, message: &Message) -> Encoding {
        match header(message, CONTENT_TYPE) {
            None => self.inner.options.encoding,
            given => Encoding::from_content_type(given),
        }
    }

    /// The error that an answer is, if it is one.
    fn refusal(&self, message: &Message) -> Option<WireError> {
        let status = header(message, ERROR_CODE_HEADER)?;
        let body = self.encoding_of(message).decode(&message.payload);
        Some(body.unwrap_or_else(|_| {
            let code = match status {
                "503" => ErrorCode::Unavailable,
                "429" => ErrorCode::Overloaded,
                _ => ErrorCode::Internal,
            };
            let sentence = header(message, ERROR_HEADER).unwrap_or("an error without a sentence");
            WireError::new(code, sentence)
        }))
    }

    pub(crate) fn jetstream(&self) -> &async_nats::jetstream::Context {
        &self.inner.jetstream
    }

    pub(crate) fn background(&self) -> &Background {
        &self.inner.background
    }
}

pub(crate) fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    Some(message.headers.as_ref()?.get(name)?.as_str())
}
