//! `GET /api/events`: what happens from now on, as server-sent events. At most once each, like all events.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event as Sse, KeepAlive, Sse as SseResponse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use loom_actors::events::Heard;
use loom_protocol::WorkId;
use loom_protocol::event::Event;
use tokio_util::sync::CancellationToken;

use super::call::{Call, chosen};
use super::error::{RestError, RestResult};
use crate::access::Allowed;
use crate::service::{Following, Service};

/// How often something is sent where nothing happens, so that both sides notice a dead connection.
pub const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// What stands for how many were missed where nobody knows.
const MISSED_UNKNOWN: u64 = 0;
/// What may be listened to.
const TOPICS: [&str; 3] = ["work", "agents", "targets"];
/// How many items one listener may name.
const MAX_ITEMS: usize = 256;

/// Ends the answers that would never end by themselves, when the coordinator ends.
#[derive(Debug, Clone)]
pub struct Stopping(pub CancellationToken);

/// What one listener wants to hear of what happens where it may listen.
#[derive(Debug)]
struct Wanted {
    /// Of each topic the beginnings of its names; empty: all.
    topics: Vec<&'static [&'static str]>,
    /// About these items; empty: about anything.
    items: Vec<WorkId>,
}

impl Wanted {
    fn of(call: &Call) -> RestResult<(Allowed, Self)> {
        let everywhere = call.text("allProjects").is_some_and(|text| text == "true");
        if everywhere && call.project().is_some() {
            let message = "allProjects and a project exclude each other; name one";
            return Err(RestError::invalid(message));
        }
        let caller = if everywhere {
            call.caller_everywhere()?
        } else {
            call.caller().clone()
        };
        let list = |name: &str| call.text(name).unwrap_or_default();
        let topics = list("topic")
            .split(',')
            .filter(|topic| !topic.is_empty())
            .map(|topic| match topic.trim() {
                "agent" => Ok("agents"),
                "target" => Ok("targets"),
                topic => chosen("topic", topic, &TOPICS, |topic| topic),
            })
            .map(|topic| {
                topic.map(|topic| match topic {
                    "work" => &["work:"][..],
                    "agents" => &["agent:"][..],
                    _ => &["target:", "spin-up:"][..],
                })
            })
            .collect::<Result<_, _>>()?;
        let items: Vec<WorkId> = list("workId")
            .split(',')
            .filter(|id| !id.is_empty())
            .map(|id| {
                id.trim()
                    .parse()
                    .map_err(|error| RestError::invalid(format!("workId {error}")))
            })
            .collect::<Result<_, _>>()?;
        if items.len() > MAX_ITEMS {
            return Err(RestError::invalid(format!(
                "workId names {} items; at most {MAX_ITEMS} are followed at once",
                items.len()
            )));
        }
        Ok((caller, Self { topics, items }))
    }

    fn takes(&self, event: &Event) -> bool {
        let mut names = self.topics.iter().copied().flatten();
        (self.topics.is_empty() || names.any(|name| event.name().starts_with(name)))
            && (self.items.is_empty()
                || matches!(event, Event::Work(work) if self.items.contains(&work.work_id)))
    }
}

/// One listener, for as long as it listens.
struct Listener {
    wanted: Wanted,
    events: Following,
    stopping: CancellationToken,
    began: bool,
}

impl Listener {
    /// What is sent next; nothing when the coordinator ends.
    async fn next(mut self) -> Option<(Result<Sse, Infallible>, Self)> {
        if !std::mem::replace(&mut self.began, true) {
            return Some((Ok(Sse::default().event("subscribed").data("{}")), self));
        }
        loop {
            let heard = tokio::select! {
                () = self.stopping.cancelled() => return None,
                heard = self.events.next() => heard?,
            };
            let sent = match heard {
                Heard::Event(event) if self.wanted.takes(&event) => {
                    match serde_json::to_string(&*event) {
                        Ok(json) => Sse::default().event(event.name()).data(json),
                        Err(error) => {
                            tracing::error!(%error, "an event could not be written");
                            continue;
                        }
                    }
                }
                Heard::Event(_) => continue,
                Heard::Lagged(missed) => lagged(missed),
                Heard::Gap => lagged(MISSED_UNKNOWN),
            };
            return Some((Ok(sent), self));
        }
    }
}

fn lagged(missed: u64) -> Sse {
    let data = format!("{{\"missed\":{missed}}}");
    Sse::default().event("lagged").data(data)
}

/// Tells what happens, until one of both sides ends.
pub async fn follow(
    State(service): State<Service>,
    Extension(stopping): Extension<Stopping>,
    call: Call,
) -> RestResult<Response> {
    let (caller, wanted) = Wanted::of(&call)?;
    let listener = Listener {
        wanted,
        events: service.follow(&caller)?,
        stopping: stopping.0,
        began: false,
    };
    let events = stream::unfold(listener, Listener::next);
    let alive = KeepAlive::new().interval(ALIVE_EVERY);
    Ok(SseResponse::new(events).keep_alive(alive).into_response())
}
