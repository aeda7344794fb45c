//! The only node: it runs the containers of pods.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::store::{Key, Kind, NOW};
use super::{Fate, World, process, validate};

/// The name of the node.
const NODE: &str = "node-1";

/// Takes each pod that comes.
pub(super) async fn run(world: Arc<World>) {
    let mut changes = world.store.lock().changes();
    let mut taken = BTreeSet::new();
    let mut pods = JoinSet::new();
    loop {
        changes.mark_unchanged();
        let keys: Vec<Key> = world.store.lock().objects.keys().cloned().collect();
        for key in keys.into_iter().filter(|(kind, ..)| *kind == Kind::Pod) {
            if taken.insert(key.clone()) {
                pods.spawn(pod(world.clone(), key));
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// How a pod is, as far as the node is concerned.
enum Wish {
    /// It is gone.
    Gone,
    /// It is to end within this time.
    End(Duration),
    Run(Fate),
}

fn wish(world: &World, key: &Key) -> Wish {
    let store = world.store.lock();
    let Some(pod) = store.get(key) else {
        return Wish::Gone;
    };
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_u64();
        return Wish::End(Duration::from_secs(grace.unwrap_or(30)));
    }
    let image = validate::text(pod, "/spec/containers/0/image");
    drop(store);
    let rules = world.rules.lock();
    Wish::Run(rules.fates.get(&image).cloned().unwrap_or(Fate::Run))
}

async fn pod(world: Arc<World>, key: Key) {
    let mut changes = world.store.lock().changes();
    let log = process::Log::new();
    let mut container = None;
    // Until it runs, its fate may turn.
    while container.is_none() {
        changes.mark_unchanged();
        match wish(&world, &key) {
            Wish::Gone => return,
            Wish::End(_) => {
                world.store.lock().remove(&key);
                return;
            }
            Wish::Run(Fate::Wait(reason, message)) => waits(&world, &key, &reason, &message),
            Wish::Run(Fate::Unscheduled(message)) => world.store.lock().change(&key, |pod| {
                pod["status"]["conditions"] = json!([{
                    "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                }]);
            }),
            Wish::Run(Fate::NoPod) => {}
            Wish::Run(Fate::Lost) => return lost(&world, &key),
            Wish::Run(Fate::Run) => container = run_container(&world, &key, &log).await,
        }
        if container.is_none() && changes.changed().await.is_err() {
            return;
        }
    }
    let Some(mut container) = container else {
        return;
    };
    let grace = loop {
        changes.mark_unchanged();
        let grace = match wish(&world, &key) {
            Wish::Gone => return,
            Wish::End(grace) => break Some(grace),
            Wish::Run(_) => None::<Duration>,
        };
        tokio::select! {
            _ = container.group.exited() => break grace,
            changed = changes.changed() => if changed.is_err() { return },
        }
    };
    if let Some(grace) = grace {
        end(&world, &key, &mut container, grace).await;
    }
    let code = container.group.exited().await.map_or(1, process::code);
    container.drain().await;
    world.store.lock().change(&key, |pod| {
        let reason = if code == 0 { "Completed" } else { "Error" };
        pod["status"]["phase"] = if code == 0 { "Succeeded" } else { "Failed" }.into();
        pod["status"]["containerStatuses"] = statuses(
            pod,
            &json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": NOW, "finishedAt": NOW}}),
        );
    });
    // What has ended is kept until somebody removes it.
    loop {
        changes.mark_unchanged();
        match wish(&world, &key) {
            Wish::Gone => return,
            Wish::End(_) => {
                world.store.lock().remove(&key);
                return;
            }
            Wish::Run(_) => {}
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Ends a container within a grace that may be shortened meanwhile.
async fn end(world: &World, key: &Key, container: &mut process::Container, mut grace: Duration) {
    let asked_at = Instant::now();
    let mut changes = world.store.lock().changes();
    {
        let mut ending = std::pin::pin!(container.group.end(grace));
        loop {
            tokio::select! {
                () = &mut ending => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            match wish(world, key) {
                Wish::End(shorter) if shorter < grace => grace = shorter,
                Wish::Gone => grace = Duration::ZERO,
                _ => continue,
            }
            break;
        }
    }
    tokio::select! {
        _ = container.group.exited() => {}
        () = tokio::time::sleep_until(asked_at + grace) => {}
    }
    container.group.end(Duration::ZERO).await;
}

/// The node is gone: the pod is said to run for ever.
fn lost(world: &World, key: &Key) {
    world.store.lock().change(key, |pod| {
        pod["spec"]["nodeName"] = NODE.into();
        pod["status"]["phase"] = "Running".into();
        pod["status"]["containerStatuses"] = statuses(pod, &json!({"running": {"startedAt": NOW}}));
    });
}

async fn run_container(world: &World, key: &Key, log: &process::Log) -> Option<process::Container> {
    let (spec, variables) = {
        let store = world.store.lock();
        let spec = store.get(key)?["spec"]["containers"][0].clone();
        let variables = process::variables(&store, &key.1, &spec);
        (spec, variables)
    };
    let variables = match variables {
        Ok(variables) => variables,
        Err(message) => {
            waits(world, key, "CreateContainerConfigError", &message);
            return None;
        }
    };
    match process::start(&spec, &variables, log).await {
        Ok(container) => {
            world.rules.lock().logs.insert(key.2.clone(), log.clone());
            world.store.lock().change(key, |pod| {
                pod["spec"]["nodeName"] = NODE.into();
                pod["status"]["phase"] = "Running".into();
                pod["status"]["containerStatuses"] =
                    statuses(pod, &json!({"running": {"startedAt": NOW}}));
            });
            Some(container)
        }
        Err(message) => {
            waits(world, key, "CreateContainerError", &message);
            None
        }
    }
}

fn waits(world: &World, key: &Key, reason: &str, message: &str) {
    world.store.lock().change(key, |pod| {
        pod["spec"]["nodeName"] = NODE.into();
        pod["status"]["containerStatuses"] = statuses(
            pod,
            &json!({"waiting": {"reason": reason, "message": message}}),
        );
    });
}

fn statuses(pod: &Value, state: &Value) -> Value {
    let of = &pod["spec"]["containers"][0];
    json!([{
        "name": of["name"], "image": of["image"], "imageID": "", "ready": false, "restartCount": 0, "state": state,
    }])
}
