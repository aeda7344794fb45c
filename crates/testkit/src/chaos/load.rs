//! Items, one by one, in arrays and by publishing; and those who call some off, or put dead letters back.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use loom_actors::clock::Clock;
use loom_protocol::{Timestamp, WorkId, names};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use super::world::{BOUNDARIES, CAPABILITIES, TYPES, World, may_pass};
use super::{processes, targets};
use crate::history::{Action, ItemSpec, Moment};

const SUBMITTERS: u32 = 4;
/// Far more than there are slots for one kind.
const BURST: usize = 60;
const AFTER_REFUSAL: Duration = Duration::from_millis(100);
const CANCEL_EVERY: Duration = Duration::from_millis(700);
const RETRY_EVERY: Duration = Duration::from_millis(1_900);

/// The submitters at work.
pub(super) struct Load {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    for_processes: Arc<Mutex<Vec<WorkId>>>,
    for_targets: Arc<Mutex<Vec<WorkId>>>,
}

/// What was accepted of the items that the recorded agents may not take.
pub(super) struct Accepted {
    /// For the agent processes.
    pub for_processes: Vec<WorkId>,
    /// For the agents of targets.
    pub for_targets: Vec<WorkId>,
}

impl Load {
    pub fn start(world: &World, per_second: u32) -> Self {
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for number in 0..SUBMITTERS {
            let every = Duration::from_secs(u64::from(SUBMITTERS)) / per_second.max(1);
            let rng = Rng::with_seed(world.seed ^ u64::from(number) << 56);
            tasks.spawn(submit(world.clone(), stop.subscribe(), rng, every));
        }
        let rng = Rng::with_seed(!world.seed);
        tasks.spawn(call_off(world.clone(), stop.subscribe(), rng.clone()));
        tasks.spawn(put_back(world.clone(), stop.subscribe(), rng));
        let for_processes = Arc::default();
        let accepted = Arc::clone(&for_processes);
        tasks.spawn(processes::submit(world.clone(), stop.subscribe(), accepted));
        let for_targets = Arc::default();
        let accepted = Arc::clone(&for_targets);
        tasks.spawn(targets::submit(world.clone(), stop.subscribe(), accepted));
        Self {
            stop,
            tasks,
            for_processes,
            for_targets,
        }
    }

    /// Returns when everything that was begun is answered.
    pub async fn stop(self) -> Accepted {
        self.stop.send_replace(true);
        self.tasks.join_all().await;
        Accepted {
            for_processes: std::mem::take(&mut *self.for_processes.lock()),
            for_targets: std::mem::take(&mut *self.for_targets.lock()),
        }
    }
}

async fn submit(world: World, stop: watch::Receiver<bool>, mut rng: Rng, every: Duration) {
    let mut times = interval(every);
    // While nothing is broken yet.
    submit_all(&world, burst(&mut rng)).await;
    while !*stop.borrow() {
        times.tick().await;
        match rng.u8(0..10) {
            0 => publish(&world, draw(&mut rng)).await,
            1..=2 => {
                let items = several(&mut rng);
                let count = items.len();
                submit_all(&world, items).await;
                // As many as others submit in that time.
                for _ in 1..count {
                    if !*stop.borrow() {
                        times.tick().await;
                    }
                }
            }
            _ => {
                let item = timed(&world, &mut rng);
                submit_all(&world, vec![item]).await;
            }
        }
    }
}

fn several(rng: &mut Rng) -> Vec<ItemSpec> {
    if rng.u8(0..8) == 0 {
        return burst(rng);
    }
    let count = rng.usize(2..=8);
    (0..count).map(|_| draw(rng)).collect()
}

/// So many of one kind that they have to wait: only then there is an order to be kept.
fn burst(rng: &mut Rng) -> Vec<ItemSpec> {
    let kind = draw(rng);
    let alike = |rng: &mut Rng| ItemSpec {
        capability: kind.capability.clone(),
        boundary: kind.boundary.clone(),
        required_agent_type: kind.required_agent_type.clone(),
        ..draw(rng)
    };
    (0..BURST).map(|_| alike(rng)).collect()
}

fn draw(rng: &mut Rng) -> ItemSpec {
    let mut spec = ItemSpec::new(WorkId::generate(), CAPABILITIES[rng.usize(0..4)]);
    spec.boundary = BOUNDARIES[rng.usize(0..3)].into();
    spec.priority = rng.u8(1..=10);
    if rng.u8(0..10) == 0 {
        spec.required_agent_type = rng.choice(TYPES).map(Into::into);
    }
    spec
}

/// Now and then an item that is to wait, or that may come too late.
fn timed(world: &World, rng: &mut Rng) -> ItemSpec {
    let mut spec = draw(rng);
    let later = |rng: &mut Rng| Duration::from_millis(rng.u64(50..2_500));
    match rng.u8(0..20) {
        0..=1 => {
            spec.plain = false;
            spec.not_before = Some(world.recorder.now().after(later(rng)));
        }
        2 => {
            spec.plain = false;
            spec.deadline = Some(world.recorder.now().after(later(rng)));
        }
        _ => {}
    }
    spec
}

fn wire(world: &World, spec: &ItemSpec) -> Value {
    let mut item = json!({
        "id": spec.id, "description": "something to do", "capability": spec.capability,
        "boundary": spec.boundary, "priority": spec.priority,
    });
    if let Some(required) = &spec.required_agent_type {
        item["requiredAgentType"] = json!(required);
    }
    for (name, moment) in [("notBefore", spec.not_before), ("deadline", spec.deadline)] {
        if let Some(moment) = moment {
            item[name] = json!(by_the_wall(world, moment));
        }
    }
    item
}

/// The time of day of a moment, or a little later, but never earlier.
fn by_the_wall(world: &World, moment: Moment) -> Timestamp {
    const ROUNDED: Duration = Duration::from_millis(1);
    let now = world.recorder.now().since_begin();
    let left = moment.since_begin().saturating_sub(now);
    Clock::system().now().after(left + ROUNDED)
}

/// In one request; repeated until every item is answered.
async fn submit_all(world: &World, items: Vec<ItemSpec>) {
    let mut left = items;
    while !left.is_empty() {
        let open: Vec<_> = left
            .iter()
            .map(|spec| world.begin(Action::Submit(spec.clone())))
            .collect();
        let request = match &left[..] {
            [one] => wire(world, one),
            many => {
                let items: Vec<_> = many.iter().map(|one| wire(world, one)).collect();
                json!({ "items": items })
            }
        };
        let answer = world.project.request("work.submit", request).await;
        let mut again = Vec::new();
        for ((place, spec), open) in left.into_iter().enumerate().zip(open) {
            let answer = answer.clone().and_then(|answer| match answer.get("items") {
                None => Ok(answer),
                Some(answers) => match serde_json::from_value(answers[place].clone()) {
                    Ok(refused) => Err(refused),
                    Err(_) => Ok(answers[place].clone()),
                },
            });
            match &answer {
                Ok(_) => world.remember(spec.id),
                Err(error) if may_pass(error) => again.push(spec),
                Err(error) => world.tell(&format!("a submit was refused: {error}")),
            }
            world.close(open, &answer);
        }
        left = again;
        if !left.is_empty() {
            sleep(AFTER_REFUSAL).await;
        }
    }
}

/// Into the stream; what that has acknowledged is submitted.
async fn publish(world: &World, mut spec: ItemSpec) {
    spec.plain = false;
    let subject = names::work_queue(world.project.id(), &spec.capability);
    loop {
        let open = world.begin(Action::Submit(spec.clone()));
        match world
            .project
            .publish(subject.clone(), &wire(world, &spec))
            .await
        {
            Ok(_) => {
                world.remember(spec.id);
                return open.accepted();
            }
            Err(_) => sleep(AFTER_REFUSAL).await,
        }
    }
}

/// Some item that was submitted lately, now and then.
async fn call_off(world: World, stop: watch::Receiver<bool>, mut rng: Rng) {
    let mut times = interval(CANCEL_EVERY);
    while !*stop.borrow() {
        times.tick().await;
        let Some(id) = world.any_recent(&mut rng) else {
            continue;
        };
        let open = world.begin(Action::Cancel(id));
        let answer = world
            .project
            .request("work.cancel", json!({ "id": id }))
            .await;
        world.close(open, &answer);
        world.count("item called off");
    }
}

/// Some dead letter, now and then: the item has all of its attempts again.
async fn put_back(world: World, stop: watch::Receiver<bool>, mut rng: Rng) {
    let mut times = interval(RETRY_EVERY);
    while !*stop.borrow() {
        times.tick().await;
        let listed = world.project.request("dlq.list", json!({})).await;
        let letters = listed.ok().and_then(|it| it.as_array().cloned());
        let id = rng.choice(letters.unwrap_or_default());
        let id = id.and_then(|letter| serde_json::from_value::<WorkId>(letter["id"].clone()).ok());
        let Some(id) = id else {
            continue;
        };
        let open = world.begin(Action::Retry(id));
        let answer = world
            .project
            .request("dlq.retry", json!({ "id": id }))
            .await;
        world.close(open, &answer);
        world.count("dead letter put back");
    }
}
