//! Messages of one consumer, asked for in requests that wait at the server for a long time.
//!
//! # What the server says of a request
//! | it says | what happens |
//! |---|---|
//! | nothing (a message) | it is handed over |
//! | 100 | the request still waits: that counts as a sign of life |
//! | 404, 408 | it is over: the next one is sent |
//! | 409, the consumer was deleted; 503, nobody is there | [`Interruption::Gone`] |
//! | 409, anything else (a new leader, a server that ends, too many requests) | [`Interruption::Ended`]: the next one is sent, after a pause |
//! | nothing for twice the time between two signs of life | [`Interruption::Silent`] |
//!
//! Requests are in doubt after a reconnect too ([`Interruption::Reconnected`]). After every interruption but the first the
//! next call asks anew, so that whoever acknowledges what it takes just goes on. Of a consumer whose messages are not
//! acknowledged they are counted ([`Pull::counting`]): one that is missing is [`Interruption::Gap`], also where only the next
//! sign of life tells of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::{self, Message};
use async_nats::{HeaderMap, StatusCode, SubscribeError};
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::inbox::{Deliveries, SharedInbox};

/// The number before the first request of the next reader. Readers of one consumer get what is said of the requests of the
/// one before them, and must not take them for theirs.
static NEXT_READER: AtomicU64 = AtomicU64::new(0);
/// So many requests has a reader numbers for.
const NUMBERS: u64 = 1 << 32;
/// The header of a sign of life with how many messages the consumer has sent.
const SENT: &str = "Nats-Last-Consumer";
/// The pause before a request after one that the server has ended.
const PAUSE: Duration = Duration::from_millis(250);
/// How much later than it is due a sign of life may come.
const SLACK: Duration = Duration::from_secs(5);

/// How requests are made.
#[derive(Debug, Clone, Copy)]
pub struct PullTerms {
    /// How many messages one asks for.
    pub batch: usize,
    /// For how long one waits at the server; at least twice `heartbeat`.
    pub expires: Duration,
    /// How often the server says that it waits still.
    pub heartbeat: Duration,
}

/// Why nothing came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Interruption {
    /// There is no such consumer, or nobody knows of it.
    #[error("the consumer is not there")]
    Gone,
    /// The server has ended a request, for this reason.
    #[error("the server has ended the request: {0}")]
    Ended(String),
    /// A message that the consumer has sent did not come.
    #[error("a message that was sent did not come")]
    Gap,
    /// Neither a message nor a sign of life came in time.
    #[error("no sign of life of the request came in time")]
    Silent,
    /// The client has connected anew: what was on its way may be lost.
    #[error("the client has connected anew")]
    Reconnected,
    /// The request could not be sent.
    #[error("the request could not be sent: {0}")]
    NotSent(String),
}

/// The messages of one consumer.
pub struct Pull {
    deliveries: Deliveries,
    jetstream: jetstream::Context,
    /// How many messages have come, where they are counted.
    counted: Option<u64>,
    /// Where requests are sent.
    subject: String,
    terms: PullTerms,
    /// Those that are under way, with how many messages each still asks for.
    requests: VecDeque<Request>,
    /// The number of the last one, which no other reader of this process has.
    number: u64,
    heard_at: Instant,
    not_before: Instant,
    connects: u64,
    /// Told after what came before it.
    interrupted: Option<Interruption>,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    number: u64,
    left: usize,
}

impl Pull {
    /// Of a consumer; nothing is asked for yet.
    ///
    /// # Errors
    /// The client is closed.
    pub async fn open(
        inbox: &SharedInbox,
        jetstream: &jetstream::Context,
        (stream, consumer): (&str, &str),
        terms: PullTerms,
    ) -> Result<Self, SubscribeError> {
        let deliveries = inbox.open(stream, consumer).await?;
        let now = Instant::now();
        Ok(Self {
            jetstream: jetstream.clone(),
            counted: None,
            subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
            terms,
            requests: VecDeque::new(),
            number: NEXT_READER.fetch_add(NUMBERS, Ordering::Relaxed),
            heard_at: now,
            not_before: now,
            connects: deliveries.connects(),
            interrupted: None,
            deliveries,
        })
    }

    /// The same of a consumer that has sent nothing yet, and whose messages nobody acknowledges.
    #[must_use]
    pub fn counting(mut self) -> Self {
        self.counted = Some(0);
        self
    }

    /// The next messages, at least one and at most so many; waits for as long as there is none. Safe to drop at any time.
    ///
    /// # Errors
    /// Nothing comes, for that reason. What came before was handed over.
    pub async fn next(&mut self, most: usize) -> Result<Vec<Message>, Interruption> {
        loop {
            if let Some(why) = self.interrupted.take() {
                return Err(why);
            }
            self.ask_if_due().await?;
            let chunk = self.take(most);
            if !chunk.is_empty() {
                return Ok(chunk);
            }
            if self.interrupted.is_some() {
                continue;
            }
            let connects = self.deliveries.connects();
            if connects != self.connects {
                self.connects = connects;
                self.begin_anew();
                return Err(Interruption::Reconnected);
            }
            if self.is_asking_due() {
                sleep_until(self.not_before).await;
                continue;
            }
            let silent_at = self.heard_at + self.terms.heartbeat * 2 + SLACK;
            if timeout_at(silent_at, self.deliveries.more()).await.is_err() {
                self.begin_anew();
                return Err(Interruption::Silent);
            }
        }
    }

    /// Whatever is under way counts for nothing; what comes of it is handed over all the same.
    fn begin_anew(&mut self) {
        self.requests.clear();
        self.heard_at = Instant::now();
    }

    fn is_asking_due(&self) -> bool {
        let left: usize = self.requests.iter().map(|request| request.left).sum();
        left <= self.terms.batch / 2
    }

    async fn ask_if_due(&mut self) -> Result<(), Interruption> {
        if !self.is_asking_due() || Instant::now() < self.not_before {
            return Ok(());
        }
        let request = Request {
            number: self.number + 1,
            left: self.terms.batch,
        };
        let asked = json!({
            "batch": self.terms.batch,
            "expires": nanos(self.terms.expires),
            "idle_heartbeat": nanos(self.terms.heartbeat),
        });
        let reply = self.deliveries.subject(request.number);
        let (client, subject) = (self.deliveries.client(), self.subject.clone());
        let sent = client.publish_with_reply(subject, reply, asked.to_string().into());
        if let Err(error) = sent.await {
            self.not_before = Instant::now() + PAUSE;
            return Err(Interruption::NotSent(error.to_string()));
        }
        if self.requests.is_empty() {
            self.heard_at = Instant::now();
        }
        self.number = request.number;
        self.requests.push_back(request);
        Ok(())
    }

    fn take(&mut self, most: usize) -> Vec<Message> {
        let arrived = self.deliveries.take(most);
        let mut chunk = Vec::with_capacity(arrived.len());
        if !arrived.is_empty() {
            self.heard_at = Instant::now();
        }
        for message in arrived {
            if self.interrupted == Some(Interruption::Gap) {
                break;
            }
            match message.status {
                None => {
                    let context = self.jetstream.clone();
                    let message = Message { message, context };
                    if self.is_next(&message) {
                        self.one_came();
                        chunk.push(message);
                    } else {
                        self.interrupted = Some(Interruption::Gap);
                    }
                }
                Some(StatusCode::IDLE_HEARTBEAT) => {
                    let sent = message.headers.as_ref().and_then(sent);
                    if self.counted.is_some() && sent > self.counted {
                        self.interrupted = Some(Interruption::Gap);
                    }
                }
                Some(status) => {
                    let number = self.deliveries.number_of(&message);
                    let is_known = self.requests.iter().any(|it| Some(it.number) == number);
                    self.requests.retain(|it| Some(it.number) != number);
                    let why = interruption(status, message.description.as_deref());
                    if why.is_some() && is_known {
                        self.not_before = Instant::now() + PAUSE;
                        self.interrupted = why;
                    }
                }
            }
        }
        chunk
    }

    /// Whether no message is missing before this one, as far as they are counted.
    fn is_next(&mut self, message: &Message) -> bool {
        let Some(counted) = &mut self.counted else {
            return true;
        };
        let number = message.info().map(|info| info.consumer_sequence);
        let is_next = number.is_ok_and(|number| number == *counted + 1);
        *counted += u64::from(is_next);
        is_next
    }

    /// Requests are served in their order.
    fn one_came(&mut self) {
        if let Some(first) = self.requests.front_mut() {
            first.left = first.left.saturating_sub(1);
            if first.left == 0 {
                self.requests.pop_front();
            }
        }
    }
}

fn sent(headers: &HeaderMap) -> Option<u64> {
    headers.get_last(SENT)?.as_str().parse().ok()
}

/// What the end of a request means; `None`: nothing but that.
fn interruption(status: StatusCode, said: Option<&str>) -> Option<Interruption> {
    let said = said.unwrap_or_default();
    match status {
        StatusCode::NOT_FOUND | StatusCode::TIMEOUT => None,
        StatusCode::NO_RESPONDERS => Some(Interruption::Gone),
        StatusCode::REQUEST_TERMINATED if said.eq_ignore_ascii_case("consumer deleted") => {
            Some(Interruption::Gone)
        }
        status => Some(Interruption::Ended(format!("{status} {said}"))),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_of_a_request_is_told_apart() {
        let of = |code: u16, said| interruption(StatusCode::from_u16(code).unwrap(), said);
        assert_eq!(of(408, Some("Request Timeout")), None);
        assert_eq!(of(404, Some("No Messages")), None);
        assert_eq!(of(503, None), Some(Interruption::Gone));
        let gone = of(409, Some("Consumer Deleted"));
        assert_eq!(gone, Some(Interruption::Gone));
        for said in [
            "Leadership Change",
            "Server Shutdown",
            "Exceeded MaxWaiting",
        ] {
            let ended = of(409, Some(said));
            assert!(matches!(ended, Some(Interruption::Ended(why)) if why.contains(said)));
        }
    }
}
