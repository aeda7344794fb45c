//! The durable consumers of published work and reports: one of each kind and ownership.
//!
//! The stream may be a client's, and so may other consumers on it. Neither is ever changed or removed. What that means
//! for our consumer follows from how long the stream keeps its messages:
//!
//! | retention | a consumer of somebody else gets some of the subjects | ours begins |
//! |---|---|---|
//! | work queue | ours is not made (the server would refuse it) | with what is there: the rest is acknowledged |
//! | limits | ours is not made, or stands still: both would get everything | after what the former one of ours had acknowledged |
//! | interest | ours is not made; where there is one already, both get everything | as with limits |
//!
//! On a work queue the former consumer goes before the new one is made; a death in between loses nothing, since what is
//! acknowledged is gone. Elsewhere it goes afterwards: it is what knows how far we came.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{RetentionPolicy, Stream};
use futures_util::TryStreamExt as _;
use loom_protocol::{ProjectId, names};

use super::super::args::WorkDispatcherArgs;
use super::super::stream::{QUEUE, REPORTS, consumer_prefix, ensure_stream, keep_stream};
use super::standing::{Foreign, Standing};
use crate::domain::foreign::{ConsumerSight, Keeps, begins_at, holder, overlapping};
use crate::domain::subjects::takes_of;
use crate::nats::connection::Nats;
use crate::nats::listing::{Lookout, StreamIdentity};
use crate::nats::store_guard::StoreGuard;

const ACK_WAIT: Duration = Duration::from_secs(30);
const MAX_ACK_PENDING: i64 = 1_024;
/// How often it is looked at whether the stream keeps what is published.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// The consumers of one ownership in a project's stream.
#[derive(Clone)]
pub(super) struct Consumers {
    project: ProjectId,
    nats: Nats,
    replicas: usize,
    epoch: u64,
    store: StoreGuard,
}

/// What a look at the stream comes to.
pub(super) enum Access {
    /// It is ours to take.
    Ours {
        consumer: Box<PullConsumer>,
        /// Whether somebody else may get the same messages through a consumer that is made later.
        shared: bool,
    },
    /// Somebody else takes it.
    LeftTo(Foreign),
}

/// A look at the stream.
struct Look {
    stream: Stream,
    keeps: Keeps,
    /// Of this kind of ours, with their epochs.
    ours: Vec<(u64, consumer::Info)>,
    all: Vec<ConsumerSight>,
}

impl Consumers {
    pub fn new(args: &WorkDispatcherArgs) -> Self {
        Self {
            project: args.read.project().clone(),
            nats: args.nats.clone(),
            replicas: args.replicas,
            epoch: args.epoch,
            store: args.read.guard().clone(),
        }
    }

    /// Sets the stream back to what keeps what is published, for as long as this is polled.
    pub async fn keep_stream(self) {
        let stream = names::work_stream(&self.project);
        let lookout = Lookout::over(&stream, self.store.listing());
        loop {
            // What is rarely done is kept apart, for the memory of the task.
            match Box::pin(self.look_at_stream()).await {
                Ok(Some(looked)) => lookout.note(Some(looked)),
                // One that is gone is made by the next look.
                Ok(None) => lookout.forget(),
                Err(error) => {
                    lookout.forget();
                    tracing::debug!(project = %self.project, "{error}");
                }
            }
            lookout.until_due(KEEP_EVERY).await;
        }
    }

    async fn look_at_stream(&self) -> Result<Option<StreamIdentity>, async_nats::Error> {
        self.store.settled().await?;
        let jetstream = &self.nats.jetstream;
        let stream = ensure_stream(jetstream, &self.project, self.replicas).await?;
        let (project, replicas) = (&self.project, self.replicas);
        let kept = keep_stream(jetstream, &stream, project, replicas, &self.store).await?;
        Ok(kept)
    }

    /// Our consumer of this epoch, unless somebody else takes what it would; those of former owners would overlap and
    /// are removed. One of a later owner stays: it is this one that owns no more.
    pub async fn own(
        &self,
        kind: &str,
        filters: &[String],
        standing: &mut Standing,
    ) -> Result<Access, async_nats::Error> {
        self.store.settled().await?;
        let look = self.look(kind, filters, standing).await?;
        if let Some((later, _)) = look.ours.iter().find(|(epoch, _)| *epoch > self.epoch) {
            let text = format!("another coordinator has taken over, under epoch {later}");
            return Err(text.into());
        }
        if let Some(held) = self.held(&look, filters) {
            return Ok(Access::LeftTo(held));
        }
        let stream = &look.stream;
        let shared = look.keeps != Keeps::UntilAcknowledged;
        let former = look.ours.iter().filter(|(epoch, _)| *epoch < self.epoch);
        let floors = former.clone().map(|(_, it)| it.ack_floor.stream_sequence);
        let deliver_policy = match begins_at(floors) {
            _ if !shared => DeliverPolicy::All,
            1 => DeliverPolicy::All,
            start_sequence => DeliverPolicy::ByStartSequence { start_sequence },
        };
        if !shared {
            for (_, former) in former.clone() {
                stream.delete_consumer(&former.name).await?;
            }
        }
        let name = format!("{}{}", consumer_prefix(kind), self.epoch);
        let config = pull::Config {
            durable_name: Some(name.clone()),
            deliver_policy,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: MAX_ACK_PENDING,
            filter_subjects: filters.to_vec(),
            ..Default::default()
        };
        let consumer = Box::new(stream.get_or_create_consumer(&name, config).await?);
        if shared {
            for (_, former) in former {
                stream.delete_consumer(&former.name).await?;
            }
            let beside = overlapping(&look.all, filters).next();
            standing.say_beside(beside.map(|other| self.foreign(other)));
        }
        Ok(Access::Ours { consumer, shared })
    }

    /// Whether a consumer of somebody else has come that takes what ours does.
    pub async fn given_way(
        &self,
        kind: &str,
        filters: &[String],
        standing: &mut Standing,
    ) -> Result<Option<Foreign>, async_nats::Error> {
        let look = self.look(kind, filters, standing).await?;
        Ok(self.held(&look, filters))
    }

    async fn look(
        &self,
        kind: &str,
        filters: &[String],
        standing: &mut Standing,
    ) -> Result<Look, async_nats::Error> {
        let stream = ensure_stream(&self.nats.jetstream, &self.project, self.replicas).await?;
        // The names first: what is made in between stands among the others.
        let known: Vec<String> = stream.consumer_names().try_collect().await?;
        // In a cluster one that has no leader just now is missing here, and how far it came with it.
        let infos: Vec<consumer::Info> = stream.consumers().try_collect().await?;
        let told: HashSet<&str> = infos.iter().map(|it| it.name.as_str()).collect();
        // Those of our other kind come and go beside us, and get nothing that this kind does.
        let matters = |name: &&String| {
            [QUEUE, REPORTS]
                .iter()
                .all(|other| *other == kind || epoch_of(&consumer_prefix(other), name).is_none())
        };
        let mut relevant = known.iter().filter(matters);
        if let Some(silent) = relevant.find(|it| !told.contains(it.as_str())) {
            let text = format!("nothing is known of consumer {silent} just now");
            return Err(text.into());
        }
        let info = stream.cached_info();
        let keeps = match info.config.retention {
            RetentionPolicy::WorkQueue => Keeps::UntilAcknowledged,
            RetentionPolicy::Interest => Keeps::UntilAllAcknowledged,
            RetentionPolicy::Limits => Keeps::UpToLimits,
        };
        let prefix = consumer_prefix(kind);
        let all: Vec<_> = infos.iter().map(|it| sight(it, &prefix)).collect();
        let from_elsewhere = info.mirror.is_some() || !info.sources.is_empty();
        let is_stored = |ours: &&String| {
            from_elsewhere || takes_of(&info.config.subjects, std::slice::from_ref(*ours))
        };
        let missing: Vec<_> = filters.iter().filter(|ours| !is_stored(ours)).collect();
        standing.looked(
            &info.config.name,
            info.created.unix_timestamp_nanos(),
            &missing,
        );
        standing.tries.begins_with(info.state.first_sequence);
        if keeps != Keeps::UntilAcknowledged {
            standing.dealt.note(overlapping(&all, filters));
        }
        let epoch = |it: consumer::Info| Some((epoch_of(&prefix, &it.name)?, it));
        let ours = infos.into_iter().filter_map(epoch).collect();
        Ok(Look {
            stream,
            keeps,
            ours,
            all,
        })
    }

    fn held(&self, look: &Look, filters: &[String]) -> Option<Foreign> {
        let holder = holder(&look.all, filters, look.keeps)?;
        Some(self.foreign(holder))
    }

    fn foreign(&self, consumer: &ConsumerSight) -> Foreign {
        Foreign {
            stream: names::work_stream(&self.project),
            consumer: consumer.name.clone(),
            filters: consumer.filters.clone(),
        }
    }
}

fn sight(info: &consumer::Info, prefix: &str) -> ConsumerSight {
    let config = &info.config;
    let mut filters = config.filter_subjects.clone();
    if !config.filter_subject.is_empty() {
        filters.push(config.filter_subject.clone());
    }
    let begins_with_all = config.deliver_policy == DeliverPolicy::All;
    ConsumerSight {
        name: info.name.clone(),
        filters,
        ours: epoch_of(prefix, &info.name).is_some(),
        only_watches: config.ack_policy == AckPolicy::None && config.durable_name.is_none(),
        dealt_up_to: begins_with_all.then_some(info.ack_floor.stream_sequence),
    }
}

/// Of which ownership a consumer is; `None`: it is not of this kind.
fn epoch_of(prefix: &str, consumer: &str) -> Option<u64> {
    consumer.strip_prefix(prefix)?.parse().ok()
}
