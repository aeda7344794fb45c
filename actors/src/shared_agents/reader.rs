//! The one reader: what the bucket shows, and to whom it is told.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use loom_protocol::agent::UnreadableEntry;
use loom_protocol::{AgentGuid, ProjectId, names};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{MAX_ENTRIES, Registries, SharedAgents};
use crate::agent_registry::{SharedChange, SharedNews, SharedPlace};
use crate::domain::agent::{AgentPut, Unreadable, guid_of_key, project_of, read_put};
use crate::liveness::Position;
use crate::nats::kv::{Record, WatchEvent, identity};

/// The pause after a defect.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);
/// How often the watch is looked after at the most, where a barrier waits in vain.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After how much quiet a watch that is behind is taken for dead.
const QUIET: Duration = Duration::from_secs(1);
/// How many entries are asked for at once.
const ASKED_AT_ONCE: usize = 64;

/// What is known of one key.
#[derive(Debug)]
struct Known {
    revision: u64,
    /// Whose entry it is, where it is an agent's.
    agent: Option<(AgentGuid, ProjectId)>,
}

struct Reader<R> {
    shared: SharedAgents,
    registries: R,
    known: HashMap<String, Known>,
    /// The key that counts, of each agent.
    counts: HashMap<AgentGuid, String>,
    /// Its other spellings, of the few agents that have any; the one put last at the end.
    others: HashMap<AgentGuid, Vec<String>>,
    /// Keys that were not told yet in the reading that goes on.
    missing: Option<HashSet<String>>,
    /// Which bucket.
    bucket: Option<i128>,
    /// When the watch last told something.
    heard_at: Instant,
    /// Projects whose entries are being told again.
    told_again: HashSet<ProjectId>,
    handing: JoinSet<()>,
}

impl SharedAgents {
    /// Reads the bucket for the projects of these registries, for ever; nothing where it is not to be read.
    pub async fn keep_reading(self, registries: impl Registries) {
        if !self.0.is_read {
            return;
        }
        loop {
            let mut reader = Reader {
                shared: self.clone(),
                registries: registries.clone(),
                known: HashMap::new(),
                counts: HashMap::new(),
                others: HashMap::new(),
                missing: None,
                bucket: None,
                heard_at: Instant::now(),
                told_again: HashSet::new(),
                handing: JoinSet::new(),
            };
            self.begin_anew();
            let read = AssertUnwindSafe(reader.read()).catch_unwind().await;
            if read.is_err() {
                tracing::error!("reading the bucket of all agents met a defect, and begins anew");
            }
            self.0.position.send_replace(Position::default());
            sleep(BEGIN_AGAIN).await;
        }
    }
}

impl<R: Registries> Reader<R> {
    async fn read(&mut self) {
        let mut watch = self.shared.0.bucket.watch_foreign();
        let mut looked_at = Instant::now();
        loop {
            let shared = self.shared.clone();
            tokio::select! {
                event = watch.next() => {
                    self.heard_at = Instant::now();
                    self.event(event).await;
                }
                () = shared.0.look.notified() => {
                    if self.forget_what_was_opened() {
                        watch = self.shared.0.bucket.watch_foreign();
                    } else if looked_at.elapsed() >= LOOK_EVERY {
                        looked_at = Instant::now();
                        if self.is_deaf().await {
                            watch = self.shared.0.bucket.watch_foreign();
                        }
                    }
                }
            }
            while self.handing.try_join_next().is_some() {}
            for project in self.shared.abandoned() {
                self.hand_over(project);
            }
        }
    }

    /// Forgets the entries of projects that were opened again, so that they are told anew.
    fn forget_what_was_opened(&mut self) -> bool {
        let opened = std::mem::take(&mut *self.shared.0.opened.lock());
        if opened.is_empty() {
            return false;
        }
        self.known.retain(|_, known| {
            let project = known.agent.as_ref().map(|(_, project)| project);
            project.is_none_or(|project| !opened.contains(project))
        });
        self.counts.retain(|_, key| self.known.contains_key(key));
        self.others.retain(|_, keys| {
            keys.retain(|key| self.known.contains_key(key));
            !keys.is_empty()
        });
        self.told_again.extend(opened);
        true
    }

    /// Whether the bucket is another one, or further, than what has been told of it.
    async fn is_deaf(&self) -> bool {
        if self.heard_at.elapsed() < QUIET {
            return false;
        }
        let Ok(info) = self.shared.0.bucket.info().await else {
            return false;
        };
        let position = *self.shared.0.position.borrow();
        match info {
            None => position.bucket.is_some(),
            Some(info) => !position.reaches(identity(&info), info.state.last_sequence),
        }
    }

    async fn event(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Missing => {
                if self.bucket.is_some() {
                    tracing::warn!(
                        "the bucket of all agents was destroyed; its agents are judged by their silence"
                    );
                }
                self.forget_all();
                self.moved_to(None);
            }
            WatchEvent::Opened { bucket, .. } => {
                if self.bucket != Some(bucket) {
                    tracing::info!("agents are read from the bucket of all projects");
                    self.forget_all();
                }
                self.moved_to(Some(bucket));
                self.missing = Some(self.known.keys().cloned().collect());
            }
            WatchEvent::Records(records) => {
                let up_to = records.last().map(|record| record.revision);
                for record in records {
                    if let Some(missing) = &mut self.missing {
                        missing.remove(&record.key);
                    }
                    self.record(record).await;
                }
                self.read_up_to(up_to.unwrap_or_default());
            }
            WatchEvent::Current { up_to } => {
                let missing = self.missing.take().unwrap_or_default();
                self.ask_for(missing).await;
                for project in std::mem::take(&mut self.told_again) {
                    self.shared.was_told(&project);
                }
                self.read_up_to(up_to);
            }
        }
    }

    fn moved_to(&mut self, bucket: Option<i128>) {
        self.bucket = bucket;
        let position = Position { bucket, up_to: 0 };
        self.shared.0.position.send_replace(position);
    }

    fn read_up_to(&self, sequence: u64) {
        let position = &self.shared.0.position;
        position.send_modify(|position| position.up_to = position.up_to.max(sequence));
    }

    fn forget_all(&mut self) {
        self.known.clear();
        self.counts.clear();
        self.others.clear();
        self.missing = None;
        self.shared.0.unreadable.write().clear();
    }

    /// Entries that were not told again: gone without a mark, or put while the others were told.
    async fn ask_for(&mut self, missing: HashSet<String>) {
        let bucket = self.shared.0.bucket.clone();
        let asked = stream::iter(missing).map(|key| {
            let bucket = bucket.clone();
            async move {
                let last = bucket.last(&key).await;
                (key, last)
            }
        });
        let answers: Vec<_> = asked.buffer_unordered(ASKED_AT_ONCE).collect().await;
        for (key, answer) in answers {
            match answer {
                Ok(Some(record)) => self.record(record).await,
                Ok(None) => self.removed(&key, None, SharedChange::Vanished).await,
                Err(error) => tracing::debug!(%error, "an entry cannot be asked for"),
            }
        }
    }

    async fn record(&mut self, record: Record) {
        let known = self.known.get(&record.key);
        if known.is_some_and(|known| known.revision >= record.revision) {
            return;
        }
        if record.value.is_some() {
            let found = self.missing.is_some() && known.is_none();
            return self.put(record, found);
        }
        let what = match record.writer {
            _ if record.expired => Some(SharedChange::Vanished),
            // Whoever buried it knows.
            Some(_) => None,
            None => Some(SharedChange::Deleted),
        };
        match what {
            Some(what) => self.removed(&record.key, Some(record.revision), what).await,
            None => self.forget(&record.key),
        }
    }

    /// A key is not another spelling of the one that counts any more.
    fn counts_no_more(&mut self, guid: AgentGuid, key: &str) {
        if let Some(others) = self.others.get_mut(&guid) {
            others.retain(|other| other != key);
            if others.is_empty() {
                self.others.remove(&guid);
            }
        }
    }

    /// The other spelling of an id that was put last.
    fn take_other(&mut self, guid: AgentGuid) -> Option<String> {
        let others = self.others.get_mut(&guid)?;
        let other = others.pop();
        if others.is_empty() {
            self.others.remove(&guid);
        }
        other
    }

    fn forget(&mut self, key: &str) {
        let known = self.known.remove(key);
        if let Some((guid, _)) = known.and_then(|known| known.agent) {
            self.counts_no_more(guid, key);
            if self.counts.get(&guid).is_some_and(|counts| counts == key) {
                self.counts.remove(&guid);
            }
        }
        self.shared.forget_unreadable(key);
    }

    fn put(&mut self, record: Record, found: bool) {
        let Record {
            key,
            value,
            revision,
            stored_at,
            ..
        } = record;
        if self.known.len() >= MAX_ENTRIES && !self.known.contains_key(&key) {
            let reason = format!("the bucket has {MAX_ENTRIES} entries, which is the most");
            return self.unreadable(&key, revision, None, reason);
        }
        let (put, project) = match read(&key, value.as_deref().unwrap_or_default()) {
            Ok(read) => read,
            Err((problem, project)) => {
                // An agent that was known stays what it was; this is no sign of its life.
                let known = self.known.entry(key.clone());
                let known = known.or_insert(Known {
                    revision,
                    agent: None,
                });
                known.revision = revision;
                return self.unreadable(&key, revision, project, problem.to_string());
            }
        };
        let guid = put.guid;
        if !self.shared.has_room_for(&project) {
            let reason = "the entries of the bucket name too many projects".to_owned();
            return self.unreadable(&key, revision, Some(project.to_string()), reason);
        }
        self.counts_no_more(guid, &key);
        if let Some(other) = self.counts.insert(guid, key.clone())
            && other != key
        {
            let revision = self.known.get(&other).map_or(0, |other| other.revision);
            let reason = Unreadable::superseded(&key).to_string();
            self.unreadable(&other, revision, Some(project.to_string()), reason);
            self.others.entry(guid).or_default().push(other);
        }
        let before = self.known.insert(
            key.clone(),
            Known {
                revision,
                agent: Some((guid, project.clone())),
            },
        );
        let place = self.place(&key, revision);
        if let Some((_, former)) = before.and_then(|before| before.agent)
            && former != project
        {
            let moved = SharedNews {
                guid,
                place: place.clone(),
                what: SharedChange::Deleted,
            };
            self.send(&former, moved);
        }
        let put = Box::new(put);
        let what = SharedChange::Put {
            put,
            found,
            stored_at,
        };
        self.send(&project, SharedNews { guid, place, what });
    }

    /// A key has no value any more. Another spelling of the same id, if there is one, counts again.
    async fn removed(&mut self, key: &str, revision: Option<u64>, what: SharedChange) {
        let known = self.known.remove(key);
        self.shared.forget_unreadable(key);
        let Some(Known {
            revision: last,
            agent: Some((guid, project)),
        }) = known
        else {
            return;
        };
        self.counts_no_more(guid, key);
        if self.counts.get(&guid).is_none_or(|counts| counts != key) {
            return;
        }
        self.counts.remove(&guid);
        if let Some(other) = self.take_other(guid)
            && let Ok(Some(record)) = self.shared.0.bucket.last(&other).await
            && record.value.is_some()
        {
            self.known.remove(&other);
            return self.put(record, true);
        }
        let place = self.place(key, revision.unwrap_or(last));
        self.send(&project, SharedNews { guid, place, what });
    }

    fn place(&self, key: &str, revision: u64) -> SharedPlace {
        SharedPlace {
            bucket: self.bucket.unwrap_or_default(),
            key: key.to_owned(),
            revision,
        }
    }

    fn send(&mut self, project: &ProjectId, news: SharedNews) {
        if self.shared.send(project, news) {
            self.hand_over(project.clone());
        }
    }

    fn hand_over(&mut self, project: ProjectId) {
        let shared = self.shared.clone();
        let registries = self.registries.clone();
        self.handing.spawn(shared.hand_over(registries, project));
    }

    fn unreadable(&self, key: &str, revision: u64, project_id: Option<String>, reason: String) {
        self.shared.note_unreadable(UnreadableEntry {
            bucket: names::SHARED_AGENTS_BUCKET.to_owned(),
            key: key.to_owned(),
            revision,
            project_id,
            reason,
        });
    }
}

/// An agent's entry and the project that it names; or why it is none, and what it names.
fn read(key: &str, value: &[u8]) -> Result<(AgentPut, ProjectId), (Unreadable, Option<String>)> {
    let project = project_of(value);
    let named = project.as_ref().ok().map(ToString::to_string);
    let because = |problem| (problem, named.clone());
    let guid = guid_of_key(key).map_err(because)?;
    let put = read_put(guid, value).map_err(because)?;
    let project = project.map_err(|problem| (problem, None))?;
    Ok((put, project))
}
