//! What there is, and what becomes of it: a list, page by page, and then a watch from where the list ended.
//!
//! Bookmarks move the place from which a broken watch goes on, so that it need not begin anew; where the server has
//! forgotten that place (410), or gives up a list between two pages, everything is listed again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::client::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::api::Api;
use super::call::{Call, Resource, Verb};
use super::cluster::Place;
use super::refusal::{Refusal, RefusalKind, causes};

/// How many objects a page has at most.
const PAGE: u32 = 100;
/// How often a list is begun anew whose rest the server has forgotten.
const LISTS: u32 = 3;
/// After how long the server is to end a watch, in seconds.
const WATCH_SECONDS: u32 = 240;
/// How long a watch may be silent beyond that.
const SILENCE: Duration = Duration::from_secs(270);
/// How long a list may take.
const LIST: Duration = Duration::from_secs(30);
/// How long to wait before a watch is opened again that ended at once.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a watch is opened again that the server had no time for; the pauses double.
const OPENINGS: u32 = 5;
/// How long one event may be, in bytes.
const EVENT: usize = 4 << 20;

/// An object that has a name and a version.
pub(super) trait Named: DeserializeOwned {
    const RESOURCE: Resource;
    fn metadata(&self) -> &ObjectMeta;
}

impl Named for k8s_openapi::api::batch::v1::Job {
    const RESOURCE: Resource = Resource::Jobs;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

impl Named for k8s_openapi::api::core::v1::Pod {
    const RESOURCE: Resource = Resource::Pods;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "K: DeserializeOwned"))]
struct Page<K> {
    #[serde(default)]
    metadata: PageMetadata,
    items: Vec<K>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PageMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// Everything with these labels, and where a watch goes on from it.
pub(super) async fn list<K: Named>(
    api: &Api,
    place: &Place,
    labels: &str,
    until: Instant,
) -> Result<(Vec<K>, String), Refusal> {
    let mut begun = 1;
    let mut items = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let mut call = Call::new(Verb::List, K::RESOURCE)
            .with("labelSelector", labels)
            .with("limit", PAGE.to_string());
        if let Some(next) = &next {
            call = call.with("continue", next);
        }
        let page: Page<K> = match api.object(place, &call, until).await {
            Ok(page) => page,
            Err(refusal) if refusal.is(RefusalKind::Gone) && next.is_some() && begun < LISTS => {
                begun += 1;
                next = None;
                items.clear();
                continue;
            }
            Err(refusal) => return Err(refusal),
        };
        items.extend(page.items);
        next = page.metadata.next.filter(|next| !next.is_empty());
        if next.is_none() {
            return Ok((items, page.metadata.resource_version));
        }
    }
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: serde_json::Value,
}

/// What a line of a watch says.
#[derive(Debug, PartialEq)]
enum Said<K> {
    Is(String, K, String),
    Gone(String, String),
    /// Nothing changed up to here.
    Bookmark(String),
    /// Everything is to be listed again.
    TooOld,
    /// Nothing that could be understood.
    Unclear,
}

fn read_event<K: Named>(line: &[u8]) -> Said<K> {
    let Ok(event) = serde_json::from_slice::<Event>(line) else {
        return Said::Unclear;
    };
    let version = |object: &serde_json::Value| {
        let version = object["metadata"]["resourceVersion"].as_str();
        version.unwrap_or_default().to_owned()
    };
    match event.kind.as_str() {
        "BOOKMARK" => Said::Bookmark(version(&event.object)),
        "ERROR" if event.object["code"] == 410 => Said::TooOld,
        "ADDED" | "MODIFIED" | "DELETED" => {
            let version = version(&event.object);
            let Ok(object) = serde_json::from_value::<K>(event.object) else {
                return Said::Unclear;
            };
            let name = object.metadata().name.clone().unwrap_or_default();
            if event.kind == "DELETED" {
                Said::Gone(name, version)
            } else {
                Said::Is(name, object, version)
            }
        }
        _ => Said::Unclear,
    }
}

/// Everything with some labels, kept up to date. [`Watch::next`] may be dropped and called again.
pub(super) struct Watch<'a, K> {
    api: &'a Api,
    place: &'a Place,
    labels: String,
    known: BTreeMap<String, K>,
    /// From where it goes on; none where everything is to be listed.
    version: Option<String>,
    stream: Option<Lines>,
    opened: Option<Instant>,
    /// How often it could not be opened.
    failures: u32,
}

impl<'a, K: Named> Watch<'a, K> {
    pub(super) fn new(api: &'a Api, place: &'a Place, labels: &str) -> Self {
        Self {
            api,
            place,
            labels: labels.to_owned(),
            known: BTreeMap::new(),
            version: None,
            stream: None,
            opened: None,
            failures: 0,
        }
    }

    /// What is there, as it was told last.
    pub(super) fn known(&self) -> impl Iterator<Item = &K> {
        self.known.values()
    }

    /// Waits until something is told for the first time, or anew.
    pub(super) async fn next(&mut self) -> Result<(), Refusal> {
        loop {
            let Some(version) = self.version.clone() else {
                let until = Instant::now() + LIST;
                let (items, version) = list::<K>(self.api, self.place, &self.labels, until).await?;
                self.known = items
                    .into_iter()
                    .map(|item| (item.metadata().name.clone().unwrap_or_default(), item))
                    .collect();
                self.version = Some(version);
                self.stream = None;
                return Ok(());
            };
            let Some(stream) = &mut self.stream else {
                self.open(&version).await?;
                continue;
            };
            let Ok(line) = tokio::time::timeout(SILENCE, stream.next()).await else {
                self.stream = None;
                continue;
            };
            let Some(line) = line else {
                self.stream = None;
                continue;
            };
            match read_event::<K>(&line) {
                Said::Is(name, object, version) => {
                    self.known.insert(name, object);
                    self.version = Some(version);
                    return Ok(());
                }
                Said::Gone(name, version) => {
                    self.known.remove(&name);
                    self.version = Some(version);
                    return Ok(());
                }
                Said::Bookmark(version) => self.version = Some(version),
                Said::TooOld | Said::Unclear => {
                    self.version = None;
                    self.pause().await;
                }
            }
        }
    }

    async fn open(&mut self, version: &str) -> Result<(), Refusal> {
        self.pause().await;
        self.opened = Some(Instant::now());
        let call = Call::new(Verb::Watch, K::RESOURCE)
            .with("labelSelector", &self.labels)
            .with("watch", "true")
            .with("allowWatchBookmarks", "true")
            .with("resourceVersion", version)
            .with("timeoutSeconds", WATCH_SECONDS.to_string());
        match self.api.stream(self.place, &call).await {
            Ok(body) => {
                self.stream = Some(Lines::new(body));
                self.failures = 0;
            }
            Err(refusal) if refusal.is(RefusalKind::Gone) => self.version = None,
            Err(refusal)
                if self.failures < OPENINGS
                    && matches!(refusal.kind, RefusalKind::Busy | RefusalKind::NoAnswer) =>
            {
                self.failures += 1;
                tokio::time::sleep(PAUSE * 2_u32.pow(self.failures - 1)).await;
            }
            Err(refusal) => return Err(refusal),
        }
        Ok(())
    }

    /// A server that ends each watch at once is not asked in a hurry.
    async fn pause(&self) {
        if self.opened.is_some_and(|opened| opened.elapsed() < PAUSE) {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The lines of a body. [`Lines::next`] may be dropped and called again.
struct Lines {
    /// Never locked: a reference to it may cross threads so.
    body: Mutex<Body>,
    begun: Vec<u8>,
    whole: VecDeque<Vec<u8>>,
}

impl Lines {
    const fn new(body: Body) -> Self {
        Self {
            body: Mutex::new(body),
            begun: Vec::new(),
            whole: VecDeque::new(),
        }
    }

    /// The next line; none where the body ended or broke off.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(line) = self.whole.pop_front() {
                return Some(line);
            }
            let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner);
            let frame = match body.frame().await? {
                Ok(frame) => frame,
                Err(error) => {
                    tracing::debug!(why = causes(&error), "a watch of Kubernetes broke off");
                    return None;
                }
            };
            let Some(data) = frame.data_ref() else {
                continue;
            };
            self.take(data)?;
        }
    }

    /// Takes more of the body; none where a line has no end.
    fn take(&mut self, data: &[u8]) -> Option<()> {
        let mut parts = data.split(|byte| *byte == b'\n');
        self.begun
            .extend_from_slice(parts.next().unwrap_or_default());
        for part in parts {
            let line = std::mem::replace(&mut self.begun, part.to_vec());
            if !line.trim_ascii().is_empty() {
                self.whole.push_back(line);
            }
        }
        (self.begun.len() <= EVENT).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn events_are_read_and_nonsense_is_unclear() {
        let event = |kind: &str, object: serde_json::Value| {
            let line = json!({"type": kind, "object": object}).to_string();
            read_event::<Pod>(line.as_bytes())
        };
        let pod = json!({"metadata": {"name": "p", "resourceVersion": "7"}});
        assert!(
            matches!(event("ADDED", pod.clone()), Said::Is(name, _, version) if name == "p" && version == "7")
        );
        assert_eq!(
            event("DELETED", pod.clone()),
            Said::Gone("p".into(), "7".into())
        );
        assert_eq!(event("BOOKMARK", pod.clone()), Said::Bookmark("7".into()));
        assert_eq!(
            event("ERROR", json!({"kind": "Status", "code": 410})),
            Said::TooOld
        );
        assert_eq!(event("ERROR", json!({"code": 500})), Said::Unclear);
        assert_eq!(event("NEW", pod), Said::Unclear);
        assert_eq!(read_event::<Pod>(b"<html>"), Said::Unclear);
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_are_cut(lines in prop::collection::vec("[a-z]{1,9}", 1..9), cuts in prop::collection::vec(1..7_usize, 1..40)) {
            let text = lines.join("\n") + "\n";
            let mut reader = Lines::new(Body::empty());
            let (mut rest, mut cuts) = (text.as_bytes(), cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                prop_assert!(reader.take(now).is_some());
                rest = later;
            }
            let read: Vec<String> = reader.whole.into_iter().map(|line| String::from_utf8(line).unwrap()).collect();
            prop_assert_eq!(read, lines);
        }
    }
}
