//! The objects of a cluster, their versions, and what has become of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

/// When everything happens: nobody's decision depends on it.
pub(super) const NOW: &str = "2026-01-01T00:00:00Z";

/// The kinds that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Job,
    Secret,
    Pod,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Job, Self::Secret, Self::Pod];

    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::Job => "jobs",
            Self::Secret => "secrets",
            Self::Pod => "pods",
        }
    }

    pub(super) const fn group(self) -> &'static str {
        match self {
            Self::Job => "batch",
            Self::Secret | Self::Pod => "",
        }
    }

    pub(super) const fn api_version(self) -> &'static str {
        match self {
            Self::Job => "batch/v1",
            Self::Secret | Self::Pod => "v1",
        }
    }

    /// As messages call several of them.
    pub(super) const fn qualified(self) -> &'static str {
        match self {
            Self::Job => "jobs.batch",
            Self::Secret => "secrets",
            Self::Pod => "pods",
        }
    }

    /// As messages call one of them.
    pub(super) const fn singular(self) -> &'static str {
        match self {
            Self::Job => "Job.batch",
            Self::Secret => "Secret",
            Self::Pod => "Pod",
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Job => "Job",
            Self::Secret => "Secret",
            Self::Pod => "Pod",
        }
    }
}

/// Where an object is: kind, namespace, name.
pub(super) type Key = (Kind, String, String);

/// What became of an object.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) version: u64,
    pub(super) key: Key,
    pub(super) what: &'static str,
    pub(super) object: Value,
}

/// All objects.
pub(super) struct Store {
    pub(super) version: u64,
    /// What happened up to here is forgotten.
    pub(super) forgotten: u64,
    pub(super) objects: BTreeMap<Key, Value>,
    pub(super) events: Vec<Event>,
    changed: watch::Sender<u64>,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            version: 100,
            forgotten: 0,
            objects: BTreeMap::new(),
            events: Vec::new(),
            changed: watch::Sender::new(0),
        }
    }

    /// Changes each time that something does.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Tells everybody to look again.
    pub(super) fn nudge(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    /// Writes a new object, with its number.
    pub(super) fn create(&mut self, key: Key, mut object: Value) -> Value {
        object["apiVersion"] = key.0.api_version().into();
        object["kind"] = key.0.word().into();
        object["metadata"]["namespace"] = key.1.clone().into();
        object["metadata"]["uid"] = Uuid::new_v4().to_string().into();
        object["metadata"]["creationTimestamp"] = NOW.into();
        self.record(key, "ADDED", object)
    }

    /// Changes an object that is there.
    pub(super) fn change(&mut self, key: &Key, change: impl FnOnce(&mut Value)) {
        if let Some(mut object) = self.objects.get(key).cloned() {
            let before = object.clone();
            change(&mut object);
            if object != before {
                self.record(key.clone(), "MODIFIED", object);
            }
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(object) = self.objects.get(key).cloned() {
            self.record(key.clone(), "DELETED", object);
            self.objects.remove(key);
        }
    }

    fn record(&mut self, key: Key, what: &'static str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.events.push(Event {
            version: self.version,
            key: key.clone(),
            what,
            object: object.clone(),
        });
        self.objects.insert(key, object.clone());
        self.nudge();
        object
    }

    /// Forgets what has happened, as a server does after some minutes.
    pub(super) fn forget_history(&mut self) {
        // Something that nobody watches happens in between.
        self.version += 1;
        self.forgotten = self.version;
        self.events.clear();
        self.nudge();
    }

    /// Those that belong to the object with this number.
    pub(super) fn owned(&self, uid: &str) -> Vec<Key> {
        let owned = self
            .objects
            .iter()
            .filter(|(_, object)| owners(object).any(|owner| owner["uid"] == uid));
        owned.map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn is_alive(&self, uid: &str) -> bool {
        let mut objects = self.objects.values();
        objects.any(|object| object["metadata"]["uid"] == uid)
    }
}

/// What an object belongs to.
pub(super) fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
}

/// Whether an object has these labels (`a=b,c=d`) and fields.
pub(super) fn is_selected(object: &Value, labels: Option<&str>, fields: Option<&str>) -> bool {
    let holds = |selector: Option<&str>, value: &dyn Fn(&str) -> Value| {
        let terms = selector
            .unwrap_or_default()
            .split(',')
            .filter(|term| !term.is_empty());
        terms.into_iter().all(|term| {
            let (name, wanted) = term.split_once('=').unwrap_or((term, ""));
            value(name) == json!(wanted.trim_start_matches('='))
        })
    };
    holds(labels, &|name| object["metadata"]["labels"][name].clone())
        && holds(fields, &|name| {
            object
                .pointer(&format!("/{}", name.replace('.', "/")))
                .cloned()
                .unwrap_or_default()
        })
}
