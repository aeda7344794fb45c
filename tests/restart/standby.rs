//! Two coordinators on one NATS.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer::pull};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use loom_client::{Agent, Client, Job, JobError, JobResult, RunningAgent};
use loom_protocol::work::WorkStatus;
use loom_protocol::{ProjectId, WorkId, names};
use loom_testkit::process::LoomProcess;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::world::{PATIENCE, Rest, World, all_items, loom_up, soon, submit, until};

/// How long a client waits for an answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
/// A standby takes over within 15 s of the owner's death; the rest is for a busy machine.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(18);

async fn standby(world: &World) -> LoomProcess {
    let second = loom_up().on_nats(world.loom.nats_url());
    let second = second.argument("--standby").spawn().await.unwrap();
    second.until_it_logs("standing by").await.unwrap();
    second
}

/// An agent whose work ends when it may.
fn patient(client: &Client, may_finish: &watch::Receiver<bool>) -> RunningAgent {
    let may_finish = may_finish.clone();
    let work = move |_: Job| {
        let mut may_finish = may_finish.clone();
        async move {
            may_finish.wait_for(|now| *now).await.unwrap();
            Ok::<_, JobError>(JobResult::summary("done"))
        }
    };
    let agent = Agent::builder(client).capability("rust").slots(4);
    agent.start(work).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_second_coordinator_is_refused_and_told_by_whom() {
    let world = World::new().await;
    let second = loom_up().on_nats(world.loom.nats_url());
    let ended = second.run_to_its_end().await.unwrap();
    assert_eq!(ended.code(), Some(3), "{ended:?}");
    for part in [
        &*world.loom.data_dir().display().to_string(),
        &format!("process {}", world.loom.pid()),
        "--standby",
    ] {
        assert!(
            ended.stderr.contains(part),
            "{part} is not in: {}",
            ended.stderr
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_standby_takes_over_from_a_killed_one() {
    let mut world = World::new().await;
    let client = world.client().await;
    let (finish, may_finish) = watch::channel(false);
    let agent = patient(&client, &may_finish);
    let id = submit(&client, "begun under the first").await;
    let status = async || client.get(id).await.unwrap().status;
    let started = |status: &WorkStatus| *status == WorkStatus::InProgress;
    until("the agent works", &status, started).await;
    let mut second = standby(&world).await;

    world.loom.kill_9().await;
    let began = Instant::now();
    second.until_up().await.unwrap();
    assert!(began.elapsed() < TAKEN_OVER_WITHIN, "{:?}", began.elapsed());

    let item = client.get(id).await.unwrap();
    assert_eq!((item.status, item.attempt), (WorkStatus::InProgress, 1));
    finish.send_replace(true);
    until("the item ends", &status, |status| status.is_terminal()).await;
    let next = submit(&client, "begun under the second").await;
    let ended = async || client.get(next).await.unwrap().status.is_terminal();
    until("the next one ends", ended, |ended| *ended).await;
    let item = client.get(id).await.unwrap();
    assert_eq!((item.status, item.attempt), (WorkStatus::Completed, 1));
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_standby_takes_over_at_once_from_one_that_ends_in_order() {
    let mut world = World::new().await;
    let client = world.client().await;
    submit(&client, "left behind").await;
    let mut second = standby(&world).await;
    assert!(world.loom.terminate().await.unwrap().success());
    let began = Instant::now();
    second.until_up().await.unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(all_items(&client, None).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_standby_answers_on_the_port_on_which_it_will_serve() {
    let mut world = World::new().await;
    let mut second = standby(&world).await;
    let noted = format!("running/{}.json", second.pid());
    let noted = second.data_dir().join(noted);
    let standing = async || -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(&noted).unwrap()).unwrap()
    };
    let waits = |noted: &serde_json::Value| noted["standing"] == "stands-by";
    let running = until("it is noted that it waits", standing, waits).await;
    let rest = Rest::at(running["api"].as_str().unwrap());
    assert_eq!((rest.health().await, rest.ready().await), (200, 503));
    assert_eq!(rest.submit(WorkId::generate()).await.unwrap(), 503);
    assert!(world.loom.terminate().await.unwrap().success());
    second.until_up().await.unwrap();
    assert_eq!(running["api"], second.api_url());
    // Over the connection that is open.
    assert_eq!(rest.ready().await, 200);
    assert_eq!(rest.submit(WorkId::generate()).await.unwrap(), 201);
    assert!(second.terminate().await.unwrap().success());
    assert!(!noted.exists());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_owner_that_slept_too_long_changes_nothing_when_it_wakes() {
    let world = World::new().await;
    let client = world.client().await;
    let (finish, may_finish) = watch::channel(false);
    let agent = patient(&client, &may_finish);
    let mut ids = Vec::new();
    for number in 0..8 {
        ids.push(submit(&client, &format!("before {number}")).await);
    }
    let mut second = standby(&world).await;
    world.loom.pause();
    second.until_up().await.unwrap();
    finish.send_replace(true);
    for number in 0..8 {
        ids.push(submit(&client, &format!("meanwhile {number}")).await);
    }
    world.loom.resume();
    world
        .loom
        .until_it_logs("the ownership is lost (")
        .await
        .unwrap();
    for number in 0..8 {
        ids.push(submit(&client, &format!("after {number}")).await);
    }

    for id in &ids {
        let item = async || client.get(*id).await.unwrap();
        let item = until("every item ends", item, |item| item.terminal).await;
        assert_eq!(
            (item.status, item.attempts),
            (WorkStatus::Completed, 0),
            "{item:#?}"
        );
    }
    assert_eq!(all_items(&client, None).await.len(), ids.len());
    agent.shut_down("the test is over", Duration::ZERO);
    let report = soon("the agent ends", agent.ended()).await.unwrap();
    assert_eq!((report.completed + report.published, report.lost), (24, 0));
}

/// A frozen owner stays a member of its queue group until the server drops its connection.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_a_frozen_owner_is_given_is_answered_by_the_next_one_and_by_nobody_else() {
    let world = World::new().await;
    let mut asker = Asker::new(world.loom.nats_url()).await;
    let former = asker.ask(1).await[0];
    let mut second = standby(&world).await;
    world.loom.pause();
    second.until_up().await.unwrap();
    let taken = asker.ask(200).await;
    assert!(taken[0] > former);
    assert!(taken.iter().all(|epoch| *epoch == taken[0]), "{taken:?}");

    // Neither a crash of the next one nor an end in order makes it forget who may be frozen.
    second.kill_9().await;
    second.restart().await.unwrap();
    asker.ask(100).await;
    assert!(second.terminate().await.unwrap().success());
    second.restart().await.unwrap();
    let present = asker.ask(100).await;
    assert!(present[0] > taken[0]);

    world.loom.resume();
    let lost = world.loom.until_it_logs("the ownership is lost (");
    let (answers, lost) = tokio::join!(asker.ask(200), lost);
    lost.unwrap();
    assert!(
        answers.iter().all(|epoch| *epoch == present[0]),
        "{answers:?}"
    );
    world.loom.until_it_logs("standing by").await.unwrap();
    asker.ask(10).await;
    assert!(
        asker.answers.next().now_or_never().is_none(),
        "an answer too many"
    );
}

/// Told that nobody is there, or to try again, is answered too.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn during_a_takeover_in_order_every_request_is_answered_once() {
    let mut world = World::new().await;
    let mut second = standby(&world).await;
    let nats = async_nats::connect(world.loom.nats_url()).await.unwrap();
    let (enough, (answered, mut owners)) =
        (CancellationToken::new(), watch::channel(HashSet::new()));
    let mut asking = tokio::spawn(ask_until(nats, enough.clone(), answered));
    let taken_over = async {
        owners.wait_for(|owners| owners.len() == 1).await.unwrap();
        assert!(world.loom.terminate().await.unwrap().success());
        second.until_up().await.unwrap();
        owners.wait_for(|owners| owners.len() == 2).await.unwrap();
    };
    tokio::select! {
        () = taken_over => {}
        failed = &mut asking => panic!("{failed:?}"),
    }
    enough.cancel();
    asking.await.unwrap();
}

/// Has a few requests under way at any time, until it is enough. Tells the epochs of those who answered.
async fn ask_until(
    nats: async_nats::Client,
    enough: CancellationToken,
    answered: watch::Sender<HashSet<u64>>,
) {
    let inbox = nats.new_inbox();
    let mut answers = nats.subscribe(format!("{inbox}.*")).await.unwrap();
    let (mut asked, mut open) = (0_u64, HashSet::new());
    while !(open.is_empty() && enough.is_cancelled()) {
        while open.len() < 32 && !enough.is_cancelled() {
            let reply = format!("{inbox}.{asked}");
            open.insert(reply.clone());
            let ask = nats.publish_with_reply("coord.global.info", reply, "{}".into());
            ask.await.unwrap();
            asked += 1;
        }
        let answer = tokio::time::timeout(PATIENCE, answers.next()).await;
        let answer = answer.unwrap_or_else(|_| panic!("{} have no answer: {open:?}", open.len()));
        let answer = answer.unwrap();
        let subject = answer.subject.as_str();
        assert!(open.remove(subject), "answered twice: {answer:?}");
        let info: Option<serde_json::Value> = serde_json::from_slice(&answer.payload).ok();
        let owner = info.and_then(|info| info["epoch"].as_u64());
        answered.send_if_modified(|owners| owner.is_some_and(|owner| owners.insert(owner)));
    }
}

/// Asks who owns, and sees each answer there is.
struct Asker {
    nats: async_nats::Client,
    inbox: String,
    answers: async_nats::Subscriber,
    asked: usize,
}

impl Asker {
    async fn new(nats_url: &str) -> Self {
        let nats = async_nats::connect(nats_url).await.unwrap();
        let inbox = nats.new_inbox();
        let answers = nats.subscribe(format!("{inbox}.*")).await.unwrap();
        Self {
            nats,
            inbox,
            answers,
            asked: 0,
        }
    }

    /// Asks so often at once; the epochs in the answers. Each is answered once, within a second or two.
    async fn ask(&mut self, times: usize) -> Vec<u64> {
        let mut open = HashSet::new();
        for _ in 0..times {
            self.asked += 1;
            let reply = format!("{}.{}", self.inbox, self.asked);
            open.insert(reply.clone());
            let asked = self
                .nats
                .publish_with_reply("coord.global.info", reply, "{}".into());
            asked.await.unwrap();
        }
        let mut epochs = Vec::new();
        while !open.is_empty() {
            let answer = tokio::time::timeout(ANSWERED_WITHIN, self.answers.next()).await;
            let answer = answer.unwrap_or_else(|_| panic!("{} have no answer", open.len()));
            let answer = answer.unwrap();
            assert!(
                open.remove(answer.subject.as_str()),
                "an answer too many, or of before: {answer:?}"
            );
            let info: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
            epochs.push(info["epoch"].as_u64().unwrap());
        }
        epochs
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_consumer_of_a_later_owner_is_left_alone() {
    let mut world = World::new().await;
    let client = world.client().await;
    submit(&client, "wakes the project").await;
    assert!(world.loom.terminate().await.unwrap().success());
    let project = ProjectId::new("restart").unwrap();
    let outside = world.nats().connect().await.unwrap();
    let outside = jetstream::new(outside);
    let stream = names::work_stream(&project);
    let stream = outside.get_stream(stream).await.unwrap();
    let consumers: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
    for consumer in consumers {
        stream.delete_consumer(&consumer).await.unwrap();
    }
    let later = format!("loom-queue-{}", u64::MAX / 2);
    let config = pull::Config {
        durable_name: Some(later.clone()),
        filter_subject: names::queue_filter(&project),
        ..Default::default()
    };
    stream.create_consumer(config).await.unwrap();

    world.loom.restart().await.unwrap();
    let said = "another coordinator has taken over, under epoch";
    world.loom.until_it_logs(said).await.unwrap();
    stream.consumer_info(&later).await.unwrap();

    let published = br#"{"description": "published", "capability": "rust"}"#;
    let subject = names::work_queue(&project, "rust");
    let stored = outside.publish(subject, published[..].into());
    stored.await.unwrap().await.unwrap();
    stream.delete_consumer(&later).await.unwrap();
    let items = async || all_items(&client, None).await.len();
    until("the item is taken over", items, |count| *count == 2).await;
}
