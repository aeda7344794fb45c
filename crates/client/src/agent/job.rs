//! A job: one attempt at one item, as the handler sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use loom_protocol::AgentGuid;
use loom_protocol::work::{
    ClaimedItem, Lease, LeaseRef, ReportedEvidence, Session, Usage, WorkItem, limits,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Why a job is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelCause {
    /// The item was called off.
    Cancelled,
    /// The lease is no longer this agent's; whatever comes of the job is discarded.
    LeaseLost,
    /// The agent ends; what is not done by then is given back.
    Shutdown,
}

/// One line of output on its way to the logs subject.
pub(crate) struct LogLine {
    pub(crate) lease: LeaseRef,
    pub(crate) line: Bytes,
}

/// What the handler last said about its progress.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) percent: Option<f64>,
    pub(crate) message: Option<String>,
    pub(crate) usage: Option<Usage>,
    pub(crate) session: Option<Session>,
}

/// What the handler has said of its run; it goes with the end too.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunTold {
    pub(crate) usage: Option<Usage>,
    pub(crate) session: Option<Session>,
    pub(crate) evidence: Vec<ReportedEvidence>,
}

/// Why, and how long the handler may take to obey.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cancel {
    pub(crate) cause: CancelCause,
    pub(crate) grace: Option<Duration>,
}

/// One attempt at one item. Cheap to clone.
#[derive(Clone)]
pub struct Job {
    inner: Arc<Inner>,
}

struct Inner {
    guid: AgentGuid,
    item: WorkItem,
    lease: Mutex<Lease>,
    /// Held while the item is being claimed again.
    resuming: tokio::sync::Mutex<()>,
    token: CancellationToken,
    cancel: Mutex<Option<Cancel>>,
    progress: Mutex<Option<Progress>>,
    told: Mutex<RunTold>,
    progressed: Notify,
    reporting: AtomicBool,
    settled: AtomicBool,
    called_off: AtomicBool,
    published: AtomicBool,
    logs: mpsc::Sender<LogLine>,
    dropped_lines: AtomicU64,
}

impl Job {
    pub(crate) fn new(guid: AgentGuid, claimed: ClaimedItem, logs: mpsc::Sender<LogLine>) -> Self {
        Self {
            inner: Arc::new(Inner {
                guid,
                item: claimed.work_item,
                lease: Mutex::new(claimed.lease),
                resuming: tokio::sync::Mutex::new(()),
                token: CancellationToken::new(),
                cancel: Mutex::new(None),
                progress: Mutex::new(None),
                told: Mutex::default(),
                progressed: Notify::new(),
                reporting: AtomicBool::new(false),
                settled: AtomicBool::new(false),
                called_off: AtomicBool::new(false),
                published: AtomicBool::new(false),
                logs,
                dropped_lines: AtomicU64::new(0),
            }),
        }
    }

    /// A job that no coordinator knows of, to try a handler with: its progress and its log lines go
    /// nowhere, and nothing but [`Job::cancelled`] itself cancels it.
    pub fn detached(guid: AgentGuid, item: WorkItem) -> Self {
        let timeout = Duration::from_mins(30);
        let lease = Lease {
            attempt: item.attempt,
            expires_at: item.updated_at.after(timeout),
            expires_in_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let claimed = ClaimedItem {
            work_item: item,
            lease,
        };
        Self::new(guid, claimed, mpsc::channel(1).0)
    }

    /// The item, with its bodies.
    pub fn item(&self) -> &WorkItem {
        &self.inner.item
    }

    /// The fence: which attempt this is. It grows while the handler runs where the item was taken from the agent
    /// while it was away, and claimed again ([`AgentBuilder::resume_lost`](super::AgentBuilder::resume_lost)); so ask
    /// when it is needed.
    pub fn attempt(&self) -> u32 {
        self.inner.lease.lock().attempt
    }

    /// The agent that does it.
    pub fn agent_guid(&self) -> AgentGuid {
        self.inner.guid
    }

    /// Tells of progress: 0 to 100, and a sentence. Returns at once; of what is told in quick
    /// succession the last is sent.
    pub fn progress(&self, percent: f64, message: impl Into<String>) {
        self.report(Progress {
            percent: Some(percent.clamp(0.0, 100.0)).filter(|percent| percent.is_finite()),
            message: Some(message.into()).filter(|message| !message.is_empty()),
            ..Progress::default()
        });
    }

    /// As [`Job::progress`], with a sentence only.
    pub fn message(&self, message: impl Into<String>) {
        self.report(Progress {
            message: Some(message.into()),
            ..Progress::default()
        });
    }

    /// Tells what this attempt has used up so far, all in all; it counts whatever becomes of the attempt, and goes with its
    /// end once more. Returns at once. What the coordinator would refuse ([`Usage::check`]) is logged, and not told.
    pub fn usage(&self, usage: Usage) {
        if let Err(why) = usage.check() {
            tracing::warn!(job = ?self, why, "what was used up is not told");
            return;
        }
        self.inner.told.lock().usage = Some(usage.clone());
        self.report(Progress {
            usage: Some(usage),
            ..Progress::default()
        });
    }

    /// Tells in which conversation the item is worked on; whoever claims it next finds it there, also where this agent dies.
    /// Returns at once. What the coordinator would refuse ([`Session::check`]) is logged, and not told.
    pub fn session(&self, session: Session) {
        if let Err(why) = session.check(self.inner.guid) {
            tracing::warn!(job = ?self, why, "the conversation is not told");
            return;
        }
        self.inner.told.lock().session = Some(session.clone());
        self.report(Progress {
            session: Some(session),
            ..Progress::default()
        });
    }

    /// Adds a check to what goes with the end of this attempt, where that is a completion or a failure: the last 16. What
    /// the coordinator would refuse ([`ReportedEvidence::check`]) is logged, and not told.
    pub fn evidence(&self, check: ReportedEvidence) {
        if let Err(why) = check.check() {
            tracing::warn!(job = ?self, why, "a check is not told");
            return;
        }
        let mut told = self.inner.told.lock();
        if told.evidence.len() >= limits::EVIDENCE {
            told.evidence.remove(0);
        }
        told.evidence.push(check);
    }

    /// What the handler has said of its run.
    pub(crate) fn run_told(&self) -> RunTold {
        self.inner.told.lock().clone()
    }

    fn report(&self, reported: Progress) {
        {
            let mut progress = self.inner.progress.lock();
            let before = progress.take().unwrap_or_default();
            *progress = Some(Progress {
                percent: reported.percent.or(before.percent),
                message: reported.message.or(before.message),
                usage: reported.usage.or(before.usage),
                session: reported.session.or(before.session),
            });
        }
        self.inner.progressed.notify_one();
    }

    /// Sends a line of output to `loom.{project}.logs.{id}.{attempt}`: best effort, never waits;
    /// what is too much is dropped and counted.
    pub fn log(&self, line: impl Into<Bytes>) {
        let send = |line| {
            let lease = self.lease_ref();
            self.inner.logs.try_send(LogLine { lease, line })
        };
        let dropped = self.inner.dropped_lines.swap(0, Ordering::Relaxed);
        if dropped > 0 && send(format!("[{dropped} lines dropped]").into()).is_err() {
            self.inner
                .dropped_lines
                .fetch_add(dropped + 1, Ordering::Relaxed);
        } else if send(line.into()).is_err() {
            self.inner.dropped_lines.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Becomes cancelled when the job is to stop; [`Job::cancel_cause`] then tells why. A handler
    /// that does not obey within the grace is aborted at its next `.await`.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.inner.token
    }

    /// Why the job is to stop, if it is.
    pub fn cancel_cause(&self) -> Option<CancelCause> {
        self.inner.cancel.lock().map(|cancel| cancel.cause)
    }

    /// Says that somebody else has reported the end of this attempt (a program that the handler
    /// started, for instance): nothing more is reported, and the loss of the lease means nothing.
    pub fn settle(&self) {
        self.inner.settled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.inner.settled.load(Ordering::Relaxed)
    }

    /// Whether the item was called off, whatever else became of it.
    pub(crate) fn is_called_off(&self) -> bool {
        self.inner.called_off.load(Ordering::Relaxed)
    }

    pub(crate) fn lease_ref(&self) -> LeaseRef {
        LeaseRef {
            id: self.inner.item.id,
            attempt: self.attempt(),
        }
    }

    /// To be held while the item is being claimed again, and when it is decided what is reported.
    pub(crate) fn resuming(&self) -> &tokio::sync::Mutex<()> {
        &self.inner.resuming
    }

    /// The item was claimed again.
    pub(crate) fn renew(&self, lease: Lease) {
        *self.inner.lease.lock() = lease;
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.inner.lease.lock().timeout_ms)
    }

    /// Asks the handler to stop. The first cause stands, except that a lost lease overrides.
    pub(crate) fn cancel(&self, cause: CancelCause, grace: Option<Duration>) {
        if cause == CancelCause::Cancelled {
            self.inner.called_off.store(true, Ordering::Relaxed);
        }
        {
            let mut cancel = self.inner.cancel.lock();
            if cancel.is_none() || cause == CancelCause::LeaseLost {
                *cancel = Some(Cancel { cause, grace });
            }
        }
        self.inner.token.cancel();
    }

    pub(crate) fn cancel_order(&self) -> Option<Cancel> {
        *self.inner.cancel.lock()
    }

    /// From here on the answer to the report decides, and nothing else.
    pub(crate) fn begin_reporting(&self) {
        self.inner.reporting.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_reporting(&self) -> bool {
        self.inner.reporting.load(Ordering::Relaxed)
    }

    /// Its report is in the stream, and nobody has answered it yet.
    pub(crate) fn set_published(&self) {
        self.inner.published.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_published(&self) -> bool {
        self.inner.published.load(Ordering::Relaxed)
    }

    /// The progress that is not told yet.
    pub(crate) fn take_progress(&self) -> Option<Progress> {
        self.inner.progress.lock().take()
    }

    /// Waits until there is progress to tell, and takes it.
    pub(crate) async fn next_progress(&self) -> Progress {
        loop {
            let progressed = self.inner.progressed.notified();
            if let Some(progress) = self.take_progress() {
                return progress;
            }
            progressed.await;
        }
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.inner.item.id)
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}
