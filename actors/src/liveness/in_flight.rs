//! Which requests of the API are being applied, and which were turned away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use loom_protocol::ProjectId;
use loom_protocol::verbs::Addressed;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::loopback_markers::{Expected, LoopbackMarkers};

use crate::hashing::HashMap;

/// Of how many projects it is known apart that requests were turned away.
const MOST_REFUSED: usize = 1_024;

/// The requests that a process is applying. One for every API of an ownership. Cheap to clone.
#[derive(Debug, Clone)]
pub struct InFlight(Arc<Requests>);

#[derive(Debug)]
struct Requests {
    markers: LoopbackMarkers<Before>,
    under_way: Mutex<UnderWay>,
    /// Told when the oldest request of a project has been applied.
    oldest_applied: Notify,
    refused: Mutex<Refusals>,
}

/// The requests that were taken in before a marker arrived: those with a smaller number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before(u64);

/// The requests that are being applied, by project: a slow one concerns its own project only.
#[derive(Debug, Default)]
struct UnderWay {
    next: u64,
    of: HashMap<Box<str>, BTreeSet<u64>>,
}

/// When requests of a project were last turned away unread.
#[derive(Debug, Default)]
struct Refusals {
    of: HashMap<Box<str>, Instant>,
    /// Of more projects than are known apart.
    of_many: Option<Instant>,
}

/// A request that is being applied: drop it when it has been, or when all that is left is waiting
/// for work. Empty for a request that nobody's clock depends on.
#[derive(Debug)]
pub struct InFlightGuard(
    #[expect(dead_code, reason = "what counts is that it is held")] Option<BeingApplied>,
);

#[derive(Debug)]
struct BeingApplied {
    requests: Arc<Requests>,
    project: Box<str>,
    number: u64,
}

impl Drop for BeingApplied {
    fn drop(&mut self) {
        let mut under_way = self.requests.under_way.lock();
        let Some(numbers) = under_way.of.get_mut(&self.project) else {
            return;
        };
        let was_oldest = numbers.first() == Some(&self.number);
        numbers.remove(&self.number);
        if numbers.is_empty() {
            under_way.of.remove(&self.project);
        }
        drop(under_way);
        if was_oldest {
            self.requests.oldest_applied.notify_waiters();
        }
    }
}

/// The project of a request that may be an agent's sign of life, or its report about an item: a barrier waits for it.
fn project_of_an_agents(subject: &str) -> Option<&str> {
    let Addressed { project, verb, .. } = Addressed::read(subject)?;
    let holds = verb.row().sender.holds_liveness_check();
    project.filter(|_| holds)
}

impl InFlight {
    /// No requests yet.
    pub fn new() -> Self {
        Self(Arc::new(Requests {
            markers: LoopbackMarkers::under("coord.global.barrier."),
            under_way: Mutex::default(),
            oldest_applied: Notify::new(),
            refused: Mutex::default(),
        }))
    }

    /// A request to this subject begins to be applied. To be called in the order of arrival.
    pub fn enter(&self, subject: &str) -> InFlightGuard {
        InFlightGuard(project_of_an_agents(subject).map(|project| {
            let mut under_way = self.0.under_way.lock();
            let number = under_way.next;
            under_way.next += 1;
            if let Some(numbers) = under_way.of.get_mut(project) {
                numbers.insert(number);
            } else {
                let numbers = BTreeSet::from([number]);
                under_way.of.insert(project.into(), numbers);
            }
            BeingApplied {
                requests: self.0.clone(),
                project: project.into(),
                number,
            }
        }))
    }

    /// A request to this subject was turned away unread, because there were too many: whoever sent
    /// it was not silent.
    pub fn refused(&self, subject: &str) {
        let Some(project) = project_of_an_agents(subject) else {
            return;
        };
        let now = Instant::now();
        let mut refused = self.0.refused.lock();
        if let Some(last) = refused.of.get_mut(project) {
            *last = now;
        } else if refused.of.len() < MOST_REFUSED {
            refused.of.insert(project.into(), now);
        } else {
            refused.of.clear();
            refused.of_many = Some(now);
        }
    }

    /// Whether a request of a project was turned away within that time.
    pub(super) fn has_refused(&self, project: &ProjectId, within: Duration) -> bool {
        let refused = self.0.refused.lock();
        let own = refused.of.get(project.as_str()).copied();
        own.max(refused.of_many)
            .is_some_and(|at| at.elapsed() < within)
    }

    /// A message has arrived in the order of all requests. Whether it was a marker, which is no
    /// request and needs no answer.
    pub fn heard(&self, subject: &str) -> bool {
        let Some(marker) = self.0.markers.take(subject) else {
            return false;
        };
        let _ = marker.send(Before(self.0.under_way.lock().next));
        true
    }

    pub(super) fn expect(&self) -> Expected<Before> {
        self.0.markers.expect()
    }

    /// Ends when every request of a project before a marker was applied.
    pub(super) async fn drained(&self, project: &ProjectId, before: Before) {
        loop {
            let news = self.0.oldest_applied.notified();
            let oldest = {
                let under_way = self.0.under_way.lock();
                let numbers = under_way.of.get(project.as_str());
                numbers.and_then(|numbers| numbers.first().copied())
            };
            if oldest.is_none_or(|oldest| oldest >= before.0) {
                return;
            }
            news.await;
        }
    }
}

impl Default for InFlight {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use loom_protocol::verbs::{Sender, VERBS, Verb};

    fn project(id: &str) -> ProjectId {
        ProjectId::new(id).unwrap()
    }

    /// A marker that has arrived.
    async fn marked(requests: &InFlight) -> Before {
        let expected = requests.expect();
        assert!(requests.heard(expected.subject()));
        expected.arrived().await
    }

    #[tokio::test]
    async fn a_marker_waits_for_the_requests_before_it_and_not_for_those_after_it() {
        let (requests, p) = (InFlight::new(), project("p"));
        let before =
            ["claim", "progress", "fail"].map(|a| requests.enter(&format!("coord.p.work.{a}")));
        let marker = marked(&requests).await;
        let _after = requests.enter("coord.p.work.progress");
        let mut drained = Box::pin(requests.drained(&p, marker));
        for ticket in before {
            assert!(drained.as_mut().now_or_never().is_none());
            drop(ticket);
        }
        drained.await;
    }

    #[tokio::test]
    async fn a_second_marker_waits_for_what_the_first_one_left_behind() {
        let (requests, p) = (InFlight::new(), project("p"));
        let slow = requests.enter("coord.p.work.progress");
        for _ in 0..2 {
            let marker = marked(&requests).await;
            assert!(requests.drained(&p, marker).now_or_never().is_none());
        }
        let marker = marked(&requests).await;
        drop(slow);
        requests.drained(&p, marker).await;
        assert!(requests.0.under_way.lock().of.is_empty());
    }

    #[tokio::test]
    async fn a_slow_request_of_one_project_holds_up_no_other() {
        let requests = InFlight::new();
        let _slow = requests.enter("coord.slow.agents.register");
        let marker = marked(&requests).await;
        assert!(
            requests
                .drained(&project("slow"), marker)
                .now_or_never()
                .is_none()
        );
        requests.drained(&project("other"), marker).await;
    }

    #[test]
    fn a_request_that_was_turned_away_was_a_sign_of_life_in_its_project() {
        let requests = InFlight::new();
        let minute = Duration::from_mins(1);
        requests.refused("coord.p.work.submit");
        assert!(!requests.has_refused(&project("p"), minute), "of no agent");
        requests.refused("coord.p.agents.heartbeat");
        assert!(requests.has_refused(&project("p"), minute));
        assert!(!requests.has_refused(&project("other"), minute));
        for n in 0..=MOST_REFUSED {
            requests.refused(&format!("coord.made-up-{n}.work.claim"));
        }
        assert!(
            requests.has_refused(&project("p"), minute),
            "never forgotten"
        );
        assert!(requests.0.refused.lock().of.len() <= MOST_REFUSED);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_request_that_is_no_sign_of_life() {
        let (requests, p) = (InFlight::new(), project("p"));
        let of_nobody = |row: &&Verb| row.sender == Sender::Nobody;
        let names = VERBS.iter().filter(of_nobody).map(|row| row.name);
        let _slow: Vec<InFlightGuard> = names
            .chain(["of.later"])
            .map(|action| requests.enter(&format!("coord.p.{action}")))
            .collect();
        let marker = marked(&requests).await;
        requests.drained(&p, marker).await;
        let _heartbeat = requests.enter("coord.p.agents.heartbeat");
        let marker = marked(&requests).await;
        assert!(requests.drained(&p, marker).now_or_never().is_none());
    }

    #[test]
    fn a_marker_of_somebody_else_is_no_marker() {
        let (requests, others) = (InFlight::new(), InFlight::new());
        let expected = others.expect();
        assert!(!requests.heard(expected.subject()));
        assert!(!requests.heard("coord.default.work.claim"));
        let subject = expected.subject().to_owned();
        drop(expected);
        assert!(!others.heard(&subject), "nobody waits for it any more");
    }
}
