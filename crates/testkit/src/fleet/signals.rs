//! What a project tells, waited for by name instead of by sleeping.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_nats::{Client, Subscriber};
use futures_util::StreamExt as _;
use loom_protocol::event::{
    AgentEvent, AgentEventKind, Event, SpinUpEvent, SpinUpEventKind, TargetEvent, TargetEventKind,
    WorkEvent, WorkEventKind,
};
use loom_protocol::{AgentGuid, ProjectId, WorkId, names};
use tokio::time::{Instant, timeout_at};

use super::PATIENCE;
use crate::nats::until_subscribed;

/// Rather lose nothing than little: a test may be slow to look.
const BACKLOG: usize = 1 << 20;

/// The events of a project, from the moment of [`TestProject::signals`](super::TestProject::signals) on.
///
/// Each wait looks at what was told before, then at what comes, so that nothing is missed however late it is asked
/// for. An event that does not come in time is an error that lists what came instead.
pub struct Signals {
    events: Subscriber,
    told: Vec<Event>,
    within: Duration,
}

impl Signals {
    pub(super) async fn of(client: &Client, project: &ProjectId) -> Result<Self> {
        let events = client
            .subscribe(names::all_events(project))
            .await
            .context("subscribe to the events of a project")?;
        until_subscribed(client).await?;
        Ok(Self {
            events,
            told: Vec::new(),
            within: PATIENCE,
        })
    }

    /// How much room a connection needs for events that nobody has looked at yet.
    pub(super) const fn backlog() -> usize {
        BACKLOG
    }

    /// How long each wait may take from now on; [`PATIENCE`] where nothing is said.
    pub const fn set_deadline(&mut self, within: Duration) {
        self.within = within;
    }

    /// The first event of this kind about an item.
    pub async fn work(&mut self, kind: WorkEventKind, id: WorkId) -> Result<WorkEvent> {
        let is_it = |event: &Event| match event {
            Event::Work(event) if event.kind == kind && event.work_id == id => {
                Some((**event).clone())
            }
            _ => None,
        };
        let what = format!("{} of {id}", kind.as_str());
        self.find(&what, is_it).await
    }

    /// The first event of this kind about an agent. An `agent:updated` that leaves its status as it
    /// was, and tells how many items it has, is passed over.
    pub async fn agent(&mut self, kind: AgentEventKind, guid: AgentGuid) -> Result<AgentEvent> {
        let is_count = |event: &AgentEvent| {
            event.kind == AgentEventKind::Updated && event.previous_status == event.new_status
        };
        let is_it = |event: &Event| match event {
            Event::Agent(event)
                if event.kind == kind && event.agent.guid == guid && !is_count(event) =>
            {
                Some((**event).clone())
            }
            _ => None,
        };
        let what = format!("{} of {guid}", kind.as_str());
        self.find(&what, is_it).await
    }

    /// The first event of this kind about the target of a name.
    pub async fn target(&mut self, kind: TargetEventKind, name: &str) -> Result<TargetEvent> {
        let is_it = |event: &Event| match event {
            Event::Target(event) if event.kind == kind && event.target_name == name => {
                Some((**event).clone())
            }
            _ => None,
        };
        let what = format!("{} of {name}", kind.as_str());
        self.find(&what, is_it).await
    }

    /// The first event of this kind about a start by the target of a name.
    pub async fn spin_up(&mut self, kind: SpinUpEventKind, target: &str) -> Result<SpinUpEvent> {
        let is_it = |event: &Event| match event {
            Event::SpinUp(event) if event.kind == kind && event.target_name == target => {
                Some((**event).clone())
            }
            _ => None,
        };
        let what = format!("{} of {target}", kind.as_str());
        self.find(&what, is_it).await
    }

    /// The first of which `is_it` makes something; `what` names it in the error.
    pub async fn find<T>(
        &mut self,
        what: &str,
        mut is_it: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T> {
        if let Some(found) = self.told.iter().find_map(&mut is_it) {
            return Ok(found);
        }
        let deadline = Instant::now() + self.within;
        loop {
            let Ok(next) = timeout_at(deadline, self.events.next()).await else {
                let names: Vec<_> = self.told.iter().map(Event::name).collect();
                bail!(
                    "{what} was not told within {:?}; told was: {}",
                    self.within,
                    names.join(", ")
                );
            };
            let message = next.context("the connection that brought the events is closed")?;
            let event: Event = serde_json::from_slice(&message.payload)
                .with_context(|| format!("read the event on {}", message.subject))?;
            let found = is_it(&event);
            self.told.push(event);
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    /// Everything that was told and looked at so far, in order.
    pub fn told(&self) -> &[Event] {
        &self.told
    }

    /// What was told and looked at so far about one item, in order.
    pub fn told_of(&self, id: WorkId) -> Vec<&WorkEvent> {
        let work = self.told.iter().filter_map(|event| match event {
            Event::Work(event) => Some(&**event),
            Event::Agent(_) | Event::Target(_) | Event::SpinUp(_) => None,
        });
        work.filter(|event| event.work_id == id).collect()
    }
}
