//! Which cluster is spoken to, and as whom.
//!
//! | the target's `context` | where the coordinator runs | taken is |
//! |---|---|---|
//! | named | anywhere | that context of the kubeconfig |
//! | absent | in a pod of a cluster | that cluster, with the service account of the pod |
//! | absent | elsewhere | the current context of the kubeconfig |
//!
//! The kubeconfig is what `KUBECONFIG` names, or `~/.kube/config`. It is read again every few minutes and after a 401, so
//! that a renewed one counts without a restart; the token of a service account is read again by the client. A program
//! that a kubeconfig runs for its credentials holds nobody up but the start that waits for it, unless what it gives is
//! valid for less than that.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::Mutex;

use super::refusal::{Refusal, RefusalKind, causes};

/// How long a client is taken again.
const KEPT_FOR: Duration = Duration::from_mins(5);
/// How long connecting to the API server may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a program may take that the kubeconfig asks for credentials.
const CREDENTIALS: Duration = Duration::from_mins(1);
/// The token of the service account of a pod.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// What is meant by a target, or by the reference of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The context of the kubeconfig.
    pub(super) context: Option<String>,
    /// The namespace.
    pub(super) namespace: String,
}

/// A client, and the name of the cluster for people.
#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) client: Client,
    pub(super) name: String,
}

/// Clients, each made when it is needed.
pub(super) struct Clusters {
    kubeconfig: Option<PathBuf>,
    kept: Mutex<Vec<Kept>>,
}

struct Kept {
    context: Option<String>,
    since: Instant,
    cluster: Cluster,
}

/// Where the configuration comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    Kubeconfig,
    InCluster,
}

/// `explicit`: somebody has said which file.
const fn source(has_context: bool, explicit: bool, is_in_cluster: bool) -> Source {
    if is_in_cluster && !has_context && !explicit {
        Source::InCluster
    } else {
        Source::Kubeconfig
    }
}

impl Clusters {
    pub(super) fn new(kubeconfig: Option<PathBuf>) -> Self {
        Self {
            kubeconfig,
            kept: Mutex::new(Vec::new()),
        }
    }

    /// The cluster of a context.
    pub(super) async fn get(&self, context: Option<&str>) -> Result<Cluster, Refusal> {
        let mut kept = self.kept.lock().await;
        kept.retain(|one| one.since.elapsed() < KEPT_FOR);
        if let Some(one) = kept.iter().find(|one| one.context.as_deref() == context) {
            return Ok(one.cluster.clone());
        }
        let cluster = connect(self.kubeconfig.clone(), context.map(str::to_owned)).await?;
        kept.push(Kept {
            context: context.map(str::to_owned),
            since: Instant::now(),
            cluster: cluster.clone(),
        });
        Ok(cluster)
    }

    /// Forgets a client whose credentials were refused.
    pub(super) async fn renew(&self, context: Option<&str>) {
        let mut kept = self.kept.lock().await;
        kept.retain(|one| one.context.as_deref() != context);
    }
}

/// Makes a client. Files are read and programs are run, so this is done where it holds nobody up.
async fn connect(file: Option<PathBuf>, context: Option<String>) -> Result<Cluster, Refusal> {
    let runtime = tokio::runtime::Handle::current();
    let making =
        tokio::task::spawn_blocking(move || runtime.block_on(configured(file.as_deref(), context)));
    let too_long = || {
        let message = format!(
            "the credentials of the kubeconfig were not there within {CREDENTIALS:?}; look at the program that it runs for them"
        );
        Refusal::new(RefusalKind::Credentials, message)
    };
    match tokio::time::timeout(CREDENTIALS, making).await {
        Ok(Ok(made)) => made,
        Ok(Err(_)) => {
            let message = "no client of Kubernetes could be made; look at the log".to_owned();
            Err(Refusal::new(RefusalKind::Credentials, message))
        }
        Err(_) => Err(too_long()),
    }
}

async fn configured(file: Option<&Path>, context: Option<String>) -> Result<Cluster, Refusal> {
    let is_in_cluster =
        std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(TOKEN).exists();
    let refused = |message: String| Refusal::new(RefusalKind::Credentials, message);
    let (mut config, name) = match source(context.is_some(), file.is_some(), is_in_cluster) {
        Source::InCluster => {
            let config = Config::incluster().map_err(|error| {
                refused(format!(
                    "the service account of this pod can't be used ({}); mount its token, or name a context of a kubeconfig in the target",
                    causes(&error)
                ))
            })?;
            (config, "the cluster of this pod".to_owned())
        }
        Source::Kubeconfig => from_file(file, context).await?,
    };
    config.connect_timeout = Some(CONNECT);
    // What is tried again, and what is in doubt then, is known here only.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(|error| {
        refused(format!(
            "{name}: the credentials of the kubeconfig can't be used ({}); mend them",
            causes(&error)
        ))
    })?;
    Ok(Cluster { client, name })
}

async fn from_file(
    file: Option<&Path>,
    context: Option<String>,
) -> Result<(Config, String), Refusal> {
    let read = match file {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    let refused = |message: String| Refusal::new(RefusalKind::Credentials, message);
    let kubeconfig = read.map_err(|error| {
        refused(format!(
            "there is no kubeconfig that can be read ({}); write one, or say by KUBECONFIG where it is",
            causes(&error)
        ))
    })?;
    let known: Vec<String> = kubeconfig
        .contexts
        .iter()
        .map(|context| context.name.clone())
        .collect();
    if let Some(context) = &context
        && !known.contains(context)
    {
        return Err(refused(format!(
            "the kubeconfig has no context {context:?}, it has {known:?}; write another context into the target"
        )));
    }
    let current = kubeconfig.current_context.clone().unwrap_or_default();
    let name = format!("context {:?}", context.clone().unwrap_or(current));
    let options = KubeConfigOptions {
        context,
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let config = config.map_err(|error| {
        refused(format!(
            "{name} of the kubeconfig can't be used ({}); mend it",
            causes(&error)
        ))
    })?;
    Ok((config, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_its_own_cluster_unless_a_context_is_named() {
        assert_eq!(source(false, false, true), Source::InCluster);
        assert_eq!(source(true, false, true), Source::Kubeconfig);
        assert_eq!(source(false, true, true), Source::Kubeconfig);
        assert_eq!(source(false, false, false), Source::Kubeconfig);
    }
}
