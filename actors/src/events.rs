//! Where events go: to whoever listens in the process, and to `loom.{p}.events.…`, at most once each.
//!
//! Telling never waits. What is not taken in time is lost, and whoever has lost something is told: nothing may depend on
//! an event. One hub stays for as long as the process, over changes of ownership and restarts of actors; its listeners
//! are told of those too ([`Heard::Gap`]), since what happened meanwhile is in the ledger and was told by nobody.

use std::sync::Arc;

use async_nats::Client;
use loom_protocol::event::Event;
use loom_protocol::{ProjectId, names};

use crate::notifier::{Listener, Notification, Notifier};

/// How many events are kept for those who listen.
const BACKLOG: usize = 16 * 1024;

/// Where the events of all projects are told, and heard. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventHub(Notifier<News>);

#[derive(Debug, Clone)]
enum News {
    Event(Arc<Event>),
    /// In this project, or in all of them, something may have happened that was not told.
    Gap(Option<ProjectId>),
}

/// What a listener hears.
#[derive(Debug, Clone)]
pub enum Heard {
    /// Something happened.
    Event(Arc<Event>),
    /// It was too slow for so many events, of whatever project.
    Lagged(u64),
    /// Something may have happened of which there was no event: whoever wants to know it looks again.
    Gap,
}

/// One who listens to events, until it is dropped.
#[derive(Debug)]
pub struct EventListener {
    news: Listener<News>,
    project: Option<ProjectId>,
}

impl Default for EventHub {
    /// One that tells listeners in the process, and publishes nothing.
    fn default() -> Self {
        Self(Notifier::new(BACKLOG))
    }
}

impl EventHub {
    /// One that publishes what it is told as well, in the same order, until its last clone is gone.
    pub fn publishing(client: Client) -> Self {
        let hub = Self::default();
        tokio::spawn(publish(client, hub.0.listen()));
        hub
    }

    /// Tells an event. Never waits.
    pub fn emit(&self, event: Event) {
        self.0.notify(News::Event(Arc::new(event)));
    }

    /// Calls `hook` with every event from now on, in the course of telling it, instead of the one of that name before. It
    /// must not wait, nor tell or listen here.
    pub fn on_event(&self, name: &'static str, hook: impl Fn(&Event) + Send + Sync + 'static) {
        self.0.hook(name, move |news| {
            if let News::Event(event) = news {
                hook(event);
            }
        });
    }

    /// Tells that something may have happened, in a project or in all, of which there was no event.
    pub fn gap(&self, project: Option<&ProjectId>) {
        self.0.notify(News::Gap(project.cloned()));
    }

    /// Listens to what happens in a project, or in all, from now on.
    pub fn listen(&self, project: Option<ProjectId>) -> EventListener {
        EventListener {
            news: self.0.listen(),
            project,
        }
    }
}

impl EventListener {
    /// What comes next; `None` when the process has nothing more to tell.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            let of_interest = |project: &str| {
                let wanted = self.project.as_ref();
                wanted.is_none_or(|wanted| wanted.as_str() == project)
            };
            match self.news.next().await? {
                Notification::Lagged(count) => return Some(Heard::Lagged(count)),
                Notification::Change(News::Event(event)) if of_interest(event.project_id()) => {
                    return Some(Heard::Event(event));
                }
                Notification::Change(News::Gap(project))
                    if project.as_ref().is_none_or(|p| of_interest(p.as_str())) =>
                {
                    return Some(Heard::Gap);
                }
                Notification::Change(_) => {}
            }
        }
    }
}

async fn publish(client: Client, mut news: Listener<News>) {
    while let Some(heard) = news.next().await {
        let event = match heard {
            Notification::Change(News::Event(event)) => event,
            Notification::Change(News::Gap(_)) => continue,
            Notification::Lagged(count) => {
                tracing::debug!(
                    count,
                    "events were not published: NATS did not take them in time"
                );
                continue;
            }
        };
        let subject = names::event(event.project_id(), event.name());
        match serde_json::to_vec(&*event) {
            Ok(json) => {
                if let Err(error) = client.publish(subject, json.into()).await {
                    tracing::debug!(%error, "an event was not published");
                }
            }
            Err(error) => tracing::error!(%error, "an event could not be written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use loom_protocol::event::{AgentEvent, AgentEventKind, EventAgent};
    use loom_protocol::{AgentGuid, Timestamp};

    use super::*;

    fn event(project: &ProjectId) -> Event {
        Event::Agent(Box::new(AgentEvent {
            kind: AgentEventKind::Updated,
            timestamp: Timestamp::from_millis(1),
            project_id: project.to_string(),
            agent: EventAgent {
                guid: AgentGuid::generate(),
                handle: "ada".into(),
                agent_type: "claude-code".into(),
                hostname: None,
            },
            capabilities: None,
            boundaries: None,
            status: None,
            previous_status: None,
            new_status: None,
            current_task_count: None,
            reason: None,
            detail: None,
            graceful: None,
        }))
    }

    #[tokio::test]
    async fn who_listens_to_a_project_hears_its_events_and_gaps_and_those_of_all() {
        let [here, there] = ["here", "there"].map(|name| ProjectId::new(name).unwrap());
        let hub = EventHub::default();
        let (mut all, mut of_here) = (hub.listen(None), hub.listen(Some(here.clone())));
        let (told, hooked) = std::sync::mpsc::channel();
        hub.on_event("test", move |event| {
            told.send(event.project_id().to_owned()).unwrap();
        });
        hub.emit(event(&there));
        hub.gap(Some(&there));
        hub.emit(event(&here));
        hub.gap(Some(&here));
        hub.gap(None);
        drop(hub);
        let mut heard = [Vec::new(), Vec::new()];
        for (listener, heard) in [&mut all, &mut of_here].into_iter().zip(&mut heard) {
            while let Some(next) = listener.next().await {
                heard.push(match next {
                    Heard::Event(event) => event.project_id().to_owned(),
                    Heard::Lagged(count) => count.to_string(),
                    Heard::Gap => "gap".to_owned(),
                });
            }
        }
        assert_eq!(heard[0], ["there", "gap", "here", "gap", "gap"]);
        assert_eq!(heard[1], ["here", "gap", "gap"]);
        assert_eq!(hooked.iter().collect::<Vec<_>>(), ["there", "here"]);
    }
}
