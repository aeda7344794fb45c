//! The steps of a start: the Job, its Secret, the resumption.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use loom_protocol::SpinUpId;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::call::{Call, Resource, Verb};
use super::cluster::Place;
use super::manifest;
use super::refusal::{Refusal, RefusalKind};
use super::state::{end_of, is_suspended, spin_up_of};
use super::{Removal, Shared, reference_to, selector, watch};
use crate::order::StartOrder;
use crate::outcome::Started;
use crate::steps::Step;
use crate::{StartError, StartErrorKind};

/// How long all steps together may take.
const LIMIT: Duration = Duration::from_secs(90);
/// How often a step is begun anew that somebody else came before.
const TRIES: u32 = 3;

/// Starts an agent, or finds the one that was started.
pub(super) async fn begin(
    shared: &Arc<Shared>,
    order: &StartOrder,
    cancel: &CancellationToken,
) -> Result<Started, StartError> {
    let begun = AtomicBool::new(false);
    let starting = Starting {
        shared,
        order,
        place: shared.place(None),
        until: Instant::now() + LIMIT,
        begun: &begun,
    };
    let spin_up = order.spin_up;
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(if begun.load(Ordering::Relaxed) {
            let message = format!("the start {spin_up} was cancelled after its Job had been asked for");
            StartError::new(StartErrorKind::InDoubt, message)
        } else {
            StartError::cancelled(&spin_up.to_string())
        }),
        started = starting.all() => started.map_err(|error| starting.without_secrets(&error)),
    }
}

struct Starting<'a> {
    shared: &'a Arc<Shared>,
    order: &'a StartOrder,
    place: Place,
    until: Instant,
    /// Set before anything is sent that changes the cluster.
    begun: &'a AtomicBool,
}

impl Starting<'_> {
    async fn all(&self) -> Result<Started, StartError> {
        let on_step = &self.shared.around.on_step;
        on_step.tell(Step::Begin);
        let job = self.written_job().await?;
        if !is_suspended(&job) || end_of(&job).is_some() {
            return Ok(self.started(&job, true));
        }
        on_step.tell(Step::Begin);
        let laid = self.written_secret(&job).await;
        if let Err(refusal) = laid {
            return Err(self.undone(&job, refusal).await);
        }
        on_step.tell(Step::Launch);
        let existing = self.resumed(&job).await?;
        on_step.tell(Step::Record);
        let started = self.started(&job, existing);
        on_step.tell(Step::Answer);
        Ok(started)
    }

    /// The Job, as it is written now or was before.
    async fn written_job(&self) -> Result<Job, StartError> {
        let api = &self.shared.api;
        let labels = selector(self.order.spin_up);
        let wanted = manifest::job(&self.shared.config, self.order);
        let mut tries = 0;
        loop {
            tries += 1;
            // Under another name, where the prefix was another one.
            let listed = watch::list::<Job>(api, &self.place, &labels, self.until).await;
            let (mut jobs, _) = listed.map_err(Refusal::into_start_error)?;
            jobs.sort_by_key(is_suspended);
            if let Some(job) = jobs.into_iter().next() {
                return self.usable(job);
            }
            self.begun.store(true, Ordering::Relaxed);
            let call = Call::new(Verb::Create, Resource::Jobs).body(&wanted);
            let refusal = match api.object(&self.place, &call, self.until).await {
                Ok(job) => return Ok(job),
                Err(refusal) => refusal,
            };
            let name = wanted.metadata.name.as_deref().unwrap_or_default();
            if !refusal.is(RefusalKind::AlreadyExists) {
                return Err(refusal.into_start_error());
            }
            let call = Call::new(Verb::Get, Resource::Jobs).of(name);
            match api.object::<Job>(&self.place, &call, self.until).await {
                Ok(job) => return self.usable(job),
                // It went between the two requests.
                Err(refusal) if refusal.is(RefusalKind::NotFound) && tries < TRIES => {}
                Err(refusal) => return Err(refusal.into_start_error()),
            }
        }
    }

    /// A Job that was there, if it is this start's.
    fn usable(&self, job: Job) -> Result<Job, StartError> {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let namespace = &self.place.namespace;
        let spin_up = self.order.spin_up.to_string();
        if spin_up_of(&job.metadata) != Some(&spin_up) {
            let message = format!(
                "namespace {namespace:?} has a Job {name:?} that is not of the start {spin_up}; write another jobNamePrefix into the target, or remove that Job"
            );
            return Err(StartError::refused(message));
        }
        if job.metadata.deletion_timestamp.is_some() {
            let message = format!(
                "the Job {name:?} of namespace {namespace:?} is just being removed; try again when it is gone"
            );
            return Err(StartError::new(StartErrorKind::Unavailable, message));
        }
        Ok(job)
    }

    /// The Secret with the ticket of this order, whatever was in it before: nobody has read that yet.
    async fn written_secret(&self, job: &Job) -> Result<(), Refusal> {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let owner = manifest::owner(name, uid);
        let secret = manifest::secret(&self.shared.config, self.order, &owner);
        let mut tries = 0;
        loop {
            tries += 1;
            let create = Call::new(Verb::Create, Resource::Secrets).body(&secret);
            match self.shared.api.call(&self.place, &create, self.until).await {
                Ok(_) => return Ok(()),
                Err(refusal) if !refusal.is(RefusalKind::AlreadyExists) => return Err(refusal),
                Err(_) => {}
            }
            let update = Call::new(Verb::Update, Resource::Secrets)
                .of(name)
                .body(&secret);
            match self.shared.api.call(&self.place, &update, self.until).await {
                Ok(_) => return Ok(()),
                // It was one of a Job that is gone, and went now.
                Err(refusal) if refusal.is(RefusalKind::NotFound) && tries < TRIES => {}
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// Resumes the Job; true where somebody else had.
    async fn resumed(&self, job: &Job) -> Result<bool, StartError> {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let patch = json!([
            {"op": "test", "path": "/metadata/uid", "value": job.metadata.uid},
            {"op": "test", "path": "/spec/suspend", "value": true},
            {"op": "replace", "path": "/spec/suspend", "value": false},
        ]);
        let resume = Call::new(Verb::Patch, Resource::Jobs).of(name).body(&patch);
        let api = &self.shared.api;
        let Err(refusal) = api.call(&self.place, &resume, self.until).await else {
            return Ok(false);
        };
        // Where a test of the patch fails, or an answer was lost, the Job tells.
        let read = Call::new(Verb::Get, Resource::Jobs).of(name);
        let until = self.until.max(Instant::now() + Duration::from_secs(5));
        let now = api.object::<Job>(&self.place, &read, until).await;
        match now {
            Ok(now) if now.metadata.uid == job.metadata.uid && !is_suspended(&now) => {
                Ok(!refusal.may_be_done)
            }
            Ok(_) if !refusal.may_be_done => Err(self.undone(job, refusal).await),
            Err(gone) if gone.is(RefusalKind::NotFound) => {
                let message =
                    format!("the Job {name:?} was removed before it was resumed; start again");
                Err(StartError::new(StartErrorKind::Unavailable, message))
            }
            _ => {
                let message = format!(
                    "{}; whether the Job {name:?} was resumed is not known",
                    refusal.message
                );
                Err(StartError::new(StartErrorKind::InDoubt, message))
            }
        }
    }

    /// Takes back a Job that was not resumed, and says why.
    async fn undone(&self, job: &Job, refusal: Refusal) -> StartError {
        let removed = self.shared.remove(&self.place, job, Removal::Background);
        if let Err(error) = removed.await {
            let why = error.message;
            tracing::warn!(why, "a Job that was never resumed is left in its cluster");
        }
        refusal.into_start_error()
    }

    fn started(&self, job: &Job, existing: bool) -> Started {
        let spin_up: SpinUpId = self.order.spin_up;
        let secrets = self.order.secrets(&self.shared.config.env);
        let told = self.shared.told(self.place.clone(), spin_up, secrets);
        Started {
            reference: reference_to(&self.place, spin_up, job),
            existing,
            end: Some(told.end),
            output: None,
            waits: Some(told.waits),
        }
    }

    /// A server may repeat what it was sent.
    fn without_secrets(&self, error: &StartError) -> StartError {
        let secrets = self.order.secrets(&self.shared.config.env);
        StartError::new(error.kind(), secrets.hide(&error.to_string()))
    }
}
