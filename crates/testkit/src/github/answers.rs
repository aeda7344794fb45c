//! What is answered to each request, with the headers that GitHub sends.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use loom_protocol::Timestamp;
use serde_json::{Value, json};

use super::runs::{Run, seconds};
use super::{BASE, Cancelled, Fault, Hub, Inner, TestGithub};

/// The versions of the API that are known.
const VERSIONS: [&str; 2] = ["2022-11-28", "2026-03-10"];
/// How many requests an hour has.
const LIMIT: u64 = 5000;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// A request that is refused: status and words.
pub(super) struct Refusal(pub(super) u16, pub(super) String);

impl Hub {
    /// The answer; none where the connection is to be cut.
    pub(super) fn answer(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Option<Response> {
        let fault = self.0.lock().fault(method, path);
        let mut answer = match &fault {
            Some(Fault::CutBefore) => return None,
            Some(Fault::Answer(status, headers, body)) => {
                let mut answer = text(*status, body.clone());
                for (name, value) in headers {
                    header(&mut answer, name, value);
                }
                answer
            }
            _ => self.carry_out(method, path, headers, body),
        };
        if let Some(Fault::DoneBut(status)) = fault {
            answer = problem(status, "Server Error");
        }
        if matches!(fault, Some(Fault::CutAfter)) {
            return None;
        }
        self.0.lock().dress(&mut answer);
        Some(answer)
    }

    fn carry_out(&self, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Response {
        let access = match self.0.lock().admit(headers) {
            Ok(access) => access,
            Err(Refusal(status, why)) => return problem(status, &why),
        };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let by_name = format!("/repos/{}/actions/", TestGithub::REPO);
        let rest = path.strip_prefix(&*by_name);
        // The pages of a list are named by the number of the repository.
        let rest = rest.or_else(|| path.strip_prefix("/repositories/1296269/actions/"));
        let parts: Vec<&str> = rest.unwrap_or_default().split('/').collect();
        let workflow = |name: &str| name == TestGithub::WORKFLOW || name == "30433642";
        let mut inner = self.0.lock();
        match (method.as_str(), &*parts) {
            ("GET", ["workflows", name]) if workflow(name) => inner.workflow(),
            ("GET", ["workflows", name, "runs"]) if workflow(name) => inner.list(query),
            ("POST", ["workflows", name, "dispatches"]) if workflow(name) => {
                drop(inner);
                self.dispatch(body, access)
            }
            (_, ["runs", id, rest @ ..]) => match id.parse() {
                Ok(id) => inner.of_run(method, id, rest, headers, access),
                Err(_) => problem(404, "Not Found"),
            },
            _ => problem(404, "Not Found"),
        }
    }
}

impl Inner {
    /// What the token of a request may do.
    fn admit(&self, headers: &HeaderMap) -> Result<Access, Refusal> {
        let of = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if of("user-agent").is_none() {
            return Err(Refusal(403, "Request forbidden by administrative rules. Please make sure your request has a User-Agent header".to_owned()));
        }
        if let Some(version) = of("x-github-api-version").filter(|one| !VERSIONS.contains(one)) {
            let why = format!("API version {version} is not a supported version");
            return Err(Refusal(400, why));
        }
        let token = of("authorization").and_then(|value| {
            value
                .strip_prefix("Bearer ")
                .or_else(|| value.strip_prefix("token "))
        });
        let access = match token {
            Some(token) if token == self.settings.writer => Access::Write,
            Some(token) if token == self.settings.reader => Access::Read,
            Some(_) => return Err(Refusal(401, "Bad credentials".to_owned())),
            // Nobody sees a private repository.
            None => return Err(Refusal(404, "Not Found".to_owned())),
        };
        if matches!(self.settings.rate_limit, Some((0, _))) {
            return Err(Refusal(
                403,
                "API rate limit exceeded for user ID 1.".to_owned(),
            ));
        }
        Ok(access)
    }

    /// Adds what every answer has, and counts it.
    fn dress(&mut self, answer: &mut Response) {
        let now = self.clock.now();
        let date = jiff::Timestamp::from_millisecond(now.as_millis()).ok();
        let date = date.and_then(|date| {
            let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
            printer.timestamp_to_rfc9110_string(&date).ok()
        });
        header(answer, "date", &date.unwrap_or_default());
        header(answer, "x-github-api-version-selected", VERSIONS[0]);
        header(answer, "x-github-request-id", "C0FF:EE:1:2:3");
        let (mut remaining, reset_in) = self
            .settings
            .rate_limit
            .unwrap_or((LIMIT, std::time::Duration::from_hours(1)));
        if answer.status() != StatusCode::NOT_MODIFIED {
            remaining = remaining.saturating_sub(1);
        }
        if let Some((left, _)) = &mut self.settings.rate_limit {
            *left = remaining;
        }
        let reset = now.after(reset_in).as_millis() / 1000;
        for (name, value) in [
            ("x-ratelimit-limit", LIMIT.to_string()),
            ("x-ratelimit-remaining", remaining.to_string()),
            (
                "x-ratelimit-used",
                LIMIT.saturating_sub(remaining).to_string(),
            ),
            ("x-ratelimit-reset", reset.to_string()),
            ("x-ratelimit-resource", "core".to_owned()),
        ] {
            if !answer.headers().contains_key(name) {
                header(answer, name, &value);
            }
        }
    }

    fn api(&self) -> String {
        format!("http://{}{BASE}", self.address)
    }

    fn workflow(&self) -> Response {
        let (repo, file) = (TestGithub::REPO, TestGithub::WORKFLOW);
        let body = json!({
            "id": 30_433_642,
            "node_id": "MDg6V29ya2Zsb3cxNjEzMzU=",
            "name": "Agent",
            "path": format!(".github/workflows/{file}"),
            "state": self.settings.workflow_state,
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
            "url": format!("{}/repos/{repo}/actions/workflows/30433642", self.api()),
            "html_url": format!("https://github.example/{repo}/blob/main/.github/workflows/{file}"),
            "badge_url": format!("https://github.example/{repo}/workflows/Agent/badge.svg"),
        });
        json(200, &body)
    }

    /// The runs, the newest first, in pages.
    fn list(&mut self, query: &str) -> Response {
        let asked: BTreeMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), decoded(value)))
            .collect();
        let number = |name: &str| {
            asked
                .get(name)
                .and_then(|value| value.parse::<usize>().ok())
        };
        let size = number("per_page").unwrap_or(30).clamp(1, 100);
        let page = number("page").unwrap_or(1).max(1);
        let since = asked
            .get("created")
            .and_then(|created| created.strip_prefix(">="));
        let since: Option<Timestamp> = match since.map(str::parse).transpose() {
            Ok(since) => since,
            Err(_) => return problem(422, "Invalid request.\n\nInvalid value for created."),
        };
        let event = asked
            .get("event")
            .is_none_or(|event| event == "workflow_dispatch");
        let is_asked = |run: &&Run| {
            let at: Result<Timestamp, _> = seconds(run.created_at).parse();
            event
                && run.appears_after == 0
                && since.is_none_or(|since| at.is_ok_and(|at| at >= since))
        };
        let all: Vec<&Run> = self.runs.iter().rev().filter(is_asked).collect();
        let pages = all.len().div_ceil(size).max(1);
        let shown = all.iter().skip((page - 1) * size).take(size);
        let shown: Vec<Value> = shown.map(|run| run.json(&self.api())).collect();
        let body = json!({"total_count": all.len(), "workflow_runs": shown});
        let mut answer = json(200, &body);
        let link = |to: usize, rel: &str| {
            let kept = query.split('&').filter(|pair| !pair.starts_with("page="));
            let kept: Vec<&str> = kept.collect();
            format!(
                "<{}/repositories/1296269/actions/workflows/30433642/runs?{}&page={to}>; rel=\"{rel}\"",
                self.api(),
                kept.join("&")
            )
        };
        let mut links = Vec::new();
        if page > 1 {
            links.extend([link(page - 1, "prev"), link(1, "first")]);
        }
        if page < pages {
            links.extend([link(page + 1, "next"), link(pages, "last")]);
        }
        if !links.is_empty() {
            header(&mut answer, "link", &links.join(", "));
        }
        if page == 1 {
            for run in &mut self.runs {
                run.appears_after = run.appears_after.saturating_sub(1);
            }
        }
        answer
    }

    fn of_run(
        &mut self,
        method: &Method,
        id: u64,
        rest: &[&str],
        headers: &HeaderMap,
        access: Access,
    ) -> Response {
        let (api, cancelled) = (self.api(), self.settings.cancelled);
        let is_run = self.on_dispatch.is_some();
        let Some(run) = self.runs.iter_mut().find(|run| run.id == id) else {
            return problem(404, "Not Found");
        };
        match (method.as_str(), rest) {
            ("GET", []) => {
                let etag = run.etag();
                let known = headers.get("if-none-match");
                let mut answer = if known.is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
                    text(304, String::new())
                } else {
                    json(200, &run.json(&api))
                };
                header(&mut answer, "etag", &etag);
                answer
            }
            ("GET", ["jobs"]) => json(200, &run.jobs()),
            ("POST", ["cancel" | "force-cancel"]) if access == Access::Read => {
                problem(403, "Resource not accessible by personal access token")
            }
            ("POST", [verb @ ("cancel" | "force-cancel")]) => {
                if run.status == "completed" {
                    return problem(409, "Cannot cancel a workflow run that is completed.");
                }
                run.cancelled.send_replace(true);
                let ends = match cancelled {
                    Cancelled::Ends => *verb == "force-cancel" || !is_run,
                    Cancelled::NeedsForce => *verb == "force-cancel",
                    Cancelled::GoesOn => false,
                };
                if ends {
                    "completed".clone_into(&mut run.status);
                    run.conclusion = Some("cancelled".to_owned());
                    run.changes += 1;
                }
                json(202, &json!({}))
            }
            _ => problem(404, "Not Found"),
        }
    }
}

/// An answer that says no, in GitHub's form.
pub(super) fn problem(status: u16, message: &str) -> Response {
    json(
        status,
        &json!({
            "message": message,
            "documentation_url": "https://docs.github.com/rest",
            "status": status.to_string(),
        }),
    )
}

pub(super) fn json(status: u16, body: &Value) -> Response {
    let mut answer = text(status, body.to_string());
    header(
        &mut answer,
        "content-type",
        "application/json; charset=utf-8",
    );
    answer
}

fn text(status: u16, body: String) -> Response {
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

fn header(answer: &mut Response, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        answer.headers_mut().insert(name, value);
    }
}

/// A value of a query without its percent signs.
fn decoded(value: &str) -> String {
    let mut parts = value.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..2)
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        if let Some(code) = code {
            text.push(char::from(code));
            text.push_str(&part[2..]);
        } else {
            text.push('%');
            text.push_str(part);
        }
    }
    text
}
