//! Ends a start: its Job, and with it its pods and its Secret.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use loom_protocol::SpinUpId;
use serde_json::json;

use super::call::{Call, Resource, Verb};
use super::cluster::Place;
use super::ends::{Both, read_log};
use super::refusal::{Refusal, RefusalKind};
use super::state::{end_of, is_alive, is_suspended, was_killed};
use super::{LOOK, Removal, Seen, Shared};
use crate::StopError;
use crate::outcome::Stopped;
use crate::reference::KubernetesReference;

/// How long it may take beyond the grace until everything is gone.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// How long a log may take to be opened: a node that is gone answers nothing, and the rest does not wait for that.
const LOG_WITHIN: Duration = Duration::from_secs(3);

impl Shared {
    pub(super) async fn end(
        &self,
        spin_up: SpinUpId,
        reference: Option<&KubernetesReference>,
        grace: Duration,
    ) -> Result<Stopped, StopError> {
        let place = self.place(reference);
        let Seen { jobs, pods } = self.seen(&place, spin_up).await?;
        let waited = self.why_it_waits(jobs.first(), &pods);
        let alive: Vec<&Pod> = pods.iter().filter(|pod| is_alive(pod)).collect();
        let unfinished = jobs.iter().filter(|job| end_of(job).is_none());
        let unfinished: Vec<_> = unfinished.collect();
        let alive_names = alive.iter().filter_map(|pod| pod.metadata.name.clone());
        let alive_names: BTreeSet<String> = alive_names.collect();
        // Before anything ends, since the log of a pod goes with it.
        let log = match alive_names.first() {
            Some(pod) => {
                let opening = self.opened_log(&place, pod, true);
                let opened = tokio::time::timeout(LOG_WITHIN, opening).await;
                opened.unwrap_or_default()
            }
            None => None,
        };
        for job in &unfinished {
            let how = if is_suspended(job) && alive.is_empty() {
                Removal::Background
            } else {
                Removal::Foreground
            };
            self.remove(&place, job, how).await?;
        }
        if alive.is_empty() && unfinished.iter().all(|job| is_suspended(job)) {
            let pods: Vec<&Pod> = pods.iter().collect();
            return Ok(Stopped::Ended {
                processes: 0,
                killed: 0,
                output: self.last_words(&place, &pods, &self.secrets()).await,
            });
        }
        let mut stopped = self
            .gone(&place, spin_up, grace, (alive_names, log))
            .await?;
        if let Stopped::Ended { output, .. } = &mut stopped {
            *output = output.take().or(waited);
        }
        Ok(stopped)
    }

    /// Asks each pod to end and waits until nothing is left. `there`: which were alive, and the log of one.
    async fn gone(
        &self,
        place: &Place,
        spin_up: SpinUpId,
        grace: Duration,
        there: (BTreeSet<String>, Option<Body>),
    ) -> Result<Stopped, StopError> {
        let limit = grace + GONE_WITHIN;
        let over = tokio::time::sleep(limit);
        let mut over = std::pin::pin!(over);
        let secrets = self.secrets();
        let (mut counted, log) = there;
        let listening = async { read_log(log?, limit, &secrets).await };
        let mut listening = std::pin::pin!(listening.fuse());
        let mut both = Both::new(self, place, spin_up);
        let mut output = None;
        let (mut asked, mut killed) = (BTreeSet::new(), BTreeSet::new());
        loop {
            tokio::select! {
                told = both.next() => told?,
                said = &mut listening, if output.is_none() => {
                    output = Some(said);
                    continue;
                }
                () = &mut over => return Err(not_gone(&both, place, limit)),
            }
            let names = |wanted: fn(&Pod) -> bool| {
                let those = both.pods().filter(move |pod| wanted(pod));
                let names = those.filter_map(|pod| pod.metadata.name.clone());
                names.collect::<Vec<_>>()
            };
            killed.extend(names(was_killed));
            let fresh: Vec<_> = names(is_alive)
                .into_iter()
                .filter(|name| !asked.contains(name))
                .collect();
            for name in fresh {
                self.end_pod(place, &name, grace).await?;
                counted.insert(name.clone());
                asked.insert(name);
            }
            if both.jobs().all(|job| end_of(job).is_some()) && !both.pods().any(is_alive) {
                break;
            }
        }
        let output = match output {
            Some(said) => said,
            // The log ends with its container.
            None => tokio::time::timeout(Duration::from_secs(1), listening)
                .await
                .unwrap_or_default(),
        };
        Ok(Stopped::Ended {
            processes: counted.len(),
            killed: killed.len(),
            output,
        })
    }

    /// TERM, and KILL after the grace, which Kubernetes counts in seconds. None at all would let go of a pod that may
    /// still run.
    async fn end_pod(&self, place: &Place, name: &str, grace: Duration) -> Result<(), Refusal> {
        let seconds = grace.as_millis().div_ceil(1000).max(1);
        let options = json!({
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "gracePeriodSeconds": u64::try_from(seconds).unwrap_or(u64::MAX),
        });
        let call = Call::new(Verb::Delete, Resource::Pods)
            .of(name)
            .body(&options);
        match self.api.call(place, &call, Instant::now() + LOOK).await {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.is(RefusalKind::NotFound) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }
}

fn not_gone(both: &Both<'_>, place: &Place, limit: Duration) -> StopError {
    let on_node = |pod: &Pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        format!("{name} on node {}", node.unwrap_or("none"))
    };
    let pods: Vec<String> = both.pods().map(on_node).collect();
    let jobs = both.jobs().filter_map(|job| job.metadata.name.clone());
    let jobs: Vec<String> = jobs.collect();
    StopError(format!(
        "namespace {:?}: the Jobs {jobs:?} with the pods {pods:?} are not gone within {limit:?}; look at the node, or remove them by force",
        place.namespace
    ))
}
