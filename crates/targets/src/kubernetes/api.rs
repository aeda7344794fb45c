//! Requests to the API server: bounded in time and size, repeated where that is safe.
//!
//! Each request of ours may be repeated: what it creates has a name of its own, what it changes says what it was before.
//! Repeated is one that got 408, 429 or 5xx (after what `Retry-After` asks, or a pause that doubles) or no answer; one
//! that got 401 is repeated once with credentials that are read anew.

use std::time::{Duration, Instant};

use http::Response;
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde::de::DeserializeOwned;

use super::call::Call;
use super::cluster::{Clusters, Place};
use super::refusal::{Refusal, RefusalKind, causes, may_be_repeated, wait_asked};

/// How long one try may take.
const TRY: Duration = Duration::from_secs(15);
/// How often a request is tried.
const TRIES: u32 = 4;
/// How long to wait before the second try; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest that an answer may ask to wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How much of an answer is read, in bytes.
const ANSWER: usize = 16 << 20;

/// Sends requests.
pub(super) struct Api {
    clusters: Clusters,
}

impl Api {
    pub(super) const fn new(clusters: Clusters) -> Self {
        Self { clusters }
    }

    /// Sends a request until it is answered, and reads the object.
    pub(super) async fn object<T: DeserializeOwned>(
        &self,
        place: &Place,
        call: &Call<'_>,
        until: Instant,
    ) -> Result<T, Refusal> {
        let body = self.call(place, call, until).await?;
        serde_json::from_slice(&body).map_err(|error| {
            let (verb, what) = (call.verb.word(), call.resource.words());
            let mut refusal = Refusal::unanswered(
                &format!("namespace {:?}", place.namespace),
                &format!("what came to {verb} {what} can't be read: {error}"),
            );
            refusal.may_be_done = true;
            refusal
        })
    }

    /// Sends a request until it is answered, or it was tried often enough, or until then.
    pub(super) async fn call(
        &self,
        place: &Place,
        call: &Call<'_>,
        until: Instant,
    ) -> Result<Vec<u8>, Refusal> {
        let mut pause = PAUSE;
        let mut may_be_done = false;
        let mut tries = 0;
        let mut renewed = false;
        loop {
            tries += 1;
            let left = until.saturating_duration_since(Instant::now());
            let (mut refusal, asked) = match self.answered(place, call, TRY.min(left)).await {
                Ok(body) => return Ok(body),
                Err(refused) => refused,
            };
            may_be_done |= refusal.may_be_done;
            refusal.may_be_done = may_be_done;
            if refusal.is(RefusalKind::Credentials) && !renewed {
                renewed = true;
                self.clusters.renew(place.context.as_deref()).await;
                continue;
            }
            let again = matches!(refusal.kind, RefusalKind::Busy | RefusalKind::NoAnswer);
            let wait = asked.unwrap_or(pause).min(LONGEST_PAUSE);
            if !again || tries >= TRIES || Instant::now() + wait >= until {
                return Err(refusal);
            }
            tracing::debug!(
                message = refusal.message,
                tries,
                "Kubernetes is asked again"
            );
            pause *= 2;
            tokio::time::sleep(wait).await;
        }
    }

    /// One try. What is refused comes with how long to wait before the next one.
    async fn answered(
        &self,
        place: &Place,
        call: &Call<'_>,
        limit: Duration,
    ) -> Result<Vec<u8>, (Refusal, Option<Duration>)> {
        let (name, answer) = self.opened(place, call, limit).await?;
        match tokio::time::timeout(limit, whole(answer.into_body())).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(why)) => Err((Refusal::unanswered(&name, &why), None)),
            Err(_) => Err((
                Refusal::unanswered(&name, &format!("not within {limit:?}")),
                None,
            )),
        }
    }

    /// The beginning of an answer that is a success, whose body is still to be read.
    async fn opened(
        &self,
        place: &Place,
        call: &Call<'_>,
        limit: Duration,
    ) -> Result<(String, Response<Body>), (Refusal, Option<Duration>)> {
        let cluster = self.clusters.get(place.context.as_deref()).await;
        let cluster = cluster.map_err(|refusal| (refusal, None))?;
        let name = format!("{}, namespace {:?}", cluster.name, place.namespace);
        let request = call.request(&place.namespace).map_err(|error| {
            let message = format!("{name}: the request can't be made ({error}); mend the target");
            (Refusal::new(RefusalKind::Invalid, message), None)
        })?;
        let unanswered = |why: &str| (Refusal::unanswered(&name, why), None);
        let answer = match tokio::time::timeout(limit, cluster.client.send(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if is_about_credentials(&error) => {
                let message = format!(
                    "{name}: the credentials can't be had ({}); mend the kubeconfig",
                    causes(&error)
                );
                return Err((Refusal::new(RefusalKind::Credentials, message), None));
            }
            Ok(Err(error)) => return Err(unanswered(&causes(&error))),
            Err(_) => return Err(unanswered(&format!("not within {limit:?}"))),
        };
        let status = answer.status().as_u16();
        if answer.status().is_success() {
            return Ok((name, answer));
        }
        let after = answer.headers().get("retry-after").cloned();
        let reading = tokio::time::timeout(limit, whole(answer.into_body()));
        let body = reading.await.ok().and_then(Result::ok).unwrap_or_default();
        let after = after.as_ref().and_then(|after| after.to_str().ok());
        let wait = wait_asked(after, &body).filter(|_| may_be_repeated(status));
        Err((Refusal::of(status, &body, &name, call), wait))
    }

    /// The body of an answer that goes on: a log or a watch.
    pub(super) async fn stream(&self, place: &Place, call: &Call<'_>) -> Result<Body, Refusal> {
        let mut opened = self.opened(place, call, TRY).await;
        if matches!(&opened, Err((refusal, _)) if refusal.is(RefusalKind::Credentials)) {
            self.clusters.renew(place.context.as_deref()).await;
            opened = self.opened(place, call, TRY).await;
        }
        let (_, answer) = opened.map_err(|(refusal, _)| refusal)?;
        Ok(answer.into_body())
    }
}

/// Whether a request never left, since the credentials for it are not to be had.
fn is_about_credentials(error: &kube::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(one) = cause {
        if one.is::<kube::client::AuthError>() {
            return true;
        }
        cause = one.source();
    }
    false
}

/// All of a body; an error where it is too long.
async fn whole(mut body: Body) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| causes(&error))?;
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data);
        }
        if bytes.len() > ANSWER {
            return Err(format!("the answer has more than {ANSWER} bytes"));
        }
    }
    Ok(bytes)
}
