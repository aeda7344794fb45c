//! What is written into the cluster: a Job and its Secret. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, LocalObjectReference, PodSpec, PodTemplateSpec,
    ResourceRequirements, Secret, SecretEnvSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use loom_protocol::SpinUpId;
use loom_protocol::target::KubernetesConfig;
use loom_protocol::token::write_list;

use crate::order::StartOrder;

/// The label by which a Job and its pods are found again.
pub(super) const SPIN_UP: &str = "loom/spin-up-id";
/// The name of the container.
pub(super) const CONTAINER: &str = "agent";
/// The only variable of an order that is secret.
const TICKET: &str = "LOOM_TICKET";
/// How much of a prefix is taken, in characters.
const PREFIX: usize = 40;
/// How many hex digits of the id are in a name.
const DIGITS: usize = 20;
/// The longest value of a label, in characters.
const LABEL: usize = 63;

/// The name of the Job of a start and of its Secret: the prefix and the first digits of the id. At most 61 characters:
/// a Job's name becomes a label of its pods. Whose it is, the label [`SPIN_UP`] tells.
pub(super) fn name(prefix: &str, spin_up: SpinUpId) -> String {
    let id: String = spin_up
        .to_string()
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(DIGITS)
        .collect();
    let prefix: String = prefix.chars().take(PREFIX).collect();
    format!("{}-{id}", prefix.trim_end_matches('-'))
}

/// The Job, suspended: no pod is made before somebody resumes it.
pub(super) fn job(config: &KubernetesConfig, order: &StartOrder) -> Job {
    let name = name(&config.job_name_prefix, order.spin_up);
    let metadata = ObjectMeta {
        labels: Some(labels(order)),
        annotations: Some(annotations(order)),
        ..ObjectMeta::default()
    };
    shaped(config, name, metadata, open_variables(order))
}

/// A Job of nobody, for the server to judge.
pub(super) fn trial(config: &KubernetesConfig) -> Job {
    let name = name(&config.job_name_prefix, SpinUpId::generate());
    shaped(config, name, ObjectMeta::default(), Vec::new())
}

fn shaped(
    config: &KubernetesConfig,
    name: String,
    metadata: ObjectMeta,
    variables: Vec<EnvVar>,
) -> Job {
    let template = PodTemplateSpec {
        metadata: Some(metadata.clone()),
        spec: Some(pod(config, variables, &name)),
    };
    let keep = config.ttl_seconds_after_finished;
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            ..metadata
        },
        spec: Some(JobSpec {
            // Once, whatever comes of it: who fails is started again by the coordinator, with another ticket.
            backoff_limit: Some(0),
            completions: Some(1),
            parallelism: Some(1),
            suspend: Some(true),
            ttl_seconds_after_finished: keep
                .map(|seconds| i32::try_from(seconds).unwrap_or(i32::MAX)),
            template,
            ..JobSpec::default()
        }),
        ..Job::default()
    }
}

fn pod(config: &KubernetesConfig, variables: Vec<EnvVar>, secret: &str) -> PodSpec {
    let some = |texts: &Vec<String>| Some(texts.clone()).filter(|texts| !texts.is_empty());
    let container = Container {
        name: CONTAINER.to_owned(),
        image: Some(config.image.clone()),
        command: some(&config.command),
        args: some(&config.args),
        env: Some(variables),
        env_from: Some(vec![EnvFromSource {
            secret_ref: Some(SecretEnvSource {
                name: secret.to_owned(),
                optional: Some(false),
            }),
            ..EnvFromSource::default()
        }]),
        resources: resources(config),
        ..Container::default()
    };
    PodSpec {
        containers: vec![container],
        restart_policy: Some("Never".to_owned()),
        service_account_name: config.service_account.clone(),
        // Without an account of its own an agent has no business with the API.
        automount_service_account_token: config.service_account.is_none().then_some(false),
        // A service called `loom` would else set variables like ours.
        enable_service_links: Some(false),
        image_pull_secrets: config
            .image_pull_secret
            .as_ref()
            .map(|name| vec![LocalObjectReference { name: name.clone() }]),
        ..PodSpec::default()
    }
}

/// The same as request and as limit, so that what a container gets is what it may use.
fn resources(config: &KubernetesConfig) -> Option<ResourceRequirements> {
    let asked = config.resources.as_ref()?;
    let quantities: BTreeMap<String, Quantity> = [("cpu", &asked.cpu), ("memory", &asked.memory)]
        .into_iter()
        .filter_map(|(name, quantity)| Some((name.to_owned(), Quantity(quantity.clone()?))))
        .collect();
    (!quantities.is_empty()).then(|| ResourceRequirements {
        limits: Some(quantities.clone()),
        requests: Some(quantities),
        ..ResourceRequirements::default()
    })
}

/// The variables that everybody may see. Kubernetes replaces `$(NAME)` in them; twice the `$` is the `$` itself.
fn open_variables(order: &StartOrder) -> Vec<EnvVar> {
    let open = order
        .variables()
        .into_iter()
        .filter(|(name, _)| name != TICKET);
    open.map(|(name, value)| EnvVar {
        name,
        value: Some(value.replace('$', "$$")),
        ..EnvVar::default()
    })
    .collect()
}

/// The Secret with the ticket and the variables of the target, which goes when its Job goes.
pub(super) fn secret(
    config: &KubernetesConfig,
    order: &StartOrder,
    job: &OwnerReference,
) -> Secret {
    let of_target = config.env.expose();
    let mut values: BTreeMap<String, String> = of_target
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    values.insert(TICKET.to_owned(), order.ticket.expose().to_owned());
    Secret {
        metadata: ObjectMeta {
            name: Some(job.name.clone()),
            labels: Some(labels(order)),
            annotations: Some(annotations(order)),
            owner_references: Some(vec![job.clone()]),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        string_data: Some(values),
        ..Secret::default()
    }
}

/// What says that something goes when this Job goes.
pub(super) fn owner(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "Job".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }
}

fn labels(order: &StartOrder) -> BTreeMap<String, String> {
    let (spin_up, target) = (order.spin_up.to_string(), order.target_id.to_string());
    let labels = [
        ("app.kubernetes.io/name", "loom-agent"),
        ("app.kubernetes.io/managed-by", "loom"),
        (SPIN_UP, &spin_up),
        ("loom/target-id", &target),
        ("loom/project", order.project.as_str()),
        ("loom/agent-type", &order.agent_type),
    ];
    let valid = labels.into_iter().filter(|(_, value)| is_label(value));
    valid
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Names as people wrote them, which no label may hold.
fn annotations(order: &StartOrder) -> BTreeMap<String, String> {
    let annotations = [
        ("loom/target-name", order.target_name.clone()),
        ("loom/project", order.project.to_string()),
        ("loom/agent-type", order.agent_type.clone()),
        ("loom/capabilities", write_list(&order.capabilities)),
        ("loom/boundaries", write_list(&order.boundaries)),
    ];
    annotations
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Whether a text may be the value of a label.
fn is_label(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let at_end = |c: char| c.is_ascii_alphanumeric();
    text.len() <= LABEL
        && text.chars().all(inside)
        && text.starts_with(at_end)
        && text.ends_with(at_end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom_protocol::target::{BirthTicket, SecretMap};
    use loom_protocol::{ProjectId, TargetId, Timestamp};
    use proptest::prelude::*;

    fn order(text: &str) -> StartOrder {
        StartOrder {
            spin_up: SpinUpId::generate(),
            target_id: TargetId::generate(),
            target_name: text.to_owned(),
            agent_type: text.to_owned(),
            project: ProjectId::new("p").unwrap(),
            capabilities: vec![text.to_owned()],
            boundaries: Vec::new(),
            capability: None,
            boundary: None,
            work_item: None,
            nats_url: "nats://nats:4222".to_owned(),
            ticket: BirthTicket::generate(),
            ordered_at: Timestamp::from_millis(0),
        }
    }

    fn config(prefix: &str) -> KubernetesConfig {
        KubernetesConfig {
            namespace: "n".to_owned(),
            job_name_prefix: prefix.to_owned(),
            image: "i".to_owned(),
            env: SecretMap::from_iter([("KEY".to_owned(), "hunter2hunter2".to_owned())]),
            ..KubernetesConfig::default()
        }
    }

    proptest! {
        #[test]
        fn every_name_and_label_is_one_of_kubernetes(prefix in "[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?", text in "\\PC{0,80}") {
            let order = order(&text);
            let job = job(&config(&prefix), &order);
            let name = job.metadata.name.unwrap();
            prop_assert!(name.len() <= 63, "{}", name);
            prop_assert!(name.starts_with(|c: char| c.is_ascii_alphanumeric()));
            prop_assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            let again = super::name(&prefix, order.spin_up);
            prop_assert_eq!(&name, &again);
            for value in job.metadata.labels.unwrap().values() {
                prop_assert!(is_label(value), "{}", value);
            }
            let annotations = job.metadata.annotations.unwrap();
            prop_assert_eq!(&annotations["loom/target-name"], &text);
        }
    }

    #[test]
    fn a_pod_without_an_account_gets_no_token() {
        let pod = |config: &KubernetesConfig| {
            let spec = job(config, &order("t")).spec.unwrap();
            spec.template.spec.unwrap().automount_service_account_token
        };
        let mut config = config("agents");
        assert_eq!(pod(&config), Some(false));
        config.service_account = Some("agent".to_owned());
        assert_eq!(pod(&config), None);
    }

    #[test]
    fn secrets_are_in_the_secret_only_and_dollars_stay() {
        let order = order("a $(PATH) b");
        let config = config("agents");
        let job = serde_json::to_string(&job(&config, &order)).unwrap();
        assert!(
            !job.contains(order.ticket.expose()) && !job.contains("hunter2"),
            "{job}"
        );
        assert!(job.contains("a $$(PATH) b"), "{job}");
        let secret = secret(&config, &order, &owner("agents-1", "u"));
        let values = secret.string_data.unwrap();
        assert_eq!(values["LOOM_TICKET"], order.ticket.expose());
        assert_eq!(values["KEY"], "hunter2hunter2");
        assert_eq!(values.len(), 2);
    }
}
