//! Where events go: to listeners in the process, and to `loom.{p}.events.…`, at most once each.
//!
//! Telling never waits. Past a bound an event is dropped and counted: nothing may depend on one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::Client;
use loom_protocol::event::Event;
use loom_protocol::{ProjectId, names};
use tokio::sync::{broadcast, mpsc};

const BACKLOG: usize = 16 * 1024;

/// Who listens in this process, to the events of all its projects, over changes of ownership. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventHub(broadcast::Sender<Arc<Event>>);

impl Default for EventHub {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl EventHub {
    /// Listens to what is told from now on. A listener that is too slow is told how much it missed.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.subscribe()
    }

    fn tell(&self, event: Arc<Event>) {
        if self.0.receiver_count() > 0 {
            // Nobody left meanwhile: nobody misses it.
            let _ = self.0.send(event);
        }
    }
}

/// Takes the events of one project. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventSink {
    hub: EventHub,
    outgoing: Option<mpsc::Sender<Arc<Event>>>,
    dropped: Arc<AtomicU64>,
}

impl EventSink {
    /// A sink that tells the listeners of a hub and publishes for a project, in order.
    ///
    /// The publishing ends when the last clone of the sink is gone.
    pub fn publishing(client: Client, project: ProjectId, hub: EventHub) -> Self {
        let (outgoing, mut events) = mpsc::channel::<Arc<Event>>(BACKLOG);
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let subject = names::event(&project, event.name());
                match serde_json::to_vec(&*event) {
                    Ok(json) => {
                        if let Err(error) = client.publish(subject, json.into()).await {
                            tracing::debug!(%error, "an event was not published");
                        }
                    }
                    Err(error) => tracing::error!(%error, "an event could not be written"),
                }
            }
        });
        Self {
            hub,
            outgoing: Some(outgoing),
            dropped: Arc::default(),
        }
    }

    /// A sink that only tells listeners in the process.
    pub fn local() -> Self {
        Self {
            hub: EventHub::default(),
            outgoing: None,
            dropped: Arc::default(),
        }
    }

    /// Tells an event. Never waits.
    pub fn emit(&self, event: Event) {
        let event = Arc::new(event);
        if let Some(outgoing) = &self.outgoing
            && outgoing.try_send(event.clone()).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.hub.tell(event);
    }

    /// Listens to what is told from now on. A listener that is too slow is told how much it missed.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Event>> {
        self.hub.listen()
    }

    /// How many events were dropped on the way out because their backlog was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
