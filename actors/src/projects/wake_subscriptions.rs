//! What wakes projects that sleep: messages of clients that ask no request. One subscription for all costs nothing for each;
//! but it hears what is put into any bucket, also by us. So where much is put, each that sleeps has its own meanwhile.
//!
//! | hearing | heard by | left |
//! |---|---|---|
//! | nothing | nobody sleeps | the first one falls asleep: all together |
//! | all together | [`TOGETHER`]: a handful of subjects of all projects | more than [`BUSY`] messages a second came that woke nobody: each alone |
//! | each alone | two subjects of each that sleeps | for [`QUIET_FOR`] the client had fewer than [`BUSY`] messages a second, in and out: all together |
//!
//! Whoever changes from one to the other hears both until the server has read the new subscriptions, and the former ones for
//! [`LINGERS`] longer, so that what they have received is dealt with: no message falls between them. What comes for a project that does not sleep is passed over.
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | a message comes before the project is among those that sleep | it is noted: whoever puts it there asks ([`WakeSubscription::has_heard`]) |
//! | the subscription cannot be made, or the client ends | whoever falls asleep just now stays awake; the others are compared now and then |
//! | a message is lost (NATS was away, we were too slow) | where the streams stand is compared, after a reconnect and now and then |

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_nats::{Client, SubscribeError, Subscriber};
use futures_util::StreamExt as _;
use loom_protocol::{ProjectId, names};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

/// What is published to a project without asking it, and what is put into its bucket of agents, of whichever project.
const TOGETHER: [&str; 5] = [
    names::ALL_QUEUES,
    "loom.*.work.completed",
    "loom.*.work.errors",
    "loom.*.agent.heartbeat.*",
    "$KV.*.*",
];
/// More messages a second than these are worth a subscription for each.
const BUSY: u64 = 300;
/// How often they are counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How long the former subscriptions are kept after the new ones are heard.
const LINGERS: Duration = Duration::from_secs(5);
/// How long it is to be quiet before they are heard together again.
const QUIET_FOR: Duration = Duration::from_mins(1);

type Hook = Box<dyn Fn(&ProjectId) + Send + Sync>;

/// The subscriptions of all projects that sleep. Cheap to clone.
#[derive(Clone)]
pub(super) struct WakeSubscriptions(Arc<Inner>);

struct Inner {
    client: Client,
    by_id: Mutex<HashMap<ProjectId, Arc<Heard>>>,
    hearing: tokio::sync::Mutex<Hearing>,
    /// How many messages woke nobody.
    in_vain: AtomicU64,
    /// Called with each that is to be woken, once.
    wake: OnceLock<Hook>,
}

#[derive(Default)]
struct Heard {
    was: AtomicBool,
    /// Its own subscriptions, where each is heard alone.
    alone: Mutex<Option<AbortOnDropHandle<()>>>,
}

#[derive(Default)]
enum Hearing {
    #[default]
    Nothing,
    Together(Together),
    Alone {
        changing: AbortOnDropHandle<()>,
    },
}

struct Together {
    listening: Vec<AbortOnDropHandle<()>>,
    changing: AbortOnDropHandle<()>,
}

/// Hears for one project, until this is dropped.
pub(super) struct WakeSubscription {
    all: Weak<Inner>,
    id: ProjectId,
    heard: Arc<Heard>,
}

impl WakeSubscriptions {
    pub fn new(client: &Client) -> Self {
        Self(Arc::new(Inner {
            client: client.clone(),
            by_id: Mutex::default(),
            hearing: tokio::sync::Mutex::default(),
            in_vain: AtomicU64::new(0),
            wake: OnceLock::new(),
        }))
    }

    /// What is called with each that is to be woken. It must not wait. Only the first counts.
    pub fn wake_by(&self, wake: impl Fn(&ProjectId) + Send + Sync + 'static) {
        let _first = self.0.wake.set(Box::new(wake));
    }

    /// Hears for a project, as far as the server has read; a flush of the client makes certain of it.
    ///
    /// # Errors
    /// Nothing can be subscribed to.
    pub async fn listen(&self, id: &ProjectId) -> Result<WakeSubscription, SubscribeError> {
        let mut hearing = self.0.hearing.lock().await;
        let heard = Arc::new(Heard::default());
        match &*hearing {
            Hearing::Nothing => *hearing = Hearing::Together(self.together().await?),
            Hearing::Together(_) => {}
            Hearing::Alone { .. } => *heard.alone.lock() = Some(self.alone(id).await?),
        }
        self.0.by_id.lock().insert(id.clone(), heard.clone());
        Ok(WakeSubscription {
            all: Arc::downgrade(&self.0),
            id: id.clone(),
            heard,
        })
    }

    async fn together(&self) -> Result<Together, SubscribeError> {
        let mut listening = Vec::with_capacity(TOGETHER.len());
        for subject in TOGETHER {
            let messages = self.0.client.subscribe(subject).await?;
            listening.push(self.hear(messages));
        }
        Ok(Together {
            listening,
            changing: self.change_after(Inner::until_busy),
        })
    }

    async fn alone(&self, id: &ProjectId) -> Result<AbortOnDropHandle<()>, SubscribeError> {
        let client = &self.0.client;
        let messages = client.subscribe(format!("loom.{id}.>")).await?;
        let entries = format!("$KV.{}.>", names::agents_bucket(id));
        let entries = client.subscribe(entries).await?;
        let (inner, id) = (Arc::downgrade(&self.0), id.clone());
        let task = tokio::spawn(async move {
            let mut both = futures_util::stream::select(messages, entries);
            while both.next().await.is_some() {
                let Some(inner) = inner.upgrade() else { return };
                inner.heard(&id);
            }
        });
        Ok(AbortOnDropHandle::new(task))
    }

    fn hear(&self, mut messages: Subscriber) -> AbortOnDropHandle<()> {
        let inner = Arc::downgrade(&self.0);
        let task = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let Some(inner) = inner.upgrade() else { return };
                if !project_of(&message.subject).is_some_and(|id| inner.heard(&id)) {
                    inner.in_vain.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        AbortOnDropHandle::new(task)
    }

    /// Hears in the other way as soon as this has ended.
    fn change_after<F: Future<Output = bool> + Send>(
        &self,
        wait: impl FnOnce(Weak<Inner>) -> F + Send + 'static,
    ) -> AbortOnDropHandle<()> {
        let inner = Arc::downgrade(&self.0);
        AbortOnDropHandle::new(tokio::spawn(async move {
            if wait(inner.clone()).await
                && let Some(inner) = inner.upgrade()
            {
                // What changes ends this task.
                tokio::spawn(async move { Self(inner).change().await });
            }
        }))
    }

    /// Together → each alone, and back; nothing where nobody sleeps any more. The former way is given up when the server has
    /// read the new subscriptions.
    async fn change(&self) {
        let mut hearing = self.0.hearing.lock().await;
        let all: Vec<_> = {
            let by_id = self.0.by_id.lock();
            by_id
                .iter()
                .map(|(id, heard)| (id.clone(), heard.clone()))
                .collect()
        };
        if all.is_empty() {
            *hearing = Hearing::Nothing;
            return;
        }
        let changed = match &*hearing {
            Hearing::Nothing => return,
            Hearing::Together(_) => self.each_alone(&all).await,
            Hearing::Alone { .. } => self.all_together().await,
        };
        match changed {
            Ok(changed) => {
                let mut former = Vec::new();
                if matches!(changed, Hearing::Together(_)) {
                    former.extend(
                        all.iter()
                            .filter_map(|(_, heard)| heard.alone.lock().take()),
                    );
                }
                let before = std::mem::replace(&mut *hearing, changed);
                if let Hearing::Together(Together { listening, .. }) = before {
                    former.extend(listening);
                }
                tokio::spawn(async move {
                    sleep(LINGERS).await;
                    drop(former);
                });
            }
            Err(error) => {
                tracing::debug!("those that sleep are heard as before: {error}");
                let again = self.change_after(|_| async {
                    sleep(QUIET_FOR).await;
                    true
                });
                match &mut *hearing {
                    Hearing::Nothing => {}
                    Hearing::Together(Together { changing, .. }) | Hearing::Alone { changing } => {
                        *changing = again;
                    }
                }
            }
        }
    }

    async fn each_alone(
        &self,
        all: &[(ProjectId, Arc<Heard>)],
    ) -> Result<Hearing, async_nats::Error> {
        for (id, heard) in all {
            let alone = self.alone(id).await?;
            *heard.alone.lock() = Some(alone);
        }
        self.0.client.flush().await?;
        // What the server sent before it read them has come by then.
        let barrier = self.0.client.request("$SYS.REQ.USER.INFO", "".into());
        barrier.await?;
        tracing::info!(
            asleep = all.len(),
            "much is published: each project that sleeps is heard alone"
        );
        Ok(Hearing::Alone {
            changing: self.change_after(Inner::until_quiet),
        })
    }

    async fn all_together(&self) -> Result<Hearing, async_nats::Error> {
        let together = self.together().await?;
        self.0.client.flush().await?;
        let barrier = self.0.client.request("$SYS.REQ.USER.INFO", "".into());
        barrier.await?;
        tracing::info!("projects that sleep are heard together");
        Ok(Hearing::Together(together))
    }
}

impl Inner {
    /// A message has come for a project. False: it does not sleep.
    fn heard(&self, id: &ProjectId) -> bool {
        let Some(heard) = self.by_id.lock().get(id).cloned() else {
            return false;
        };
        if !heard.was.swap(true, Ordering::AcqRel)
            && let Some(wake) = self.wake.get()
        {
            wake(id);
        }
        true
    }

    /// Ends when so much comes for nobody that each is better heard alone, or nobody sleeps any more.
    async fn until_busy(inner: Weak<Self>) -> bool {
        loop {
            sleep(COUNT_EVERY).await;
            let Some(inner) = inner.upgrade() else {
                return false;
            };
            let in_vain = inner.in_vain.swap(0, Ordering::Relaxed);
            if in_vain > BUSY * COUNT_EVERY.as_secs() || inner.by_id.lock().is_empty() {
                return true;
            }
        }
    }

    /// Ends when little has come and gone for a while, or nobody sleeps any more.
    async fn until_quiet(inner: Weak<Self>) -> bool {
        let mut busy_at = Instant::now();
        let mut before = None;
        loop {
            sleep(COUNT_EVERY).await;
            let Some(inner) = inner.upgrade() else {
                return false;
            };
            let statistics = inner.client.statistics();
            let now = statistics.in_messages.load(Ordering::Relaxed)
                + statistics.out_messages.load(Ordering::Relaxed);
            let more = now - before.replace(now).unwrap_or(now);
            if more > BUSY * COUNT_EVERY.as_secs() {
                busy_at = Instant::now();
            }
            if busy_at.elapsed() >= QUIET_FOR || inner.by_id.lock().is_empty() {
                return true;
            }
        }
    }
}

impl WakeSubscription {
    /// Whether a message has come.
    pub fn has_heard(&self) -> bool {
        self.heard.was.load(Ordering::Acquire)
    }
}

impl Drop for WakeSubscription {
    fn drop(&mut self) {
        let Some(all) = self.all.upgrade() else {
            return;
        };
        let mut by_id = all.by_id.lock();
        let is_ours = by_id
            .get(&self.id)
            .is_some_and(|heard| Arc::ptr_eq(heard, &self.heard));
        if is_ours {
            by_id.remove(&self.id);
        }
        drop(by_id);
        *self.heard.alone.lock() = None;
    }
}

/// The project to which a message was published, or into whose bucket of agents it was put.
fn project_of(subject: &str) -> Option<ProjectId> {
    let mut tokens = subject.split('.');
    match (tokens.next()?, tokens.next()?) {
        ("loom", project) => ProjectId::new(project).ok(),
        ("$KV", bucket) => names::project_of_agents_bucket(bucket),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wakes_a_project_names_it() {
        let of = |subject| project_of(subject).map(|id| id.to_string());
        assert_eq!(of("loom.a-b.work.queue.rust").as_deref(), Some("a-b"));
        assert_eq!(of("loom.a.agent.heartbeat.x").as_deref(), Some("a"));
        assert_eq!(of("$KV.loom-agents-a-b.key").as_deref(), Some("a-b"));
        assert_eq!(of("$KV.loom-work-a-b.key"), None);
        assert_eq!(of("$KV.other.key"), None);
        assert_eq!(of("loom"), None);
    }
}
