//! Was it silence, or could we not hear? Answered before anybody is declared dead or late.
//! Owns nothing and writes nothing; its markers are messages that nobody else looks at.
//!
//! A pass begins after somebody's deadline has passed. It comes back as [`BarrierOutcome::Passed`] when
//! everything that was delivered to NATS before it began has been applied here:
//!
//! | what | how the pass knows |
//! |---|---|
//! | requests | a marker through the door's own subscription, then every request of the project taken in before it ([`InFlight`]) |
//! | published heartbeats | a marker through the registry's subscription, and through its mailbox ([`AppliedPositions`]) |
//! | puts into the agents bucket | the watch has come as far as the bucket was when the pass began |
//! | puts into the bucket of all projects | its reader has come as far, and has handed over what concerns the project ([`SharedReader`]) |
//! | published reports | our consumer has acknowledged what was in the stream when the pass began |
//!
//! # States
//! | of the barrier | means | left by |
//! |---|---|---|
//! | at rest | nobody asks | [`DeliveryBarrier::pass`] |
//! | crossing | one pass is under way; who asks now shares the *next* one, which begins after they asked | all parts applied: passed · anything else, or 1 s: stalled |
//! | stalled | we cannot hear; it is tried again in the background | the first pass whose parts are all applied: it still counts as stalled, and from then on everybody has a full [`StallGuard`] |
//!
//! A stall is ours, not anybody's silence: nobody's time runs before it is over.
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | NATS is away, stopped or slow; a marker is lost | stalled after 1 s |
//! | this process stood still in the middle | stalled, even if everything has arrived when it goes on |
//! | an actor or the door is down, or still loads | its part does not arrive: stalled |
//! | the door has turned requests of the project away a moment ago, because there were too many | stalled: somebody's sign of life may have been among them |
//! | reports wait that cannot be written just now | not acknowledged: stalled |
//! | a bucket of agents does not exist | nobody can have put anything: its part is passed |
//! | a bucket of agents was made anew a moment ago | its part is passed when the new one has been read |
//! | a consumer of somebody else holds the published reports | they are not ours to apply: their part is passed |
//! | a pile of reports after a start | stalled until it is worked off: nobody expires before |
//! | a marker of somebody else's | no one waits for it: ignored |
//! | whoever asked gives up | the next one begins a pass of its own |
//!
//! What is *not* covered: NATS servers of a cluster may deliver in different orders; a message that
//! one of them holds back for more than the agents' patience counts as silence.

mod applied_positions;
mod in_flight;
mod loopback_markers;
mod stall_guard;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::jetstream;
use futures_util::future::BoxFuture;
use loom_protocol::{ProjectId, WireError, names};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use crate::nats::connection::Nats;
use crate::nats::kv::identity;
use crate::nats::overlap::is_not_found;

pub use applied_positions::{AppliedPositions, Marker, Position};
pub use in_flight::{InFlight, InFlightGuard};
pub use stall_guard::{MAX_TIMER_LAG, StallGuard};

/// A pass that takes longer is our stall.
const WITHIN: Duration = Duration::from_secs(1);
/// How long a request that was turned away may be missed: its sender tries again much sooner.
const REFUSAL_COUNTS: Duration = Duration::from_secs(5);
/// The pause before a stalled barrier is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(250);
/// The pause before the consumer of reports is looked at again; doubles up to the longest.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(100);

/// What a pass comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarrierOutcome {
    /// Everything delivered before it began has been applied: who is silent now was silent.
    Passed,
    /// We could not hear for a while: nobody was silent, as far as we know.
    Stalled,
}

/// The barrier of one project. Cheap to clone.
#[derive(Clone)]
pub struct DeliveryBarrier(Arc<Inner>);

/// Who reads a bucket for all projects, and how far what it has read is applied by each.
pub trait SharedReader: Send + Sync {
    /// Whether the bucket is read at all.
    fn is_read(&self) -> bool;

    /// Ends when everything in that bucket up to this sequence that concerns a project has been applied by it.
    fn reaches<'a>(
        &'a self,
        project: &'a ProjectId,
        bucket: i128,
        sequence: u64,
    ) -> BoxFuture<'a, ()>;
}

/// What the barrier of a project looks at.
pub struct BarrierParts {
    /// The connection.
    pub nats: Nats,
    /// The project.
    pub project: ProjectId,
    /// The consumer of reports: what it has acknowledged is in the ledger.
    pub reports_consumer: String,
    /// The requests that the API has taken.
    pub in_flight: InFlight,
    /// What the AgentRegistry has applied.
    pub arrivals: AppliedPositions,
    /// What is read of the bucket of all projects.
    pub shared_agents: Arc<dyn SharedReader>,
    /// What a stall gives to all of the project.
    pub grace: StallGuard,
}

struct Inner {
    parts: BarrierParts,
    begun: AtomicU64,
    /// Whether published reports are left to a consumer of somebody else.
    reports_left: AtomicBool,
    last: Mutex<Ended>,
}

/// A pass that has ended.
#[derive(Clone, Copy)]
struct Ended {
    number: u64,
    crossing: BarrierOutcome,
    begins_a_stall: bool,
    /// Whether a stall goes on, as far as we know.
    stalled: bool,
}

impl DeliveryBarrier {
    /// A barrier at rest.
    pub fn new(parts: BarrierParts) -> Self {
        Self(Arc::new(Inner {
            parts,
            begun: AtomicU64::new(0),
            reports_left: AtomicBool::new(false),
            last: Mutex::new(Ended {
                number: 0,
                crossing: BarrierOutcome::Stalled,
                begins_a_stall: false,
                stalled: false,
            }),
        }))
    }

    /// Since when the clocks of the project run at the earliest.
    pub fn grace(&self) -> &StallGuard {
        &self.0.parts.grace
    }

    /// Says whether published reports are left to a consumer of somebody else: none are waited for then.
    pub(crate) fn leave_reports(&self, left: bool) {
        self.0.reports_left.store(left, Ordering::SeqCst);
    }

    /// Waits until the registry has what there is of the project in the bucket of all projects.
    ///
    /// # Errors
    /// That is not known within this time.
    pub async fn shared_agents_within(&self, within: Duration) -> Result<(), WireError> {
        let read = tokio::time::timeout(within, self.0.shared_agents()).await;
        let problem = match read {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => format!("not read within {within:?}"),
        };
        let text = format!("the bucket of all agents: {problem}");
        Err(WireError::unavailable(text, TRY_AGAIN))
    }

    /// Waits until the registry has what there was in the buckets of agents when this was called, 1 s at the
    /// most.
    ///
    /// # Errors
    /// It is not known whether it has.
    pub async fn entries_applied(&self) -> Result<(), String> {
        let both = async {
            self.0.bucket().await?;
            self.0.shared_agents().await
        };
        let applied = tokio::time::timeout(WITHIN, both).await;
        applied.unwrap_or_else(|_| Err(format!("not all applied within {WITHIN:?}")))
    }

    /// Waits until everything that was delivered before this call has been applied, 1 s at the
    /// most for each pass; those who ask meanwhile share the next. Safe to drop at any time.
    pub async fn pass(&self) -> BarrierOutcome {
        let ended = self.0.pass().await;
        if ended.begins_a_stall {
            tokio::spawn(Self::recover(Arc::downgrade(&self.0)));
        }
        ended.crossing
    }

    /// Finds out when a stall is over, for as long as the project is there.
    async fn recover(stalled: Weak<Inner>) {
        loop {
            sleep(TRY_AGAIN).await;
            let Some(inner) = stalled.upgrade() else {
                return;
            };
            if !inner.pass().await.stalled {
                return;
            }
        }
    }
}

impl Inner {
    async fn pass(&self) -> Ended {
        let asked_at = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if last.number > asked_at {
            return Ended {
                begins_a_stall: false,
                ..*last
            };
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let outcome = self.cross().await;
        let (grace, project) = (&self.parts.grace, &self.parts.project);
        match &outcome {
            Ok(()) if !last.stalled => {}
            Ok(()) => grace.reset_all(&format!("project {project} can hear again")),
            Err(_) if last.stalled => grace.extend(),
            Err(why) => grace.reset_all(&format!("project {project}: {why}")),
        }
        *last = Ended {
            number,
            crossing: match &outcome {
                Ok(()) if !last.stalled => BarrierOutcome::Passed,
                _ => BarrierOutcome::Stalled,
            },
            begins_a_stall: outcome.is_err() && !last.stalled,
            stalled: outcome.is_err(),
        };
        *last
    }

    async fn cross(&self) -> Result<(), String> {
        let (begun, until) = (Instant::now(), Instant::now() + WITHIN);
        let outcomes = tokio::join!(
            timeout_at(until, self.requests()),
            timeout_at(until, self.heartbeats()),
            timeout_at(until, self.bucket()),
            timeout_at(until, self.shared_agents()),
            timeout_at(until, self.reports()),
        );
        let failed = [
            ("requests", outcomes.0),
            ("heartbeats", outcomes.1),
            ("the agents bucket", outcomes.2),
            ("the bucket of all agents", outcomes.3),
            ("published reports", outcomes.4),
        ]
        .into_iter()
        .find_map(|(part, outcome)| match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{part}: {error}")),
            Err(_) => Some(format!("{part}: not all applied within {WITHIN:?}")),
        });
        let took = begun.elapsed();
        match failed {
            Some(why) => Err(why),
            None if took > WITHIN => Err(format!("a round trip took {took:?}")),
            None => Ok(()),
        }
    }

    /// Ends when every request that was delivered before has been applied.
    async fn requests(&self) -> Result<(), String> {
        let expected = self.parts.in_flight.expect();
        self.publish(expected.subject().to_owned()).await?;
        let before = expected.arrived().await;
        let (in_flight, project) = (&self.parts.in_flight, &self.parts.project);
        in_flight.drained(project, before).await;
        if in_flight.has_refused(project, REFUSAL_COUNTS) {
            return Err("some were refused, because there were too many".into());
        }
        Ok(())
    }

    /// Ends when every heartbeat that was published before has been applied.
    async fn heartbeats(&self) -> Result<(), String> {
        let expected = self.parts.arrivals.expect();
        self.publish(expected.subject().to_owned()).await?;
        expected.arrived().await;
        Ok(())
    }

    async fn publish(&self, subject: String) -> Result<(), String> {
        let published = self.parts.nats.client.publish(subject, "".into()).await;
        published.map_err(|error| error.to_string())
    }

    /// Ends when the registry's watch has come as far as the bucket is now.
    async fn bucket(&self) -> Result<(), String> {
        let bucket = names::agents_bucket(&self.parts.project);
        if let Some((made, now)) = self.bucket_now(&bucket).await? {
            self.parts.arrivals.bucket_reaches(made, now).await;
        }
        Ok(())
    }

    /// Ends when the reader of all agents has come as far as their bucket is now, and the registry
    /// has what concerns it.
    async fn shared_agents(&self) -> Result<(), String> {
        let (shared, project) = (&self.parts.shared_agents, &self.parts.project);
        if shared.is_read()
            && let Some((made, now)) = self.bucket_now(names::SHARED_AGENTS_BUCKET).await?
        {
            shared.reaches(project, made, now).await;
        }
        Ok(())
    }

    /// Which bucket it is, and how far it is; `None` where there is none.
    async fn bucket_now(&self, bucket: &str) -> Result<Option<(i128, u64)>, String> {
        let jetstream = &self.parts.nats.jetstream;
        match jetstream.get_stream(format!("KV_{bucket}")).await {
            Ok(stream) => {
                let info = stream.cached_info();
                Ok(Some((identity(info), info.state.last_sequence)))
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Ends when the reports that are in the stream now have been acknowledged.
    async fn reports(&self) -> Result<(), String> {
        if self.reports_left.load(Ordering::SeqCst) {
            return Ok(());
        }
        let name = names::work_stream(&self.parts.project);
        let (stream, now) = self.last_sequence(&name).await?;
        let consumer = &self.parts.reports_consumer;
        let mut pause = LOOK_FIRST;
        loop {
            let info = stream.consumer_info(consumer).await;
            let info = info.map_err(|error| error.to_string())?;
            let nothing_left = info.num_pending == 0 && info.num_ack_pending == 0;
            if nothing_left || info.ack_floor.stream_sequence >= now {
                return Ok(());
            }
            sleep(pause).await;
            pause = LOOK_MAX.min(pause * 2);
        }
    }

    async fn last_sequence(
        &self,
        stream: &str,
    ) -> Result<(jetstream::stream::Stream, u64), String> {
        let jetstream = &self.parts.nats.jetstream;
        let stream = jetstream.get_stream(stream).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let last = stream.cached_info().state.last_sequence;
        Ok((stream, last))
    }
}
