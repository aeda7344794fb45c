//! How far what arrives has been applied: requests at the doors, heartbeats, the agents bucket.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use loom_protocol::{ProjectId, names};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Markers on their way through one subscription.
#[derive(Debug)]
struct Markers {
    /// The subjects of markers begin with this; no other message has such a subject.
    prefix: String,
    waited_for: Arc<Mutex<Waiting>>,
}

type Waiting = HashMap<String, oneshot::Sender<()>>;

impl Markers {
    /// Markers under a subject that ends with a dot.
    fn under(subject: &str) -> Self {
        let process = fastrand::u64(..);
        Self {
            prefix: format!("{subject}marker-{process:016x}-"),
            waited_for: Arc::default(),
        }
    }

    fn expect(&self) -> Expected {
        let (sender, arrived) = oneshot::channel();
        let subject = format!("{}{:016x}", self.prefix, fastrand::u64(..));
        self.waited_for.lock().insert(subject.clone(), sender);
        Expected {
            subject,
            arrived,
            waited_for: self.waited_for.clone(),
        }
    }

    /// The marker behind a subject, taken out; dropping the sender without sending is no arrival.
    fn take(&self, subject: &str) -> Option<oneshot::Sender<()>> {
        if !subject.starts_with(&self.prefix) {
            return None;
        }
        self.waited_for.lock().remove(subject)
    }
}

/// A marker that somebody waits for.
pub(super) struct Expected {
    subject: String,
    arrived: oneshot::Receiver<()>,
    waited_for: Arc<Mutex<Waiting>>,
}

impl Expected {
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Ends when the marker has arrived; never if it got lost.
    pub async fn arrived(mut self) {
        if (&mut self.arrived).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.waited_for.lock().remove(&self.subject);
    }
}

/// The requests that a process is applying. One for all doors of an ownership. Cheap to clone.
#[derive(Debug, Clone)]
pub struct InFlight(Arc<Requests>);

#[derive(Debug)]
struct Requests {
    markers: Markers,
    generations: Mutex<Generations>,
    /// When a request was last turned away unread.
    refused: Mutex<Option<Instant>>,
}

/// Requests by the marker that they came before.
#[derive(Debug, Default)]
struct Generations {
    present: TaskTracker,
    /// Those before a marker that has arrived, until they are applied.
    earlier: Vec<TaskTracker>,
}

/// A request that is being applied: drop it when it has been, or when all that is left is waiting
/// for work. Empty for a request that nobody's clock depends on.
#[derive(Debug)]
pub struct Ticket(
    #[expect(dead_code, reason = "what counts is that it is held")] Option<TaskTrackerToken>,
);

/// Actions that say nothing of the agent that may send them. They may take long (a page of bodies,
/// the first write of a project), and no barrier waits for them.
const OF_NO_AGENT: [&str; 8] = [
    "work.submit",
    "work.list",
    "work.get",
    "work.explain",
    "work.cancel",
    "agents.list",
    "agents.get",
    "agents.shutdown",
];

/// Whether a request may be an agent's sign of life, or its report about an item.
fn may_be_an_agents(subject: &str) -> bool {
    let action = subject.splitn(3, '.').nth(2).unwrap_or_default();
    !OF_NO_AGENT.contains(&action)
}

impl InFlight {
    /// No requests yet.
    pub fn new() -> Self {
        Self(Arc::new(Requests {
            markers: Markers::under("coord.global.barrier."),
            generations: Mutex::default(),
            refused: Mutex::default(),
        }))
    }

    /// A request to this subject begins to be applied. To be called in the order of arrival.
    pub fn enter(&self, subject: &str) -> Ticket {
        let counts = may_be_an_agents(subject);
        Ticket(counts.then(|| self.0.generations.lock().present.token()))
    }

    /// A request was turned away unread, because there were too many: whoever sent it was not
    /// silent.
    pub fn refused(&self) {
        *self.0.refused.lock() = Some(Instant::now());
    }

    /// Whether a request was turned away within that time.
    pub(super) fn has_refused(&self, within: Duration) -> bool {
        let refused = *self.0.refused.lock();
        refused.is_some_and(|at| at.elapsed() < within)
    }

    /// A message has arrived in the order of all requests. Whether it was a marker, which is no
    /// request and needs no answer.
    pub fn heard(&self, subject: &str) -> bool {
        let Some(marker) = self.0.markers.take(subject) else {
            return false;
        };
        let mut generations = self.0.generations.lock();
        let before = std::mem::take(&mut generations.present);
        before.close();
        generations.earlier.retain(|one| !one.is_empty());
        if !before.is_empty() {
            generations.earlier.push(before);
        }
        drop(generations);
        let _ = marker.send(());
        true
    }

    pub(super) fn expect(&self) -> Expected {
        self.0.markers.expect()
    }

    /// Ends when every request before the markers that have arrived was applied.
    pub(super) async fn drained(&self) {
        let earlier = self.0.generations.lock().earlier.clone();
        for requests in earlier {
            requests.wait().await;
        }
    }
}

impl Default for InFlight {
    fn default() -> Self {
        Self::new()
    }
}

/// How far the AgentRegistry of a project has applied what arrives. Survives the actor. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Arrivals(Arc<Heard>);

#[derive(Debug)]
struct Heard {
    markers: Markers,
    bucket: watch::Sender<u64>,
}

/// A marker that came through the subscription of heartbeats, on its way through the mailbox.
#[derive(Debug)]
pub struct Marker(oneshot::Sender<()>);

impl Marker {
    /// Everything before it has been applied.
    pub fn arrived(self) {
        let _ = self.0.send(());
    }
}

impl Arrivals {
    /// Nothing has been applied yet.
    pub fn new(project: &ProjectId) -> Self {
        let subject = names::all_heartbeats(project);
        Self(Arc::new(Heard {
            markers: Markers::under(subject.trim_end_matches('*')),
            bucket: watch::Sender::new(0),
        }))
    }

    /// A message has arrived in the order of all heartbeats: the marker, if it is one.
    pub fn heard(&self, subject: &str) -> Option<Marker> {
        self.0.markers.take(subject).map(Marker)
    }

    /// The watch of the bucket is told everything anew: nothing is known to be applied.
    pub fn bucket_reopened(&self) {
        self.0.bucket.send_replace(0);
    }

    /// Everything in the bucket up to this sequence has been applied.
    pub fn bucket_applied(&self, sequence: u64) {
        self.0.bucket.send_if_modified(|up_to| {
            let grows = sequence > *up_to;
            *up_to = sequence.max(*up_to);
            grows
        });
    }

    pub(super) fn expect(&self) -> Expected {
        self.0.markers.expect()
    }

    pub(super) async fn bucket_reaches(&self, sequence: u64) {
        let mut applied = self.0.bucket.subscribe();
        if applied.wait_for(|up_to| *up_to >= sequence).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn a_marker_waits_for_the_requests_before_it_and_not_for_those_after_it() {
        let doors = InFlight::new();
        let before = doors.enter("coord.p.work.progress");
        let expected = doors.expect();
        let subject = expected.subject().to_owned();
        assert!(doors.heard(&subject));
        expected.arrived().await;
        let _after = doors.enter("coord.p.work.progress");
        assert!(doors.drained().now_or_never().is_none());
        drop(before);
        doors.drained().await;
    }

    #[tokio::test]
    async fn a_second_marker_waits_for_what_the_first_one_left_behind() {
        let doors = InFlight::new();
        let slow = doors.enter("coord.p.work.progress");
        for _ in 0..2 {
            let expected = doors.expect();
            assert!(doors.heard(expected.subject()));
            assert!(doors.drained().now_or_never().is_none());
        }
        drop(slow);
        doors.drained().await;
    }

    #[tokio::test]
    async fn nobody_waits_for_a_request_that_is_no_sign_of_life() {
        let doors = InFlight::new();
        let _slow = ["work.submit", "work.list", "agents.get"]
            .map(|action| doors.enter(&format!("coord.p.{action}")));
        let expected = doors.expect();
        assert!(doors.heard(expected.subject()));
        doors.drained().await;
        let _heartbeat = doors.enter("coord.p.agents.heartbeat");
        let expected = doors.expect();
        assert!(doors.heard(expected.subject()));
        assert!(doors.drained().now_or_never().is_none());
    }

    #[test]
    fn a_marker_of_somebody_else_is_no_marker() {
        let (doors, others) = (InFlight::new(), InFlight::new());
        let expected = others.expect();
        assert!(!doors.heard(expected.subject()));
        assert!(!doors.heard("coord.default.work.claim"));
        let subject = expected.subject().to_owned();
        drop(expected);
        assert!(!others.heard(&subject), "nobody waits for it any more");
    }

    #[tokio::test]
    async fn the_bucket_is_reached_when_as_much_was_applied() {
        let arrivals = Arrivals::new(&ProjectId::new("p").unwrap());
        arrivals.bucket_applied(4);
        assert!(arrivals.bucket_reaches(5).now_or_never().is_none());
        arrivals.bucket_applied(3);
        arrivals.bucket_reaches(4).await;
        arrivals.bucket_reopened();
        assert!(arrivals.bucket_reaches(1).now_or_never().is_none());
        let waiting = tokio::spawn({
            let arrivals = arrivals.clone();
            async move { arrivals.bucket_reaches(5).await }
        });
        tokio::task::yield_now().await;
        arrivals.bucket_applied(7);
        waiting.await.unwrap();
    }
}
