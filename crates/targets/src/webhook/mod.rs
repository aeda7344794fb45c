//! `webhook`: somebody else starts the agent, who is asked over HTTP.
//!
//! - **The same start** is the same `Idempotency-Key` (and `X-Loom-Spin-Up`): the spin-up id. Tries are repeated with it
//!   where no answer came, or one that may be repeated (429, 500, 502, 503, 504), and a receiver that honours it starts
//!   one agent. The coordinator killed before or after the request: the start is repeated, or its birth is waited for;
//!   [`Launcher::find`] can't tell and says so.
//! - **Signed**: `X-Loom-Signature: sha256=` and the HMAC-SHA256 of the body in hex digits, with the key in the variable
//!   that the target names. Where that is missing nothing is sent.
//! - **Where it goes** is judged by the address that is connected to, of each connection: not to the coordinator, and
//!   not to a link-local address or one of cloud metadata ([`addresses`]). No proxy is used, which would connect in our
//!   place. A redirect is followed to the same host and port only, and only where it keeps the method (307, 308).
//! - **Ended** is nothing: the agent is told by a directive.

pub mod addresses;
mod signature;

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use loom_process::secrets::Secrets;
use loom_protocol::SpinUpId;
use loom_protocol::target::{BodyTemplate, HttpMethod, Placeholder, WebhookConfig};
use reqwest::{Method, StatusCode, Url};
use tokio_util::sync::CancellationToken;

use crate::order::StartOrder;
use crate::outcome::{Found, Probe, Started, Stopped};
use crate::reference::{Reference, WebhookReference};
use crate::steps::Step;
use crate::{
    Launcher, ProbeError, StartError, StartErrorKind, StopError, Surroundings, http, output,
};
use addresses::Guard;

pub use signature::signature;

/// How often a request is tried.
const TRIES: u32 = 3;
/// How long to wait before the second try; twice as long before the third.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest that an answer may ask to wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How much of an answer is read, in bytes.
const ANSWER: usize = 64 * 1024;
const WHY_UNKNOWN: &str =
    "a webhook can't be asked what became of a start; its birth tells, or the end of its time";

/// Asks somebody else to start agents.
#[derive(Debug)]
pub struct Webhook {
    config: WebhookConfig,
    around: Surroundings,
}

/// What came of one try.
enum Try {
    /// An answer, and the end of its body.
    Answered(StatusCode, Option<Duration>, Vec<u8>),
    /// Its address is refused, each time.
    Refused(String),
    /// It never left.
    NotSent(String),
    /// It may have arrived.
    NoAnswer(String),
    Cancelled,
}

impl Webhook {
    /// For one target.
    pub const fn new(config: WebhookConfig, around: Surroundings) -> Self {
        Self { config, around }
    }

    fn guard(&self) -> Guard {
        Guard::new(
            self.around.own_addresses.clone(),
            self.around.allow_link_local,
        )
    }

    fn url(&self) -> Result<Url, String> {
        let url = &self.config.url;
        Url::parse(url).map_err(|error| {
            format!("the address {url:?} can't be called ({error}); write another url")
        })
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.config.timeout_ms)
    }

    /// The key of the signature, where one is asked for.
    fn key(&self) -> Result<Option<String>, String> {
        let Some(name) = &self.config.secret_env_var else {
            return Ok(None);
        };
        let key = std::env::var(name).unwrap_or_default();
        if key.is_empty() {
            return Err(format!(
                "the variable {name}, which holds the key of the signature, is not set for the coordinator; set it, or take secretEnvVar out of the target"
            ));
        }
        Ok(Some(key))
    }

    fn secrets(&self, order: &StartOrder, key: Option<&String>) -> Secrets {
        let headers = self
            .config
            .headers
            .expose()
            .map(|(_, value)| value.to_owned());
        // A header's `Bearer` is no secret, what follows it is.
        let parts = headers.flat_map(|value| {
            let last = value.rsplit(' ').next().unwrap_or_default().to_owned();
            [value, last]
        });
        let ticket = std::iter::once(order.ticket.expose().to_owned());
        Secrets::new(parts.chain(ticket).chain(key.cloned()))
    }

    fn body(&self, order: &StartOrder) -> Result<String, String> {
        let template = match &self.config.body_template {
            Some(template) => {
                BodyTemplate::parse(template).map_err(|error| format!("bodyTemplate {error}"))?
            }
            None => BodyTemplate::of_everything(),
        };
        let values: Vec<String> = Placeholder::ALL
            .iter()
            .map(|one| order.value_of(*one))
            .collect();
        Ok(template.fill(|wanted| {
            let at = Placeholder::ALL.iter().position(|one| *one == wanted);
            at.and_then(|at| values.get(at)).map_or("", String::as_str)
        }))
    }

    async fn ask(
        &self,
        order: &StartOrder,
        cancel: &CancellationToken,
    ) -> Result<Started, StartError> {
        let url = self.url().map_err(StartError::refused)?;
        let key = self.key().map_err(StartError::refused)?;
        let secrets = self.secrets(order, key.as_ref());
        let body = self.body(order).map_err(StartError::refused)?;
        let client =
            http::for_url(&url, self.guard(), self.limit()).map_err(StartError::refused)?;
        self.around.on_step.tell(Step::Begin);
        let mut in_doubt = false;
        let mut pause = PAUSE;
        let mut tries = 0;
        loop {
            tries += 1;
            if cancel.is_cancelled() {
                return Err(cancelled(order, in_doubt));
            }
            self.around.on_step.tell(Step::Launch);
            let tried = self
                .try_once(&client, &url, order, &body, key.as_deref(), cancel)
                .await;
            self.around.on_step.tell(Step::Record);
            let (message, wait) = match tried {
                Try::Answered(status, _, said)
                    if self.config.success_codes.contains(&status.as_u16()) =>
                {
                    let told = output::told(&said, &secrets);
                    self.around.on_step.tell(Step::Answer);
                    return Ok(accepted(order.spin_up, told));
                }
                Try::Answered(status, wait, said) => {
                    let told = output::told(&said, &secrets);
                    let message = self.refusal(&url, status);
                    if !may_be_repeated(status) || tries == TRIES {
                        // What answers so has started nothing, or says that it does not know.
                        let kind = match status.is_server_error() || in_doubt {
                            true => StartErrorKind::InDoubt,
                            false if status == StatusCode::TOO_MANY_REQUESTS => {
                                StartErrorKind::Unavailable
                            }
                            false => StartErrorKind::Refused,
                        };
                        return Err(StartError::new(kind, message).with_output(told));
                    }
                    in_doubt |= status.is_server_error();
                    (message, wait)
                }
                Try::Refused(why) if !in_doubt => return Err(StartError::refused(why)),
                Try::Refused(why) | Try::NotSent(why) => (why, None),
                Try::NoAnswer(why) => {
                    in_doubt = true;
                    (why, None)
                }
                Try::Cancelled => return Err(cancelled(order, true)),
            };
            if tries == TRIES {
                let kind = if in_doubt {
                    StartErrorKind::InDoubt
                } else {
                    StartErrorKind::Unavailable
                };
                return Err(StartError::new(kind, secrets.hide(&message)));
            }
            tracing::debug!(spin_up = %order.spin_up, tries, message, "a webhook is called again");
            let wait = wait.unwrap_or(pause).min(LONGEST_PAUSE);
            pause *= 2;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = cancel.cancelled() => return Err(cancelled(order, in_doubt)),
            }
        }
    }

    async fn try_once(
        &self,
        client: &http::Client,
        url: &Url,
        order: &StartOrder,
        body: &str,
        key: Option<&str>,
        cancel: &CancellationToken,
    ) -> Try {
        let method = match self.config.method {
            HttpMethod::Get => Method::GET,
            HttpMethod::Post => Method::POST,
            HttpMethod::Put => Method::PUT,
        };
        let spin_up = order.spin_up.to_string();
        let has_body = method != Method::GET;
        let body = if has_body { body } else { "" };
        let mut request = client.request(method, url.clone());
        if has_body {
            request = request
                .header("Content-Type", "application/json")
                .body(body.to_owned());
        }
        let mut headers = reqwest::header::HeaderMap::new();
        for (name, value) in self.config.headers.expose() {
            let parsed = (
                reqwest::header::HeaderName::try_from(name),
                reqwest::header::HeaderValue::try_from(value),
            );
            if let (Ok(name), Ok(mut value)) = parsed {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        // The target's replace those above, and not those below.
        request = request.headers(headers);
        let mut request = match request.build() {
            Ok(request) => request,
            Err(error) => return Try::NotSent(format!("the request can't be made ({error})")),
        };
        let signature = key.map(|key| format!("sha256={}", signature(key, body)));
        for (name, value) in [
            ("idempotency-key", Some(spin_up.clone())),
            ("x-loom-spin-up", Some(spin_up)),
            ("x-loom-signature", signature),
        ] {
            if let Some(value) = value.and_then(|value| value.parse().ok()) {
                request.headers_mut().insert(name, value);
            }
        }
        let sending = client.execute(request);
        let answered = tokio::select! {
            answered = sending => answered,
            () = cancel.cancelled() => return Try::Cancelled,
        };
        let mut answer = match answered {
            Ok(answer) => answer,
            Err(error) => return self.unanswered(url, &error),
        };
        let status = answer.status();
        let after = answer.headers().get("retry-after");
        let wait = after.and_then(|after| after.to_str().ok()?.trim().parse().ok());
        let mut said = Vec::new();
        // What is behind that is not read.
        while said.len() < ANSWER {
            tokio::select! {
                chunk = answer.chunk() => match chunk {
                    Ok(Some(chunk)) => said.extend_from_slice(&chunk),
                    Ok(None) | Err(_) => break,
                },
                () = cancel.cancelled() => return Try::Cancelled,
            }
        }
        Try::Answered(status, wait.map(Duration::from_secs), said)
    }

    fn unanswered(&self, url: &Url, error: &reqwest::Error) -> Try {
        let host = http::host_of(url);
        if let Some(refusal) = http::refusal(error) {
            return Try::Refused(format!("{host} leads to where it may not: {refusal}"));
        }
        let causes = http::causes(error);
        if error.is_timeout() && !error.is_connect() {
            let limit = self.limit();
            return Try::NoAnswer(format!(
                "{host} did not answer within {limit:?}; look what it does, or raise timeoutMs"
            ));
        }
        if error.is_connect() || error.is_builder() {
            return Try::NotSent(format!(
                "{host} can't be reached ({causes}); look whether it runs, or write another url"
            ));
        }
        Try::NoAnswer(format!(
            "{host} did not answer ({causes}); look what it does"
        ))
    }

    fn refusal(&self, url: &Url, status: StatusCode) -> String {
        let host = http::host_of(url);
        if status.is_redirection() {
            return format!(
                "{host} sends the request elsewhere (status {status}), which is followed to the same host only and with 307 or 308; write the address itself as url"
            );
        }
        let codes = &self.config.success_codes;
        format!(
            "{host} answered {status}, and {codes:?} would mean that an agent is started; look why, or write it into successCodes"
        )
    }

    async fn look(&self, limit: Duration) -> Result<Probe, ProbeError> {
        let url = self.url().map_err(ProbeError)?;
        self.key().map_err(ProbeError)?;
        let limit = limit.min(self.limit());
        let client = http::for_url(&url, self.guard(), limit).map_err(ProbeError)?;
        // Any answer shows that there is somebody, and this asks for nothing to be done.
        match client.execute_probe(&url).await {
            Ok(status) => Ok(Probe {
                seen: format!("{} answers (status {status})", http::host_of(&url)),
            }),
            Err(error) => match self.unanswered(&url, &error) {
                Try::Refused(why) | Try::NotSent(why) | Try::NoAnswer(why) => Err(ProbeError(why)),
                _ => Err(ProbeError(format!(
                    "{} did not answer",
                    http::host_of(&url)
                ))),
            },
        }
    }
}

fn cancelled(order: &StartOrder, in_doubt: bool) -> StartError {
    if !in_doubt {
        return StartError::cancelled(&order.spin_up.to_string());
    }
    let message = format!(
        "the start {} was cancelled after it had been sent",
        order.spin_up
    );
    StartError::new(StartErrorKind::InDoubt, message)
}

fn accepted(spin_up: SpinUpId, told: String) -> Started {
    Started {
        reference: Reference::Webhook(WebhookReference { spin_up }),
        existing: false,
        end: None,
        output: Some(told).filter(|told| !told.is_empty()),
        waits: None,
    }
}

const fn may_be_repeated(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

impl Launcher for Webhook {
    fn start<'a>(
        &'a self,
        order: &'a StartOrder,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<Started, StartError>> {
        async move { self.ask(order, &cancel).await }.boxed()
    }

    fn find<'a>(
        &'a self,
        _: SpinUpId,
        _: Option<&'a Reference>,
    ) -> BoxFuture<'a, Result<Found, ProbeError>> {
        let why = WHY_UNKNOWN.to_owned();
        async move { Ok(Found::Unknown { why }) }.boxed()
    }

    fn stop<'a>(
        &'a self,
        _: SpinUpId,
        _: Option<&'a Reference>,
        _: Duration,
    ) -> BoxFuture<'a, Result<Stopped, StopError>> {
        let why = "a webhook only starts agents; they are told to end by a directive".to_owned();
        async move { Ok(Stopped::NotPossible { why }) }.boxed()
    }

    fn probe(&self, limit: Duration) -> BoxFuture<'_, Result<Probe, ProbeError>> {
        self.look(limit).boxed()
    }

    fn forget(&self, _: SpinUpId) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}
