//! GitHub over HTTP: one request, what came of it, and requests that are repeated while that does no harm.
//!
//! The token goes to the address of the API and nowhere else: no redirect to another host is followed, and no link of an
//! answer. It is sent without encryption only within this machine.

use std::sync::Arc;
use std::time::Duration;

use loom_process::secrets::Secrets;
use loom_protocol::target::{BirthTicket, GithubActionsConfig};
use reqwest::header::{AUTHORIZATION, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LINK};
use reqwest::{Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::limiter::TokenLimit;
use super::pace::{self, Limits};
use super::wire::Problem;
use super::words::{self, Asked};
use crate::webhook::addresses::Guard;
use crate::{Surroundings, http};

/// Where GitHub itself answers.
const GITHUB: &str = "https://api.github.com";
/// The version of the API that is meant, which GitHub Enterprise has too.
const VERSION: &str = "2022-11-28";
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(30);
/// How much of an answer is read, in bytes: a hundred runs are two million.
const ANSWER: usize = 16 * 1024 * 1024;
/// How often a question is repeated that was not answered.
const TRIES: u32 = 3;
/// How long to wait before the second try; twice as long before the next.
const PAUSE: Duration = Duration::from_millis(500);

/// The API for one target.
#[derive(Debug)]
pub(super) struct Api {
    client: http::Client,
    base: Url,
    token: HeaderValue,
    config: GithubActionsConfig,
    /// That of the token, whoever uses it.
    pub(super) limit: Arc<TokenLimit>,
    /// What must not be in any output.
    pub(super) secrets: Secrets,
}

/// What came of a request that was not answered as it should.
#[derive(Debug)]
pub(super) enum Failure {
    /// It never left, and would not another time.
    Impossible(String),
    /// It never left.
    NotSent(String),
    /// GitHub refuses it: nothing was done.
    Refused(StatusCode, String),
    /// GitHub refuses it for so long, or was not even asked: nothing was done.
    Limited(Duration),
    /// It is not known what was done.
    NoAnswer(String),
    /// It was cancelled after it may have left.
    Cancelled,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) limits: Limits,
    pub(super) etag: Option<HeaderValue>,
    /// The next page.
    pub(super) next: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::NoAnswer(format!(
                "what answers is no GitHub ({error}); look at apiUrl"
            ))
        })
    }
}

/// One request.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) asked: Asked,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) body: Option<&'a Value>,
    /// What was answered last; the same again is no new answer, and costs nothing.
    pub(super) etag: Option<&'a HeaderValue>,
}

impl Question<'_> {
    pub(super) const fn get(asked: Asked, url: Url) -> Self {
        Self {
            asked,
            method: Method::GET,
            url,
            body: None,
            etag: None,
        }
    }

    pub(super) const fn post(asked: Asked, url: Url) -> Self {
        Self {
            asked,
            method: Method::POST,
            url,
            body: None,
            etag: None,
        }
    }
}

impl Api {
    /// For one target.
    ///
    /// # Errors
    /// There is no token, or no such address.
    pub(super) fn new(config: &GithubActionsConfig, around: &Surroundings) -> Result<Self, String> {
        let variable = &config.token_env_var;
        let token = std::env::var(variable).unwrap_or_default();
        let token = token.trim();
        if token.is_empty() {
            return Err(format!(
                "the variable {variable}, which is to hold the token for GitHub, is not set for the coordinator: set it and start the coordinator again, or name another one as tokenEnvVar"
            ));
        }
        let header = HeaderValue::try_from(format!("Bearer {token}"));
        let mut header = header.map_err(|_| {
            format!("what the variable {variable} holds is no token: write one line of letters and digits into it")
        })?;
        header.set_sensitive(true);
        let base = config.api_url.as_deref().unwrap_or(GITHUB);
        let base = Url::parse(base).map_err(|error| {
            format!("the address {base:?} can't be called ({error}); write another apiUrl")
        })?;
        if base.scheme() != "https" && !is_of_this_machine(&base) {
            return Err(format!(
                "{} would get the token without encryption: write https:// in apiUrl",
                http::host_of(&base)
            ));
        }
        let guard = Guard::new(around.own_addresses.clone(), around.allow_link_local);
        Ok(Self {
            client: http::for_url(&base, guard, REQUEST)?,
            limit: around.github_limits.of(&http::host_of(&base), token),
            base,
            token: header,
            config: config.clone(),
            secrets: Secrets::new([token.to_owned()]),
        })
    }

    /// An address below that of a repository.
    pub(super) fn url(&self, repo: &str, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("repos");
            segments
                .extend(repo.split('/'))
                .push("actions")
                .extend(path);
        }
        url
    }

    /// The next page, where it is at the same place: the token goes nowhere else.
    pub(super) fn page(&self, next: &str) -> Result<Url, Failure> {
        let url = Url::parse(next).ok();
        let same = url.filter(|url| url.origin() == self.base.origin());
        same.ok_or_else(|| {
            Failure::NoAnswer(format!(
                "{} names another host for its next page, which gets no token; look at apiUrl",
                http::host_of(&self.base)
            ))
        })
    }

    /// Asks once.
    pub(super) async fn once(
        &self,
        question: &Question<'_>,
        cancel: &CancellationToken,
    ) -> Result<Answer, Failure> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Failure::Cancelled),
            answered = self.send(question) => answered,
        }
    }

    /// Asks for what may be asked again: until there is an answer, or a refusal, or it is of no use before `until`.
    pub(super) async fn ask(
        &self,
        question: &Question<'_>,
        until: Instant,
        cancel: &CancellationToken,
    ) -> Result<Answer, Failure> {
        let mut patience = Patience::default();
        loop {
            let failure = match self.once(question, cancel).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let repeated = !matches!(
                failure,
                Failure::Impossible(_) | Failure::Refused(..) | Failure::Cancelled
            );
            if !repeated || !patience.wait(&failure, until, cancel).await {
                return Err(failure);
            }
        }
    }

    async fn send(&self, question: &Question<'_>) -> Result<Answer, Failure> {
        if let Some(left) = self.limit.is_reached() {
            return Err(Failure::Limited(left));
        }
        let request = self
            .client
            .request(question.method.clone(), question.url.clone());
        let mut request = request
            .header("Accept", "application/vnd.github+json")
            .header("X-GitHub-Api-Version", VERSION)
            .header(AUTHORIZATION, self.token.clone());
        if let Some(etag) = question.etag {
            request = request.header(IF_NONE_MATCH, etag.clone());
        }
        if let Some(body) = question.body {
            request = request.json(body);
        }
        let request = request.build().map_err(|error| {
            Failure::Impossible(format!(
                "the request can't be made ({error}); look at repo and workflow"
            ))
        })?;
        let ordered = (question.method != Method::GET).then(Instant::now);
        let mut answer = match self.client.execute(request).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.unanswered(&error)),
        };
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut body = Vec::new();
        // What is cut off can't be read, and says so.
        while body.len() < ANSWER
            && let Ok(Some(chunk)) = answer.chunk().await
        {
            body.extend_from_slice(&chunk);
        }
        self.judge(question.asked, ordered, status, &headers, body)
    }

    fn judge(
        &self,
        asked: Asked,
        ordered: Option<Instant>,
        status: StatusCode,
        headers: &HeaderMap,
        body: Vec<u8>,
    ) -> Result<Answer, Failure> {
        let limits = Limits::of(headers);
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            self.limit.answered(limits, ordered);
            return Ok(Answer {
                status,
                limits,
                etag: headers.get(ETAG).cloned(),
                next: headers.get_all(LINK).iter().find_map(next_of),
                body,
            });
        }
        let said = serde_json::from_slice::<Problem>(&body).unwrap_or_default();
        // It may repeat what an input had.
        let said = BirthTicket::hide_all(&self.secrets.hide(&said.message));
        if let Some(limit) = pace::limit(status, limits, &said) {
            return Err(Failure::Limited(self.limit.met(limit)));
        }
        if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            let host = http::host_of(&self.base);
            return Err(Failure::NoAnswer(format!(
                "{host} answered {status}; look at the status page of GitHub"
            )));
        }
        let words = words::refusal(&self.config, asked, status, &said);
        Err(Failure::Refused(status, words))
    }

    fn unanswered(&self, error: &reqwest::Error) -> Failure {
        let host = http::host_of(&self.base);
        if let Some(refusal) = http::refusal(error) {
            return Failure::Impossible(format!("{host} leads to where it may not: {refusal}"));
        }
        let causes = http::causes(error);
        if error.is_connect() || error.is_builder() {
            return Failure::NotSent(format!(
                "{host} can't be reached ({causes}); look at the network, or at apiUrl"
            ));
        }
        if error.is_timeout() {
            return Failure::NoAnswer(format!("{host} did not answer within {REQUEST:?}"));
        }
        Failure::NoAnswer(format!("{host} did not answer ({causes})"))
    }
}

impl Failure {
    /// What it means, for people.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Impossible(why)
            | Self::NotSent(why)
            | Self::Refused(_, why)
            | Self::NoAnswer(why) => why.clone(),
            Self::Limited(wait) => format!(
                "the token's rate limit at GitHub is used up, and nothing is asked with it for {}: start fewer agents, or use a token of its own",
                in_seconds(*wait)
            ),
            Self::Cancelled => "it was cancelled".to_owned(),
        }
    }

    /// Whether GitHub says that there is no such thing.
    pub(super) const fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(StatusCode::NOT_FOUND, _))
    }
}

/// How long is waited between tries.
#[derive(Debug)]
pub(super) struct Patience {
    pause: Duration,
    unanswered: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            pause: PAUSE,
            unanswered: 0,
        }
    }
}

impl Patience {
    /// Waits as long as a failure asks for; false where it is not worth while, or was cancelled.
    pub(super) async fn wait(
        &mut self,
        failure: &Failure,
        until: Instant,
        cancel: &CancellationToken,
    ) -> bool {
        let wait = if let Failure::Limited(wait) = failure {
            *wait
        } else {
            self.unanswered += 1;
            self.pause *= 2;
            self.pause / 2
        };
        if self.unanswered >= TRIES || Instant::now() + wait >= until {
            return false;
        }
        tracing::debug!(?failure, ?wait, "GitHub is asked again");
        sleep(wait, cancel).await
    }
}

/// Waits; false where it was cancelled.
pub(super) async fn sleep(wait: Duration, cancel: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(wait) => true,
        () = cancel.cancelled() => false,
    }
}

/// A time in whole seconds, which are over by then.
fn in_seconds(wait: Duration) -> String {
    format!(
        "{:?}",
        Duration::from_secs(
            wait.as_millis()
                .div_ceil(1000)
                .try_into()
                .unwrap_or(u64::MAX)
        )
    )
}

fn is_of_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// The next page that a header names.
fn next_of(link: &HeaderValue) -> Option<String> {
    let links = link.to_str().ok()?.split(',');
    let mut links = links.filter_map(|link| link.trim().strip_prefix('<')?.split_once('>'));
    let next = links.find(|(_, rest)| rest.contains("rel=\"next\""));
    next.map(|(url, _)| url.to_owned())
}
