//! Putting projects to sleep that nobody needs, and waking them.
//!
//! ```text
//! awake ── unused for projects.sleep_after, nothing left to do ──► asleep ── a request, a message, its time ──► starting
//!   ▲                                                                │
//!   └── its streams moved while it fell asleep ──────────────────────┘
//! ```
//!
//! A project that sleeps has no actors; its durable consumers stay, since they say how far was read. What is kept of it is a
//! [`Mark`]: where its streams stand, and the totals of what is in it, which answer the sums over all projects. What is
//! published to it wakes it, and what is put into its bucket of agents; a request that names it starts it and waits. Marks are kept in `LOOM_OWNERS` too: a coordinator
//! that starts, or has connected again, starts those only whose streams stand elsewhere.
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | a message comes while it falls asleep | it is subscribed to before the streams are looked at, and they are looked at again after its actors have ended: it is started again |
//! | a request comes meanwhile | it waits until the actors have ended, and starts it again |
//! | somebody uses it just then | it stays awake |
//! | its actors do not end in time, or its streams cannot be looked at | it is started again |
//! | the mark cannot be written | it sleeps; the next coordinator starts it |
//! | NATS was away, the word of it lost | where the streams stand is compared at every reconnect, and every [`COMPARE_EVERY`](super::comparison::COMPARE_EVERY); a comparison that fails is tried again soon |
//! | its streams are destroyed | it is forgotten; its guard says so where it was the store |
//! | what it keeps expires | it wakes when the first thing has, at the earliest after an hour, and counts anew |
//! | no more may be awake | the one that was unused longest makes room; where none may sleep, requests are refused with `overloaded`, and what was published waits in its stream and is tried again |
//! | one that was woken cannot be started | it is tried again with pauses, and when NATS has connected anew; until then it is `unavailable` |

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use loom_protocol::{ProjectId, names};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::comparison::Comparison;
use super::doing::Done;
use super::wake_subscriptions::WakeSubscription;
use super::{Projects, RETRY_AFTER};
use crate::domain::sleep::{
    AsleepTotals, DigestedMark, Mark, Signs, StreamPosition, StreamPositions, why_awake,
};
use crate::liveness::BarrierOutcome;
use crate::nats::positions::{Position, all_positions, positions_of};
use crate::project::Project;
use crate::supervision::StopError;

/// How often it is looked which projects may sleep, at the most; more often where they may sleep sooner.
const LOOK_MAX: Duration = Duration::from_secs(10);
const LOOK_MIN: Duration = Duration::from_millis(100);
/// How long the actors of one that falls asleep may take to end.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How many fall asleep at a time.
const AT_A_TIME: usize = 16;

impl Projects {
    /// Whether a project sleeps.
    pub fn is_asleep(&self, id: &ProjectId) -> bool {
        self.0.asleep.contains(id)
    }

    /// Whether a project needs somebody to start it: it sleeps, or no more were allowed to be awake when it was found.
    pub fn waits_to_be_wanted(&self, id: &ProjectId) -> bool {
        self.is_asleep(id) || self.0.found.is_kept_out(id)
    }

    /// How many sleep.
    pub fn asleep(&self) -> usize {
        self.0.asleep.len()
    }

    /// What is in a project that sleeps.
    pub fn totals_asleep(&self, id: &ProjectId) -> Option<AsleepTotals> {
        self.0.asleep.totals(id)
    }

    /// What is in each project that sleeps, by id.
    pub fn all_totals_asleep(&self) -> Vec<(ProjectId, AsleepTotals)> {
        self.0.asleep.each(|mark| mark.totals)
    }

    /// Puts projects to sleep and wakes those whose time it is, for ever.
    pub(super) async fn keep_sleeping(&self) {
        let Some(sleep_after) = self.0.limits.sleep_after else {
            return;
        };
        let every = (sleep_after / 4).clamp(LOOK_MIN, LOOK_MAX);
        let mut reconnects = self.0.terms.nats.reconnects.clone();
        reconnects.mark_unchanged();
        let mut comparison = Comparison::new(Instant::now());
        let mut kept_out = 0;
        loop {
            let pause = every.min(comparison.due_in(Instant::now()));
            if next_look(pause, &mut reconnects).await {
                comparison.is_wanted(Instant::now());
            }
            if comparison.due_in(Instant::now()).is_zero() {
                // Those that could not be started while NATS was away.
                self.start_found().await;
                let compared = self.wake_those_that_moved().await;
                comparison.ended(Instant::now(), compared);
            } else {
                let now = self.0.terms.clock.now();
                self.wake(&self.0.asleep.over(now, self.settings(), None))
                    .await;
            }
            if !self.0.terms.ownership.is_held() || !self.0.terms.nats.is_up() {
                continue;
            }
            // By their ids: whoever holds a project uses it.
            let unused = self.0.active.iter();
            let unused = unused.filter(|entry| entry.last_use.may_sleep_after(sleep_after));
            let unused: Vec<ProjectId> = unused.map(|entry| entry.key().clone()).collect();
            // Those for which there was no room take their turns, so that each has a mark.
            let now_kept_out = self.0.found.kept_out();
            if now_kept_out > 0 {
                self.start_found().await;
            }
            if now_kept_out != kept_out {
                kept_out = now_kept_out;
                tracing::warn!(
                    kept_out,
                    "projects wait until one of those that are awake sleeps (projects.max)"
                );
            }
            stream::iter(unused)
                .for_each_concurrent(AT_A_TIME, |id| self.deactivate_unused(id, sleep_after))
                .await;
        }
    }

    /// Wakes the projects whose streams do not stand where their marks say. False: that is not known, or one of them could not
    /// be started.
    async fn wake_those_that_moved(&self) -> bool {
        if self.0.asleep.len() == 0 {
            return true;
        }
        let stand = match all_positions(&self.0.terms.nats.jetstream).await {
            Ok(all) => by_project(all),
            Err(error) => {
                tracing::debug!("projects that sleep are not compared: {error}");
                return false;
            }
        };
        let now = self.0.terms.clock.now();
        let moved = self.0.asleep.over(now, self.settings(), Some(&stand));
        self.wake(&moved).await;
        !moved.iter().any(|id| self.is_asleep(id))
    }

    /// A digest of the settings that say what becomes of what is in a project that sleeps. Another program may digest them
    /// otherwise: that costs a start.
    fn settings(&self) -> u64 {
        let terms = &self.0.terms;
        let mut digest = DefaultHasher::new();
        (&terms.work, &terms.dlq, terms.replicas).hash(&mut digest);
        digest.finish()
    }

    async fn wake(&self, these: &[ProjectId]) {
        join_all(these.iter().map(|id| self.start_one_found(id))).await;
    }

    /// Takes those that sleep over from the coordinator before, as far as their marks hold. The others are to be started.
    pub(super) async fn recall_asleep(&self, there: &BTreeSet<ProjectId>) {
        if self.0.limits.sleep_after.is_none() {
            return;
        }
        let marks = match self.0.marks.all().await {
            Ok(marks) => marks,
            Err(error) => {
                return tracing::warn!(
                    "which projects slept is not known, all are started: {error}"
                );
            }
        };
        let (marks, gone): (Vec<_>, Vec<_>) =
            marks.into_iter().partition(|(id, _)| there.contains(id));
        for (id, _) in &gone {
            self.0.marks.forget(id).await;
        }
        let candidates: Vec<_> = marks
            .into_iter()
            .filter(|(id, _)| !self.0.active.contains_key(id) && !self.is_asleep(id))
            .collect();
        if candidates.is_empty() {
            return;
        }
        if let Err(error) = self.recall(candidates).await {
            tracing::warn!("the projects that slept are started: {error}");
        }
    }

    async fn recall(&self, candidates: Vec<(ProjectId, DigestedMark)>) -> Result<(), String> {
        let nats = &self.0.terms.nats;
        let mut subscribed = Vec::with_capacity(candidates.len());
        for (id, mark) in candidates {
            let subscription = self.0.wake_subscriptions.listen(&id).await;
            subscribed.push((id, mark, subscription.map_err(|error| error.to_string())?));
        }
        // What comes from here on is heard.
        nats.client
            .flush()
            .await
            .map_err(|error| error.to_string())?;
        let all = all_positions(&nats.jetstream)
            .await
            .map_err(|error| error.to_string())?;
        let stand = by_project(all);
        let now = self.0.terms.clock.now();
        for (id, mark, subscription) in subscribed {
            if mark.holds(&stand(&id), self.settings()) && !mark.is_over(now) {
                self.lay_to_sleep(&id, mark, subscription);
            }
        }
        tracing::info!(asleep = self.0.asleep.len(), "projects sleep on");
        Ok(())
    }

    /// Forgets those of which nothing is there any more.
    pub(super) async fn forget_vanished(&self, there: &BTreeSet<ProjectId>) {
        for id in self.0.asleep.vanished(there) {
            if self.0.asleep.remove(&id) {
                tracing::info!(project = %id, "the project is forgotten: its resources are gone");
                self.0.terms.stores.guard(&id).suspect();
                self.0.marks.forget(&id).await;
            }
        }
    }

    /// Puts a project to sleep, unless there is a reason to stay awake.
    pub(super) async fn deactivate_unused(&self, id: ProjectId, sleep_after: Duration) {
        let Some(project) = self.get(&id) else { return };
        let signs = signs_of(&project, 0);
        if why_awake(&signs, sleep_after).is_some() || self.why_not_up(&id).is_some() {
            return;
        }
        match self.fall_asleep(project, sleep_after).await {
            Ok(true) => return tracing::info!(project = %id, "the project sleeps"),
            Ok(false) => {}
            Err(error) => tracing::debug!(project = %id, "the project stays awake: {error}"),
        }
        // What keeps it awake may stay so: it is not asked for at every look.
        if let Some(project) = self.get(&id) {
            project.last_use.note_try();
        }
    }

    async fn fall_asleep(
        &self,
        project: Arc<Project>,
        sleep_after: Duration,
    ) -> Result<bool, String> {
        let (id, terms) = (project.id.clone(), &self.0.terms);
        let id = &id;
        let streams = streams_of(id);
        let before = positions_of(&terms.nats.jetstream, &streams).await;
        let before = before.map_err(|error| error.to_string())?;
        // What lay in its streams and buckets by then has been applied, or is to be waited for.
        if project.barrier.pass().await != BarrierOutcome::Passed {
            return Ok(false);
        }
        let messages = before.get(&names::work_stream(id));
        let signs = signs_of(&project, messages.map_or(0, |stream| stream.messages));
        if why_awake(&signs, sleep_after).is_some() {
            return Ok(false);
        }
        let subscription = self.0.wake_subscriptions.listen(id).await;
        let subscription = subscription.map_err(|error| error.to_string())?;
        terms
            .nats
            .client
            .flush()
            .await
            .map_err(|error| error.to_string())?;
        let totals = AsleepTotals {
            work: project.work.totals(),
            letters: project.letters.total(),
            targets: project.targets.totals(),
            last_activity: project.work.last_activity(),
        };
        let mark = Mark::new(
            terms.clock.now(),
            self.settings(),
            self.expires(&project),
            stand(&before),
            totals,
        );
        let sleeps = self.begin_sleep(project, mark, subscription, sleep_after);
        Ok(matches!(sleeps.await, Done::Stopped(Ok(()))) && self.is_asleep(id))
    }

    /// When the first thing that is kept of a project expires.
    fn expires(&self, project: &Project) -> Option<loom_protocol::Timestamp> {
        let terms = &self.0.terms;
        let item = project.work.oldest_finished();
        let letter = project.letters.oldest();
        let expiries = [
            item.map(|written| written.after(terms.work.retention)),
            letter.map(|written| written.after(terms.dlq.retention)),
        ];
        expiries.into_iter().flatten().min()
    }

    /// Ends the actors of a project that falls asleep. From the beginning it sleeps for whoever would write or wait for it,
    /// who waits for the end of this and starts it again; reads go on until its actors have ended.
    pub(super) async fn sleep_now(
        &self,
        project: Arc<Project>,
        mark: Mark,
        subscription: WakeSubscription,
        used_before: Duration,
    ) -> Result<(), StopError> {
        let id = &project.id.clone();
        self.0.started.remove(id);
        let kept = mark.digested();
        self.lay_to_sleep(id, kept, subscription);
        // One is this one, and one is of the active ones: any other one is of somebody who uses it, or is about to.
        let is_used = Arc::strong_count(&project) > 2 || project.last_use.unused() < used_before;
        if is_used || !project.agents.is_empty() {
            self.0.started.insert(id.clone());
            self.0.asleep.remove(id);
            return Ok(());
        }
        let agents = project.agents.clone();
        drop(project);
        let stopped = self.0.root.stop_tree(id.as_str(), STOP_WITHIN).await;
        self.0.active.remove(id);
        self.0.terms.stores.closed(id);
        let after = positions_of(&self.0.terms.nats.jetstream, &streams_of(id)).await;
        // An agent that is known by the bucket of all projects moves no stream of this one.
        let is_as_before = agents.is_empty()
            && after.is_ok_and(|after| kept.holds(&stand(&after), self.settings()));
        if stopped.is_err() || !is_as_before {
            self.0.found.note(id);
            self.0.asleep.remove(id);
            self.start_until_up(id);
        } else if let Err(error) = self.0.marks.keep(id, &mark).await {
            tracing::debug!(project = %id, "its mark is not kept: {error}");
        }
        stopped
    }
}

/// Waits for the time of the next look, or until NATS has connected anew: whether it has.
async fn next_look(every: Duration, reconnects: &mut watch::Receiver<u64>) -> bool {
    tokio::select! {
        () = sleep(every) => false,
        changed = reconnects.changed() => {
            if changed.is_err() {
                sleep(RETRY_AFTER).await;
            }
            true
        }
    }
}

pub(super) fn signs_of(project: &Project, messages: u64) -> Signs {
    let unreadable =
        project.work.quarantined() + project.agents.quarantined() + project.targets.quarantined();
    Signs {
        unused: project.last_use.unused(),
        agents: project.agents.len(),
        work: project.work.totals(),
        messages,
        without_letter: project.work.without_letter(0, 1).len(),
        scheduled: project.letters.scheduled(),
        births: project.targets.undecided()
            + project.targets.linked_agents()
            + project.targets.tidied(),
        unreadable: unreadable + usize::from(project.letters.unreadable() > 0),
    }
}

/// The streams of a project.
fn streams_of(id: &ProjectId) -> Vec<String> {
    let buckets = [
        names::agents_bucket(id),
        names::work_bucket(id),
        names::graveyard_bucket(id),
        names::targets_bucket(id),
    ];
    let buckets = buckets.into_iter().map(|bucket| format!("KV_{bucket}"));
    buckets
        .chain([names::work_stream(id), names::dead_letter_stream(id)])
        .collect()
}

fn stand(streams: &BTreeMap<String, Position>) -> StreamPositions {
    let all = streams.iter();
    all.map(|(name, position)| (name.clone(), stand_of(position)))
        .collect()
}

const fn stand_of(position: &Position) -> StreamPosition {
    StreamPosition {
        made: position.made,
        last: position.last,
    }
}

/// Where the streams of each project stand, of all that there are.
fn by_project(all: BTreeMap<String, Position>) -> impl Fn(&ProjectId) -> StreamPositions {
    move |id| {
        let streams = streams_of(id).into_iter();
        streams
            .filter_map(|name| {
                let position = all.get(&name).map(stand_of)?;
                Some((name, position))
            })
            .collect()
    }
}
