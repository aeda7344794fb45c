//! Records that are asked for and not answered, while their items are given out.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use futures_util::StreamExt as _;
use loom_actors::nats::connection::WRITE_TIMEOUT;
use loom_actors::settings::WorkSettings;
use loom_protocol::WorkId;
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::{House, PATIENCE, ids, open, order};

/// What reads of records are asked by, and what a [`Detour`] makes of it, which is as long.
const ASKED: &[u8] = b"PUB $JS.API.DIRECT.GET.";
const RENAMED: &[u8] = b"PUB $JS.API.DIRECT.GOT.";

/// Reads of records go another way, where those of some items get lost.
pub(super) struct Detour {
    /// Where to connect.
    pub(super) url: String,
    lost: Arc<Mutex<Vec<(WorkId, usize)>>>,
    /// How many got lost so far.
    count: watch::Receiver<usize>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Detour {
    /// To the server at `url`.
    pub(super) async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = format!("nats://{}", listener.local_addr().unwrap());
        let to = url.trim_start_matches("nats://").to_owned();
        let relaying = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let server = TcpStream::connect(&to).await.unwrap();
                connections.spawn(relay(socket, server));
            }
        });
        let lost = Arc::<Mutex<Vec<(WorkId, usize)>>>::default();
        let client = async_nats::connect(url).await.unwrap();
        let (counting, count) = watch::channel(0);
        let losing = lose(client, lost.clone(), counting).await;
        Self {
            url: own,
            lost,
            count,
            _tasks: [
                AbortOnDropHandle::new(relaying),
                AbortOnDropHandle::new(losing),
            ],
        }
    }

    /// The next `times` reads of this item get lost.
    fn lose(&self, id: WorkId, times: usize) {
        self.lost.lock().push((id, times));
    }

    /// Everything is answered again.
    fn lose_nothing(&self) {
        self.lost.lock().clear();
    }

    async fn until_lost(&self, times: usize) {
        let mut count = self.count.clone();
        let lost = timeout(PATIENCE, count.wait_for(|count| *count >= times)).await;
        lost.unwrap().unwrap();
    }
}

async fn relay(mut client: TcpStream, mut server: TcpStream) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let asking = async {
        let mut bytes = Vec::new();
        while from_client.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
            // What may be the beginning of a name waits for the rest of it.
            let whole = (0..ASKED.len())
                .rev()
                .find(|n| *n == 0 || bytes.ends_with(&ASKED[..*n]))
                .map_or(bytes.len(), |partial| bytes.len() - partial);
            for at in 0..=whole.saturating_sub(ASKED.len()) {
                if bytes[at..].starts_with(ASKED) {
                    bytes[at..at + ASKED.len()].copy_from_slice(RENAMED);
                }
            }
            if to_server.write_all(&bytes[..whole]).await.is_err() {
                return;
            }
            bytes.drain(..whole);
        }
    };
    let answering = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::select! {
        () = asking => {}
        _ = answering => {}
    }
}

async fn lose(
    client: Client,
    lost: Arc<Mutex<Vec<(WorkId, usize)>>>,
    count: watch::Sender<usize>,
) -> tokio::task::JoinHandle<()> {
    let mut asked = client.subscribe("$JS.API.DIRECT.GOT.>").await.unwrap();
    client.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(question) = asked.next().await {
            let is_lost = lost.lock().iter_mut().any(|(id, times)| {
                let is_it = *times > 0 && question.subject.ends_with(&id.to_string());
                *times -= usize::from(is_it);
                is_it
            });
            if is_lost {
                count.send_modify(|count| *count += 1);
                continue;
            }
            let subject = question.subject.replace(".GOT.", ".GET.");
            let (reply, payload) = (question.reply.unwrap(), question.payload);
            let passed_on = client.publish_with_reply(subject, reply, payload);
            passed_on.await.unwrap();
        }
    })
}

impl House {
    /// One behind a detour, with items of which no record is in memory.
    async fn with_unread_items<const N: usize>() -> (Self, Detour, [WorkId; N]) {
        let (mut house, detour) = Box::pin(Self::behind_a_detour(WorkSettings::default())).await;
        let mut items = [WorkId::generate(); N];
        for item in &mut items {
            *item = house.submit(json!({"capability": "rust"})).await;
        }
        house.root.stop_tree("p", PATIENCE).await.unwrap();
        house.project = Box::pin(open(&house.terms, &house.root)).await;
        (house, detour, items)
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_item_whose_read_gets_lost_once_is_given_to_the_claim_that_asked() {
    let (house, detour, [item]) = Box::pin(House::with_unread_items()).await;
    let agent = house.agent(&["rust"]).await;
    detour.lose(item, 1);
    let begun = Instant::now();
    let given = house.claim(order(agent, "lost once", Duration::ZERO));
    assert_eq!(ids(&given.await.unwrap()), [item]);
    assert!(begun.elapsed() < WRITE_TIMEOUT, "{:?}", begun.elapsed());
    detour.until_lost(1).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_item_whose_read_hangs_is_passed_over_meanwhile_and_first_again_afterwards() {
    let (house, detour, [first, second, third]) = Box::pin(House::with_unread_items()).await;
    let mut agents = Vec::new();
    for _ in 0..3 {
        agents.push(house.agent(&["rust"]).await);
    }
    detour.lose(first, usize::MAX);
    let dispatcher = house.project.dispatcher.clone();
    let hanging = order(agents[0], "hangs", Duration::ZERO);
    let hanging = tokio::spawn(async move { dispatcher.claim(hanging).await });
    detour.until_lost(1).await;
    let next = house.claim(order(agents[1], "passes over", Duration::ZERO));
    assert_eq!(ids(&next.await.unwrap()), [second]);

    let given_up = timeout(PATIENCE, hanging).await.unwrap().unwrap();
    assert!(given_up.is_err(), "{given_up:?}");
    detour.lose_nothing();
    for (agent, item) in [(agents[0], first), (agents[2], third)] {
        let given = house.claim(order(agent, "after it", Duration::ZERO));
        let given = given.await.unwrap();
        assert_eq!(ids(&given), [item]);
        assert_eq!(given[0].record.attempt, 1);
    }
}
