//! A stand-in for the part of GitHub that runs workflows: one private repository with one workflow, on GitHub's real wire
//! (status codes, bodies, pages by `Link`, rate limits, `ETag`), over HTTP on loopback. It refuses what GitHub refuses, keeps
//! what it received, can fail or fall silent when told to, and can run something for each dispatch.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use loom_testkit::github::{READER, TestGithub, TOKEN};
//!
//! let github = TestGithub::start().await?;
//! github.on_dispatch(|run| {
//!     tokio::spawn(async move {
//!         run.begin();
//!         println!("to be done: {:?}", run.inputs);
//!         run.finish("success");
//!     });
//! });
//! println!("{} {} {} {TOKEN} {READER}", github.api_url(), TestGithub::REPO, TestGithub::WORKFLOW);
//! # Ok(())
//! # }
//! ```
//!
//! A run begins and ends when it is told to ([`TestGithub::begin`], [`TestGithub::finish`], [`DispatchedRun`]); a cancelled
//! one ends by itself, unless something runs it.

mod answers;
mod dispatch;
mod runs;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use loom_actors::clock::Clock;
use loom_protocol::Timestamp;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use crate::received::Received;
pub use runs::DispatchedRun;

use runs::Run;

/// A token that may dispatch. Nothing else looks like it, so that it is seen where it does not belong.
pub const TOKEN: &str = "github_pat_11STANDIN0writes_5eA7kQz93LmVx";
/// A token that may only look.
pub const READER: &str = "github_pat_11STANDIN0reads_Qw82LpTz61Bn";
/// What the address of the API ends with, as that of a GitHub Enterprise does.
const BASE: &str = "/api/v3";

/// A server that runs. Dropped, it is gone; what it runs is told to end.
#[derive(Debug)]
pub struct TestGithub {
    hub: Hub,
    task: JoinHandle<()>,
}

/// How GitHub, its repository and its workflow are. Changed by [`TestGithub::set`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// The token that may dispatch; [`TOKEN`] at first.
    pub writer: String,
    /// The token that may only look; [`READER`] at first.
    pub reader: String,
    /// The branches and tags; `main` at first.
    pub refs: BTreeSet<String>,
    /// `active`, or why the workflow does not run.
    pub workflow_state: String,
    /// Whether the workflow has the trigger `workflow_dispatch`.
    pub has_trigger: bool,
    /// The inputs that the workflow declares, and whether they are required; `spin_up` at first.
    pub inputs: BTreeMap<String, bool>,
    /// Its `run-name`, with `{input}` for an input; none: runs are called as the workflow is. `loom {spin_up}` at first.
    pub run_name: Option<String>,
    /// What comes of `return_run_details` in a dispatch.
    pub run_details: RunDetails,
    /// How often runs are listed without a new one, before it is there.
    pub appears_after: usize,
    /// What a cancelled run does that nothing runs.
    pub cancelled: Cancelled,
    /// How many requests are left, and how long until there are more.
    pub rate_limit: Option<(u64, Duration)>,
}

/// What a version of GitHub does with a request to tell the run of a dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunDetails {
    /// It tells: 200.
    Told,
    /// It does not know the field, and refuses it with this status.
    Refused(u16),
    /// It takes the field, and tells nothing: 204.
    Ignored,
}

/// What a run does that is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It ends.
    Ends,
    /// It goes on until it is cancelled by force.
    NeedsForce,
    /// It goes on.
    GoesOn,
}

/// What comes of the next request of a kind. Told by [`TestGithub::fail_next`].
#[derive(Debug, Clone)]
pub enum Fault {
    /// This is answered, and nothing is done: status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// The connection is cut before anything is done.
    CutBefore,
    /// It is done, and the connection is cut without an answer.
    CutAfter,
    /// It is done, and answered with this status instead.
    DoneBut(u16),
}

type OnDispatch = Arc<dyn Fn(DispatchedRun) + Send + Sync>;

/// All that the server knows.
struct Inner {
    clock: Clock,
    address: SocketAddr,
    settings: Settings,
    runs: Vec<Run>,
    received: Vec<Received>,
    faults: Vec<(Method, String, Fault)>,
    on_dispatch: Option<OnDispatch>,
}

/// The same, shared.
#[derive(Clone)]
struct Hub(Arc<Mutex<Inner>>);

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hub")
    }
}

impl TestGithub {
    /// The repository.
    pub const REPO: &str = "octo/agents";
    /// The file of its workflow.
    pub const WORKFLOW: &str = "agent.yml";

    /// Starts one, by the machine's clock.
    ///
    /// # Errors
    /// It can't listen.
    pub async fn start() -> Result<Self> {
        Self::start_with(Clock::system()).await
    }

    /// Starts one, whose clock stands still at a time.
    ///
    /// # Errors
    /// It can't listen.
    pub async fn start_at(at: Timestamp) -> Result<Self> {
        Self::start_with(Clock::manual(at)).await
    }

    async fn start_with(clock: Clock) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let hub = Hub(Arc::new(Mutex::new(Inner {
            clock,
            address: listener.local_addr()?,
            settings: Settings::default(),
            runs: Vec::new(),
            received: Vec::new(),
            faults: Vec::new(),
            on_dispatch: None,
        })));
        let service = Router::new().fallback(take).with_state(hub.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, service).await {
                tracing::error!(%error, "the stand-in for GitHub has ended");
            }
        });
        Ok(Self { hub, task })
    }

    /// The address of its API.
    pub fn api_url(&self) -> String {
        format!("http://{}{BASE}", self.hub.0.lock().address)
    }

    /// Changes how it is.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.hub.0.lock().settings);
    }

    /// Lets the next request fail with this method and with this in its path. Several are met in their order.
    pub fn fail_next(&self, method: Method, path: &str, fault: Fault) {
        let mut inner = self.hub.0.lock();
        inner.faults.push((method, path.to_owned(), fault));
    }

    /// Is told each run that is dispatched; may not wait. It says when the run begins and ends.
    pub fn on_dispatch(&self, run: impl Fn(DispatchedRun) + Send + Sync + 'static) {
        self.hub.0.lock().on_dispatch = Some(Arc::new(run));
    }

    /// All that was received, in its order.
    pub fn received(&self) -> Vec<Received> {
        self.hub.0.lock().received.clone()
    }

    /// The runs that were dispatched, in their order: ids and inputs.
    pub fn dispatched(&self) -> Vec<(u64, BTreeMap<String, String>)> {
        let inner = self.hub.0.lock();
        let runs = inner.runs.iter().filter(|run| run.is_dispatched);
        runs.map(|run| (run.id, run.inputs.clone())).collect()
    }

    /// Adds runs that nobody has asked for, of the same workflow and newer than all others.
    pub fn add_runs(&self, count: usize) {
        let mut inner = self.hub.0.lock();
        for at in 0..count {
            let title = format!("by hand {at}");
            inner.add_run(title, "main", BTreeMap::new(), 0, false);
        }
    }

    /// Lets runs be listed that are not there yet.
    pub fn reveal(&self) {
        for run in &mut self.hub.0.lock().runs {
            run.appears_after = 0;
        }
    }

    /// A run begins.
    pub fn begin(&self, id: u64) {
        self.hub.change(id, "in_progress", None);
    }

    /// A run ends, with this conclusion.
    pub fn finish(&self, id: u64, conclusion: &str) {
        self.hub.change(id, "completed", Some(conclusion));
    }

    /// Somebody deletes a run.
    pub fn delete(&self, id: u64) {
        self.hub.0.lock().runs.retain(|run| run.id != id);
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            writer: TOKEN.to_owned(),
            reader: READER.to_owned(),
            refs: BTreeSet::from(["main".to_owned()]),
            workflow_state: "active".to_owned(),
            has_trigger: true,
            inputs: BTreeMap::from([("spin_up".to_owned(), false)]),
            run_name: Some("loom {spin_up}".to_owned()),
            run_details: RunDetails::Told,
            appears_after: 0,
            cancelled: Cancelled::Ends,
            rate_limit: None,
        }
    }
}

impl Drop for TestGithub {
    fn drop(&mut self) {
        self.task.abort();
        for run in &self.hub.0.lock().runs {
            run.cancelled.send_replace(true);
        }
    }
}

impl Hub {
    fn change(&self, id: u64, status: &str, conclusion: Option<&str>) {
        let mut inner = self.0.lock();
        if let Some(run) = inner.runs.iter_mut().find(|run| run.id == id)
            && run.status != "completed"
        {
            status.clone_into(&mut run.status);
            run.conclusion = conclusion.map(str::to_owned);
            run.changes += 1;
        }
    }
}

impl Inner {
    fn add_run(
        &mut self,
        title: String,
        reference: &str,
        inputs: BTreeMap<String, String>,
        appears_after: usize,
        is_dispatched: bool,
    ) -> u64 {
        let number = self.runs.last().map_or(0, |run| run.number) + 1;
        // Larger than what some languages keep exactly as they keep other numbers.
        let id = (1 << 53) + u64::try_from(number).unwrap_or_default();
        self.runs.push(Run {
            id,
            number,
            title,
            reference: reference.to_owned(),
            inputs,
            appears_after,
            is_dispatched,
            status: "queued".to_owned(),
            conclusion: None,
            changes: 0,
            created_at: self.clock.now(),
            cancelled: watch::Sender::new(false),
        });
        id
    }

    /// The fault that this request meets.
    fn fault(&mut self, method: &Method, path: &str) -> Option<Fault> {
        let meets =
            |(of, part, _): &(Method, String, Fault)| of == method && path.contains(&**part);
        let at = self.faults.iter().position(meets)?;
        Some(self.faults.remove(at).2)
    }
}

async fn take(
    State(hub): State<Hub>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.to_string();
    let path = path.strip_prefix(BASE).unwrap_or("/not/below/the/api");
    let answered = hub.answer(&method, path, &headers, &body);
    let status = answered
        .as_ref()
        .map_or(0, |answer| answer.status().as_u16());
    hub.0.lock().received.push(Received {
        method,
        path: path.to_owned(),
        headers,
        body,
        status,
    });
    let Some(answer) = answered else {
        // The connection ends with its task, and nothing is answered. No hook hears of it.
        std::panic::resume_unwind(Box::new("a connection is cut"));
    };
    answer
}
