//! How far the registry has applied what arrives: heartbeats, and the agents bucket.

use std::future::pending;
use std::sync::Arc;

use loom_protocol::{ProjectId, names};
use tokio::sync::{oneshot, watch};

use super::loopback_markers::{Expected, LoopbackMarkers};

/// How far the AgentRegistry of a project has applied what arrives. Survives the actor. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AppliedPositions(Arc<Heard>);

#[derive(Debug)]
struct Heard {
    markers: LoopbackMarkers<()>,
    bucket: watch::Sender<Position>,
}

/// How far a bucket has been applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Which bucket, by the time of its making; one that is made anew counts from 1 again.
    pub bucket: Option<i128>,
    /// Everything up to this sequence.
    pub up_to: u64,
}

impl Position {
    /// Whether that bucket has been applied so far.
    pub fn reaches(&self, bucket: i128, sequence: u64) -> bool {
        self.bucket == Some(bucket) && self.up_to >= sequence
    }
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

impl AppliedPositions {
    /// Nothing has been applied yet.
    pub fn new(project: &ProjectId) -> Self {
        let subject = names::all_heartbeats(project);
        Self(Arc::new(Heard {
            markers: LoopbackMarkers::under(subject.trim_end_matches('*')),
            bucket: watch::Sender::default(),
        }))
    }

    /// A message has arrived in the order of all heartbeats: the marker, if it is one.
    pub fn heard(&self, subject: &str) -> Option<Marker> {
        self.0.markers.take(subject).map(Marker)
    }

    /// The watch is told everything anew, of this bucket, if there is one: nothing is known to be
    /// applied.
    pub fn bucket_reopened(&self, bucket: Option<i128>) {
        self.0.bucket.send_replace(Position { bucket, up_to: 0 });
    }

    /// Everything in the bucket up to this sequence has been applied.
    pub fn bucket_applied(&self, sequence: u64) {
        self.0.bucket.send_if_modified(|applied| {
            let grows = sequence > applied.up_to;
            applied.up_to = sequence.max(applied.up_to);
            grows
        });
    }

    pub(super) fn expect(&self) -> Expected<()> {
        self.0.markers.expect()
    }

    pub(super) async fn bucket_reaches(&self, bucket: i128, sequence: u64) {
        let mut applied = self.0.bucket.subscribe();
        let reached = applied.wait_for(|applied| applied.reaches(bucket, sequence));
        if reached.await.is_err() {
            pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn the_bucket_is_reached_when_as_much_was_applied() {
        let arrivals = AppliedPositions::new(&ProjectId::new("p").unwrap());
        arrivals.bucket_reopened(Some(1));
        arrivals.bucket_applied(4);
        assert!(arrivals.bucket_reaches(1, 5).now_or_never().is_none());
        arrivals.bucket_applied(3);
        arrivals.bucket_reaches(1, 4).await;
        // Another bucket of the same name has been given as many puts, and none was heard of.
        assert!(arrivals.bucket_reaches(2, 4).now_or_never().is_none());
        arrivals.bucket_reopened(Some(1));
        assert!(arrivals.bucket_reaches(1, 1).now_or_never().is_none());
        let waiting = tokio::spawn({
            let arrivals = arrivals.clone();
            async move { arrivals.bucket_reaches(1, 5).await }
        });
        tokio::task::yield_now().await;
        arrivals.bucket_applied(7);
        waiting.await.unwrap();
    }
}
