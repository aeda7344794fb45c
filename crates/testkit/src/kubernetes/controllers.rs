//! The controller of Jobs and the garbage collector.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Duration;

use super::server::mark_deleted;
use super::store::{Key, Kind, NOW, Store, owners};
use super::{Fate, World, validate};

/// How long a pod has to end where nobody says anything else, in seconds.
const GRACE: u64 = 30;

/// Looks at everything each time that something changes.
pub(super) async fn run(world: Arc<World>) {
    let mut changes = world.store.lock().changes();
    let mut expiring = JoinSet::new();
    loop {
        changes.mark_unchanged();
        let keys: Vec<Key> = world.store.lock().objects.keys().cloned().collect();
        for key in keys.iter().filter(|(kind, ..)| *kind == Kind::Job) {
            let ended = job(&world, key);
            if let Some(seconds) = ended {
                let (world, key) = (world.clone(), key.clone());
                expiring.spawn(async move {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    world.store.lock().remove(&key);
                });
            }
        }
        for key in keys.iter().filter(|(kind, ..)| *kind != Kind::Job) {
            collect(&mut world.store.lock(), key);
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// One step of a Job. Tells after how many seconds it is to go, where it has just ended.
fn job(world: &World, key: &Key) -> Option<u64> {
    let mut store = world.store.lock();
    let job = store.get(key)?.clone();
    let uid = validate::text(&job, "/metadata/uid");
    let pods: Vec<(Key, Value)> = store
        .owned(&uid)
        .into_iter()
        .filter(|(kind, ..)| *kind == Kind::Pod)
        .filter_map(|key| Some((key.clone(), store.get(&key)?.clone())))
        .collect();
    if !job["metadata"]["deletionTimestamp"].is_null() {
        for (key, _) in &pods {
            ask_to_end(&mut store, key);
        }
        if pods.is_empty() {
            store.remove(key);
        }
        return None;
    }
    if is_finished(&job) {
        return None;
    }
    if job["spec"]["suspend"] == true {
        for (key, _) in &pods {
            ask_to_end(&mut store, key);
        }
        return None;
    }
    let phase = |pod: &Value| validate::text(pod, "/status/phase");
    let succeeded = pods.iter().any(|(_, pod)| phase(pod) == "Succeeded");
    let failed = pods
        .iter()
        .any(|(_, pod)| phase(pod) == "Failed" || !pod["metadata"]["deletionTimestamp"].is_null());
    // A pod that was there and is gone has failed.
    let vanished = pods.is_empty() && job["status"]["active"] == 1;
    if succeeded || failed || vanished {
        let (kind, reason, message) = if succeeded {
            (
                "Complete",
                "CompletionsReached",
                "Reached expected number of succeeded pods",
            )
        } else {
            (
                "Failed",
                "BackoffLimitExceeded",
                "Job has reached the specified backoff limit",
            )
        };
        store.change(key, |job| {
            job["status"]["active"] = 0.into();
            job["status"]["conditions"] = json!([{
                "type": kind, "status": "True", "reason": reason, "message": message,
                "lastProbeTime": NOW, "lastTransitionTime": NOW,
            }]);
        });
        return job["spec"]["ttlSecondsAfterFinished"].as_u64();
    }
    if pods.is_empty() && !matches!(fate(world, &job), Fate::NoPod) {
        let pod = new_pod(&job, &uid);
        let name = validate::text(&pod, "/metadata/name");
        store.create((Kind::Pod, key.1.clone(), name), pod);
        store.change(key, |job| {
            job["status"] = json!({"active": 1, "startTime": NOW, "ready": 0});
        });
    }
    None
}

fn fate(world: &World, job: &Value) -> Fate {
    let image = validate::text(job, "/spec/template/spec/containers/0/image");
    let rules = world.rules.lock();
    rules.fates.get(&image).cloned().unwrap_or(Fate::Run)
}

fn is_finished(job: &Value) -> bool {
    let conditions = job["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| {
        let kind = condition["type"].as_str();
        matches!(kind, Some("Complete" | "Failed")) && condition["status"] == "True"
    })
}

fn new_pod(job: &Value, uid: &str) -> Value {
    let name = validate::text(job, "/metadata/name");
    let suffix: String = std::iter::repeat_with(fastrand::lowercase)
        .take(5)
        .collect();
    let mut pod = job["spec"]["template"].clone();
    pod["metadata"]["name"] = format!("{name}-{suffix}").into();
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid,
        "controller": true, "blockOwnerDeletion": true,
    }]);
    for label in ["job-name", "batch.kubernetes.io/job-name"] {
        pod["metadata"]["labels"][label] = name.clone().into();
    }
    pod["status"] = json!({"phase": "Pending"});
    pod
}

fn ask_to_end(store: &mut Store, key: &Key) {
    let is_asked = store
        .get(key)
        .is_none_or(|pod| !pod["metadata"]["deletionTimestamp"].is_null());
    if !is_asked {
        mark_deleted(store, key, GRACE);
    }
}

/// Removes what belongs to nobody that is there any more.
fn collect(store: &mut Store, key: &Key) {
    let Some(object) = store.get(key) else {
        return;
    };
    let mut its: Vec<String> = owners(object)
        .map(|owner| validate::text(owner, "/uid"))
        .collect();
    let had_owners = !its.is_empty();
    its.retain(|uid| store.is_alive(uid));
    if !had_owners || !its.is_empty() {
        return;
    }
    if key.0 == Kind::Pod {
        ask_to_end(store, key);
    } else {
        store.remove(key);
    }
}
