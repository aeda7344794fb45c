//! A fleet in a box: a coordinator in this process, on a nats-server of its own, ready for agents.
//!
//! | you want | you take |
//! |---|---|
//! | one coordinator for all tests of a binary, each in its own project | [`Fleet::shared`] |
//! | one that you stop, crash, start again, or whose NATS you kill | [`Fleet::own`] |
//! | one with other settings | [`Fleet::builder`] |
//!
//! A coordinator owns its NATS alone, so each fleet has a nats-server for itself. Whatever hurts the others that
//! share a fleet needs `&mut Fleet`, which nobody gets of a shared one. Killing an actor hurts only one project and
//! is done through [`TestProject`].
//!
//! The coordinator runs on threads of its own: it outlives the runtime of the test that started it, and
//! [`Fleet::crash`] ends all of it at once, as `kill -9` would. A dropped fleet shuts down in order.
//!
//! Where the environment has `NATS_URL`, shared fleets use that server, and those of different processes wait for each
//! other: it has one owner at a time. A fleet of one test's own has a private server in any case.

mod former;
mod project;
mod signals;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context as _, Result};
use loom_actors::clock::Clock;
use loom_actors::nats::server::Profile;
use loom_actors::target_manager::BirthStepHook;
use loom_coordinator::access::{Allowed, Caller, Door};
use loom_coordinator::coordinator::{Coordinator, UpError, UpOptions};
use loom_coordinator::service::Service;
use loom_coordinator::settings::{ServerUrl, Settings};
use loom_protocol::{ProjectId, VerbName, WireError};
use parking_lot::RwLock;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use tokio::task::JoinError;
use tokio::time::timeout;

pub use former::Former;
pub use project::{Role, TestProject};
pub use signals::Signals;

use crate::nats::TestNats;

/// Somebody who may do what a verb does, for a test that asks the service itself: in a project, or in all.
///
/// # Errors
/// Not everybody may.
pub fn everybody(verb: VerbName, project: Option<&ProjectId>) -> Result<Allowed, WireError> {
    Caller::everybody(Door::Nats).allow(verb, project.cloned())
}

/// How long anything in a test may take before it counts as failed. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long a start may wait for another owner of the same NATS to end (only with `NATS_URL`).
const START_WITHIN: Duration = Duration::from_mins(5);
/// How long the threads of a coordinator may take to end.
const END_WITHIN: Duration = Duration::from_secs(5);
const THREADS: usize = 2;

/// The one that [`Fleet::shared`] gives out, while anybody has it.
static SHARED: Mutex<Weak<Fleet>> = Mutex::const_new(Weak::new());

/// A coordinator in this process and its nats-server.
pub struct Fleet {
    running: Option<Running>,
    reach: Reach,
    settings: Box<Settings>,
    clock: Clock,
    on_birth_step: BirthStepHook,
    nats: TestNats,
    // Removed after the coordinator has let go of it.
    data: TempDir,
}

/// A fleet that does not run yet; see [`Fleet::builder`].
#[derive(Debug, Clone, Default)]
pub struct FleetBuilder {
    settings: Settings,
    profile: Option<Profile>,
    max_payload: Option<usize>,
    cluster: bool,
    clock: Clock,
    on_birth_step: BirthStepHook,
}

impl FleetBuilder {
    /// Changes the settings; where NATS and the API are is the fleet's business.
    #[must_use]
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// How its nats-server writes to the disk; `fast` where absent.
    #[must_use]
    pub const fn profile(mut self, profile: Profile) -> Self {
        self.profile = Some(profile);
        self
    }

    /// How much a message of its nats-server may carry, in bytes; 1 MiB where absent.
    #[must_use]
    pub const fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = Some(bytes);
        self
    }

    /// What time its coordinator thinks that it is; the machine's where absent.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Who is told each step of the births of agents, and waited for.
    #[must_use]
    pub fn on_birth_step(mut self, hook: BirthStepHook) -> Self {
        self.on_birth_step = hook;
        self
    }

    /// On a cluster of three nats-servers, with three copies of everything.
    #[must_use]
    pub const fn cluster(mut self) -> Self {
        self.cluster = true;
        self
    }

    /// Starts the nats-server and the coordinator; returns when requests are answered.
    pub async fn start(mut self) -> Result<Fleet> {
        if self.cluster {
            self.settings.nats.replicas = 3;
            let nats = TestNats::cluster().await?;
            return self.start_on(nats).await;
        }
        let nats =
            TestNats::start_so(self.profile.unwrap_or(Profile::Fast), self.max_payload).await?;
        Box::pin(self.start_on(nats)).await
    }

    async fn start_on(self, nats: TestNats) -> Result<Fleet> {
        // As the program does at its start. The first one in the process counts.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let data = tempfile::Builder::new()
            .prefix("loom-test-fleet-")
            .tempdir()
            .context("make a data directory for a test's coordinator")?;
        let mut settings = self.settings;
        settings.nats.url = Some(ServerUrl::new(nats.url()));
        settings.nats.data_dir = Some(data.path().to_owned());
        settings.api.host = "127.0.0.1".into();
        settings.api.port = 0;
        let mut fleet = Fleet {
            running: None,
            reach: Reach::default(),
            settings: Box::new(settings),
            clock: self.clock,
            on_birth_step: self.on_birth_step,
            nats,
            data,
        };
        fleet.start_again().await?;
        Ok(fleet)
    }
}

impl Fleet {
    /// The fleet that all tests of this process share. Started by the first one, ended after the last one.
    pub async fn shared() -> Result<Arc<Self>> {
        let mut shared = SHARED.lock().await;
        if let Some(fleet) = shared.upgrade() {
            return Ok(fleet);
        }
        let fleet = Arc::new(match TestNats::foreign() {
            Some(nats) => Box::pin(Self::builder().start_on(nats)).await?,
            None => Self::own().await?,
        });
        *shared = Arc::downgrade(&fleet);
        Ok(fleet)
    }

    /// A fleet for one test alone, with the default settings.
    pub async fn own() -> Result<Self> {
        Self::builder().start().await
    }

    /// Starts its nats-server again, on its store, with messages that carry so many bytes.
    pub async fn restart_nats_with(&mut self, max_payload: usize) -> Result<()> {
        self.nats.restart_with(max_payload).await
    }

    /// A fleet for one test alone, with settings of its own.
    pub fn builder() -> FleetBuilder {
        FleetBuilder::default()
    }

    /// A project that nobody else uses, over a connection of its own. Nothing of it exists before its first write.
    pub async fn project(&self) -> Result<TestProject> {
        TestProject::connect(TestNats::unique_project(), self.nats.url(), &self.reach).await
    }

    /// Its nats-server, to be stopped, killed, paused or restarted where the fleet is the test's own.
    pub const fn nats(&self) -> &TestNats {
        &self.nats
    }

    /// Where its coordinator keeps its data. Another coordinator with the same directory is the same owner: it may take
    /// over at once when this one has ended.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// The service layer of the running coordinator.
    ///
    /// # Errors
    /// The coordinator is stopped.
    pub fn service(&self) -> Result<Service> {
        self.reach.service()
    }

    /// Where the REST API of the running coordinator listens; another port after each start.
    ///
    /// # Errors
    /// The coordinator is stopped.
    pub fn api_address(&self) -> Result<SocketAddr> {
        self.reach.api_address()
    }

    /// Ends the coordinator in order, as SIGTERM does. NATS goes on.
    pub async fn stop(&mut self) -> Result<()> {
        self.reach.set(None);
        if let Some(running) = self.running.take() {
            let Running {
                runtime,
                coordinator,
            } = running;
            runtime.spawn(coordinator.shut_down()).await?;
            end(runtime).await?;
        }
        Ok(())
    }

    /// Ends the coordinator at once, wherever it is, as `kill -9` does. NATS goes on.
    pub async fn crash(&mut self) -> Result<()> {
        self.reach.set(None);
        if let Some(running) = self.running.take() {
            end(running.runtime).await?;
        }
        Ok(())
    }

    /// Has the coordinator stand still, as SIGSTOP does, and another one of the same user and machine take over. Returns
    /// when that one serves, which is when the ownership of the first one has run out: about 15 s later. The first one
    /// stands still until it is told to go on.
    pub async fn replace(&mut self) -> Result<Former> {
        self.reach.set(None);
        let former = self.running.take().context(STOPPED)?;
        let former = Former::stand_still(former.runtime, former.coordinator).await?;
        self.start_again().await?;
        Ok(former)
    }

    /// Starts a stopped or crashed coordinator on the same NATS and data directory; one that runs goes on.
    pub async fn start_again(&mut self) -> Result<()> {
        if self.running.is_none() {
            let options = UpOptions {
                standby: true,
                clock: self.clock.clone(),
                on_birth_step: self.on_birth_step.clone(),
            };
            let running = Running::start((*self.settings).clone(), options).await?;
            self.reach.set(Some(Reached {
                service: running.coordinator.service().clone(),
                api_address: running.coordinator.api_address(),
            }));
            self.running = Some(running);
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        // A runtime must not be waited for on the thread of another one.
        let ended = std::thread::spawn(move || running.shut_down()).join();
        if ended.is_err() {
            tracing::error!("the shutdown of a test's coordinator panicked");
        }
    }
}

/// A coordinator and the threads that it runs on.
struct Running {
    runtime: Runtime,
    coordinator: Coordinator,
}

impl Running {
    async fn start(settings: Settings, options: UpOptions) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("test-coordinator")
            .enable_all()
            .build()
            .context("make the threads of a test's coordinator")?;
        let start = async move { Coordinator::start(&settings, options).await };
        let started: Result<Result<Result<Coordinator, UpError>, JoinError>, _> =
            timeout(START_WITHIN, runtime.spawn(start)).await;
        let outcome = match started {
            Ok(Ok(Ok(coordinator))) => {
                // What asks the service itself passes no door, where a request waits for the projects that start.
                let _ = coordinator.projects().settled(None, START_WITHIN).await;
                Ok(coordinator)
            }
            Ok(Ok(Err(refused))) => Err(refused.into()),
            Ok(Err(panicked)) => Err(panicked.into()),
            Err(elapsed) => {
                Err(anyhow::Error::from(elapsed).context("another coordinator owns this NATS"))
            }
        };
        match outcome {
            Ok(coordinator) => Ok(Self {
                runtime,
                coordinator,
            }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    fn shut_down(self) {
        self.runtime.block_on(self.coordinator.shut_down());
        self.runtime.shutdown_timeout(END_WITHIN);
    }
}

/// Ends threads, and returns when everything that ran on them is gone.
async fn end(runtime: Runtime) -> Result<()> {
    Ok(tokio::task::spawn_blocking(move || runtime.shutdown_timeout(END_WITHIN)).await?)
}

/// How the projects of a fleet find its coordinator, over all its starts.
#[derive(Clone, Default)]
struct Reach(Arc<RwLock<Option<Reached>>>);

struct Reached {
    service: Service,
    api_address: SocketAddr,
}

impl Reach {
    fn set(&self, reached: Option<Reached>) {
        *self.0.write() = reached;
    }

    fn service(&self) -> Result<Service> {
        let reached = self.0.read();
        Ok(reached.as_ref().context(STOPPED)?.service.clone())
    }

    fn api_address(&self) -> Result<SocketAddr> {
        let reached = self.0.read();
        Ok(reached.as_ref().context(STOPPED)?.api_address)
    }
}

const STOPPED: &str = "the coordinator of this fleet is stopped; call start_again";
