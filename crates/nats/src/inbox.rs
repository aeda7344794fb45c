//! One subscription through which everything comes that this process pulls out of streams: a subscription of its own for each
//! consumer would cost several KiB, whether anything comes or not.
//!
//! A message is told apart by the stream and the consumer in its acknowledgement subject, what the server says of a request by
//! the subject that the request named.
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | more comes than is taken | a request asks for so many messages only: that many wait, for each consumer |
//! | the subscription is too slow and messages are dropped | who counts finds the gap, what is acknowledged comes again |
//! | the client has connected anew | everybody who waits is woken, and finds it |
//! | the subscription ends | nothing is heard any more, heartbeats neither; who opens next subscribes anew |
//! | a message for nobody: its reader has ended, and its request waits at the server still | it is given back, to be sent again 200 ms later |
//! | somebody reads the same consumer again | what a request of the former one asked for comes to the new one; what lies there still is given back when the former one ends |

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_nats::{Client, Message, Subject, SubscribeError};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

/// Gives a message back, to be sent again after [`AGAIN_AFTER`]. Where nobody acknowledges it has no effect.
const GIVEN_BACK: &str = r#"-NAK {"delay":200000000}"#;
/// After how long what came for nobody comes again.
#[cfg(test)]
const AGAIN_AFTER: std::time::Duration = std::time::Duration::from_millis(200);

/// The inbox of a process. Cheap to clone.
#[derive(Clone)]
pub struct SharedInbox(Arc<Inner>);

struct Inner {
    client: Client,
    /// What its subjects begin with, without the dot.
    prefix: String,
    reconnects: Option<watch::Receiver<u64>>,
    /// By stream and consumer, as [`name_of`] writes them.
    places: Arc<Places>,
    receiving: tokio::sync::Mutex<Option<AbortOnDropHandle<()>>>,
}

type Places = Mutex<HashMap<Arc<str>, Arc<Place>>>;

/// Where the messages of one consumer wait.
#[derive(Default)]
struct Place {
    waiting: Mutex<VecDeque<Message>>,
    told: Notify,
}

/// What comes of one consumer, until this is dropped.
pub(crate) struct Deliveries {
    inbox: SharedInbox,
    name: Arc<str>,
    place: Arc<Place>,
}

impl SharedInbox {
    /// Of this client. `reconnects` changes when it has connected anew; without it whoever waits finds that when it looks.
    pub fn new(client: &Client, reconnects: Option<watch::Receiver<u64>>) -> Self {
        Self(Arc::new(Inner {
            client: client.clone(),
            prefix: client.new_inbox(),
            reconnects,
            places: Arc::default(),
            receiving: tokio::sync::Mutex::default(),
        }))
    }

    /// What comes of a consumer from now on; where somebody has it already, no longer to that one.
    ///
    /// # Errors
    /// The client is closed.
    pub(crate) async fn open(
        &self,
        stream: &str,
        consumer: &str,
    ) -> Result<Deliveries, SubscribeError> {
        self.receive().await?;
        let name: Arc<str> = name_of(stream, consumer).into();
        let place = Arc::new(Place::default());
        self.0.places.lock().insert(name.clone(), place.clone());
        Ok(Deliveries {
            inbox: self.clone(),
            name,
            place,
        })
    }

    async fn receive(&self) -> Result<(), SubscribeError> {
        let mut receiving = self.0.receiving.lock().await;
        if receiving.as_ref().is_some_and(|task| !task.is_finished()) {
            return Ok(());
        }
        let (prefix, places) = (self.0.prefix.clone(), self.0.places.clone());
        let client = self.0.client.clone();
        let mut messages = self.0.client.subscribe(format!("{prefix}.>")).await?;
        let mut reconnects = self.0.reconnects.clone();
        if let Some(reconnects) = &mut reconnects {
            reconnects.mark_unchanged();
        }
        let task = async move {
            loop {
                tokio::select! {
                    message = messages.next() => {
                        let Some(message) = message else { return };
                        if let Some(unwanted) = deliver(&places, &prefix, message) {
                            give_back(&client, unwanted).await;
                        }
                    }
                    is_told = connected_anew(&mut reconnects) => {
                        if !is_told {
                            reconnects = None;
                        }
                        for place in places.lock().values() {
                            place.told.notify_one();
                        }
                    }
                }
            }
        };
        *receiving = Some(AbortOnDropHandle::new(tokio::spawn(task)));
        Ok(())
    }
}

/// Ends when the client has connected anew; false: that is told no more.
async fn connected_anew(reconnects: &mut Option<watch::Receiver<u64>>) -> bool {
    match reconnects {
        Some(reconnects) => reconnects.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// Puts a message where it is waited for; gives the acknowledgement subject of one that nobody waits for.
fn deliver(places: &Places, prefix: &str, message: Message) -> Option<Subject> {
    let acknowledgement = message.reply.clone().filter(|_| message.status.is_none());
    let named = match &acknowledgement {
        Some(reply) => of_acknowledgement(reply)?,
        // The number of the request stands behind the name.
        None => of_request(prefix, &message.subject)?.0.to_owned(),
    };
    // Under the lock of all, so that who takes its place away finds what lies in it.
    let places = places.lock();
    let Some(place) = places.get(named.as_str()) else {
        return acknowledgement;
    };
    place.waiting.lock().push_back(message);
    place.told.notify_one();
    None
}

/// Takes a place away, unless another one has come instead. The acknowledgement subjects of what lies in it: in either case
/// nobody takes it any more.
fn close(places: &Places, name: &str, place: &Arc<Place>) -> Vec<Subject> {
    let mut places = places.lock();
    if places.get(name).is_some_and(|it| Arc::ptr_eq(it, place)) {
        places.remove(name);
    }
    drop(places);
    let left = std::mem::take(&mut *place.waiting.lock());
    let messages = left.into_iter().filter(|it| it.status.is_none());
    messages.filter_map(|message| message.reply).collect()
}

async fn give_back(client: &Client, acknowledgement: Subject) {
    if let Err(error) = client.publish(acknowledgement, GIVEN_BACK.into()).await {
        tracing::debug!("a message for nobody comes again later: {error}");
    }
}

fn name_of(stream: &str, consumer: &str) -> String {
    format!("{stream}.{consumer}")
}

/// The stream and the consumer of a message, as [`name_of`] writes them.
fn of_acknowledgement(reply: &str) -> Option<String> {
    let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    // The longer form names the domain and the account first.
    let first = if tokens.len() >= 9 { 2 } else { 0 };
    Some(name_of(tokens.get(first)?, tokens.get(first + 1)?))
}

/// The stream and the consumer of a request, and its number.
fn of_request<'a>(prefix: &str, subject: &'a str) -> Option<(&'a str, u64)> {
    let rest = subject.strip_prefix(prefix)?.strip_prefix('.')?;
    let (name, number) = rest.rsplit_once('.')?;
    Some((name, number.parse().ok()?))
}

impl Deliveries {
    /// Where what a request of this number asks for is to be sent.
    pub fn subject(&self, number: u64) -> String {
        format!("{}.{}.{number}", self.inbox.0.prefix, self.name)
    }

    /// The number of the request of which the server says something.
    pub fn number_of(&self, said: &Message) -> Option<u64> {
        of_request(&self.inbox.0.prefix, &said.subject).map(|(_, number)| number)
    }

    /// What has come, in order, at most so much. It holds no room afterwards.
    pub fn take(&self, most: usize) -> VecDeque<Message> {
        let mut waiting = self.place.waiting.lock();
        if waiting.len() <= most {
            return std::mem::take(&mut *waiting);
        }
        waiting.drain(..most).collect()
    }

    /// Ends when something has come since it was taken, or the client has connected anew; now and then for nothing. Safe to
    /// drop at any time.
    pub async fn more(&self) {
        self.place.told.notified().await;
    }

    /// How often the client has connected.
    pub fn connects(&self) -> u64 {
        let statistics = self.client().statistics();
        statistics.connects.load(Ordering::Relaxed)
    }

    pub fn client(&self) -> &Client {
        &self.inbox.0.client
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        let unwanted = close(&self.inbox.0.places, &self.name, &self.place);
        if !unwanted.is_empty()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let client = self.client().clone();
            runtime.spawn(async move {
                for acknowledgement in unwanted {
                    give_back(&client, acknowledgement).await;
                }
            });
        }
    }
}

impl fmt::Debug for SharedInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedInbox")
            .field("consumers", &self.0.places.lock().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_their_stream_and_consumer_in_either_form() {
        let short = "$JS.ACK.KV_b.watch-1.1.17.3.1700000000000000000.5";
        assert_eq!(of_acknowledgement(short).as_deref(), Some("KV_b.watch-1"));
        let long = "$JS.ACK._.hash.KV_b.watch-1.1.17.3.1700000000000000000.5";
        assert_eq!(of_acknowledgement(long).as_deref(), Some("KV_b.watch-1"));
        let longer = format!("{long}.token");
        assert_eq!(of_acknowledgement(&longer).as_deref(), Some("KV_b.watch-1"));
        assert_eq!(of_acknowledgement("_INBOX.a.b"), None);
        assert_eq!(of_acknowledgement("$JS.ACK."), None);
    }

    #[test]
    fn what_is_given_back_comes_again_when_it_is_said() {
        let nanos = AGAIN_AFTER.as_nanos().to_string();
        assert!(GIVEN_BACK.contains(&nanos), "{GIVEN_BACK}");
    }

    #[test]
    fn what_comes_while_a_place_is_taken_away_is_given_back_by_one_or_the_other() {
        const ROUNDS: u64 = 2_000;
        const EACH: usize = 4;
        let message = Message {
            subject: "queue".into(),
            reply: Some("$JS.ACK.s.worker.1.1.1.0.0".into()),
            payload: "".into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        for round in 0..ROUNDS {
            let (places, place) = (Places::default(), Arc::new(Place::default()));
            places.lock().insert("s.worker".into(), place.clone());
            let both = std::sync::Barrier::new(2);
            let given_back: usize = std::thread::scope(|threads| {
                let delivering = threads.spawn(|| {
                    both.wait();
                    let unwanted = (0..EACH).map(|_| deliver(&places, "_INBOX.a", message.clone()));
                    unwanted.flatten().count()
                });
                both.wait();
                // At another moment each time.
                (0..round % 64).for_each(|_| std::hint::spin_loop());
                close(&places, "s.worker", &place).len() + delivering.join().unwrap()
            });
            assert_eq!(given_back, EACH, "round {round}");
        }
    }

    #[test]
    fn a_place_that_another_one_has_come_to_is_left_to_that_one() {
        let (places, former) = (Places::default(), Arc::new(Place::default()));
        let next = Arc::new(Place::default());
        places.lock().insert("s.worker".into(), next.clone());
        assert!(close(&places, "s.worker", &former).is_empty());
        assert!(Arc::ptr_eq(&places.lock()["s.worker"], &next));
        close(&places, "s.worker", &next);
        assert!(places.lock().is_empty());
    }

    #[test]
    fn requests_name_theirs_and_their_number() {
        let of = |subject| of_request("_INBOX.a", subject);
        assert_eq!(of("_INBOX.a.KV_b.watch-1.7"), Some(("KV_b.watch-1", 7)));
        assert_eq!(of("_INBOX.ab.KV_b.watch-1.7"), None);
        assert_eq!(of("_INBOX.a.KV_b.watch-1.x"), None);
        assert_eq!(of("_INBOX.a"), None);
    }
}
