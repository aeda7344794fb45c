//! The list of all streams, asked for once for the whole process: every `LIST_EVERY` while anybody needs it, and as soon
//! as the client has connected anew.
//!
//! Whoever has to know that its stream is there, the same, and configured as it must be, *follows* it here. It notes what the
//! stream was when it was asked for by name, and is told after each list in which the stream is not that, and when the server
//! tells that it was changed or removed; it asks by name again, and judges by that answer alone. A list never says that anything is lost: it says where nobody has to ask.
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | the list is not answered, refused, or broken off between two pages | it counts for nothing; the one before counts until after the next one should have ended, then everybody asks by name at its own times |
//! | a stream moves between two pages while one is made or removed, or was made after its page | it is not in the list: whoever knows it asks by name |
//! | a stream of a cluster has no leader (`missing` in the answer) | nothing is said of it: asked by name, as without a list |
//! | the client has connected anew | what was listed before counts for nothing, and a list is made at once |
//! | streams of somebody else | passed over: only those are kept that are followed |
//! | tens of thousands of streams | a page of 256 each time; the next list begins no sooner than `SHARE` times as long after this one as this one took |
//! | there are more than `WORTH` times as many streams as are followed (most projects sleep) | a list would cost more than it saves: each is asked for by name, and `WORTH_AGAIN` later it is seen whether that is so still |
//! | nobody follows any stream | nothing is listed |

mod advisory;
mod lookout;
mod page;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::{Client, jetstream};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use self::advisory::{TOLD, speaks_against};
use crate::inbox::SharedInbox;

pub use self::lookout::Lookout;
pub use self::page::{ListError, Listed, StreamIdentity, list};

/// How often all streams are listed.
const LIST_EVERY: Duration = Duration::from_secs(10);
/// A list counts for so many times as long as it is until the next one has ended, should that one fail.
const GOOD_FOR: u32 = 2;
/// And for so much longer.
const SLACK: Duration = Duration::from_secs(5);
/// A stream in a list costs about this part of what asking for one by name costs, as often as that is done.
const WORTH: usize = 4;
/// The pause where a list is not worth it.
const WORTH_AGAIN: Duration = Duration::from_secs(30);
/// The pause after a list is at least so many times as long as the list took.
const SHARE: u32 = 2;
/// The pause after a list that failed.
const AGAIN: Duration = Duration::from_secs(2);

/// How a stream is not as it was noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamChange {
    /// It is another one, there is none, there is one, it is configured otherwise, or it ends before where it had ended.
    Other,
    /// It is the one, and holds fewer messages though none came since the list before.
    Fewer,
}

/// What the last list says of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Nothing: it is to be asked for by name.
    Unknown,
    /// It was not in it.
    Absent,
    /// It was in it.
    There(Listed),
}

/// The streams of this process' NATS. Cheap to clone.
#[derive(Clone)]
pub struct StreamListing(Arc<Inner>);

struct Inner {
    client: Client,
    jetstream: jetstream::Context,
    reconnects: watch::Receiver<u64>,
    inbox: SharedInbox,
    followed: Mutex<HashMap<Arc<str>, Vec<Arc<Follower>>>>,
    last: Mutex<Option<LastList>>,
    /// There while anybody follows.
    listing: Mutex<Option<AbortOnDropHandle<()>>>,
    /// How many lists there have been.
    lists: AtomicU64,
    /// Told when the next one is not to be waited for.
    hastened: Arc<Notify>,
}

/// How long the last list counts, and how often the client had connected when it began.
#[derive(Debug, Clone, Copy)]
struct LastList {
    good_until: Instant,
    connects: u64,
}

type Hook = Box<dyn Fn(StreamChange) + Send + Sync>;

struct Follower {
    state: Mutex<Followed>,
    hook: Hook,
}

#[derive(Debug)]
struct Followed {
    sight: Sight,
    noted: Noted,
}

/// What a stream was when it was asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noted {
    /// It was not asked for.
    Nothing,
    /// It was not there.
    Absent,
    /// It was this.
    There(StreamIdentity),
}

impl From<Option<StreamIdentity>> for Noted {
    fn from(identity: Option<StreamIdentity>) -> Self {
        identity.map_or(Self::Absent, Self::There)
    }
}

/// A stream that is followed, until this is dropped.
pub struct FollowedStream {
    listing: StreamListing,
    stream: Arc<str>,
    follower: Arc<Follower>,
}

impl StreamListing {
    pub(crate) fn new(
        client: &Client,
        jetstream: &jetstream::Context,
        reconnects: &watch::Receiver<u64>,
    ) -> Self {
        Self(Arc::new(Inner {
            client: client.clone(),
            jetstream: jetstream.clone(),
            reconnects: reconnects.clone(),
            inbox: SharedInbox::new(client, Some(reconnects.clone())),
            followed: Mutex::default(),
            last: Mutex::default(),
            listing: Mutex::default(),
            lists: AtomicU64::new(0),
            hastened: Arc::default(),
        }))
    }

    /// Follows a stream: `hook` is called after each list in which it is not as it was noted, until it is noted anew. It
    /// must not wait.
    pub fn follow(
        &self,
        stream: &str,
        hook: impl Fn(StreamChange) + Send + Sync + 'static,
    ) -> FollowedStream {
        let follower = Arc::new(Follower {
            state: Mutex::new(Followed {
                sight: Sight::Unknown,
                noted: Noted::Nothing,
            }),
            hook: Box::new(hook),
        });
        let mut followed = self.0.followed.lock();
        let stream = match followed.get_key_value(stream) {
            Some((stream, _)) => stream.clone(),
            None => Arc::from(stream),
        };
        let followers = followed.entry(stream.clone()).or_default();
        followers.push(follower.clone());
        drop(followed);
        let mut listing = self.0.listing.lock();
        if listing.is_none() {
            let keeping = keep_listing(Arc::downgrade(&self.0));
            *listing = Some(AbortOnDropHandle::new(tokio::spawn(keeping)));
        }
        drop(listing);
        FollowedStream {
            listing: self.clone(),
            stream,
            follower,
        }
    }

    /// Changes when the client has connected anew.
    pub fn reconnects(&self) -> watch::Receiver<u64> {
        let mut reconnects = self.0.reconnects.clone();
        reconnects.mark_unchanged();
        reconnects
    }

    /// Whose streams these are.
    pub(crate) fn link(&self) -> (&Client, &jetstream::Context) {
        (&self.0.client, &self.0.jetstream)
    }

    /// Where everything comes that is pulled out of these streams.
    pub fn inbox(&self) -> &SharedInbox {
        &self.0.inbox
    }

    /// The next list is made at once, if anybody follows.
    pub fn hasten(&self) {
        self.0.hastened.notify_one();
    }

    /// How many lists there have been.
    pub fn lists(&self) -> u64 {
        self.0.lists.load(Ordering::Acquire)
    }
}

impl FollowedStream {
    /// What the last list says of it, over the present connection and not too long ago.
    pub fn sight(&self) -> Sight {
        let is_good = self.listing.0.last.lock().is_some_and(|last| {
            Instant::now() < last.good_until && last.connects == self.listing.0.connects()
        });
        if is_good {
            self.follower.state.lock().sight
        } else {
            Sight::Unknown
        }
    }

    /// It was asked for by name, and was this; `None`: it was not there.
    pub fn note(&self, identity: Option<StreamIdentity>) {
        self.follower.state.lock().noted = identity.into();
    }

    /// Whether it was noted to be this.
    pub fn is_noted(&self, identity: Option<StreamIdentity>) -> bool {
        self.follower.state.lock().noted == identity.into()
    }

    /// Nothing is known of it, until it is noted anew.
    pub fn forget(&self) {
        self.follower.state.lock().noted = Noted::Nothing;
    }

    /// Whether the last list says that it is as it was noted; then nobody has to ask.
    pub fn is_as_noted(&self) -> bool {
        let sight = self.sight();
        let noted = self.follower.state.lock().noted;
        is_as_noted(noted, &sight) == Some(true)
    }
}

/// Whether a list shows what was noted; `None`: it does not say, or nothing was noted.
fn is_as_noted(noted: Noted, sight: &Sight) -> Option<bool> {
    match (noted, sight) {
        (Noted::Nothing, _) | (_, Sight::Unknown) => None,
        (noted, Sight::Absent) => Some(noted == Noted::Absent),
        (noted, Sight::There(listed)) => Some(noted == Noted::There(listed.identity)),
    }
}

/// What is to be said of a stream that was seen so before and is seen so now.
fn change(noted: Noted, before: &Sight, now: &Sight) -> Option<StreamChange> {
    if is_as_noted(noted, now) == Some(false) {
        return Some(StreamChange::Other);
    }
    let (Sight::There(before), Sight::There(now)) = (before, now) else {
        return None;
    };
    if noted == Noted::Nothing {
        return None;
    }
    if now.last < before.last {
        return Some(StreamChange::Other);
    }
    (now.last == before.last && now.messages < before.messages).then_some(StreamChange::Fewer)
}

impl Drop for FollowedStream {
    fn drop(&mut self) {
        let mut followed = self.listing.0.followed.lock();
        if let Some(followers) = followed.get_mut(&self.stream) {
            followers.retain(|follower| !Arc::ptr_eq(follower, &self.follower));
            if followers.is_empty() {
                followed.remove(&self.stream);
            }
        }
    }
}

impl Inner {
    fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Whether the listing ends, because nobody follows: the next who does begins it anew.
    fn nobody_follows(&self) -> bool {
        let mut listing = self.listing.lock();
        let nobody = self.followed.lock().is_empty();
        if nobody {
            // It is this one that ends: nothing comes after this.
            *listing = None;
        }
        nobody
    }

    /// The server has told of a stream: whoever has noted it asks. What the last list said of it is older than that.
    fn told_of(&self, stream: &str) {
        let told: Vec<_> = {
            let followed = self.followed.lock();
            let followers = followed.get(stream).into_iter().flatten();
            let noted = followers.filter(|it| {
                let mut state = it.state.lock();
                state.sight = Sight::Unknown;
                state.noted != Noted::Nothing
            });
            noted.cloned().collect()
        };
        for follower in told {
            (follower.hook)(StreamChange::Other);
        }
    }

    /// One list, told to all who follow. Gives the pause after it.
    async fn list(&self) -> Result<Duration, ListError> {
        let (began, connects) = (Instant::now(), self.connects());
        // Who follows only now is told nothing by this one: its page may be over.
        let mut sights: HashMap<Arc<str>, Sight> = {
            let followed = self.followed.lock();
            let names = followed.keys().cloned();
            names.map(|name| (name, Sight::Absent)).collect()
        };
        let most = sights.len() * WORTH;
        let listed = list(&self.jetstream, most, |name, listed| {
            if let Some(sight) = sights.get_mut(name) {
                *sight = Sight::There(listed);
            }
        });
        let Some(unknown) = listed.await? else {
            *self.last.lock() = None;
            return Ok(WORTH_AGAIN);
        };
        if connects != self.connects() {
            return Err(ListError::new("the client has connected anew"));
        }
        for name in &unknown {
            if let Some(sight) = sights.get_mut(name.as_str()) {
                *sight = Sight::Unknown;
            }
        }
        let mut told = Vec::new();
        {
            let followed = self.followed.lock();
            for (name, now) in sights {
                for follower in followed.get(&name).into_iter().flatten() {
                    let mut state = follower.state.lock();
                    let before = std::mem::replace(&mut state.sight, now);
                    if let Some(change) = change(state.noted, &before, &now) {
                        told.push((follower.clone(), change));
                    }
                }
            }
        }
        let took = began.elapsed();
        let pause = LIST_EVERY.saturating_sub(took).max(took * SHARE);
        *self.last.lock() = Some(LastList {
            good_until: began + (took + pause) * GOOD_FOR + SLACK,
            connects,
        });
        self.lists.fetch_add(1, Ordering::AcqRel);
        for (follower, change) in told {
            (follower.hook)(change);
        }
        Ok(pause)
    }
}

/// Lists while anybody follows, for as long as somebody has the listing.
async fn keep_listing(listing: Weak<Inner>) {
    let mut failed = false;
    let Some(inner) = listing.upgrade() else {
        return;
    };
    let (client, mut reconnects) = (inner.client.clone(), inner.reconnects.clone());
    let hastened = inner.hastened.clone();
    drop(inner);
    let mut told = None;
    loop {
        let Some(inner) = listing.upgrade() else {
            return;
        };
        if inner.nobody_follows() {
            return;
        }
        reconnects.mark_unchanged();
        let listed = inner.list().await;
        drop(inner);
        let pause = listed.as_ref().map_or(AGAIN, |pause| *pause);
        if let Err(error) = &listed
            && !failed
        {
            tracing::debug!("{error}; each stream is asked for by name meanwhile");
        }
        failed = listed.is_err();
        if told.is_none() {
            told = client.subscribe(format!("{TOLD}*.*")).await.ok();
        }
        let listens = async {
            let Some(told) = &mut told else {
                return std::future::pending().await;
            };
            while let Some(message) = told.next().await {
                let Some(inner) = listing.upgrade() else {
                    return;
                };
                if let Some(stream) = speaks_against(&message.subject) {
                    inner.told_of(stream);
                }
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = hastened.notified() => {}
            changed = reconnects.changed() => if changed.is_err() { return },
            () = listens => told = None,
        }
    }
}

impl fmt::Debug for StreamListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamListing")
            .field("followed", &self.0.followed.lock().len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FollowedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FollowedStream").field(&self.stream).finish()
    }
}
