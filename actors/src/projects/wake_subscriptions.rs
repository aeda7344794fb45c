//! What wakes projects that sleep: messages of clients that ask no request. One subscription for all costs nothing for each;
//! but it hears what is put into any bucket, also by us. So where much is put, each that sleeps has its own meanwhile.
//!
//! | hearing | heard by | left |
//! |---|---|---|
//! | nothing | nobody sleeps | the first one falls asleep: all together |
//! | all together | [`TOGETHER`]: a handful of subjects of all projects | more than [`Pace::busy`] messages a second came that woke nobody: each alone |
//! | each alone | two subjects of each that sleeps | not more than [`Pace::calm`] of them would: all together |
//!
//! What would come is known by a sample: now and then it is heard for as long as it is counted otherwise, or until it is too much.
//!
//! Whoever changes from one to the other hears both until the server has read the new subscriptions, and the former ones for
//! [`Pace::lingers`] longer, so that what they have received is dealt with: no message falls between them. What comes for a project that does not sleep is passed over.
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | a message comes before the project is among those that sleep | it is noted: whoever puts it there asks ([`WakeSubscription::has_heard`]) |
//! | the subscription cannot be made, or the client ends | whoever falls asleep just now stays awake; the others are compared now and then |
//! | a message is lost (NATS was away, we were too slow) | where the streams stand is compared, after a reconnect and now and then |

mod pace;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use async_nats::{Client, SubscribeError, Subscriber};
use futures_util::StreamExt as _;
use loom_protocol::{ProjectId, names};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use self::pace::Pace;
use crate::nats::connection::round_trip;

/// What is published to a project without asking it, and what is put into its bucket of agents, of whichever project.
const TOGETHER: [&str; 5] = [
    names::ALL_QUEUES,
    "loom.*.work.completed",
    "loom.*.work.errors",
    "loom.*.agent.heartbeat.*",
    "$KV.*.*",
];
/// How often it is looked whether a sample is too much already, while it is taken: what it costs must not grow with what
/// is published.
const LOOKS_AT_A_SAMPLE: u32 = 20;

type Hook = Box<dyn Fn(&ProjectId) + Send + Sync>;

/// The subscriptions of all projects that sleep. Cheap to clone.
#[derive(Clone)]
pub(super) struct WakeSubscriptions(Arc<Inner>);

struct Inner {
    client: Client,
    by_id: Mutex<HashMap<ProjectId, Arc<Heard>>>,
    hearing: tokio::sync::Mutex<Hearing>,
    pace: Pace,
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
    listening: Listening,
    changing: AbortOnDropHandle<()>,
}

/// Hears for all.
struct Listening {
    tasks: Vec<AbortOnDropHandle<()>>,
    /// How many messages woke nobody.
    in_vain: Arc<AtomicU64>,
}

/// Hears for one project, until this is dropped.
pub(super) struct WakeSubscription {
    all: Weak<Inner>,
    id: ProjectId,
    heard: Arc<Heard>,
}

impl WakeSubscriptions {
    pub fn new(client: &Client) -> Self {
        Self::paced(client, Pace::default())
    }

    fn paced(client: &Client, pace: Pace) -> Self {
        Self(Arc::new(Inner {
            client: client.clone(),
            by_id: Mutex::default(),
            hearing: tokio::sync::Mutex::default(),
            pace,
            wake: OnceLock::new(),
        }))
    }

    /// What is called with each that is to be woken. It must not wait. Only the first counts.
    pub fn wake_by(&self, wake: impl Fn(&ProjectId) + Send + Sync + 'static) {
        let _first = self.0.wake.set(Box::new(wake));
    }

    /// Hears for a project as soon as the server has read that, which is before it answers what it is asked next.
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
        let listening = Inner::listen(&self.0).await?;
        let (pace, in_vain) = (self.0.pace, listening.in_vain.clone());
        Ok(Together {
            listening,
            changing: self.change_after(move |inner| Inner::until_busy(inner, pace, in_vain)),
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
                    former.extend(listening.tasks);
                }
                let lingers = self.0.pace.lingers;
                tokio::spawn(async move {
                    sleep(lingers).await;
                    drop(former);
                });
            }
            Err(error) => {
                tracing::debug!("those that sleep are heard as before: {error}");
                if matches!(&*hearing, Hearing::Together(_)) {
                    // Some are heard alone already.
                    for (_, heard) in &all {
                        heard.alone.lock().take();
                    }
                }
                let pause = self.0.pace.sampled_every;
                let again = self.change_after(async move |_| {
                    sleep(pause).await;
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
        // What the server sent before it read them has come by then.
        round_trip(&self.0.client).await?;
        tracing::info!(
            asleep = all.len(),
            "much is published: each project that sleeps is heard alone"
        );
        let pace = self.0.pace;
        Ok(Hearing::Alone {
            changing: self.change_after(move |inner| Inner::until_calm(inner, pace)),
        })
    }

    async fn all_together(&self) -> Result<Hearing, async_nats::Error> {
        let together = self.together().await?;
        round_trip(&self.0.client).await?;
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

    /// Hears for all from now on.
    async fn listen(this: &Arc<Self>) -> Result<Listening, SubscribeError> {
        let in_vain = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::with_capacity(TOGETHER.len());
        for subject in TOGETHER {
            let messages = this.client.subscribe(subject).await?;
            let hearing = Self::hear(Arc::downgrade(this), messages, in_vain.clone());
            tasks.push(AbortOnDropHandle::new(tokio::spawn(hearing)));
        }
        Ok(Listening { tasks, in_vain })
    }

    async fn hear(inner: Weak<Self>, mut messages: Subscriber, in_vain: Arc<AtomicU64>) {
        while let Some(message) = messages.next().await {
            let Some(inner) = inner.upgrade() else { return };
            if !project_of(&message.subject).is_some_and(|id| inner.heard(&id)) {
                in_vain.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Ends when so much comes for nobody that each is better heard alone, or nobody sleeps any more; false: there are no
    /// subscriptions any more.
    async fn until_busy(inner: Weak<Self>, pace: Pace, in_vain: Arc<AtomicU64>) -> bool {
        // What came until now is of more than one interval.
        in_vain.store(0, Ordering::Relaxed);
        loop {
            sleep(pace.counted_for).await;
            let Some(inner) = inner.upgrade() else {
                return false;
            };
            let is_busy = in_vain.swap(0, Ordering::Relaxed) > pace.busy;
            if is_busy || inner.by_id.lock().is_empty() {
                return true;
            }
        }
    }

    /// Ends when so little would come for nobody that all are better heard together, or nobody sleeps any more; false: there
    /// are no subscriptions any more.
    async fn until_calm(inner: Weak<Self>, pace: Pace) -> bool {
        loop {
            sleep(pace.sampled_every).await;
            let Some(inner) = inner.upgrade() else {
                return false;
            };
            if inner.by_id.lock().is_empty() || Self::is_calm(&inner).await {
                return true;
            }
        }
    }

    /// Hears for all for a while; no where they cannot be heard.
    async fn is_calm(inner: &Arc<Self>) -> bool {
        let Ok(listening) = Self::listen(inner).await else {
            return false;
        };
        if round_trip(&inner.client).await.is_err() {
            return false;
        }
        let (pace, in_vain) = (inner.pace, &listening.in_vain);
        in_vain.store(0, Ordering::Relaxed);
        let began = Instant::now();
        while began.elapsed() < pace.counted_for {
            sleep(pace.counted_for / LOOKS_AT_A_SAMPLE).await;
            if in_vain.load(Ordering::Relaxed) > pace.calm() {
                return false;
            }
        }
        true
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
mod tests;
