//! What the parts of a running agent share: its slots, its phase, its registration.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use loom_protocol::agent::{RegisterAnswer, RegisterRequest};
use loom_protocol::work::{ClaimedItem, Lease, LeaseRef, limits};
use loom_protocol::{AgentGuid, ErrorCode, VerbName};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::AgentReport;
use super::end::JobEnd;
use super::ending::Report;
use super::job::{CancelCause, Job, LogLine};
use super::notifications::{AgentNotification, Notifier};
use crate::client::Client;
use crate::error::ClientError;
use crate::retry::Backoff;

pub(crate) type BoxedHandler =
    Arc<dyn Fn(Job) -> BoxFuture<'static, JobEnd> + Send + Sync + 'static>;

/// Where the agent stands in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Takes work.
    Running,
    /// Takes no more, finishes what it has.
    Draining { until: Instant, because: String },
    /// Stops what it has and gives it back.
    Stopping { because: String },
}

/// What does not change while the agent runs.
pub(crate) struct Plan {
    pub(crate) slots: usize,
    pub(crate) max_items: Option<usize>,
    pub(crate) grace: Duration,
    pub(crate) cancel_grace: Duration,
    pub(crate) claim_wait: Option<Duration>,
    /// Whether what was lost is claimed again.
    pub(crate) resumes: bool,
}

pub(crate) struct Core {
    pub(crate) client: Client,
    pub(crate) guid: AgentGuid,
    /// Which run of the agent this is; stands in every request.
    pub(crate) instance_id: Option<String>,
    pub(crate) plan: Plan,
    pub(crate) handler: BoxedHandler,
    /// Where handlers run: the caller's runtime.
    pub(crate) runtime: Handle,
    pub(crate) phase: watch::Sender<Phase>,
    /// Whoever claims holds this: one claim at a time.
    pub(crate) claim_permit: Semaphore,
    /// A slot became free, or something else changed that a claim depends on.
    pub(crate) changed: Notify,
    /// A heartbeat is wanted at once.
    pub(crate) beat_now: Notify,
    /// Open requests may have been lost: the coordinator was away.
    pub(crate) claim_again: Notify,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) counts: Counts,
    /// Cancelled when the agent has ended, and with it all of its tasks.
    pub(crate) ended: CancellationToken,
    jobs: Mutex<HashMap<LeaseRef, Job>>,
    begun: AtomicU64,
    pub(crate) notifier: Notifier,
    /// How it heard that it may not be there any more.
    dismissed: OnceLock<ClientError>,
    /// Of the coordinator that answered last; 0 before the first.
    epoch: AtomicU64,
    identity: Mutex<RegisterRequest>,
    registering: tokio::sync::Mutex<()>,
    heartbeat_every: Mutex<Duration>,
    logs: mpsc::Sender<LogLine>,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) completed: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) settled: AtomicU64,
    pub(crate) returned: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) lost: AtomicU64,
}

/// What a [`Core`] is made of.
pub(crate) struct Parts {
    pub(crate) client: Client,
    pub(crate) guid: AgentGuid,
    pub(crate) identity: RegisterRequest,
    pub(crate) plan: Plan,
    pub(crate) handler: BoxedHandler,
    pub(crate) runtime: Handle,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) logs: mpsc::Sender<LogLine>,
    pub(crate) notifier: Notifier,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            client: parts.client,
            guid: parts.guid,
            instance_id: parts.identity.instance_id.clone(),
            plan: parts.plan,
            handler: parts.handler,
            runtime: parts.runtime,
            phase: watch::Sender::new(Phase::Running),
            claim_permit: Semaphore::new(1),
            changed: Notify::new(),
            beat_now: Notify::new(),
            claim_again: Notify::new(),
            reports: parts.reports,
            counts: Counts::default(),
            ended: CancellationToken::new(),
            jobs: Mutex::new(HashMap::new()),
            begun: AtomicU64::new(0),
            notifier: parts.notifier,
            dismissed: OnceLock::new(),
            epoch: AtomicU64::new(0),
            identity: Mutex::new(parts.identity),
            registering: tokio::sync::Mutex::new(()),
            heartbeat_every: Mutex::new(Duration::from_secs(10)),
            logs: parts.logs,
        }
    }

    /// Runs a task on the client's own thread, for as long as the agent lives.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.ended.clone().run_until_cancelled_owned(task);
        self.client.background().spawn(task);
    }

    // The phase.

    pub(crate) fn is_running(&self) -> bool {
        *self.phase.borrow() == Phase::Running
    }

    /// Running → Draining, or → Stopping without a grace. A shorter grace overrides a longer one.
    pub(crate) fn shut_down(&self, because: &str, grace: Duration) {
        let next = if grace.is_zero() {
            Phase::Stopping {
                because: because.into(),
            }
        } else {
            Phase::Draining {
                until: Instant::now() + grace,
                because: because.into(),
            }
        };
        let is_new = self.phase.send_if_modified(|phase| {
            let sooner = match (&*phase, &next) {
                (Phase::Running, _) | (Phase::Draining { .. }, Phase::Stopping { .. }) => true,
                (Phase::Draining { until, .. }, Phase::Draining { until: new, .. }) => new < until,
                (Phase::Stopping { .. }, _) | (Phase::Draining { .. }, Phase::Running) => false,
            };
            if sooner {
                tracing::info!(agent = %self.guid, because, ?grace, "the agent is shutting down");
                phase.clone_from(&next);
            }
            sooner
        });
        if is_new {
            self.notifier.notify(AgentNotification::ShuttingDown {
                because: because.into(),
                grace,
                running: self.jobs().len(),
            });
        }
        self.changed.notify_waiters();
        self.beat_now.notify_one();
    }

    /// Any → Stopping, if an error says that another run of this agent has taken its place, or that it may not be there
    /// with its ticket: what this one has is stopped and discarded, nothing is reported or given back.
    pub(crate) fn note_dismissed(&self, error: &ClientError) -> bool {
        if !error.is_replaced() && !error.is_ticket_refused() {
            return false;
        }
        if self.dismissed.set(error.clone()).is_ok() {
            let because = error
                .wire()
                .map_or_else(String::new, |wire| wire.message.clone());
            tracing::error!(agent = %self.guid, because, "the agent may not be there any more");
            let running = self.jobs().len();
            self.phase.send_replace(Phase::Stopping {
                because: because.clone(),
            });
            if error.is_replaced() {
                self.notifier
                    .notify(AgentNotification::Replaced { because, running });
            }
        }
        for job in self.jobs() {
            job.cancel(CancelCause::LeaseLost, None);
        }
        self.changed.notify_waiters();
        true
    }

    /// How it heard that it may not be there any more, if it may not.
    pub(crate) fn dismissed(&self) -> Option<&ClientError> {
        self.dismissed.get()
    }

    /// Told to take nothing more for now, and why; or with nothing to go on.
    pub(crate) fn set_paused(&self, why: Option<&str>) {
        if self.notifier.pause(why) {
            tracing::info!(agent = %self.guid, why, "told to pause or to go on");
            self.changed.notify_waiters();
        }
    }

    /// Takes nothing more for a reason of its own, or goes on.
    pub(crate) fn suspend(&self, why: Option<&str>) {
        if self.notifier.suspend(why) {
            tracing::info!(agent = %self.guid, why, "takes nothing for now, or goes on");
            self.changed.notify_waiters();
            self.beat_now.notify_one();
        }
    }

    // The slots.

    /// How many items may be claimed now, if `freed` of the occupied slots become free.
    pub(crate) fn claimable(&self, freed: usize) -> u32 {
        if !self.is_running() || self.notifier.is_paused() {
            return 0;
        }
        let busy = self.jobs.lock().len().saturating_sub(freed);
        let free = self.plan.slots.saturating_sub(busy).min(self.quota_left());
        u32::try_from(free)
            .unwrap_or(u32::MAX)
            .min(limits::CLAIM_MAX)
    }

    /// How many more items may be begun at all.
    pub(crate) fn quota_left(&self) -> usize {
        let begun = usize::try_from(self.begun.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        self.plan
            .max_items
            .map_or(usize::MAX, |max| max.saturating_sub(begun))
    }

    /// Gives a slot to what was claimed. `None` where it has one: a repeated answer to the same claim.
    pub(crate) fn admit(&self, claimed: ClaimedItem) -> Option<Job> {
        let job = Job::new(self.guid, claimed, self.logs.clone());
        match self.jobs.lock().entry(job.lease_ref()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(slot) => Some(slot.insert(job).clone()),
        }
    }

    /// One more item of those that may be begun at all.
    pub(crate) fn note_begun(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// The jobs that occupy a slot.
    pub(crate) fn jobs(&self) -> Vec<Job> {
        self.jobs.lock().values().cloned().collect()
    }

    pub(crate) fn job(&self, lease: LeaseRef) -> Option<Job> {
        self.jobs.lock().get(&lease).cloned()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.jobs.lock().is_empty()
    }

    /// Whether nothing would be lost if the agent ended now.
    pub(crate) fn is_delivered(&self) -> bool {
        self.jobs.lock().values().all(Job::is_published)
    }

    /// A job goes on under another lease of its item; one that is over stays so.
    pub(crate) fn renew(&self, job: &Job, lease: Lease) {
        let mut jobs = self.jobs.lock();
        if jobs.remove(&job.lease_ref()).is_some() {
            job.renew(lease);
            jobs.insert(job.lease_ref(), job.clone());
        }
    }

    /// Hands a job's end to the reporter; its slot stays occupied until that is answered.
    pub(crate) fn report(&self, job: Job, end: JobEnd) {
        job.begin_reporting();
        let report = Report::of(job, end);
        // The reporter outlives every job; without it the process is ending.
        let _ = self.reports.try_send(report);
    }

    /// A job is over for this agent: its slot is free.
    pub(crate) fn free(&self, lease: LeaseRef, count: &AtomicU64) {
        if self.jobs.lock().remove(&lease).is_some() {
            count.fetch_add(1, Ordering::Relaxed);
            self.changed.notify_waiters();
        }
    }

    /// As [`Core::free`], for one whose end nobody took: called off, or lost.
    pub(crate) fn free_untaken(&self, job: &Job) {
        let count = if job.is_called_off() {
            &self.counts.cancelled
        } else {
            &self.counts.lost
        };
        self.free(job.lease_ref(), count);
    }

    /// Waits until something has changed since this call (not since its first poll, so that a look at
    /// the state in between misses nothing), or a moment has passed.
    pub(crate) fn change(&self) -> impl Future<Output = ()> {
        let changed = self.changed.notified();
        async move {
            let _ = tokio::time::timeout(Duration::from_millis(500), changed).await;
        }
    }

    // The registration.

    pub(crate) fn heartbeat_every(&self) -> Duration {
        *self.heartbeat_every.lock()
    }

    /// Registers, trying until it succeeds.
    ///
    /// # Errors
    /// A refusal that no repetition will mend.
    pub(crate) async fn register(&self) -> Result<(), ClientError> {
        let _one_at_a_time = self.registering.lock().await;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let mut told = false;
        loop {
            let identity = self.identity.lock().clone();
            let patience = self.client.options().request_timeout;
            let error = match self
                .client
                .request_within::<RegisterAnswer>(VerbName::AgentsRegister, &identity, patience)
                .await
            {
                Ok(answer) => {
                    self.registered(&answer);
                    return Ok(());
                }
                Err(error) if error.is_transient() => error,
                Err(error) => {
                    self.note_dismissed(&error);
                    return Err(error);
                }
            };
            if !told {
                tracing::info!(%error, "registering is tried until a coordinator answers");
                self.notifier
                    .notify(AgentNotification::Waiting(error.to_string()));
                told = true;
            }
            tokio::time::sleep(backoff.pause(None)).await;
        }
    }

    fn registered(&self, answer: &RegisterAnswer) {
        if let Some(millis) = answer.agent.heartbeat_interval_ms {
            *self.heartbeat_every.lock() = Duration::from_millis(millis.max(100));
        }
        self.note_epoch(answer.epoch);
        tracing::info!(agent = %self.guid, handle = answer.agent.handle, "registered");
    }

    /// A coordinator of another epoch than before knows nothing of the claim that is open. (One of an
    /// earlier version does not say its epoch.)
    pub(crate) fn note_epoch(&self, epoch: u64) {
        let is_said = epoch != 0;
        if is_said && self.epoch.swap(epoch, Ordering::Relaxed) != epoch {
            self.claim_again.notify_waiters();
        }
    }

    /// Registers again if that is what an error asks for; true if it was. One that is about to go and
    /// has nothing left stays away: the entry would outlive it. One that is replaced, or whose ticket is refused, ends.
    pub(crate) async fn reregister_on(&self, error: &ClientError) -> bool {
        if self.note_dismissed(error) {
            return false;
        }
        let leaves = !self.is_running() && self.is_delivered();
        if error.code() != Some(ErrorCode::NotRegistered) || leaves {
            return false;
        }
        if let Err(error) = self.register().await {
            if self.dismissed().is_some() {
                return false;
            }
            tracing::error!(%error, "registering again was refused");
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        true
    }

    pub(crate) fn summary(&self) -> AgentReport {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        AgentReport {
            completed: read(&self.counts.completed),
            failed: read(&self.counts.failed),
            settled: read(&self.counts.settled),
            published: self
                .jobs
                .lock()
                .values()
                .filter(|job| job.is_published())
                .count() as u64,
            returned: read(&self.counts.returned),
            cancelled: read(&self.counts.cancelled),
            lost: read(&self.counts.lost),
            because: match &*self.phase.borrow() {
                Phase::Running => "its task ended".into(),
                Phase::Draining { because, .. } | Phase::Stopping { because } => because.clone(),
            },
        }
    }
}
