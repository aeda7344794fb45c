//! An API server of Kubernetes with a Job controller, a garbage collector and one node, without a cluster: a stand-in that
//! speaks the real wire and runs the containers of pods as processes of this machine.
//!
//! It is strict where a real one may be lenient: unknown fields are refused, and whoever asks may do what [`ROLE`] says
//! and nothing else. Images are not pulled; what becomes of one, [`Fate`] says. Its clock stands still.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use loom_testkit::kubernetes::{Fate, TestCluster};
//!
//! let cluster = TestCluster::start().await?;
//! cluster.fate("registry/none:1", Fate::waits("ErrImagePull", "not found"));
//! println!("KUBECONFIG={}", cluster.kubeconfig().display());
//! # Ok(())
//! # }
//! ```

mod controllers;
mod faults;
mod kubelet;
mod process;
mod server;
mod status;
mod store;
mod validate;
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use faults::{Failure, Fault};
use store::{Kind, Store};

/// The namespace that is there.
pub const NAMESPACE: &str = "agents";
/// The context of the kubeconfig.
pub const CONTEXT: &str = "test";
/// What whoever asks may do: verb, group, resource. The Role of docs/targets.md is the same.
pub const ROLE: [(&str, &str, &str); 12] = [
    ("create", "batch", "jobs"),
    ("get", "batch", "jobs"),
    ("list", "batch", "jobs"),
    ("watch", "batch", "jobs"),
    ("patch", "batch", "jobs"),
    ("delete", "batch", "jobs"),
    ("create", "", "secrets"),
    ("update", "", "secrets"),
    ("list", "", "pods"),
    ("watch", "", "pods"),
    ("delete", "", "pods"),
    ("get", "", "pods/log"),
];
/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// What becomes of the containers of an image.
#[derive(Debug, Clone)]
pub enum Fate {
    /// They are processes of this machine.
    Run,
    /// They wait: a reason and a message, as a kubelet tells them.
    Wait(String, String),
    /// No node takes them.
    Unscheduled(String),
    /// No pod is made for them, as where a quota forbids it.
    NoPod,
    /// They run and do not end when they are asked to, nor are they killed: the node is gone.
    Lost,
}

impl Fate {
    /// They wait for this reason.
    pub fn waits(reason: &str, message: &str) -> Self {
        Self::Wait(reason.to_owned(), message.to_owned())
    }
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// `GET`, …
    pub method: String,
    /// The path.
    pub path: String,
    /// What stands behind the `?`.
    pub query: String,
    /// The body.
    pub body: String,
}

/// A cluster. Dropped, it and all that runs in it is gone.
pub struct TestCluster {
    world: Arc<World>,
    address: SocketAddr,
    folder: TempDir,
    tasks: Vec<JoinHandle<()>>,
}

/// What server, controllers and node share.
struct World {
    store: Mutex<Store>,
    rules: Mutex<Rules>,
}

/// What a test has laid down.
struct Rules {
    token: String,
    allowed: BTreeSet<(String, String, String)>,
    faults: Vec<Fault>,
    fates: BTreeMap<String, Fate>,
    requests: Vec<Recorded>,
    logs: BTreeMap<String, process::Log>,
    /// The most objects of one page, whatever is asked for.
    page: usize,
    /// Counts up when all watches are cut.
    watches: u64,
    /// Up to which version whoever watches a kind was told.
    told: BTreeMap<Kind, u64>,
}

impl TestCluster {
    /// Starts one that listens on loopback.
    ///
    /// # Errors
    /// It can't listen, or its kubeconfig can't be written.
    pub async fn start() -> Result<Self> {
        let world = Arc::new(World {
            store: Mutex::new(Store::new()),
            rules: Mutex::new(Rules {
                token: "a-token-of-the-test".to_owned(),
                allowed: ROLE
                    .iter()
                    .map(|(verb, group, resource)| {
                        (
                            (*verb).to_owned(),
                            (*group).to_owned(),
                            (*resource).to_owned(),
                        )
                    })
                    .collect(),
                faults: Vec::new(),
                fates: BTreeMap::new(),
                requests: Vec::new(),
                logs: BTreeMap::new(),
                page: usize::MAX,
                watches: 0,
                told: BTreeMap::new(),
            }),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let service = server::service(world.clone());
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, service).await {
                tracing::error!(%error, "the API server of a test has ended");
            }
        });
        let controlling = tokio::spawn(controllers::run(world.clone()));
        let node = tokio::spawn(kubelet::run(world.clone()));
        let cluster = Self {
            world,
            address,
            folder: tempfile::Builder::new()
                .prefix("loom-kubernetes-")
                .tempdir()?,
            tasks: vec![serving, controlling, node],
        };
        cluster.write_kubeconfig()?;
        Ok(cluster)
    }

    /// The kubeconfig by which it is reached. Its only context is [`CONTEXT`].
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    fn write_kubeconfig(&self) -> Result<()> {
        let (address, token) = (self.address, self.world.rules.lock().token.clone());
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {CONTEXT}\n\
             clusters:\n- name: c\n  cluster:\n    server: http://{address}\n\
             users:\n- name: u\n  user:\n    token: {token}\n\
             contexts:\n- name: {CONTEXT}\n  context:\n    cluster: c\n    user: u\n"
        );
        Ok(std::fs::write(self.kubeconfig(), text)?)
    }

    /// Another token counts from now on. With `told` the kubeconfig has it.
    ///
    /// # Errors
    /// The kubeconfig can't be written.
    pub fn rotate_token(&self, token: &str, told: bool) -> Result<()> {
        token.clone_into(&mut self.world.rules.lock().token);
        if told {
            self.write_kubeconfig()?;
        }
        Ok(())
    }

    /// What becomes of the containers of an image from now on; [`Fate::Run`] where nothing is said.
    pub fn fate(&self, image: &str, fate: Fate) {
        self.world.rules.lock().fates.insert(image.to_owned(), fate);
        self.world.store.lock().nudge();
    }

    /// Takes a permission away: `("create", "jobs")`, `("get", "pods/log")`.
    pub fn deny(&self, verb: &str, resource: &str) {
        let mut rules = self.world.rules.lock();
        rules
            .allowed
            .retain(|(there, _, of)| (there.as_str(), of.as_str()) != (verb, resource));
    }

    /// Lets requests fail.
    pub fn fault(&self, fault: Fault) {
        self.world.rules.lock().faults.push(fault);
    }

    /// The most objects of one page.
    pub fn page(&self, most: usize) {
        self.world.rules.lock().page = most;
    }

    /// Forgets what has happened: watches and pages from before are too old.
    pub fn forget_history(&self) {
        self.world.store.lock().forget_history();
    }

    /// Whether a watch of a kind (`pods`) was told up to now, by a bookmark where nothing of what it watches has
    /// changed. A watch that is cut after that goes on from there.
    pub fn is_bookmarked(&self, plural: &str) -> bool {
        let now = self.world.store.lock().version;
        let rules = self.world.rules.lock();
        let mut told = rules.told.iter();
        told.any(|(kind, version)| kind.plural() == plural && *version >= now)
    }

    /// Cuts every watch.
    pub fn cut_watches(&self) {
        self.world.rules.lock().watches += 1;
        self.world.store.lock().nudge();
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.world.rules.lock().requests.clone()
    }

    /// The objects of a kind (`jobs`, `secrets`, `pods`) as they are now.
    pub fn objects(&self, plural: &str) -> Vec<Value> {
        let store = self.world.store.lock();
        let of_kind = store
            .objects
            .iter()
            .filter(|((kind, ..), _)| kind.plural() == plural);
        of_kind.map(|(_, object)| object.clone()).collect()
    }

    /// Writes an object as somebody else does, unchecked.
    pub fn put(&self, plural: &str, object: Value) {
        let kind = Kind::ALL.into_iter().find(|kind| kind.plural() == plural);
        let name = validate::text(&object, "/metadata/name");
        if let Some(kind) = kind {
            let key = (kind, NAMESPACE.to_owned(), name);
            self.world.store.lock().create(key, object);
        }
    }

    /// Changes an object as somebody else does.
    pub fn change(&self, plural: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let kind = Kind::ALL.into_iter().find(|kind| kind.plural() == plural);
        if let Some(kind) = kind {
            let key = (kind, NAMESPACE.to_owned(), name.to_owned());
            self.world.store.lock().change(&key, change);
        }
    }

    /// Removes an object at once, as somebody else does by force.
    pub fn remove(&self, plural: &str, name: &str) {
        let kind = Kind::ALL.into_iter().find(|kind| kind.plural() == plural);
        if let Some(kind) = kind {
            let key = (kind, NAMESPACE.to_owned(), name.to_owned());
            self.world.store.lock().remove(&key);
        }
    }

    /// Waits until the objects of a kind are so.
    ///
    /// # Errors
    /// They did not come to be so.
    pub async fn until(&self, plural: &str, are: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>> {
        let mut changes = self.world.store.lock().changes();
        let until = Instant::now() + PATIENCE;
        loop {
            let objects = self.objects(plural);
            if are(&objects) {
                return Ok(objects);
            }
            let left = until.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, changes.changed()).await.is_err() {
                bail!("the {plural} did not come to be as they should: {objects:#?}");
            }
        }
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
