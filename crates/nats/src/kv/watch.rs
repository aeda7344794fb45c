//! A watch that does not end: it survives errors, reconnects, and the loss of the whole bucket.
//!
//! It makes no bucket. Where there is none it says so once, and looks again when the server tells
//! that one was made, and every [`LOOK_AGAIN`].

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::DeliverPolicy;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::{Bucket, Record, identity, record};
use crate::error::StoreError;
use crate::inbox::SharedInbox;
use crate::inspection::{Looked, look_at};
use crate::listing::{Lookout, Sight, StreamListing};
use crate::ordered::{Ordered, Told};
use crate::pull::Interruption;

/// How many records come at once at the most.
const CHUNK: usize = 256;
/// After how much quiet the watch looks after itself: while it is not known that all is well, and while it is.
const QUIET: Duration = Duration::from_secs(1);
const QUIET_AND_WELL: Duration = Duration::from_secs(10);
/// The pause after a failed opening; doubles up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How often a missing bucket is looked for, in case the server's word got lost.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How often a quiet bucket is looked after: was it destroyed, or made anew? That of all projects
/// is one, and is looked after more often.
const LOOK_AFTER: Duration = Duration::from_secs(30);
const LOOK_AFTER_FOREIGN: Duration = Duration::from_secs(5);
/// The server tells of every stream that is made.
const STREAM_CREATED: &str = "$JS.EVENT.ADVISORY.STREAM.CREATED";

/// What a watch tells.
#[derive(Debug)]
pub enum WatchEvent {
    /// There is no such bucket; told once, until there is one.
    Missing,
    /// All keys will be told from here on, whether told before or not.
    Opened {
        /// When the bucket was made: its identity.
        bucket: i128,
        /// It is another bucket than before: the former one was lost with all that was in it.
        anew: bool,
        /// After how long what is in it goes by itself; `None`: never.
        keeps_for: Option<Duration>,
    },
    /// Some records, in the order of their revisions since the last [`WatchEvent::Opened`].
    Records(Vec<Record>),
    /// All that was there at [`WatchEvent::Opened`] has been told.
    Current {
        /// How far the bucket was then.
        up_to: u64,
    },
}

/// A watch of all keys. Errors are not its end: it opens again, with pauses.
pub struct Watch {
    bucket: Bucket,
    /// Whether it is somebody else's, with whatever configuration.
    foreign: bool,
    messages: Option<Box<Ordered>>,
    /// Through what they come.
    inbox: SharedInbox,
    /// When the bucket was created: its identity.
    created: Option<i128>,
    /// How often the client had connected when the bucket was last looked at.
    connects: u64,
    phase: Phase,
    /// The last sequence of the bucket when it was opened.
    up_to: u64,
    /// After how long what is in the bucket goes by itself, as it was then; zero: never.
    max_age: Duration,
    pause: Duration,
    missing: Option<Missing>,
    /// When it was last seen that the bucket is the one that is watched.
    seen_at: Instant,
    lookout: Lookout,
    /// Changes when the client has connected anew; none where that is asked for.
    reconnects: Option<watch::Receiver<u64>>,
    /// How far everything was told.
    told_to: u64,
    /// How far that was, and how many lists there had been, when the list of all streams was first seen to be further.
    behind_at: Option<(u64, u64)>,
}

/// The bucket was not there when it was looked for.
struct Missing {
    /// Tells when it is made; none where that cannot be heard.
    made: Option<Subscriber>,
    looks: u64,
    /// When it is looked for again; over as soon as the server has told of it. Whoever asks for the next event may give
    /// up at any moment: what is due stays due until the look has ended.
    next_look: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// What was there at the opening is being told.
    Catching,
    /// It has been told, and that has to be told.
    Caught,
    /// As above, and it was.
    Current,
}

impl Watch {
    pub(super) fn new(bucket: Bucket, foreign: bool) -> Self {
        let lookout = if foreign {
            Lookout::over(&bucket.config.name, None)
        } else {
            bucket.lookout()
        };
        let inbox = bucket.inbox.clone();
        let inbox = inbox.unwrap_or_else(|| SharedInbox::new(bucket.client(), None));
        let listing = bucket.guard.listing().filter(|_| !foreign);
        Self {
            lookout,
            reconnects: listing.map(StreamListing::reconnects),
            inbox,
            told_to: 0,
            behind_at: None,
            bucket,
            foreign,
            missing: None,
            seen_at: Instant::now(),
            messages: None,
            created: None,
            connects: 0,
            phase: Phase::Catching,
            up_to: 0,
            max_age: Duration::ZERO,
            pause: PAUSE_FIRST,
        }
    }

    /// The next event; waits for as long as there is none.
    pub async fn next(&mut self) -> WatchEvent {
        loop {
            if self.phase == Phase::Caught {
                self.phase = Phase::Current;
                return WatchEvent::Current { up_to: self.up_to };
            }
            if self.messages.is_none() {
                // What is rarely done is kept apart: a task is as large as what it may wait for, all the time.
                if let Some(event) = Box::pin(self.try_to_open()).await {
                    return event;
                }
                continue;
            }
            let quiet = self.quiet();
            let Some(messages) = &mut self.messages else {
                continue;
            };
            let next = tokio::select! {
                biased;
                next = timeout(quiet, messages.next(CHUNK)) => next,
                () = next_connection(&mut self.reconnects) => continue,
                () = self.lookout.changed() => {
                    Box::pin(self.look_at_bucket()).await;
                    continue;
                }
            };
            match next {
                Ok(Ok(chunk)) => {
                    let records = self.take(chunk);
                    if !records.is_empty() {
                        return WatchEvent::Records(records);
                    }
                }
                Ok(Err(why)) => Box::pin(self.resume(&why)).await,
                Err(_quiet) => self.look_after().await,
            }
        }
    }

    /// After how much quiet to look.
    fn quiet(&self) -> Duration {
        let is_well = self.phase == Phase::Current && self.connects == self.connects_now();
        if is_well && self.reconnects.is_some() {
            QUIET_AND_WELL
        } else {
            QUIET
        }
    }

    /// One try, after the pause that is due before it.
    async fn try_to_open(&mut self) -> Option<WatchEvent> {
        if let Some(missing) = &mut self.missing
            && missing.looks > 1
            && Instant::now() < missing.next_look
        {
            match &mut missing.made {
                Some(made) => {
                    let told = timeout_at(missing.next_look, made.next()).await;
                    missing.next_look = Instant::now();
                    if told.is_ok_and(|told| told.is_none()) {
                        missing.made = None;
                    }
                }
                None => sleep_until(missing.next_look).await,
            }
        }
        match self.open().await {
            Ok(Some(opened)) => {
                self.missing = None;
                Some(opened)
            }
            Ok(None) => self.not_there().await,
            Err(error) => {
                if self.pause == PAUSE_FIRST {
                    tracing::warn!(%error, "the bucket cannot be watched just now; trying again");
                }
                sleep(self.pause).await;
                self.pause = PAUSE_MAX.min(self.pause * 2);
                None
            }
        }
    }

    /// It is told only after a second look: it may have been made before we listened.
    async fn not_there(&mut self) -> Option<WatchEvent> {
        let Some(missing) = &mut self.missing else {
            let stream = &self.bucket.config.name;
            let client = self.bucket.client();
            let made = client.subscribe(format!("{STREAM_CREATED}.{stream}")).await;
            let made = made.ok();
            self.missing = Some(Missing {
                made,
                looks: 1,
                next_look: Instant::now(),
            });
            return None;
        };
        missing.looks += 1;
        missing.next_look = Instant::now() + LOOK_AGAIN;
        (missing.looks == 2).then_some(WatchEvent::Missing)
    }

    /// Opens the watch; `None` where there is nothing to watch.
    async fn open(&mut self) -> Result<Option<WatchEvent>, StoreError> {
        let connects = self.connects_now();
        let info = if self.foreign {
            self.bucket.info().await?
        } else {
            let looked = self.bucket.adopt().await?;
            self.lookout.note(looked.as_ref().map(|it| it.identity));
            looked.map(|looked| looked.info)
        };
        let Some(info) = info else {
            return Ok(None);
        };
        self.up_to = info.state.last_sequence;
        (self.told_to, self.behind_at) = (self.up_to, None);
        self.max_age = info.config.max_age;
        let (bucket, stream) = (&self.bucket, &self.bucket.config.name);
        bucket
            .server_clock
            .ask(bucket.messages.jetstream(), stream)
            .await?;
        let told = Told {
            stream: stream.clone(),
            resource: bucket.resource.clone(),
            filter: format!("{}>", bucket.prefix),
            from: DeliverPolicy::LastPerSubject,
        };
        let (messages, pending) =
            Ordered::open(bucket.messages.jetstream(), &self.inbox, told).await?;
        // An empty bucket tells nothing, ever: only the number of what is to come says so.
        self.phase = if pending == 0 {
            Phase::Caught
        } else {
            Phase::Catching
        };
        self.messages = Some(Box::new(messages));
        self.connects = connects;
        self.seen_at = Instant::now();
        self.pause = PAUSE_FIRST;
        let created = identity(&info);
        let before = self.created.replace(created);
        Ok(Some(WatchEvent::Opened {
            bucket: created,
            anew: before.is_some_and(|before| before != created),
            keeps_for: keeps_for(&info),
        }))
    }

    /// Goes on behind what was told, or opens anew.
    async fn resume(&mut self, why: &Interruption) {
        tracing::debug!(bucket = self.bucket.name, "the watch is interrupted: {why}");
        let Some(messages) = &mut self.messages else {
            return;
        };
        match messages.resume().await {
            Ok(0) if self.phase == Phase::Catching => self.phase = Phase::Caught,
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(bucket = self.bucket.name, %error, "the watch cannot go on; opening it again");
                self.messages = None;
            }
        }
    }

    fn take(&mut self, chunk: Vec<Message>) -> Vec<Record> {
        let mut records = Vec::with_capacity(chunk.len());
        for message in chunk {
            let (Some(key), Ok(info)) = (
                message.subject.strip_prefix(&self.bucket.prefix),
                message.info(),
            ) else {
                continue;
            };
            let (key, revision, pending) = (key.to_owned(), info.stream_sequence, info.pending);
            self.told_to = self.told_to.max(revision);
            let published = self.bucket.stored_at(info.published.unix_timestamp_nanos());
            if pending == 0 && self.phase == Phase::Catching {
                self.phase = Phase::Caught;
            }
            let headers = message.message.headers.as_ref();
            records.push(record(
                key,
                headers,
                message.message.payload.clone(),
                revision,
                published,
            ));
        }
        records
    }

    /// Nothing came for a while. Entries that were to come may have been removed meanwhile; and
    /// after a reconnect the bucket may be another one.
    async fn look_after(&mut self) {
        let connects = self.connects_now();
        let look_after = if self.foreign {
            LOOK_AFTER_FOREIGN
        } else {
            LOOK_AFTER
        };
        let is_same = self.seen_at.elapsed() < look_after || self.lookout.is_as_noted();
        if self.phase == Phase::Current && connects == self.connects && is_same {
            if self.is_behind() {
                tracing::debug!(
                    bucket = self.bucket.name,
                    "the watch lacks what the bucket has; opening it again"
                );
                self.messages = None;
            }
            return;
        }
        Box::pin(self.look_at_bucket()).await;
    }

    /// Whether the bucket went further than was told, and had by the list before.
    fn is_behind(&mut self) -> bool {
        let Sight::There(listed) = self.lookout.sight() else {
            return false;
        };
        if listed.last <= self.told_to {
            self.behind_at = None;
            return false;
        }
        let seen = (self.told_to, self.lookout.lists());
        let before = *self.behind_at.get_or_insert(seen);
        if before.0 != seen.0 {
            self.behind_at = Some(seen);
        }
        before.0 == seen.0 && before.1 < seen.1
    }

    /// Asks for the bucket by name.
    async fn look_at_bucket(&mut self) {
        let connects = self.connects_now();
        self.seen_at = Instant::now();
        let looked = look_at(self.bucket.messages.jetstream(), &self.bucket.config.name).await;
        let info = looked.as_ref().map(|it| it.as_ref().map(|it| &it.info));
        match info {
            Ok(info) if info.map(identity) != self.created => self.messages = None,
            // Somebody has set it: that is set right, or told.
            Ok(Some(info)) if info.config.max_age != self.max_age => self.messages = None,
            Ok(_) if !self.is_as_opened(looked.as_ref()) => self.messages = None,
            Ok(_) => {
                self.connects = connects;
                if self.phase == Phase::Catching {
                    self.phase = Phase::Caught;
                }
            }
            Err(error) => tracing::debug!(%error, "the watched bucket cannot be looked at"),
        }
    }

    /// Whether a bucket that is kept as it must be is configured as it was when it was opened.
    fn is_as_opened(&self, looked: Result<&Option<Looked>, &StoreError>) -> bool {
        let identity = looked.ok().and_then(Option::as_ref).map(|it| it.identity);
        self.foreign || self.lookout.is_noted(identity)
    }

    fn connects_now(&self) -> u64 {
        let statistics = self.bucket.client().statistics();
        statistics.connects.load(Ordering::Relaxed)
    }
}

/// Ends when the client has connected anew.
async fn next_connection(reconnects: &mut Option<watch::Receiver<u64>>) {
    if let Some(told) = reconnects
        && told.changed().await.is_ok()
    {
        return;
    }
    *reconnects = None;
    std::future::pending::<()>().await;
}

/// After how long what is in a bucket goes by itself.
fn keeps_for(info: &async_nats::jetstream::stream::Info) -> Option<Duration> {
    Some(info.config.max_age).filter(|age| !age.is_zero())
}
