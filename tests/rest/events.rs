//! `GET /api/events`.

use futures_util::StreamExt as _;
use loom_coordinator::api_client::{ApiClient, EventStream, Heard};
use loom_protocol::event::{Event, SpinUpEvent, SpinUpEventKind};
use loom_protocol::names;
use loom_testkit::fleet::PATIENCE;
use loom_testkit::nats::until_subscribed;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::House;

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn events_are_heard_as_they_happen() {
    let house = House::open().await;
    let url = format!("http://{}", house.coordinator.api_address());
    let api = ApiClient::new(&url, None, None).unwrap();
    let mut all = api.follow(&[]).await.unwrap();
    let first = house.submit("one").await;
    let second = house.submit("two").await;
    let query = [("topic", "work".to_owned()), ("workId", second.clone())];
    let mut of_second = api.follow(&query).await.unwrap();
    for id in [&first, &second] {
        let path = format!("/api/work/{id}/cancel");
        house.post(&path, json!({})).await;
    }
    let mut heard = Vec::new();
    while heard.len() < 4 {
        heard.push(next_event(&mut all).await);
    }
    let told = |id: &str, what: &str| (id.to_owned(), what.to_owned());
    assert_eq!(
        heard,
        [
            told(&first, "work:submitted"),
            told(&second, "work:submitted"),
            told(&first, "work:cancelled"),
            told(&second, "work:cancelled"),
        ]
    );
    assert_eq!(
        next_event(&mut of_second).await,
        told(&second, "work:cancelled")
    );

    let (status, error) = house.ask(Method::GET, "/api/events?topic=odd", None).await;
    assert_eq!((status, &error["code"]), (400, &json!("invalid-request")));
    // A listener does not keep the coordinator from ending: it hears the end while a request that is open still does.
    let open = open_request(house.coordinator.api_address()).await;
    let mut ending = std::pin::pin!(house.coordinator.shut_down());
    let broken = tokio::select! {
        biased;
        () = &mut ending => panic!("the listener was waited for"),
        broken = all.next() => broken,
    };
    assert!(broken.is_err(), "{broken:?}");
    drop(open);
    tokio::time::timeout(PATIENCE, ending).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn who_listens_is_told_of_a_change_of_ownership_and_hears_what_comes_after_it() {
    let house = House::open().await;
    let url = format!("http://{}", house.coordinator.api_address());
    let mut all = ApiClient::new(&url, None, None)
        .unwrap()
        .follow(&[])
        .await
        .unwrap();
    let before = house.submit("before").await;
    let told = (before, "work:submitted".to_owned());
    assert_eq!(next_event(&mut all).await, told);

    let jetstream = async_nats::jetstream::new(house.nats.connect().await.unwrap());
    let owners = jetstream.get_key_value(names::OWNERS_BUCKET).await.unwrap();
    owners.delete(names::OWNER_KEY).await.unwrap();
    let next = tokio::time::timeout(PATIENCE, all.next()).await;
    let heard = next.unwrap().unwrap();
    assert!(matches!(heard, Heard::Missed(0)), "{heard:?}");
    let owner = owners.get(names::OWNER_KEY).await.unwrap();
    assert!(
        owner.is_some(),
        "it is told when there is an ownership again"
    );

    // What can be looked at is what is there now, and whatever happens next is heard on the same stream.
    let after = house.submit("after").await;
    let told = (after, "work:submitted".to_owned());
    assert_eq!(next_event(&mut all).await, told);
}

/// A request of which the coordinator waits for the rest.
async fn open_request(api: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(api).await.unwrap();
    let head = "POST /api/work HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = [0; 12];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"HTTP/1.1 100");
    stream
}

/// Which item the next event is about, and its name.
async fn next_event(events: &mut EventStream) -> (String, String) {
    let next = tokio::time::timeout(PATIENCE, events.next()).await;
    match next.unwrap().unwrap() {
        Heard::Event(event) => match *event {
            Event::Work(work) => (work.work_id.to_string(), work.kind.as_str().to_owned()),
            other => panic!("nobody came: {other:?}"),
        },
        Heard::Missed(count) => panic!("{count} were missed"),
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn starts_of_agents_are_heard_with_the_topic_of_targets_and_under_subjects_of_their_own() {
    let house = House::open().await;
    let url = format!("http://{}", house.coordinator.api_address());
    let api = ApiClient::new(&url, None, None).unwrap();
    let mut of_targets = api
        .follow(&[("topic", "targets".to_owned())])
        .await
        .unwrap();
    let mut of_work = api.follow(&[("topic", "work".to_owned())]).await.unwrap();
    let client = house.nats.connect().await.unwrap();
    let subject = format!("loom.{}.events.spin-up.*", house.project);
    let mut published = client.subscribe(subject).await.unwrap();
    until_subscribed(&client).await.unwrap();

    let target = json!({
        "name": "here", "agentType": "codex", "capabilities": ["none-waits"], "mechanism": "local",
        "config": {"command": "sh", "args": ["-c", "echo no such model >&2; exit 3"]},
    });
    let (status, target) = house.post("/api/targets", target).await;
    assert_eq!(status, 201, "{target}");
    let (status, begun) = house.post("/api/targets/here/spin-up", json!({})).await;
    assert_eq!(status, 200, "{begun}");

    let mut told = Vec::new();
    while told
        .last()
        .is_none_or(|last: &SpinUpEvent| last.kind != SpinUpEventKind::Failed)
    {
        let next = tokio::time::timeout(PATIENCE, of_targets.next()).await;
        match next.unwrap().unwrap() {
            Heard::Event(event) => match *event {
                Event::SpinUp(event) => told.push(*event),
                Event::Target(event) => assert_eq!(event.target_name, "here"),
                other => panic!("nobody asked for it: {other:?}"),
            },
            Heard::Missed(count) => panic!("{count} were missed"),
        }
    }
    assert_eq!(told[0].kind, SpinUpEventKind::Triggered);
    for event in &told {
        let over_nats = tokio::time::timeout(PATIENCE, published.next()).await;
        let over_nats = over_nats.unwrap().unwrap();
        let end = event.kind.as_str().strip_prefix("spin-up:").unwrap();
        assert!(
            over_nats
                .subject
                .ends_with(&format!(".events.spin-up.{end}"))
        );
        let over_nats: Value = serde_json::from_slice(&over_nats.payload).unwrap();
        assert_eq!(over_nats, serde_json::to_value(event).unwrap());
        assert_eq!(
            (
                &over_nats["operationId"],
                &over_nats["targetId"],
                &over_nats["targetName"]
            ),
            (&begun["operationId"], &target["id"], &json!("here"))
        );
        assert_eq!(
            (&over_nats["agentType"], &over_nats["projectId"]),
            (&json!("codex"), &json!(house.project))
        );
        let is_failed = event.kind == SpinUpEventKind::Failed;
        let why = event.error_message.as_deref();
        let is_told_why = why.is_some_and(|why| why.ends_with("it said: no such model"));
        assert_eq!(
            (why.is_some(), is_told_why),
            (is_failed, is_failed),
            "{event:?}"
        );
        assert_eq!(event.duration_ms.is_some(), is_failed, "{event:?}");
    }
    // Who listens to work has heard nothing of that.
    let id = house.submit("one").await;
    let told = (id, "work:submitted".to_owned());
    assert_eq!(next_event(&mut of_work).await, told);
}
