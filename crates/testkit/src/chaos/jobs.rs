//! What an agent does with an item that it was given, well or badly.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use loom_protocol::work::{ClaimAnswer, LeaseRef};
use loom_protocol::{AgentGuid, WireError, names};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::agent::{Agent, leases_in};
use super::world::may_pass;
use crate::history::{Action, Claim, Verb};

/// How often an agent says that it goes on.
const PROGRESS_EVERY: Duration = Duration::from_millis(900);
/// How long an agent that has met a limit is left alone.
const LIMIT_LASTS: Duration = Duration::from_millis(500);
/// Longer than the progress clock of a run.
const TOO_LATE: Duration = Duration::from_secs(5);
/// Hardly longer than that clock: an item that was lost may wait for another agent still.
const JUST_TOO_LATE: Duration = Duration::from_millis(4_200);
const AFTER_REFUSAL: Duration = Duration::from_millis(50);

/// How an agent deals with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Complete,
    ThenClaim,
    Twice,
    Fail {
        recoverable: bool,
    },
    Release,
    Long,
    Publish,
    Late,
    JustTooLate,
    Resume,
    Forget,
    WrongAttempt,
    AsAnother,
    /// It has met a limit: it gets nothing for a moment, and no attempt is spent.
    Limit,
}

impl Manner {
    fn draw(rng: &mut Rng, steady: bool, calm: bool) -> Self {
        match rng.u8(0..100) {
            _ if calm => Self::Complete,
            0..=4 => Self::Twice,
            5..=6 => Self::Fail { recoverable: true },
            7..=8 => Self::Release,
            9 => Self::Long,
            10..=24 => Self::ThenClaim,
            _ if steady => Self::Complete,
            25..=27 => Self::Publish,
            28 => Self::Late,
            29 => Self::JustTooLate,
            39 => Self::Resume,
            30..=31 => Self::Forget,
            32..=33 => Self::WrongAttempt,
            34..=35 => Self::AsAnother,
            36 => Self::Fail { recoverable: false },
            37..=38 => Self::Limit,
            _ => Self::Complete,
        }
    }

    const fn counted_as(self) -> Option<&'static str> {
        match self {
            Self::Complete | Self::ThenClaim | Self::Long => None,
            Self::Twice => Some("completed twice"),
            Self::Fail { .. } => Some("failed"),
            Self::Release => Some("released"),
            Self::Publish => Some("completed by publishing"),
            Self::Late | Self::JustTooLate => Some("completed too late"),
            Self::Resume => Some("lost, and asked for again"),
            Self::Forget => Some("forgotten"),
            Self::WrongAttempt => Some("completed with a wrong attempt"),
            Self::AsAnother => Some("completed as another agent"),
            Self::Limit => Some("given back because of a limit"),
        }
    }
}

impl Agent {
    /// Works on an item until that is over for this agent. Gives what it claimed with its completion.
    pub async fn deal_with(self: Arc<Self>, lease: LeaseRef) -> Vec<LeaseRef> {
        let (manner, lasts) = {
            let mut rng = self.rng.lock();
            let manner = Manner::draw(&mut rng, self.spec.steady, self.world.is_calm());
            (manner, Duration::from_millis(rng.u64(1..120)))
        };
        if let Some(counted) = manner.counted_as() {
            self.world.count(&format!("item {counted}"));
        }
        let more = self.work_on(lease, manner, lasts).await;
        self.let_go(lease);
        more
    }

    async fn work_on(&self, lease: LeaseRef, manner: Manner, lasts: Duration) -> Vec<LeaseRef> {
        if self.insist(Verb::Start, lease, json!({})).await.is_err() {
            return Vec::new();
        }
        sleep(lasts).await;
        match manner {
            Manner::Complete => self.complete(lease).await,
            Manner::ThenClaim => return self.complete_then_claim(lease).await,
            Manner::Twice => {
                self.complete(lease).await;
                self.complete(lease).await;
            }
            Manner::Fail { recoverable } => {
                let error = json!({ "error": "told to fail", "recoverable": recoverable });
                let fail = Verb::Fail { spends: true };
                let _ = self.insist(fail, lease, error).await;
            }
            Manner::Release => {
                let release = Verb::Release { delayed: false };
                let _ = self.insist(release, lease, json!({})).await;
            }
            Manner::Limit => {
                let limit = json!({
                    "error": "usage limit", "spendsAttempt": false,
                    "retryAfterMs": LIMIT_LASTS.as_millis(),
                });
                let fail = Verb::Fail { spends: false };
                let _ = self.insist(fail, lease, limit).await;
            }
            Manner::Long => self.take_long(lease).await,
            Manner::Publish => self.publish_completion(lease).await,
            Manner::Late => {
                sleep(TOO_LATE).await;
                self.complete(lease).await;
            }
            Manner::JustTooLate => {
                sleep(JUST_TOO_LATE).await;
                let late = self.insist(Verb::Complete, lease, json!({})).await;
                if late.is_ok() {
                    self.world.count("late completion taken");
                }
            }
            Manner::Resume => {
                sleep(JUST_TOO_LATE).await;
                match self.resume(lease).await {
                    Some(again) => {
                        self.world.count("item had again");
                        self.complete(again).await;
                        self.let_go(again);
                    }
                    None => self.complete(lease).await,
                }
            }
            Manner::Forget => {}
            Manner::WrongAttempt => {
                for attempt in [lease.attempt + 1, lease.attempt.saturating_sub(1)] {
                    let wrong = LeaseRef { attempt, ..lease };
                    let _ = self.report(Verb::Complete, wrong, json!({})).await;
                }
                self.complete(lease).await;
            }
            Manner::AsAnother => {
                let other = AgentGuid::generate();
                let _ = self
                    .report_as(other, Verb::Complete, lease, json!({}))
                    .await;
                self.complete(lease).await;
            }
        }
        Vec::new()
    }

    async fn complete(&self, lease: LeaseRef) {
        let _ = self.insist(Verb::Complete, lease, json!({})).await;
    }

    /// Longer than every clock, and never silent.
    async fn take_long(&self, lease: LeaseRef) {
        let began = tokio::time::Instant::now();
        let mut percent = 0;
        while began.elapsed() < TOO_LATE + PROGRESS_EVERY {
            percent = (percent + 10).min(99);
            let progress = self.report(Verb::Progress, lease, json!({ "progress": percent }));
            match progress.await {
                Err(error) if !may_pass(&error) => return,
                _ => sleep(PROGRESS_EVERY).await,
            }
        }
        self.complete(lease).await;
    }

    async fn complete_then_claim(&self, lease: LeaseRef) -> Vec<LeaseRef> {
        let claim = Claim::new(self.spec.guid);
        let more = json!({ "thenClaim": { "claimId": claim.claim_id, "max": 1 } });
        let open = self.world.begin_as(Action::Claim(claim), self.run());
        let answer = self.insist(Verb::Complete, lease, more).await;
        let claimed = answer.ok().and_then(|mut answer| {
            let items = answer.get_mut("claimed")?.take();
            let items = serde_json::from_value(items).ok()?;
            Some(leases_in(&ClaimAnswer { items }))
        });
        let claimed = claimed.unwrap_or_default();
        // Nothing may mean that the claim failed: then nobody knows.
        if !claimed.is_empty() {
            open.given(claimed.clone());
        }
        claimed
    }

    /// Durably, without a request: nobody tells the agent what becomes of it.
    async fn publish_completion(&self, lease: LeaseRef) {
        let body = json!({
            "workItemId": lease.id, "taskId": "", "agentGuid": self.spec.guid, "instanceId": self.run(),
            "attempt": lease.attempt, "result": { "summary": "published" },
        });
        let action = self.action(self.spec.guid, Verb::Complete, lease);
        let subject = names::work_completed(self.project.id());
        let mut stored = false;
        while !stored {
            self.until_awake().await;
            // Dropped without an answer: it may take effect at any time from now on.
            drop(self.world.begin(action.clone()));
            stored = self.project.publish(subject.clone(), &body).await.is_ok();
            sleep(AFTER_REFUSAL).await;
        }
    }

    /// A report, again and again until it has a definite answer.
    async fn insist(&self, verb: Verb, lease: LeaseRef, more: Value) -> Result<Value, WireError> {
        loop {
            match self.report(verb, lease, more.clone()).await {
                Err(error) if may_pass(&error) => sleep(AFTER_REFUSAL).await,
                answer => return answer,
            }
        }
    }

    async fn report(&self, verb: Verb, lease: LeaseRef, more: Value) -> Result<Value, WireError> {
        self.report_as(self.spec.guid, verb, lease, more).await
    }

    async fn report_as(
        &self,
        guid: AgentGuid,
        verb: Verb,
        lease: LeaseRef,
        mut body: Value,
    ) -> Result<Value, WireError> {
        body["id"] = json!(lease.id);
        body["guid"] = json!(guid);
        body["attempt"] = json!(lease.attempt);
        let action = self.action(guid, verb, lease);
        let verb = match verb {
            Verb::Start => "work.start",
            Verb::Progress => "work.progress",
            Verb::Complete => "work.complete",
            Verb::Fail { .. } => "work.fail",
            Verb::Release { .. } => "work.release",
        };
        self.ask(action, verb, &body).await
    }

    fn action(&self, agent: AgentGuid, verb: Verb, lease: LeaseRef) -> Action {
        if agent != self.spec.guid {
            tracing::debug!(%agent, "a report in the name of another agent");
        }
        Action::Report { verb, agent, lease }
    }
}
