//! The agents of a chaos run, each over a connection of its own.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fastrand::Rng;
use loom_protocol::work::{ClaimAnswer, LeaseRef};
use loom_protocol::{AgentGuid, ErrorCode, WireError, WorkId};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use super::world::{BOUNDARIES, CAPABILITIES, ROUGH, STEADY, TYPES, World, may_pass};
use crate::fleet::TestProject;
use crate::history::{Action, AgentSpec, Claim};

/// Well below what makes an agent stale: silence must be the coordinator's fault, never the agent's.
const BEAT_EVERY: Duration = Duration::from_millis(700);
/// How long a claim waits at the coordinator.
const CLAIM_WAIT: Duration = Duration::from_secs(1);
/// How long an agent waits for an answer before it asks again: less than the clocks allow.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How often a run asks that was told that another one has taken its place.
const REPLACED_ASKS_EVERY: Duration = Duration::from_millis(500);
const AFTER_REFUSAL: Duration = Duration::from_millis(50);
/// Beats without an answer; more would say nothing more.
const BEATS_UNDER_WAY: usize = 8;

/// All agents.
pub(super) struct Crowd {
    world: World,
    seats: Vec<Seat>,
}

/// Where one agent after the other lives.
struct Seat {
    place: usize,
    births: u64,
    gate: watch::Sender<bool>,
    agent: Arc<Agent>,
    /// Its runs: the present one, and the one before, which does not end although it is replaced.
    runs: Vec<JoinSet<()>>,
}

impl Crowd {
    pub async fn spawn(world: &World) -> Result<Self> {
        let mut seats = Vec::new();
        for place in 0..STEADY + ROUGH {
            seats.push(Seat::taken(world, place, 0).await?);
        }
        let world = world.clone();
        Ok(Self { world, seats })
    }

    /// They stand still with their connections open.
    pub fn pause(&mut self, which: &[usize], pause: Duration) {
        for &place in which {
            let gate = self.seats[place].gate.clone();
            gate.send_replace(false);
            self.world.count("agent paused");
            tokio::spawn(async move {
                sleep(pause).await;
                gate.send_replace(true);
            });
        }
    }

    /// They are gone without a word, and others come.
    pub async fn kill(&mut self, which: &[usize]) -> Result<()> {
        for &place in which {
            let births = self.seats[place].births + 1;
            self.seats[place] = Seat::taken(&self.world, place, births).await?;
            self.world.count("agent killed");
        }
        Ok(())
    }

    /// A second run of an agent begins, and the first one goes on asking.
    pub async fn run_twice(&mut self, place: usize) -> Result<()> {
        self.seats[place].run_again().await?;
        self.world.count("second run of an agent");
        Ok(())
    }

    pub fn request_scale_in(self) {
        drop(self);
    }
}

impl Seat {
    async fn taken(world: &World, place: usize, births: u64) -> Result<Self> {
        let seed = world.seed ^ ((place as u64 + 1) << 32 | births);
        let mut rng = Rng::with_seed(seed);
        let (spec, slots) = profile(place, &mut rng);
        let connected = world.project.another_connection().await;
        let gate = watch::Sender::new(true);
        let agent = Arc::new(Agent {
            world: world.clone(),
            project: connected.context("connect an agent")?,
            run: WorkId::generate().to_string(),
            is_replaced: AtomicBool::new(false),
            spec,
            slots,
            gate: gate.subscribe(),
            held: Mutex::default(),
            rng: Mutex::new(rng),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(agent.clone().live());
        Ok(Self {
            place,
            births,
            gate,
            agent,
            runs: vec![tasks],
        })
    }

    async fn run_again(&mut self) -> Result<()> {
        let first = self.agent.clone();
        let connected = first.world.project.another_connection().await;
        let seed = first.rng.lock().u64(..);
        let agent = Arc::new(Agent {
            world: first.world.clone(),
            project: connected.context("connect a second run of an agent")?,
            run: WorkId::generate().to_string(),
            is_replaced: AtomicBool::new(false),
            spec: first.spec.clone(),
            slots: first.slots,
            gate: self.gate.subscribe(),
            held: Mutex::default(),
            rng: Mutex::new(Rng::with_seed(seed)),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(agent.clone().live());
        self.agent = agent;
        self.runs.push(tasks);
        if self.runs.len() > 2 {
            self.runs.remove(0);
        }
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        tracing::debug!(place = self.place, births = self.births, "an agent is gone");
    }
}

fn profile(place: usize, rng: &mut Rng) -> (AgentSpec, usize) {
    let steady = place < STEADY;
    let mut spec = AgentSpec::new(AgentGuid::generate(), TYPES[place % TYPES.len()], &[]);
    let some = |rng: &mut Rng, of: &[&str]| {
        let count = if steady {
            of.len()
        } else {
            rng.usize(1..=of.len().min(3))
        };
        let chosen = rng.choose_multiple(of.iter(), count);
        chosen.into_iter().map(|name| (*name).into()).collect()
    };
    spec.capabilities = some(rng, &CAPABILITIES);
    spec.boundaries = some(rng, &BOUNDARIES);
    spec.steady = steady;
    (spec, if steady { 2 } else { rng.usize(1..=4) })
}

/// One agent.
pub(super) struct Agent {
    pub world: World,
    pub project: TestProject,
    pub spec: AgentSpec,
    pub rng: Mutex<Rng>,
    /// Which run of the agent it is.
    run: String,
    /// It has been told that another run has taken its place.
    is_replaced: AtomicBool,
    slots: usize,
    gate: watch::Receiver<bool>,
    held: Mutex<HashSet<LeaseRef>>,
}

impl Agent {
    async fn live(self: Arc<Self>) {
        self.register().await;
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().beat());
        tasks.spawn(self.clone().work());
        tasks.join_all().await;
    }

    async fn register(&self) {
        let spec = &self.spec;
        let request = json!({
            "guid": spec.guid, "handle": format!("chaos-{}", spec.guid), "agentType": spec.agent_type,
            "capabilities": spec.capabilities, "boundaries": spec.boundaries,
            "maxConcurrentTasks": self.slots, "heartbeatIntervalMs": BEAT_EVERY.as_millis(),
        });
        loop {
            let action = Action::Register(spec.clone());
            let answer = self.ask(action, "agents.register", &request).await;
            match answer {
                Ok(_) => return,
                Err(error) if may_pass(&error) => sleep(AFTER_REFUSAL).await,
                Err(_) if self.is_replaced.load(Relaxed) => return,
                Err(error) => return self.world.tell(&format!("{}: {error}", spec.guid)),
            }
        }
    }

    /// At its times, whatever becomes of the beats before.
    async fn beat(self: Arc<Self>) {
        let mut times = interval(BEAT_EVERY);
        let mut under_way = JoinSet::new();
        loop {
            times.tick().await;
            self.until_awake().await;
            while under_way.try_join_next().is_some() {}
            if under_way.len() < BEATS_UNDER_WAY {
                under_way.spawn(self.clone().beat_once());
            }
        }
    }

    async fn beat_once(self: Arc<Self>) {
        let mut beat = json!({ "guid": self.spec.guid });
        if !self.spec.steady && self.rng.lock().bool() {
            let held: Vec<LeaseRef> = self.held.lock().iter().copied().collect();
            beat["holding"] = json!(held);
        }
        let answer = self
            .exchange("agents.heartbeat", &beat, ANSWER_WITHIN)
            .await;
        let unknown = answer.is_err_and(|error| error.code == ErrorCode::NotRegistered);
        if unknown && !self.is_replaced.load(Relaxed) {
            self.world.count("agent had to register again");
            self.register().await;
        }
        if !self.spec.steady && !self.world.is_calm() && self.rng.lock().u8(0..40) == 0 {
            self.publish_garbage().await;
        }
    }

    async fn work(self: Arc<Self>) {
        let mut jobs = JoinSet::new();
        loop {
            self.until_awake().await;
            while let Some(more) = jobs.try_join_next() {
                self.begin(more.unwrap_or_default(), &mut jobs);
            }
            if jobs.len() >= self.slots {
                let more = jobs.join_next().await;
                self.begin(more.and_then(Result::ok).unwrap_or_default(), &mut jobs);
                continue;
            }
            let room = self.slots - jobs.len();
            let given = self.claim(room).await;
            self.begin(given, &mut jobs);
        }
    }

    fn begin(self: &Arc<Self>, given: Vec<LeaseRef>, jobs: &mut JoinSet<Vec<LeaseRef>>) {
        for lease in given {
            if self.held.lock().insert(lease) {
                jobs.spawn(self.clone().deal_with(lease));
            }
        }
    }

    /// Which run of the agent it is.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// What it no longer works on.
    pub fn let_go(&self, lease: LeaseRef) {
        self.held.lock().remove(&lease);
    }

    /// Repeats a claim whose answer it did not get, by its name.
    async fn claim(&self, room: usize) -> Vec<LeaseRef> {
        let (claim, start) = (Claim::new(self.spec.guid), self.rng.lock().bool());
        let request = json!({
            "guid": claim.agent, "claimId": claim.claim_id, "max": room, "start": start,
            "waitMs": CLAIM_WAIT.as_millis(),
        });
        self.claim_so(&claim, &request).await
    }

    /// The item of a lease that it has lost, if it can have that again.
    pub async fn resume(&self, lost: LeaseRef) -> Option<LeaseRef> {
        let claim = Claim::new(self.spec.guid).to_resume(&[lost]);
        let request =
            json!({ "guid": claim.agent, "claimId": claim.claim_id, "max": 0, "resume": [lost] });
        let given = self.claim_so(&claim, &request).await;
        self.held.lock().extend(&given);
        given.first().copied()
    }

    async fn claim_so(&self, claim: &Claim, request: &Value) -> Vec<LeaseRef> {
        loop {
            self.until_awake().await;
            let action = Action::Claim(claim.clone());
            let open = self.world.begin_as(action, &self.run);
            let within = CLAIM_WAIT + ANSWER_WITHIN;
            let answer = self.exchange("work.claim", request, within).await;
            match answer.map(serde_json::from_value::<ClaimAnswer>) {
                Ok(Ok(answer)) => {
                    let given = leases_in(&answer);
                    open.given(given.clone());
                    return given;
                }
                Ok(Err(unreadable)) => {
                    self.world.tell(&format!(
                        "an answer to a claim cannot be read: {unreadable}"
                    ));
                }
                Err(error) => {
                    let repeat = may_pass(&error);
                    self.world.close(open, &Err(error));
                    sleep(self.pause()).await;
                    if !repeat {
                        return Vec::new();
                    }
                }
            }
        }
    }

    /// A request that goes into the history.
    pub async fn ask(&self, action: Action, verb: &str, body: &Value) -> Result<Value, WireError> {
        self.until_awake().await;
        let speaks_as_itself = body["guid"] == json!(self.spec.guid);
        let open = if speaks_as_itself {
            self.world.begin_as(action, &self.run)
        } else {
            self.world.begin(action)
        };
        let answer = self.exchange(verb, body, ANSWER_WITHIN).await;
        self.world.close(open, &answer);
        self.until_awake().await;
        answer
    }

    /// A request, and an answer within a time.
    pub async fn exchange(
        &self,
        verb: &str,
        body: &Value,
        within: Duration,
    ) -> Result<Value, WireError> {
        let mut body = body.clone();
        if body["guid"] == json!(self.spec.guid) {
            body["instanceId"] = json!(self.run);
        }
        let answer = tokio::time::timeout(within, self.project.request(verb, body)).await;
        let answer = answer.unwrap_or_else(|_| {
            let text = format!("{verb} got no answer within {within:?}");
            Err(WireError::unavailable(text, AFTER_REFUSAL))
        });
        if let Err(error) = &answer
            && error
                .details
                .as_ref()
                .is_some_and(|it| it["replaced"] == true)
            && !self.is_replaced.swap(true, Relaxed)
        {
            self.world.count("run of an agent replaced");
        }
        answer
    }

    /// A replaced run does not end, as it should: it goes on asking, now and then.
    fn pause(&self) -> Duration {
        if self.is_replaced.load(Relaxed) {
            REPLACED_ASKS_EVERY
        } else {
            AFTER_REFUSAL
        }
    }

    /// Until nobody stops it.
    pub async fn until_awake(&self) {
        // An error says that the run is over.
        let _ = self.gate.clone().wait_for(|open| *open).await;
    }
}

pub(super) fn leases_in(answer: &ClaimAnswer) -> Vec<LeaseRef> {
    let leases = answer.items.iter().map(|item| LeaseRef {
        id: item.work_item.id,
        attempt: item.lease.attempt,
    });
    leases.collect()
}
