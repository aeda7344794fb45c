//! Lists, page by page, and watches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::World;
use super::server::Asked;
use super::status::{Status, answer};
use super::store::is_selected;

pub(super) fn list(world: &World, asked: &Asked) -> Result<Response<Body>, Status> {
    let most = asked.query("limit").and_then(|limit| limit.parse().ok());
    let most = most.unwrap_or(usize::MAX).min(world.rules.lock().page);
    let store = world.store.lock();
    let (mut version, mut after) = (store.version, None);
    if let Some(text) = asked.query("continue") {
        let place = place(text).ok_or_else(|| Status::bad_request("continue key is not valid"))?;
        if place.0 <= store.forgotten {
            return Err(Status::gone(
                "The provided continue parameter is too old to display a consistent list result.",
            ));
        }
        (version, after) = (place.0, Some(place.1));
    }
    let labels = asked.query("labelSelector");
    let mut found = store
        .objects
        .iter()
        .filter(|((kind, namespace, name), object)| {
            let is_further = after.as_ref().is_none_or(|after| name > after);
            *kind == asked.kind
                && *namespace == asked.namespace
                && is_further
                && is_selected(object, labels, asked.query("fieldSelector"))
        });
    let page: Vec<_> = found.by_ref().take(most).collect();
    let rest = found.count();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let (Some(((.., last), _)), true) = (page.last(), rest > 0) {
        let next = json!({"v": "meta.k8s.io/v1", "rv": version, "start": last}).to_string();
        metadata["continue"] = URL_SAFE_NO_PAD.encode(next).into();
        metadata["remainingItemCount"] = rest.into();
    }
    let items: Vec<&Value> = page.into_iter().map(|(_, object)| object).collect();
    Ok(answer(
        200,
        &json!({
            "kind": format!("{}List", asked.kind.word()),
            "apiVersion": asked.kind.api_version(),
            "metadata": metadata,
            "items": items,
        }),
    ))
}

/// The version of a list and its last name.
fn place(text: &str) -> Option<(u64, String)> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let place: Value = serde_json::from_slice(&bytes).ok()?;
    Some((place["rv"].as_u64()?, place["start"].as_str()?.to_owned()))
}

/// A watch that goes on.
struct Watching {
    world: Arc<World>,
    asked: Asked,
    at: u64,
    changes: watch::Receiver<u64>,
    ready: VecDeque<Value>,
    bookmarks: bool,
    over: Instant,
    epoch: u64,
    ended: bool,
    /// The version of the event that was given last.
    given: Option<u64>,
}

pub(super) fn watch(world: &Arc<World>, asked: &Asked) -> Result<Response<Body>, Status> {
    let version = asked.query("resourceVersion").unwrap_or("0");
    let at = version
        .parse()
        .map_err(|_| Status::bad_request(format!("Invalid value: {version:?}")))?;
    let seconds = asked
        .query("timeoutSeconds")
        .and_then(|text| text.parse().ok());
    let watching = Watching {
        world: world.clone(),
        asked: Asked::clone(asked),
        at,
        changes: world.store.lock().changes(),
        ready: VecDeque::new(),
        bookmarks: asked.query("allowWatchBookmarks") == Some("true"),
        over: Instant::now() + Duration::from_secs(seconds.unwrap_or(300)),
        epoch: world.rules.lock().watches,
        ended: false,
        given: None,
    };
    let lines = futures_util::stream::unfold(watching, |mut watching| async move {
        watching.note_what_was_given();
        let event = watching.next().await?;
        watching.given = version_of(&event);
        let line = Bytes::from(format!("{event}\n"));
        Some((Ok::<_, std::io::Error>(line), watching))
    });
    Ok(Response::new(Body::from_stream(lines)))
}

fn version_of(event: &Value) -> Option<u64> {
    let version = event.pointer("/object/metadata/resourceVersion")?;
    version.as_str()?.parse().ok()
}

impl Watching {
    /// The next event is asked for: the one before is on its way, and comes before the end of this watch.
    fn note_what_was_given(&mut self) {
        if let Some(version) = self.given.take() {
            let mut rules = self.world.rules.lock();
            let told = rules.told.entry(self.asked.kind).or_default();
            *told = version.max(*told);
        }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended || self.world.rules.lock().watches != self.epoch {
                return None;
            }
            self.changes.mark_unchanged();
            self.look();
            if !self.ready.is_empty() {
                continue;
            }
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                () = tokio::time::sleep_until(self.over) => {
                    self.ended = true;
                    if self.bookmarks {
                        let event = self.bookmark();
                        self.ready.push_back(event);
                    }
                }
            }
        }
    }

    /// Takes what has happened since the last look.
    fn look(&mut self) {
        let store = self.world.store.lock();
        // What was forgotten last is the forgetting itself.
        if self.at + 1 < store.forgotten {
            let status = Status::gone(&format!(
                "too old resource version: {} ({})",
                self.at, store.forgotten
            ));
            self.ready
                .push_back(json!({"type": "ERROR", "object": status.json()}));
            self.ended = true;
            return;
        }
        let labels = self.asked.query("labelSelector");
        for event in store.events.iter().filter(|event| event.version > self.at) {
            let (kind, namespace, _) = &event.key;
            let is_meant = *kind == self.asked.kind
                && *namespace == self.asked.namespace
                && is_selected(&event.object, labels, self.asked.query("fieldSelector"));
            if is_meant {
                self.ready
                    .push_back(json!({"type": event.what, "object": event.object}));
            }
        }
        let moved = store.version > self.at;
        self.at = store.version;
        drop(store);
        if self.ready.is_empty() && moved && self.bookmarks {
            let event = self.bookmark();
            self.ready.push_back(event);
        }
    }

    /// Nothing that is watched has changed up to here.
    fn bookmark(&self) -> Value {
        let kind = self.asked.kind;
        json!({"type": "BOOKMARK", "object": {
            "kind": kind.word(),
            "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": self.at.to_string(), "creationTimestamp": null},
        }})
    }
}
