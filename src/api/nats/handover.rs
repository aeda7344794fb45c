//! From one ownership of a process to its next: which requests are whose.
//!
//! The next one has another queue group, so that there is a choice. Unsubscribed before the next has subscribed, the
//! requests in between find nobody. Subscribed before, they are delivered twice, and would be answered twice. So:
//!
//! | step | a request that comes then is delivered |
//! |---|---|
//! | the former API stops reading, and stays subscribed | to the former, which leaves it where it is |
//! | the next one subscribes, and the server has confirmed that | to both |
//! | the former unsubscribes | to the next |
//! | the next one reads what the former was left with, then its own, without those that it has had already | |
//!
//! A request that was delivered twice is known by its subject, its subject for the answer and what it says: a client may
//! have the answers to many requests sent to one subject. (The very same request once more within that time may be taken
//! for its copy.)
//! Nobody is answered twice or not at all, and the order stays.
//!
//! Between two processes nothing is handed over. One that ends in order tells those whose requests it has not read to try
//! again, and leaves a moment without an owner, in which the server says at once that nobody answers. One that was
//! killed leaves more of that, and one that is frozen keeps what it is given until there is a next owner: that is without
//! an answer.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use async_nats::service::endpoint::Endpoint;
use async_nats::service::{Request, Service as MicroService};
use async_nats::{Client, Message, Subscriber};
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use loom_protocol::names;
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use super::{CLOSE_WITHIN, Guard, confirm_subscriptions};

/// How long after what was left has been read the second copy of a request may still come: it is under way in the server.
const COPIES_COME_WITHIN: Duration = Duration::from_secs(5);
/// How long a server may take that is asked at the end; one that is away is not waited for.
const ROUND_TRIP_WITHIN: Duration = Duration::from_millis(500);

/// One that reads no more, and is still subscribed.
pub struct FormerApi {
    pub(super) announced: Option<MicroService>,
    pub(super) guard: Arc<Guard>,
    pub(super) tasks: TaskTracker,
    /// None where the reading met a defect.
    pub(super) requests: Option<Requests<Endpoint>>,
}

impl FormerApi {
    /// Takes no more requests and waits for those under way, in a bounded time.
    pub async fn close_soon(self) {
        let closed = tokio::time::timeout(CLOSE_WITHIN, self.close()).await;
        if closed.is_err() {
            tracing::debug!("requests of an ownership that is over are left without an answer");
        }
    }

    /// Takes no more requests: those that are left are told to try again; those under way are waited for.
    pub(super) async fn close(self) {
        let former = self.withdrawn().await;
        let (guard, tasks) = (former.guard.clone(), former.tasks.clone());
        let left = former.drain().await;
        tasks.spawn(guard.turn_away(left));
        tasks.close();
        tasks.wait().await;
    }

    /// What is left when nobody follows. Until the server has unsubscribed it goes on delivering, and async-nats drops that:
    /// so there is a second subscription meanwhile, which can be drained.
    async fn drain(self) -> Vec<Message> {
        let client = self.guard.client.clone();
        let beside = timeout(ROUND_TRIP_WITHIN, subscribe_beside(&client)).await;
        let left = self.unsubscribe().await.into_iter();
        let left: Vec<Message> = left.map(|request| request.message).collect();
        let Ok(Ok(mut beside)) = beside else {
            return left;
        };
        if beside.drain().await.is_err() {
            return left;
        }
        let mut requests = Requests::new(beside, left);
        let mut all = Vec::new();
        let until = Instant::now() + ROUND_TRIP_WITHIN;
        while let Ok(Some(request)) = timeout_at(until, requests.next()).await {
            all.push(request);
        }
        all.extend(requests.there_already());
        all
    }

    /// It is announced no more. Its requests are still delivered to it.
    pub(super) async fn withdrawn(mut self) -> Self {
        if let Some(announced) = self.announced.take()
            && let Err(error) = announced.stop().await
        {
            tracing::debug!("the service could not be withdrawn: {error}");
        }
        self
    }

    /// Nothing more is delivered to it; what has been and was not read.
    pub(super) async fn unsubscribe(self) -> Vec<Request> {
        let Some(mut requests) = self.requests else {
            return Vec::new();
        };
        if let Err(error) = requests.own().stop().await {
            tracing::debug!("requests could not be unsubscribed: {error}");
            return requests.there_already().collect();
        }
        let mut left = Vec::new();
        while let Some(request) = requests.next().await {
            left.push(request);
        }
        left
    }
}

async fn subscribe_beside(client: &Client) -> Result<Subscriber, async_nats::Error> {
    let beside = client.subscribe(names::ALL_REQUESTS).await?;
    confirm_subscriptions(client).await?;
    Ok(beside)
}

/// What a request is known by, where it has been delivered twice.
pub(super) trait Answerable {
    /// `None`: nobody waits for its answer.
    fn mark(&self) -> Option<u64>;
}

impl Answerable for Message {
    fn mark(&self) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        let reply = self.reply.as_ref()?;
        (reply.as_str(), self.subject.as_str(), &*self.payload).hash(&mut hasher);
        Some(hasher.finish())
    }
}

impl Answerable for Request {
    fn mark(&self) -> Option<u64> {
        self.message.mark()
    }
}

/// The requests of an API, after those that the one before it was left with.
#[derive(Debug)]
pub(super) struct Requests<S: Stream> {
    left: VecDeque<S::Item>,
    /// How many copies of a request may still come.
    copies: HashMap<u64, usize>,
    /// `None`: what was left has not all been read yet.
    copies_until: Option<Instant>,
    own: S,
}

impl<S> Requests<S>
where
    S: Stream<Item: Answerable> + Unpin,
{
    pub fn new(own: S, left: Vec<S::Item>) -> Self {
        let mut copies = HashMap::new();
        for mark in left.iter().filter_map(Answerable::mark) {
            *copies.entry(mark).or_default() += 1;
        }
        Self {
            left: left.into(),
            copies,
            copies_until: None,
            own,
        }
    }

    /// The next one. Nothing is lost where this is dropped before it ends.
    pub async fn next(&mut self) -> Option<S::Item> {
        if let Some(left) = self.left.pop_front() {
            return Some(left);
        }
        loop {
            let request = self.own.next().await?;
            if !self.is_copy(&request) {
                return Some(request);
            }
        }
    }

    /// What has been delivered and not been read yet, however much that is: tokio would have a task pause after 128.
    pub fn there_already(&mut self) -> impl Iterator<Item = S::Item> {
        std::iter::from_fn(|| unconstrained(self.next()).now_or_never().flatten())
    }

    pub const fn own(&mut self) -> &mut S {
        &mut self.own
    }

    fn is_copy(&mut self, request: &S::Item) -> bool {
        if self.copies.is_empty() {
            return false;
        }
        let now = Instant::now();
        if now >= *self.copies_until.get_or_insert(now + COPIES_COME_WITHIN) {
            self.copies = HashMap::new();
            return false;
        }
        let Some(mark) = request.mark() else {
            return false;
        };
        let Some(copies) = self.copies.get_mut(&mark) else {
            return false;
        };
        *copies -= 1;
        if *copies == 0 {
            self.copies.remove(&mark);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use proptest::prelude::*;

    use super::*;

    /// A request, and which of those to the same subject it is.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Asked(Option<String>, usize);

    impl Answerable for Asked {
        fn mark(&self) -> Option<u64> {
            let mut hasher = DefaultHasher::new();
            (self.0.as_ref()?, self.1).hash(&mut hasher);
            Some(hasher.finish())
        }
    }

    fn asked(number: usize) -> Asked {
        Asked(Some(format!("_INBOX.{number}")), number)
    }

    async fn all(mut requests: Requests<impl Stream<Item = Asked> + Unpin>) -> Vec<Asked> {
        let mut all = Vec::new();
        while let Some(request) = requests.next().await {
            all.push(request);
        }
        all
    }

    proptest! {
        /// However many come before, between and after the two subscriptions change: each once, in their order.
        #[test]
        fn every_request_is_read_once_and_in_order(
            subscribed in 0_usize..30,
            unsubscribed in 0_usize..30,
            after in 0_usize..30,
        ) {
            let count = subscribed + unsubscribed + after;
            let left = (0..subscribed + unsubscribed).map(asked).collect();
            let own = stream::iter((subscribed..count).map(asked));
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let read = runtime?.block_on(async { all(Requests::new(own, left)).await });
            prop_assert_eq!(read, (0..count).map(asked).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_no_copy_of_anything() {
        let silent = |number| Asked(None, number);
        let requests = Requests::new(stream::iter([silent(1)]), vec![silent(0)]);
        assert_eq!(all(requests).await, [silent(0), silent(1)]);
    }

    /// Those that were left behind and came before the second subscription have no copy: nothing else is taken for one.
    #[tokio::test]
    async fn requests_that_share_a_subject_for_their_answers_are_told_apart() {
        let same = |number| Asked(Some("_INBOX.same".into()), number);
        let left = (0..3).map(same).collect();
        let own = stream::iter([same(2), same(3), same(4)]);
        let expected: Vec<_> = (0..5).map(same).collect();
        assert_eq!(all(Requests::new(own, left)).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_request_later_is_a_request_of_its_own() {
        let again = stream::iter([asked(0), asked(1)]);
        let later = stream::once(Box::pin(async {
            tokio::time::advance(COPIES_COME_WITHIN).await;
            asked(1)
        }));
        let requests = Requests::new(again.chain(later), vec![asked(0), asked(1), asked(1)]);
        assert_eq!(
            all(requests).await,
            [asked(0), asked(1), asked(1), asked(1)]
        );
    }
}
