//! Looks whether agents could be started at the targets: when it is asked to, and by schedule.
//!
//! | who asks | when |
//! |---|---|
//! | a person (`targets.test`) | at once; a look that is under way already, of the same configuration, is theirs too |
//! | the schedule (`healthCheck`) | within a few seconds of the registration, of a change of the configuration, and of a start that failed; then every `intervalMs`, a tenth more or less |
//! | a target that was found unhealthy | in the same way until it is healthy, scheduled or not: it starts nothing by itself before |
//!
//! At most 16 targets of a process are looked at at once, and none for longer than [`LONGEST_LOOK`]. What is seen
//! is written by the keyed writer where it is news ([`Checkup`]); when a target was looked at last is kept in memory, so that
//! looks that say the same for ever write nothing, however many targets there are. Looks end with the actor, and those who
//! wait for one ask the next incarnation by themselves.
//!
//! A look is no use of a project: one with nothing but scheduled looks sleeps, with its targets, and is not looked at until
//! it wakes. One that is disabled is looked at only when somebody asks. Where this program has no mechanism for a target,
//! whoever asks is told so as an error, and the health stays unknown.
//!
//! Events: `target:health-changed`, each time that the health is another one.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use loom_protocol::target::{HealthStatus, Target, TargetConfig, TargetHealth};
use loom_protocol::{TargetId, WireError};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::change::{Changed, Request};
use super::command::{Command, not_found};
use super::env::Env;
use super::events::tell_of_health;
use super::key::TargetKey;
use super::mechanism::Mechanism;
use super::messages::{HealthMsg, HealthReply, Seen, TargetMsg};
use super::queue::{ChangeQueue, Job};
use super::{ASK_AGAIN, Record};
use crate::deadline_queue::DeadlineQueue;
use crate::domain::targets::Checkup;

/// The longest that a look may take, whatever its target says.
pub(super) const LONGEST_LOOK: Duration = Duration::from_secs(30);
/// How much longer a mechanism may take than it was told to.
const SLACK: Duration = Duration::from_secs(2);
/// Within which time a look is made that something new asks for.
const SOON: Duration = Duration::from_secs(3);
/// How many may wait for looks that they have asked for.
const MOST_WAITING: usize = 256;

/// What is known about looks.
#[derive(Default)]
pub(super) struct Health {
    due: DeadlineQueue<TargetKey>,
    /// As each target was when its next look was planned.
    planned: HashMap<TargetKey, Arc<Record>>,
    looks: HashMap<u64, Look>,
    last_look: u64,
}

/// A look that is under way.
struct Look {
    key: TargetKey,
    name: String,
    id: TargetId,
    config: TargetConfig,
    waiting: Vec<HealthReply>,
    _task: AbortOnDropHandle<()>,
}

impl Health {
    /// What is said about looks is done.
    pub fn heard(&mut self, env: &Env, queue: &mut ChangeQueue, message: HealthMsg) {
        match message {
            HealthMsg::Test { target, reply } => self.test(env, &target, reply),
            HealthMsg::Looked { look, took, seen } => self.looked(env, queue, look, (took, seen)),
            HealthMsg::Due { epoch } => self.looks_due(env, epoch),
        }
    }

    /// The bucket has been read: looks are planned all over their interval, not all at once.
    pub fn plan_all(&mut self, env: &Env) {
        let all = env.args.directory.all_known();
        let known: HashMap<_, _> = all
            .iter()
            .map(|(key, known)| (*key, &known.record))
            .collect();
        let planned = self.planned.keys();
        let gone = planned.filter(|key| !known.contains_key(key));
        for key in gone.copied().collect::<Vec<_>>() {
            self.forget_looks(key);
        }
        for (key, known) in &all {
            let is_new = !self.planned.contains_key(key);
            if is_new && let Some(every) = known.record.checked_every() {
                self.planned.insert(*key, known.record.clone());
                let wait = every.mul_f64(env.args.jitter.next());
                self.due.set(*key, Instant::now() + wait);
            } else {
                self.plan_look(env, *key, &known.record);
            }
        }
    }

    /// A change was stored: a look may be due sooner, or never again; and the health may be another one.
    pub fn applied(&mut self, env: &Env, key: TargetKey, changed: &Changed) {
        let Some((record, _)) = &changed.now else {
            return self.forget_looks(key);
        };
        self.plan_look(env, key, record);
        let before = changed.before.as_ref().map(|before| &before.target);
        if let Some(before) = before.filter(|it| it.health_status != record.target.health_status) {
            tell_of_health(env, before.health_status, &record.target);
        }
    }

    fn forget_looks(&mut self, key: TargetKey) {
        self.due.remove(&key);
        self.planned.remove(&key);
    }

    /// Plans the next look at a target, if nothing about it leaves the planned one as it is.
    fn plan_look(&mut self, env: &Env, key: TargetKey, record: &Arc<Record>) {
        let Some(every) = record.checked_every() else {
            return self.forget_looks(key);
        };
        let before = self.planned.insert(key, record.clone());
        let soon = env.args.jitter.next() * SOON.min(every).as_secs_f64();
        let soon = Instant::now() + Duration::from_secs_f64(soon);
        let is_news = before.is_none_or(|before| {
            before.target.id != record.target.id
                || before.target.config != record.target.config
                || before.failures < record.failures
        });
        match self.due.get(&key) {
            Some(planned) if !is_news => {
                // The interval may be a shorter one.
                let latest = Instant::now() + every.mul_f64(1.1);
                self.due.set(key, planned.min(latest));
            }
            Some(planned) => self.due.set(key, planned.min(soon)),
            // While a look is under way none is planned; its end plans the next one.
            None if !is_news && self.is_looked_at(key) => {}
            None => self.due.set(key, soon),
        }
    }

    fn is_looked_at(&self, key: TargetKey) -> bool {
        self.looks.values().any(|look| look.key == key)
    }

    /// A person asks: a look of the same configuration that is under way is theirs too.
    fn test(&mut self, env: &Env, target: &Target, reply: HealthReply) {
        let waiting: usize = self.looks.values().map(|look| look.waiting.len()).sum();
        if waiting >= MOST_WAITING {
            let text = format!(
                "target {} is not tested: {waiting} tests are under way, which is the most",
                target.name
            );
            let _ = reply.send(Err(WireError::overloaded(text, ASK_AGAIN)));
            return;
        }
        let key = TargetKey::of(&target.name);
        let known = key.and_then(|key| Some((key, env.args.directory.known(key)?.record)));
        let Some((key, record)) = known.filter(|(_, record)| record.target.id == target.id) else {
            let _ = reply.send(Err(not_found(&target.name)));
            return;
        };
        let mut looks = self.looks.values_mut();
        let same = looks.find(|look| {
            look.key == key && look.id == target.id && look.config == record.target.config
        });
        match same {
            Some(look) => look.waiting.push(reply),
            None => self.begin_look(env, key, &record, Some(reply)),
        }
    }

    fn looks_due(&mut self, env: &Env, epoch: u64) {
        if self.due.fired(epoch).is_none() {
            return;
        }
        while let Some(key) = self.due.pop_due(Instant::now()) {
            let Some(known) = env.args.directory.known(key) else {
                self.forget_looks(key);
                continue;
            };
            if self.is_looked_at(key) {
                let again = Instant::now() + SOON;
                self.due.set(key, again);
            } else if known.record.checked_every().is_some() && env.args.ownership.is_held() {
                self.begin_look(env, key, &known.record, None);
            } else {
                self.plan_look(env, key, &known.record);
            }
        }
    }

    /// Arms the timer of the look that is due next.
    pub fn arm(&mut self, env: &Env) {
        env.arm(self.due.next_to_arm(), |epoch| {
            TargetMsg::Health(HealthMsg::Due { epoch })
        });
    }

    /// (none) → under way.
    fn begin_look(
        &mut self,
        env: &Env,
        key: TargetKey,
        record: &Arc<Record>,
        reply: Option<HealthReply>,
    ) {
        self.last_look += 1;
        let look = self.last_look;
        let target = &record.target;
        let mechanism = env.args.births.mechanisms.of(target);
        let limit = record.look_limit(LONGEST_LOOK);
        let permits = env.args.births.looks.clone();
        let myself = env.myself();
        let task = tokio::spawn(async move {
            // Never closed: without a permit nobody is looked at.
            let Ok(_permit) = permits.acquire().await else {
                return;
            };
            let began = Instant::now();
            let seen = match mechanism {
                Ok(mechanism) => probed(&*mechanism, limit).await,
                Err(why) => Seen::Nothing(why),
            };
            let took = began.elapsed();
            let _ = myself.cast(TargetMsg::Health(HealthMsg::Looked { look, took, seen }));
        });
        let look_under_way = Look {
            key,
            name: target.name.clone(),
            id: target.id,
            config: target.config.clone(),
            waiting: reply.into_iter().collect(),
            _task: AbortOnDropHandle::new(task),
        };
        self.looks.insert(look, look_under_way);
    }

    /// Under way → (none): what was seen is told, written where it is news, and the next look is planned.
    fn looked(
        &mut self,
        env: &Env,
        queue: &mut ChangeQueue,
        look: u64,
        (took, seen): (Duration, Seen),
    ) {
        let Some(look) = self.looks.remove(&look) else {
            return;
        };
        let now = env.now();
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let (status, seen) = match seen {
            Seen::Well(seen) => (HealthStatus::Healthy, Ok(seen)),
            Seen::Ill(why) => (HealthStatus::Unhealthy, Err(why)),
            Seen::Nothing(why) => (HealthStatus::Unknown, Err(why)),
        };
        let (seen, error) = (seen.as_ref().ok().cloned(), seen.err());
        for reply in look.waiting {
            let _ = reply.send(Ok(TargetHealth {
                target_id: look.id,
                healthy: status == HealthStatus::Healthy,
                latency_ms: millis,
                response_time_ms: millis,
                seen: seen.clone(),
                error: error.clone(),
                timestamp: now,
            }));
        }
        let Some(known) = env.args.directory.known(look.key) else {
            return;
        };
        let record = known.record;
        if record.target.id != look.id {
            return;
        }
        if record.target.config == look.config && status != HealthStatus::Unknown {
            env.args.directory.looked_at(look.id, now);
        }
        let checkup = Checkup {
            of: look.config,
            status,
            error,
            at: now,
        };
        let is_news = record.checked(&checkup).is_some();
        if is_news && env.may_write(&look.name).is_ok() {
            note_checkup(queue, look.key, look.name, (look.id, checkup));
        }
        if let Some(every) = record.checked_every() {
            self.planned.insert(look.key, record);
            let wait = every.mul_f64(0.2_f64.mul_add(env.args.jitter.next(), 0.9));
            let next = Instant::now() + wait;
            // A sooner one was asked for while this one was under way.
            let planned = self.due.get(&look.key);
            self.due
                .set(look.key, planned.map_or(next, |planned| planned.min(next)));
        }
    }
}

/// Where it is not taken, the next look says the same.
fn note_checkup(
    queue: &mut ChangeQueue,
    key: TargetKey,
    name: String,
    (id, checkup): (TargetId, Checkup),
) {
    let checkup = Box::new(checkup);
    let request = Arc::new(Request {
        key,
        name,
        command: Command::Checked { id, checkup },
    });
    let job = Job {
        request: request.clone(),
        reply: None,
    };
    if let Err((_, why)) = queue.push(job) {
        tracing::debug!(target = request.name, "what was seen is not noted: {why}");
    }
}

/// Looks once, whatever the mechanism does.
async fn probed(mechanism: &dyn Mechanism, limit: Duration) -> Seen {
    let looking = AssertUnwindSafe(mechanism.probe(limit)).catch_unwind();
    match timeout(limit + SLACK, looking).await {
        Ok(Ok(Ok(seen))) => Seen::Well(seen),
        Ok(Ok(Err(why))) => Seen::Ill(why),
        Ok(Err(_panic)) => Seen::Nothing(
            "the look met a defect of this program; see its log, and please report it".into(),
        ),
        Err(_elapsed) => Seen::Ill(format!("there was no answer within {limit:?}")),
    }
}
