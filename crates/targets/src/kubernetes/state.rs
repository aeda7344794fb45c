//! What a Job and its pods say of a start. Pure.
//!
//! | seen | meant |
//! |---|---|
//! | the Job is suspended and no reference was stored | not launched: its start broke off before its last step |
//! | the Job is complete or failed, and no pod is alive | ended |
//! | the Job is being deleted | it ends as long as pods are there |
//! | a pod that can't begin: an image that can't be pulled or has no valid name, a container that can't be made | it can't begin |
//! | a pod that waits: for a node, an image, a volume | it waits, with the reason |
//! | anything else | it runs |

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::manifest::{CONTAINER, SPIN_UP};

/// Reasons for which a container waits that go away by themselves.
const PASSING: [&str; 2] = ["ContainerCreating", "PodInitializing"];
/// Reasons that no patience helps against, with what to do.
const HOPELESS: [(&str, &str); 5] = [
    (
        "ErrImagePull",
        "write another image, or an imagePullSecret that may pull it",
    ),
    (
        "ImagePullBackOff",
        "write another image, or an imagePullSecret that may pull it",
    ),
    ("InvalidImageName", "write another image"),
    (
        "ErrImageNeverPull",
        "write another image, or bring it to the nodes",
    ),
    ("CrashLoopBackOff", "look at what it says"),
];
/// The exit status of a container that did not obey TERM.
const KILLED: i32 = 137;

/// What is known of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// The Job was written, and nobody has resumed it.
    NotLaunched,
    /// It has not begun to run, for this reason.
    Waiting(String),
    /// It will never begin, for this reason.
    Hopeless(String),
    /// It runs, or is about to end.
    Running,
    /// It has ended.
    Ended {
        /// With 0.
        success: bool,
        /// How, in words.
        how: String,
    },
}

/// What a Job and its pods say. `was_launched`: somebody has stored that it was.
pub(super) fn phase(job: &Job, pods: &[&Pod], was_launched: bool) -> Phase {
    let alive: Vec<&&Pod> = pods.iter().filter(|pod| is_alive(pod)).collect();
    if let Some((success, how)) = end_of(job)
        && alive.is_empty()
    {
        let of_pod = pods.iter().find_map(|pod| pod_end(pod));
        return Phase::Ended {
            success,
            how: of_pod.unwrap_or(how),
        };
    }
    if job.metadata.deletion_timestamp.is_some() {
        return if alive.is_empty() {
            Phase::Ended {
                success: false,
                how: "its Job was deleted".to_owned(),
            }
        } else {
            Phase::Running
        };
    }
    if is_suspended(job) {
        return match (was_launched, alive.is_empty()) {
            (_, false) => Phase::Running,
            (false, true) => Phase::NotLaunched,
            (true, true) => Phase::Waiting("its Job was suspended; resume it".to_owned()),
        };
    }
    let Some(pod) = alive.first() else {
        return match pods.first() {
            // The Job has not been told yet.
            Some(_) => Phase::Running,
            None => Phase::Waiting("no pod has been made for its Job yet".to_owned()),
        };
    };
    if let Some(why) = pods.iter().find_map(|pod| hopeless(pod)) {
        return Phase::Hopeless(why);
    }
    waiting(pod).map_or(Phase::Running, Phase::Waiting)
}

/// Whether nothing is made of a Job now.
pub(super) fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true)
}

/// How a Job ended, where it did.
pub(super) fn end_of(job: &Job) -> Option<(bool, String)> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find_map(|condition| {
        let success = match condition.type_.as_str() {
            "Complete" => true,
            "Failed" => false,
            _ => return None,
        };
        let texts = [&condition.reason, &condition.message];
        let texts: Vec<&str> = texts.into_iter().flatten().map(String::as_str).collect();
        let how = match texts.join(": ") {
            empty if empty.is_empty() => condition.type_.clone(),
            how => how,
        };
        (condition.status == "True").then_some((success, how))
    })
}

/// Whether something of a pod lives, or may begin to.
pub(super) fn is_alive(pod: &Pod) -> bool {
    let phase = status(pod).and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether its agent had to be killed.
pub(super) fn was_killed(pod: &Pod) -> bool {
    let ended = agent(pod).and_then(|(state, _)| state.terminated.as_ref());
    ended.is_some_and(|ended| ended.exit_code == KILLED)
}

/// How the agent of a pod ended, or else whatever was before it.
fn pod_end(pod: &Pod) -> Option<String> {
    let status = status(pod)?;
    let of_agent = agent(pod).and_then(|(state, _)| state.terminated.as_ref());
    let before = || {
        let ended = before_agent(pod).filter_map(|(state, _)| state.terminated.as_ref());
        ended.into_iter().find(|ended| ended.exit_code != 0)
    };
    if let Some(ended) = of_agent.or_else(before) {
        let reason = ended.reason.as_deref();
        let reason = reason.filter(|reason| !matches!(*reason, "Completed" | "Error"));
        let reason = reason.map(|reason| format!(" ({reason})"));
        return Some(format!(
            "exit status {}{}",
            ended.exit_code,
            reason.unwrap_or_default()
        ));
    }
    let texts = [&status.reason, &status.message].into_iter().flatten();
    let texts: Vec<&str> = texts.map(String::as_str).collect();
    (!texts.is_empty()).then(|| texts.join(": "))
}

/// Why the agent of a pod will never begin. What others put beside it (a proxy that crashes) does not count.
fn hopeless(pod: &Pod) -> Option<String> {
    if has_begun(pod) {
        return None;
    }
    before_agent(pod)
        .chain(agent(pod))
        .find_map(|(state, image)| {
            let waiting = state.waiting.as_ref()?;
            let reason = waiting.reason.as_deref()?;
            let (_, advice) = HOPELESS.iter().find(|(known, _)| *known == reason)?;
            let message = waiting.message.as_deref().unwrap_or("no more is told");
            Some(format!(
                "the container with the image {image:?} can't begin: {reason} ({message}); {advice}"
            ))
        })
}

/// Why the agent of a pod does not run yet.
fn waiting(pod: &Pod) -> Option<String> {
    let status = status(pod)?;
    if has_begun(pod) || status.phase.as_deref() == Some("Running") {
        return None;
    }
    let of_container = before_agent(pod).chain(agent(pod)).find_map(|(state, _)| {
        let waiting = state.waiting.as_ref()?;
        let reason = waiting.reason.as_deref()?;
        let message = waiting.message.as_deref().filter(|text| !text.is_empty());
        match message {
            None if PASSING.contains(&reason) => {
                Some(format!("its container is being made ({reason})"))
            }
            message => Some(format!(
                "its container waits: {reason} ({})",
                message.unwrap_or("no more is told")
            )),
        }
    });
    let of_node = || unscheduled(status);
    let otherwise = || Some("its pod has not begun to run yet".to_owned());
    of_container.or_else(of_node).or_else(otherwise)
}

fn unscheduled(status: &PodStatus) -> Option<String> {
    let conditions = status.conditions.as_ref()?;
    let refused = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let message = refused.message.as_deref().unwrap_or("no more is told");
    Some(format!(
        "no node takes its pod: {message}; ask for less, or make room"
    ))
}

const fn status(pod: &Pod) -> Option<&PodStatus> {
    pod.status.as_ref()
}

/// Whether the agent runs, or has run.
fn has_begun(pod: &Pod) -> bool {
    agent(pod).is_some_and(|(state, _)| state.running.is_some() || state.terminated.is_some())
}

/// The state of the agent's own container, with its image.
fn agent(pod: &Pod) -> Option<(&ContainerState, &str)> {
    let mut all = status(pod)?.container_statuses.iter().flatten();
    all.find(|container| container.name == CONTAINER)
        .and_then(state)
}

/// The states of the containers that come before the agent's.
fn before_agent(pod: &Pod) -> impl Iterator<Item = (&ContainerState, &str)> {
    let status = status(pod).into_iter();
    let before = status.flat_map(|status| status.init_container_statuses.iter().flatten());
    before.filter_map(state)
}

fn state(container: &ContainerStatus) -> Option<(&ContainerState, &str)> {
    Some((container.state.as_ref()?, container.image.as_str()))
}

/// The value of the label by which a start is found.
pub(super) fn spin_up_of(metadata: &ObjectMeta) -> Option<&str> {
    let labels = metadata.labels.as_ref()?;
    labels.get(SPIN_UP).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn job(suspended: bool, deleted: bool, condition: Option<&str>) -> Job {
        let deleted = deleted.then_some("2026-01-01T00:00:00Z");
        let conditions: Vec<Value> = condition
            .map(|kind| json!({"type": kind, "status": "True", "reason": "BackoffLimitExceeded"}))
            .into_iter()
            .collect();
        let job = json!({
            "metadata": {"name": "j", "deletionTimestamp": deleted},
            "spec": {"suspend": suspended, "template": {}},
            "status": {"conditions": conditions},
        });
        serde_json::from_value(job).unwrap()
    }

    fn pod(phase: &str, state: &Value) -> Pod {
        let container = json!({"name": "agent", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let pod = json!({"metadata": {"name": "p"}, "status": {"phase": phase, "containerStatuses": [container]}});
        serde_json::from_value(pod).unwrap()
    }

    fn waits(reason: &str) -> Pod {
        pod(
            "Pending",
            &json!({"waiting": {"reason": reason, "message": "m"}}),
        )
    }

    #[test]
    fn a_job_and_its_pods_say_what_became_of_a_start() {
        let failed = pod(
            "Failed",
            &json!({"terminated": {"exitCode": 3, "reason": "Error"}}),
        );
        let oom = pod(
            "Failed",
            &json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
        );
        let runs = pod("Running", &json!({"running": {}}));
        let ended = |success, how: &str| Phase::Ended {
            success,
            how: how.to_owned(),
        };
        let live = job(false, false, None);
        let over = job(false, false, Some("Failed"));
        for (job, pods, was_launched, phase) in [
            (&job(true, false, None), vec![], false, Phase::NotLaunched),
            (&job(true, false, None), vec![&runs], false, Phase::Running),
            (&live, vec![&runs], false, Phase::Running),
            (&live, vec![&failed], true, Phase::Running),
            (&over, vec![&failed], true, ended(false, "exit status 3")),
            (
                &over,
                vec![&oom],
                true,
                ended(false, "exit status 137 (OOMKilled)"),
            ),
            (&over, vec![], true, ended(false, "BackoffLimitExceeded")),
            (&over, vec![&runs], true, Phase::Running),
            (&job(false, true, None), vec![&runs], true, Phase::Running),
            (
                &job(false, true, None),
                vec![],
                true,
                ended(false, "its Job was deleted"),
            ),
            (
                &job(false, false, Some("Complete")),
                vec![],
                true,
                ended(true, "BackoffLimitExceeded"),
            ),
        ] {
            assert_eq!(super::phase(job, &pods, was_launched), phase);
        }
        assert!(was_killed(&oom) && !was_killed(&failed));
    }

    #[test]
    fn what_waits_says_for_what_and_what_is_hopeless_says_so() {
        let live = job(false, false, None);
        let of = |pod: &Pod| phase(&live, &[pod], true);
        for reason in ["ErrImagePull", "InvalidImageName", "CrashLoopBackOff"] {
            assert!(matches!(of(&waits(reason)), Phase::Hopeless(why) if why.contains(reason)));
        }
        for reason in [
            "ContainerCreating",
            "CreateContainerConfigError",
            "CreateContainerError",
        ] {
            assert!(matches!(of(&waits(reason)), Phase::Waiting(why) if why.contains(reason)));
        }
        let unscheduled = json!({"status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]}});
        let unscheduled: Pod = serde_json::from_value(unscheduled).unwrap();
        assert!(matches!(of(&unscheduled), Phase::Waiting(why) if why.contains("0/3 nodes")));
        assert!(matches!(phase(&live, &[], true), Phase::Waiting(_)));
        let suspended = job(true, false, None);
        assert!(
            matches!(phase(&suspended, &[], true), Phase::Waiting(why) if why.contains("suspended"))
        );
    }
    #[test]
    fn containers_that_others_put_beside_the_agent_decide_nothing() {
        let container = |name: &str, state: Value| json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let pod = |phase: &str, init: Value, agent: Value, proxy: Value| -> Pod {
            let status = json!({
                "phase": phase,
                "initContainerStatuses": [container("init", init)],
                "containerStatuses": [container("proxy", proxy), container("agent", agent)],
            });
            serde_json::from_value(json!({"status": status})).unwrap()
        };
        let live = job(false, false, None);
        let crashes = || json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let ended = |code: i32| json!({"terminated": {"exitCode": code}});
        let runs = || json!({"running": {}});
        for phase in ["Running", "Pending"] {
            let pod = pod(phase, ended(0), runs(), crashes());
            assert_eq!(super::phase(&live, &[&pod], true), Phase::Running);
        }
        let pending = pod(
            "Pending",
            crashes(),
            json!({"waiting": {"reason": "PodInitializing"}}),
            runs(),
        );
        assert!(matches!(
            phase(&live, &[&pending], true),
            Phase::Hopeless(_)
        ));
        for (init, agent, how) in [
            (0, ended(3), "exit status 3"),
            (7, json!({}), "exit status 7"),
        ] {
            let pod = pod("Failed", ended(init), agent, ended(137));
            assert_eq!(pod_end(&pod).as_deref(), Some(how));
            assert!(!was_killed(&pod));
        }
    }
}
