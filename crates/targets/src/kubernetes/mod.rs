//! `kubernetes`: a Job in a cluster.
//!
//! - **The same start** is the same Job: its name is made of `jobNamePrefix` and the spin-up id, and the label
//!   `loom/spin-up-id` tells whose it is. A Job of that name with another label is an error that says so.
//! - **Nothing is left behind**: the Job is written first, *suspended*, so that no pod is made of it; then its Secret,
//!   which belongs to the Job and goes with it; then the Job is resumed, once. A coordinator that is killed before that
//!   leaves a Job that does nothing, which the next start takes again, with a new ticket, or [`Launcher::forget`] and
//!   [`Launcher::stop`] remove.
//! - **Secrets** (the ticket, the target's `env`) are in the Secret only, neither in the Job nor in a command. The
//!   coordinator never reads a Secret.
//! - **Once**: `backoffLimit: 0`, `restartPolicy: Never`. Kubernetes may still run a pod twice (a node that comes back);
//!   the ticket is single-use, so the second one is refused.
//! - **Watched** until its end. A pod that can't begin (an image that can't be pulled, `InvalidImageName`) is a failed
//!   start at once, and its Job is removed; why one has only waited, its end by [`Launcher::stop`] tells.
//! - **Ended** is the Job with its pods: TERM, and KILL after the grace, which the kubelet gives; at most 30 s where the
//!   garbage collector comes first.
//!
//! | killed | what is in the cluster | [`Launcher::find`] says |
//! |---|---|---|
//! | before the Job was written | nothing | `Absent` |
//! | between the Job and its Secret | the Job, suspended | `Absent`; a repeated start takes it |
//! | between the Secret and the resumption | both, the Job suspended | `Absent`; a repeated start puts its own ticket in |
//! | after the resumption, reference not stored | a Job that runs | `Running`, by the label |
//! | stored | a Job that runs or has ended | `Running`, or `Ended` with the end of its log |

mod api;
mod call;
mod cluster;
mod ends;
mod manifest;
mod probe;
mod refusal;
mod start;
mod state;
mod stop;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use loom_process::secrets::Secrets;
use loom_protocol::SpinUpId;
use loom_protocol::target::KubernetesConfig;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::order::{StartOrder, values};
use crate::outcome::{Found, Probe, Started, Stopped};
use crate::reference::{KubernetesReference, Reference};
use crate::{Launcher, ProbeError, StartError, StopError, Surroundings, output};
use api::Api;
use call::{Call, Resource, Verb};
use cluster::{Clusters, Place};
use manifest::SPIN_UP;
use refusal::{Refusal, RefusalKind};
use state::{Phase, end_of, is_alive, is_suspended, phase};

/// How long it may take to see what there is.
const LOOK: Duration = Duration::from_secs(30);

/// Starts agents as Jobs.
pub struct Kubernetes(Arc<Shared>);

/// What the watch of a Job knows too.
struct Shared {
    config: KubernetesConfig,
    around: Surroundings,
    api: Api,
}

/// What there is of a start.
struct Seen {
    jobs: Vec<Job>,
    pods: Vec<Pod>,
}

/// How a Job is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    /// It goes at once, what belongs to it later.
    Background,
    /// It goes when all that belongs to it is gone.
    Foreground,
}

impl Kubernetes {
    /// For one target.
    pub fn new(config: KubernetesConfig, around: Surroundings) -> Self {
        let clusters = Clusters::new(around.kubeconfig.clone());
        Self(Arc::new(Shared {
            config,
            around,
            api: Api::new(clusters),
        }))
    }
}

impl Shared {
    /// Where a start is: where its reference says, whatever has become of the target since.
    fn place(&self, reference: Option<&KubernetesReference>) -> Place {
        let (context, namespace) = match reference {
            Some(reference) => (&reference.context, &reference.namespace),
            None => (&self.config.context, &self.config.namespace),
        };
        Place {
            context: context.clone(),
            namespace: namespace.clone(),
        }
    }

    fn secrets(&self) -> Secrets {
        Secrets::new(values(&self.config.env))
    }

    /// What the cluster says, as it may be told on.
    fn tellable(&self, text: &str) -> String {
        output::told(text.as_bytes(), &self.secrets())
    }

    async fn seen(&self, place: &Place, spin_up: SpinUpId) -> Result<Seen, Refusal> {
        let (labels, until) = (selector(spin_up), Instant::now() + LOOK);
        let (mut jobs, _) = watch::list::<Job>(&self.api, place, &labels, until).await?;
        // Where somebody has changed the prefix meanwhile there may be two; what runs counts.
        jobs.sort_by_key(is_suspended);
        let (pods, _) = watch::list(&self.api, place, &labels, until).await?;
        Ok(Seen { jobs, pods })
    }

    async fn look(
        &self,
        spin_up: SpinUpId,
        reference: Option<&KubernetesReference>,
    ) -> Result<Found, ProbeError> {
        let place = self.place(reference);
        let Seen { jobs, pods } = self.seen(&place, spin_up).await?;
        let pods: Vec<&Pod> = pods.iter().collect();
        let Some(job) = jobs.first() else {
            if let Some(pod) = pods.iter().find(|pod| is_alive(pod)) {
                let of_pod = || reference_of_pod(&place, spin_up, pod);
                let found = reference.cloned().unwrap_or_else(of_pod);
                return Ok(Found::Running(Reference::Kubernetes(found)));
            }
            return Ok(match reference {
                Some(_) => Found::Ended { output: None },
                None => Found::Absent,
            });
        };
        Ok(match phase(job, &pods, reference.is_some()) {
            Phase::NotLaunched => Found::Absent,
            Phase::Waiting(why) => Found::Waiting {
                reference: reference_to(&place, spin_up, job),
                why: self.tellable(&why),
            },
            Phase::Running => Found::Running(reference_to(&place, spin_up, job)),
            Phase::Hopeless(why) => match self.remove(&place, job, Removal::Background).await {
                Ok(()) => Found::Ended {
                    output: Some(self.tellable(&why)),
                },
                // It may begin after all.
                Err(_) => Found::Running(reference_to(&place, spin_up, job)),
            },
            Phase::Ended { how, .. } => {
                let said = self.last_words(&place, &pods, &self.secrets()).await;
                Found::Ended {
                    output: said.or_else(|| Some(self.tellable(&how))),
                }
            }
        })
    }

    /// Why a start has not begun to run, where it has not.
    fn why_it_waits(&self, job: Option<&Job>, pods: &[Pod]) -> Option<String> {
        let pods: Vec<&Pod> = pods.iter().collect();
        match phase(job?, &pods, false) {
            Phase::Waiting(why) | Phase::Hopeless(why) => Some(self.tellable(&why)),
            _ => None,
        }
    }

    /// Removes a Job and, now or later, all that belongs to it. One that is gone, or is another one by now, is what is
    /// wanted.
    async fn remove(&self, place: &Place, job: &Job, how: Removal) -> Result<(), Refusal> {
        let policy = match how {
            Removal::Background => "Background",
            Removal::Foreground => "Foreground",
        };
        let options = json!({
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": policy,
            "preconditions": {"uid": job.metadata.uid},
        });
        let call = Call::new(Verb::Delete, Resource::Jobs)
            .of(job.metadata.name.as_deref().unwrap_or_default())
            .body(&options);
        match self.api.call(place, &call, Instant::now() + LOOK).await {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.is(RefusalKind::NotFound) => Ok(()),
            Err(refusal) if refusal.is(RefusalKind::Conflict) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    /// Removes what is not needed any more: a Job that was never resumed, and one that has ended, unless the target says
    /// for how long Kubernetes is to keep it.
    async fn clean_up(&self, spin_up: SpinUpId) -> Result<(), Refusal> {
        let place = self.place(None);
        let Seen { jobs, pods } = self.seen(&place, spin_up).await?;
        let keeps = self.config.ttl_seconds_after_finished.is_some();
        if pods.iter().any(is_alive) {
            return Ok(());
        }
        for job in &jobs {
            if (end_of(job).is_some() && !keeps) || is_suspended(job) {
                self.remove(&place, job, Removal::Background).await?;
            }
        }
        Ok(())
    }
}

/// The labels by which a start is found.
fn selector(spin_up: SpinUpId) -> String {
    format!("{SPIN_UP}={spin_up}")
}

fn reference_to(place: &Place, spin_up: SpinUpId, job: &Job) -> Reference {
    Reference::Kubernetes(KubernetesReference {
        spin_up,
        context: place.context.clone(),
        namespace: place.namespace.clone(),
        job: job.metadata.name.clone().unwrap_or_default(),
        uid: job.metadata.uid.clone().unwrap_or_default(),
    })
}

/// The Job of a pod, which is gone already.
fn reference_of_pod(place: &Place, spin_up: SpinUpId, pod: &Pod) -> KubernetesReference {
    let owner = pod.metadata.owner_references.iter().flatten().next();
    KubernetesReference {
        spin_up,
        context: place.context.clone(),
        namespace: place.namespace.clone(),
        job: owner.map(|owner| owner.name.clone()).unwrap_or_default(),
        uid: owner.map(|owner| owner.uid.clone()).unwrap_or_default(),
    }
}

const fn of(reference: Option<&Reference>) -> Option<&KubernetesReference> {
    match reference {
        Some(Reference::Kubernetes(reference)) => Some(reference),
        _ => None,
    }
}

impl Launcher for Kubernetes {
    fn start<'a>(
        &'a self,
        order: &'a StartOrder,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<Started, StartError>> {
        async move { start::begin(&self.0, order, &cancel).await }.boxed()
    }

    fn find<'a>(
        &'a self,
        spin_up: SpinUpId,
        reference: Option<&'a Reference>,
    ) -> BoxFuture<'a, Result<Found, ProbeError>> {
        self.0.look(spin_up, of(reference)).boxed()
    }

    fn stop<'a>(
        &'a self,
        spin_up: SpinUpId,
        reference: Option<&'a Reference>,
        grace: Duration,
    ) -> BoxFuture<'a, Result<Stopped, StopError>> {
        self.0.end(spin_up, of(reference), grace).boxed()
    }

    fn probe(&self, limit: Duration) -> BoxFuture<'_, Result<Probe, ProbeError>> {
        self.0.probe(limit).boxed()
    }

    fn forget(&self, spin_up: SpinUpId) -> BoxFuture<'_, ()> {
        async move {
            if let Err(refusal) = self.0.clean_up(spin_up).await {
                let why = refusal.message;
                tracing::warn!(%spin_up, why, "a Job that is not needed any more is left in its cluster");
            }
        }
        .boxed()
    }
}
