//! A request, taken apart: which project, which thing, which filters, which body.

mod hints;
mod one_of;

use std::fmt;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use loom_protocol::verbs::Scope;
use loom_protocol::{Encoding, ErrorCode, ProjectId, Timestamp, VerbName, WireError};
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub(super) use self::one_of::chosen;

use self::hints::{Hints, ItemHints, hints_of};
use super::error::{RestError, RestResult};
use crate::access::{Allowed, Caller};
use crate::service::{Ignored, LARGE_BODY, Service, Turn, aside};

/// The header that names the project.
pub const PROJECT_HEADER: &str = "Loom-Project";
/// The field of a body, and the parameter of a query, that name it.
pub(super) const PROJECT: &str = "projectId";
/// The header of an answer to a request that used an old word.
pub const DEPRECATED_HEADER: &str = "X-Deprecated-Param";
/// The old word for `boundary`.
pub const CLASSIFICATION: &str = "classification";

/// A request, taken apart.
#[derive(Debug)]
pub struct Call {
    /// What the last `{id}` of the path says; empty where the path has none.
    pub id: String,
    caller: Allowed,
    project: Option<ProjectId>,
    query: Vec<(String, String)>,
    body: Bytes,
    /// The turn in which the body is read, until that is done.
    reading: Option<Reading>,
    hints: Hints,
    /// Why the hints cannot be read: which project is meant is not known.
    unread: Option<WireError>,
    items: Vec<ItemHints>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PathParts {
    project: Option<String>,
    id: String,
}

/// Who asks for something that names no project.
#[derive(Debug)]
pub struct Asker(pub Allowed);

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = RestError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> RestResult<Self> {
        Ok(Self(allowed(parts, |_| None)?))
    }
}

/// Who asks, if he may do what the verb of this path does there.
fn allowed(parts: &Parts, place: impl FnOnce(Scope) -> Option<ProjectId>) -> RestResult<Allowed> {
    let caller = parts.extensions.get::<Caller>().cloned();
    let verb = parts.extensions.get::<VerbName>().copied();
    let (Some(caller), Some(verb)) = (caller, verb) else {
        let text = "it is not known who asks for what; please report this";
        return Err(WireError::new(ErrorCode::Internal, text).into());
    };
    Ok(caller.allow(verb, place(verb.row().scope))?)
}

/// What is to be known before a request is carried out.
pub trait Ground: Send + Sync {
    /// The project that a request without one means.
    fn default_project(&self) -> &ProjectId;

    /// Ends when the projects that it is about can be read, or after a moment. Meanwhile `reading` has no turn, and one
    /// again after that.
    fn settled(
        &self,
        caller: &Allowed,
        reading: Option<&Reading>,
        size: usize,
    ) -> impl Future<Output = Result<(), WireError>> + Send;
}

/// The turn in which the body of a request is read.
#[derive(Debug, Clone)]
pub struct Reading(Arc<Mutex<Option<Turn>>>);

impl Reading {
    /// In this turn, where it needs one.
    pub fn in_turn(turn: Option<Turn>) -> Self {
        Self(Arc::new(Mutex::new(turn)))
    }

    /// The turn is another one's: nothing of the body is left to be read, or it cannot be read now.
    fn give_back(&self) {
        drop(self.0.lock().take());
    }
}

impl Ground for Service {
    fn default_project(&self) -> &ProjectId {
        self.default_project()
    }

    async fn settled(
        &self,
        caller: &Allowed,
        reading: Option<&Reading>,
        size: usize,
    ) -> Result<(), WireError> {
        if self.is_settled(caller) {
            return Ok(());
        }
        if let Some(reading) = reading {
            reading.give_back();
        }
        self.settled(caller).await;
        if let Some(reading) = reading {
            let turn = self.turn_for(size).await?;
            *reading.0.lock() = turn;
        }
        Ok(())
    }
}

impl<S: Ground> FromRequest<S> for Call {
    type Rejection = RestError;

    async fn from_request(request: Request, state: &S) -> RestResult<Self> {
        let (mut parts, body) = request.into_parts();
        let Path(path) = Path::<PathParts>::from_request_parts(&mut parts, state)
            .await
            .map_err(|rejection| refused("the path", &rejection))?;
        let Query(query) = Query::<Vec<(String, String)>>::from_request_parts(&mut parts, state)
            .await
            .map_err(|rejection| refused("the query", &rejection))?;
        let body = Bytes::from_request(Request::new(body), state)
            .await
            .map_err(|rejection| refused("the body", &rejection))?;
        let (hints, unread, items) = read(&body, || hints_of(&body));
        let project = project_of(&parts, &path, &query, &hints)?;
        let caller = allowed(&parts, |scope| match scope {
            Scope::Project => Some(
                project
                    .clone()
                    .unwrap_or_else(|| state.default_project().clone()),
            ),
            Scope::Projects => project.clone(),
            Scope::Coordinator => None,
        })?;
        let reading = parts.extensions.get::<Reading>().cloned();
        state.settled(&caller, reading.as_ref(), body.len()).await?;
        Ok(Self {
            id: path.id,
            caller,
            project,
            query,
            body,
            reading,
            hints,
            unread,
            items,
        })
    }
}

/// Reads a body: a large one, which takes long, without keeping others waiting.
fn read<T>(body: &Bytes, long: impl FnOnce() -> T) -> T {
    if body.len() < LARGE_BODY {
        long()
    } else {
        aside(long)
    }
}

fn refused(what: &str, rejection: &impl fmt::Display) -> RestError {
    RestError::invalid(format!("{what} of the request cannot be read: {rejection}"))
}

/// The project that a request names, in whichever way; in two ways only if they agree.
fn project_of(
    parts: &Parts,
    path: &PathParts,
    query: &[(String, String)],
    hints: &Hints,
) -> RestResult<Option<ProjectId>> {
    let header = match parts.headers.get(PROJECT_HEADER) {
        None => None,
        Some(value) => Some(value.to_str().map_err(|_| {
            RestError::invalid(format!("the header {PROJECT_HEADER} is not plain text"))
        })?),
    };
    let named = [
        ("the path", path.project.as_deref()),
        ("the query", find(query, PROJECT)),
        ("the body", hints.project_id.as_deref()),
        ("the header", header),
    ];
    let mut found: Option<(&str, ProjectId)> = None;
    for (place, id) in named {
        let Some(id) = id else { continue };
        let id = ProjectId::new(id)?;
        match &found {
            Some((first, other)) if *other != id => {
                return Err(RestError::invalid(format!(
                    "{first} names the project {other} and {place} names {id}; name one"
                )));
            }
            _ => found = Some((place, id)),
        }
    }
    Ok(found.map(|(_, id)| id))
}

/// A parameter of a query; an empty one counts as absent.
pub(super) fn find<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query
        .iter()
        .find(|(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value.as_str())
}

impl Call {
    /// The project that it names.
    pub fn project(&self) -> Option<&ProjectId> {
        self.project.as_ref()
    }

    /// Who asks, and may.
    pub const fn caller(&self) -> &Allowed {
        &self.caller
    }

    /// The same for all projects.
    pub fn caller_everywhere(&self) -> RestResult<Allowed> {
        let caller = self.caller.caller().clone();
        Ok(caller.allow(self.caller.verb(), None)?)
    }

    /// A parameter of the query; an empty one counts as absent.
    pub fn text(&self, name: &str) -> Option<String> {
        find(&self.query, name).map(str::to_owned)
    }

    /// A whole number of the query.
    pub fn number(&self, name: &str) -> RestResult<Option<usize>> {
        find(&self.query, name)
            .map(|text| {
                text.parse().map_err(|_| {
                    RestError::invalid(format!(
                        "{name} = {:?} is no whole number; write digits only",
                        text.chars().take(32).collect::<String>()
                    ))
                })
            })
            .transpose()
    }

    /// A yes or no of the query; no where it is absent.
    pub fn flag(&self, name: &str) -> RestResult<bool> {
        match find(&self.query, name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(RestError::invalid(format!(
                "{name} = {:?} is neither true nor false",
                other.chars().take(32).collect::<String>()
            ))),
        }
    }

    /// A time of the query.
    pub fn time(&self, name: &str) -> RestResult<Option<Timestamp>> {
        find(&self.query, name)
            .map(|text| {
                let read = text.parse();
                read.map_err(|error| RestError::invalid(format!("{name}: {error}")))
            })
            .transpose()
    }

    /// The boundary that query or body name, by the new word or by the old one.
    pub fn boundary(&self) -> Option<String> {
        self.text("boundary")
            .or_else(|| self.text(CLASSIFICATION))
            .or_else(|| self.hints.classification.clone())
    }

    /// What an item of the body's `items` calls its classification.
    pub fn item_classification(&self, index: usize) -> Option<String> {
        self.items.get(index)?.classification.clone()
    }

    /// The body; an empty one reads as an empty object.
    pub fn body<T: DeserializeOwned>(&self) -> RestResult<T> {
        self.body_noting().map(|(body, _)| body)
    }

    /// The body, and the fields of it that nobody reads.
    pub fn body_noting<T: DeserializeOwned>(&self) -> RestResult<(T, Ignored)> {
        let mut ignored = Ignored::default();
        let mut note = |path: String| {
            let name = path.rsplit('.').next().unwrap_or(&path);
            if path != PROJECT && name != CLASSIFICATION {
                ignored.note(&path);
            }
        };
        let decoded = read(&self.body, || {
            Encoding::Json.decode_noting(&self.body, &mut note)
        });
        let body = decoded.map_err(WireError::from)?;
        self.was_read();
        match &self.unread {
            Some(error) => Err(error.clone().into()),
            None => Ok((body, ignored)),
        }
    }

    /// The body of a request about many things: a field or a parameter that nobody reads is refused, since a
    /// misspelt filter would mean everything. `parameters`: those of the query that are read, besides the project's.
    pub fn strict_body<T: DeserializeOwned>(&self, parameters: &[&str]) -> RestResult<T> {
        let unknown = self
            .query
            .iter()
            .map(|(name, _)| name.as_str())
            .find(|name| *name != PROJECT && !parameters.contains(name));
        if let Some(name) = unknown {
            return Err(RestError::invalid(format!(
                "this path takes no parameter {:?} in its query; filters of a POST stand in its body (nothing was done)",
                name.chars().take(64).collect::<String>()
            )));
        }
        let mut besides = vec![PROJECT];
        besides.extend(parameters.iter().filter(|name| **name == CLASSIFICATION));
        let decoded = read(&self.body, || {
            Encoding::Json.decode_strictly(&self.body, &besides)
        });
        let body = decoded.map_err(WireError::from)?;
        self.was_read();
        match &self.unread {
            Some(error) => Err(error.clone().into()),
            None => Ok(body),
        }
    }

    /// What is done with the body may take long, and keeps nobody else's from being read.
    fn was_read(&self) {
        if let Some(reading) = &self.reading {
            reading.give_back();
        }
    }

    /// Marks the answer where the request used an old word.
    pub fn answer(&self, answer: impl IntoResponse) -> Response {
        let mut response = answer.into_response();
        if self.is_dated() {
            let value = HeaderValue::from_static(CLASSIFICATION);
            response.headers_mut().insert(DEPRECATED_HEADER, value);
        }
        response
    }

    fn is_dated(&self) -> bool {
        let of_items = self.items.iter();
        find(&self.query, CLASSIFICATION).is_some()
            || self.hints.classification.is_some()
            || of_items
                .map(|item| &item.classification)
                .any(Option::is_some)
    }
}

/// 201 and what was made.
pub fn created(answer: impl IntoResponse) -> impl IntoResponse {
    (StatusCode::CREATED, answer)
}
