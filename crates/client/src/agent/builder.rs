//! Describes an agent and starts it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use loom_protocol::AgentGuid;
use loom_protocol::agent::{MAX_CONCURRENT_TASKS, RegisterRequest};
use loom_protocol::target::BirthTicket;
use loom_protocol::token::{check_label, check_name, check_token};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::core::{BoxedHandler, Core, Parts, Plan};
use super::end::JobEnd;
use super::job::Job;
use super::lifecycle::{self, Inboxes};
use super::notifications::{AgentNotification, Notifier};
use super::{AgentReport, RunningAgent, logs};
use crate::client::Client;
use crate::error::{ClientError, ErrorKind};

/// Describes an agent; [`run`](AgentBuilder::run) makes it work.
#[must_use]
pub struct AgentBuilder {
    client: Client,
    guid: AgentGuid,
    identity: RegisterRequest,
    slots: usize,
    max_items: Option<usize>,
    grace: Duration,
    cancel_grace: Duration,
    claim_wait: Option<Duration>,
    resumes: bool,
    notifier: Notifier,
}

impl AgentBuilder {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            guid: AgentGuid::generate(),
            identity: RegisterRequest {
                agent_type: "custom".into(),
                hostname: hostname(),
                instance_id: Some(Uuid::new_v4().to_string()),
                ..RegisterRequest::default()
            },
            slots: 1,
            max_items: None,
            grace: Duration::from_secs(30),
            cancel_grace: Duration::from_secs(10),
            claim_wait: None,
            resumes: true,
            notifier: Notifier::default(),
        }
    }

    /// Its name: 1–64 letters, digits, `_`, `-`, `.`. Made of its type and its guid unless set.
    pub fn handle(mut self, handle: impl Into<String>) -> Self {
        self.identity.handle = handle.into();
        self
    }

    /// Its type, for work that prefers or requires one. `custom` unless set.
    pub fn agent_type(mut self, agent_type: impl Into<String>) -> Self {
        self.identity.agent_type = agent_type.into();
        self
    }

    /// Something that it can do. May be called several times; at least one is required.
    pub fn capability(mut self, capability: impl Into<String>) -> Self {
        self.identity.capabilities.push(capability.into());
        self
    }

    /// A boundary that it is in. May be called several times; `default` unless set.
    pub fn boundary(mut self, boundary: impl Into<String>) -> Self {
        let boundaries = self.identity.boundaries.get_or_insert_with(Vec::new);
        boundaries.push(boundary.into());
        self
    }

    /// How many items it works on at the same time. 1 unless set.
    pub const fn slots(mut self, slots: usize) -> Self {
        self.slots = slots;
        self
    }

    /// What becomes of an item that was taken from the agent while it was away (its machine slept, the network was
    /// gone), and that nobody else has had since. True, as unless set: it is claimed again, the handler goes on under
    /// a higher [`Job::attempt`](super::Job::attempt), and what the loss had spent is given back. False: the handler
    /// is told to stop ([`CancelCause::LeaseLost`](super::CancelCause::LeaseLost)), as it is where somebody else has
    /// the item; for handlers that have told others the attempt.
    pub const fn resume_lost(mut self, resumes: bool) -> Self {
        self.resumes = resumes;
        self
    }

    /// Its id. A new one unless set; give the old one to an agent that comes back as itself.
    pub const fn guid(mut self, guid: AgentGuid) -> Self {
        self.guid = guid;
        self
    }

    /// Which run of the agent it will be: made anew for each builder. It stands in every request, so that of
    /// two runs of one guid only the later one counts.
    pub fn instance_id(&self) -> &str {
        self.identity.instance_id.as_deref().unwrap_or_default()
    }

    /// Where it runs. The machine's name unless set.
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.identity.hostname = Some(hostname.into());
        self
    }

    /// On whose behalf it runs.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.identity.username = Some(username.into());
        self
    }

    /// The account whose usage limit it shares with others.
    pub fn limit_group(mut self, group: impl Into<String>) -> Self {
        self.identity.limit_group = Some(group.into());
        self
    }

    /// The single-use ticket of the target that started it. It goes with each registration of this run: the first one
    /// is its birth, a later one says that it is still the same. One that is refused ends the agent
    /// ([`ClientError::is_ticket_refused`]).
    pub fn ticket(mut self, ticket: impl Into<String>) -> Self {
        self.identity.ticket = Some(BirthTicket::from_text(ticket.into()));
        self
    }

    /// Whatever else it says about itself.
    pub fn metadata(mut self, metadata: serde_json::Value) -> Self {
        self.identity.metadata = Some(metadata);
        self
    }

    /// How often it gives a sign of life. The coordinator's `agents.heartbeat_every` unless set.
    pub fn heartbeat_every(mut self, interval: Duration) -> Self {
        self.identity.heartbeat_interval_ms = Some(millis(interval));
        self
    }

    /// After how much idleness it may be sent home. Never unless set.
    pub fn spindown_after_idle(mut self, idle: Duration) -> Self {
        self.identity.spindown_after_idle_ms = Some(millis(idle));
        self
    }

    /// Ends after this many items.
    pub const fn max_items(mut self, items: usize) -> Self {
        self.max_items = Some(items);
        self
    }

    /// How long running jobs may take to finish when it is told to shut down without a grace named.
    /// 30 s unless set.
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How long a handler may take to obey [`Job::cancelled`] before it is aborted. 10 s unless set.
    pub const fn cancel_grace(mut self, grace: Duration) -> Self {
        self.cancel_grace = grace;
        self
    }

    /// How long an open claim waits for work, up to 60 s. As long as a heartbeat's interval unless
    /// set: a claim that was open when its coordinator died is answered by nobody, so this bounds
    /// how long an idle agent sleeps through a restart.
    pub const fn claim_wait(mut self, wait: Duration) -> Self {
        self.claim_wait = Some(wait);
        self
    }

    /// Tells of what happens to the agent beside its items. It is called on the client's own thread and
    /// must not block.
    pub fn on_notification(
        mut self,
        listener: impl Fn(AgentNotification) + Send + Sync + 'static,
    ) -> Self {
        self.notifier = Notifier::new(Some(Arc::new(listener)));
        self
    }

    /// Works until it is told to shut down, or has done as many items as wanted.
    ///
    /// The handler is called for each item, up to [`slots`](AgentBuilder::slots) at the same time, on
    /// the caller's runtime. It may return `Result<JobResult, JobError>` or a [`JobEnd`]. A panic is a
    /// recoverable failure of that attempt. What it does may be repeated: execution is at least once.
    ///
    /// # Errors
    /// As [`AgentBuilder::start`], a registration that is refused for good (where that is for its ticket:
    /// [`ClientError::is_ticket_refused`]), and
    /// [`ClientError::is_replaced`]: another run of the same guid has registered, and this one has stopped
    /// its jobs and discarded them.
    pub async fn run<H, F>(self, handler: H) -> Result<AgentReport, ClientError>
    where
        H: Fn(Job) -> F + Send + Sync + 'static,
        F: Future + Send + 'static,
        F::Output: Into<JobEnd>,
    {
        self.start(handler)?.ended().await
    }

    /// Begins to work and returns at once; registering goes on in the background. Must be called on a
    /// tokio runtime: the handlers run there.
    ///
    /// # Errors
    /// [`ErrorKind::Options`] for a description that no coordinator would take.
    pub fn start<H, F>(mut self, handler: H) -> Result<RunningAgent, ClientError>
    where
        H: Fn(Job) -> F + Send + Sync + 'static,
        F: Future + Send + 'static,
        F::Output: Into<JobEnd>,
    {
        self.check()?;
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| {
            options_error("an agent must be started on a tokio runtime, where its handlers run")
        })?;
        self.identity.guid = Some(self.guid);
        self.identity.max_concurrent_tasks = u32::try_from(self.slots).ok();
        let handler: BoxedHandler = Arc::new(move |job| handler(job).map(Into::into).boxed());
        // Each slot has at most one report on its way.
        let (reports, reports_inbox) = mpsc::channel(self.slots.max(1) * 2);
        let (log_lines, logs_inbox) = mpsc::channel(logs::CAPACITY);
        let background = self.client.background().clone();
        let core = Arc::new(Core::new(Parts {
            client: self.client,
            guid: self.guid,
            identity: self.identity,
            plan: Plan {
                slots: self.slots,
                max_items: self.max_items,
                grace: self.grace,
                cancel_grace: self.cancel_grace,
                claim_wait: self.claim_wait.map(|wait| wait.min(Duration::from_mins(1))),
                resumes: self.resumes,
            },
            handler,
            runtime,
            reports,
            logs: log_lines,
            notifier: self.notifier,
        }));
        let inboxes = Inboxes {
            reports: reports_inbox,
            logs: logs_inbox,
        };
        let life = background.spawn(lifecycle::live(core.clone(), inboxes));
        Ok(RunningAgent { core, life })
    }

    fn check(&mut self) -> Result<(), ClientError> {
        let identity = &mut self.identity;
        if identity.handle.is_empty() {
            identity.handle = default_handle(&identity.agent_type, self.guid);
        }
        check_name("handle", &identity.handle)?;
        check_token("agentType", &identity.agent_type)?;
        if identity.capabilities.is_empty() {
            return Err(options_error(
                "an agent without a capability would never get work; give it at least one",
            ));
        }
        for capability in &identity.capabilities {
            check_label("capability", capability)?;
        }
        for boundary in identity.boundaries.iter().flatten() {
            check_label("boundary", boundary)?;
        }
        if self.slots > MAX_CONCURRENT_TASKS as usize {
            return Err(ClientError::new(
                ErrorKind::Options,
                format!(
                    "an agent with {} slots would be refused; give it at most {MAX_CONCURRENT_TASKS}",
                    self.slots
                ),
            ));
        }
        if self.slots == 0 {
            return Err(options_error(
                "an agent without a slot would never work; give it at least 1",
            ));
        }
        Ok(())
    }
}

/// The name of an agent that is given none: its type and the end of its guid.
pub fn default_handle(agent_type: &str, guid: AgentGuid) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let readable: String = agent_type.chars().take(40).map(plain).collect();
    let random = guid.uuid().simple().to_string();
    format!("{readable}-{}", &random[random.len() - 6..])
}

fn options_error(message: &str) -> ClientError {
    ClientError::new(ErrorKind::Options, message)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The machine's name, where it can be told without asking the system's libraries.
fn hostname() -> Option<String> {
    let from_environment = ["HOSTNAME", "COMPUTERNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    from_environment
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
}
