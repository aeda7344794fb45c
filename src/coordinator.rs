//! The coordinator, put together: NATS, ownership, projects, doors; and taken apart in order.
//!
//! ```text
//! start   bind the API ─► own nats-server (if no URL) ─► connect ─► ownership ─► projects ─► API over NATS
//! end     API and projects (drain) ─► ownership ─► nats-server
//! ```
//!
//! Ownership may be lost while the process lives (NATS away for long): then the actors end, the
//! NATS door closes, and all of it begins anew under a new epoch when ownership is won again
//! (`term`). The API is open from the beginning (`early`), and says why it cannot serve.

mod early;
mod term;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use loom_actors::clock::Clock;
use loom_actors::nats::connection::{ConnectError, Nats, NatsOptions};
use loom_actors::nats::owner::{Identity, IdentityError, OwnerError};
use loom_actors::nats::server::{ManagedOptions, ManagedServer, ServerError};
use loom_actors::projects::Projects;
use loom_actors::target_manager::{BirthStepHook, BirthTerms};
use loom_protocol::WireError;
use loom_protocol::url::without_credentials;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::early::Early;
use self::term::{OwnershipTerm, Runtime};
use crate::api::rest;
use crate::mechanisms::{Launchers, sweep_starts};
use crate::metrics;
use crate::running::{Noted, Running, Standing};
use crate::service::Service;
use crate::settings::{NatsSettings, Settings};
use loom_actors::domain::room::Room;

/// How many coordinators of one user may stand by for one NATS on one machine.
const MAX_STANDBYS: u32 = 16;

/// How to run, beyond the settings.
#[derive(Debug, Clone, Default)]
pub struct UpOptions {
    /// Where another coordinator owns this NATS, wait and take over when it is gone.
    pub standby: bool,
    /// The time of day; the machine's by default.
    pub clock: Clock,
    /// Is told each step of a birth; nobody by default.
    pub on_birth_step: BirthStepHook,
}

/// Why the coordinator did not start, or had to end. Each sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The address of the API cannot be taken.
    #[error(transparent)]
    Bind(#[from] rest::BindError),
    /// Our own nats-server cannot be started.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// There is no usable NATS.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Another coordinator owns this NATS.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The actors cannot be started.
    #[error(transparent)]
    Projects(#[from] WireError),
    /// Nothing can be written.
    #[error("Loom cannot start: {0}")]
    Store(String),
    /// The projects cannot be found, or the requests not be subscribed to.
    #[error(
        "NATS at {url} does not let the coordinator do its work: {source}; check the account's permissions"
    )]
    Nats {
        /// Where.
        url: String,
        /// Why.
        source: async_nats::Error,
    },
    /// There is nowhere to keep data.
    #[error(
        "there is no data directory: neither XDG_DATA_HOME nor HOME is set; set nats.data_dir or --data-dir"
    )]
    NoDataDirectory,
    /// The API's own address cannot be told.
    #[error("the address of the API cannot be told: {0}")]
    Socket(#[source] std::io::Error),
}

/// A running coordinator.
pub struct Coordinator {
    runtime: Arc<Runtime>,
    server: Option<ManagedServer>,
    api_address: SocketAddr,
    closing: CancellationToken,
    ruling: JoinHandle<()>,
    failed: oneshot::Receiver<UpError>,
    serving: JoinHandle<()>,
    _measuring: AbortOnDropHandle<()>,
    _watching: Vec<AbortOnDropHandle<()>>,
}

impl Coordinator {
    /// Starts everything; returns when requests are answered. Until then the API says what is waited for.
    pub async fn start(settings: &Settings, options: UpOptions) -> Result<Self, UpError> {
        let early = Early::open(&settings.api).await?;
        Self::start_behind(early, settings, options).await
    }

    async fn start_behind(
        early: Early,
        settings: &Settings,
        options: UpOptions,
    ) -> Result<Self, UpError> {
        metrics::install();
        let api_address = early.address();
        let data_dir = data_directory(&settings.nats)?;
        let server = match &settings.nats.url {
            Some(_) => None,
            None => Some(start_server(&settings.nats, data_dir.clone()).await?),
        };
        let url = match (&settings.nats.url, &server) {
            (Some(url), _) => url.expose().to_owned(),
            (None, Some(server)) => server.client_url(),
            (None, None) => String::new(),
        };
        let nats = Nats::connect(&nats_options(&settings.nats, url)).await?;
        if let Some(problem) = Room::of(nats.max_payload()).problem(&nats.shown_url) {
            tracing::error!("{problem}");
        }
        let mut watching = watch_store(&nats, server.as_ref());
        let sweeping = sweep_starts(data_dir.clone(), settings.targets.births().birth_timeout);
        watching.push(AbortOnDropHandle::new(tokio::spawn(sweeping)));
        let births = births(settings, &data_dir, &nats, api_address, &options);
        let identity = identity(&data_dir, server.is_none().then_some(&nats.shown_url))?;
        let store = nats.store.clone();
        let control = server.as_ref().map(ManagedServer::control);
        let why = early.why();
        let first = OwnershipTerm::first(settings, (nats, births), identity, options, control, why);
        let first = Box::pin(first).await;
        let (runtime, term) = first.map_err(|error| match store.verdict().sentence() {
            Some(sentence) => UpError::Store(sentence.to_owned()),
            None => error,
        })?;
        let router = rest::router(runtime.service().clone(), &settings.api);
        let (closing, serving) = early.replaced_by(router);
        let (fails, failed) = oneshot::channel();
        let ruling = term::run_ownership(runtime.clone(), term, closing.clone(), fails);
        let ruling = tokio::spawn(ruling);
        let measuring = AbortOnDropHandle::new(tokio::spawn(metrics::keep_up()));
        Ok(Self {
            runtime,
            server,
            api_address,
            closing,
            ruling,
            failed,
            serving,
            _measuring: measuring,
            _watching: watching,
        })
    }

    /// The service layer: what every door calls.
    pub fn service(&self) -> &Service {
        self.runtime.service()
    }

    /// The projects and their actors, of the present ownership.
    pub fn projects(&self) -> Projects {
        self.service().projects()
    }

    /// The connection to NATS.
    pub fn nats(&self) -> &Nats {
        self.runtime.nats()
    }

    /// Where agents find NATS.
    pub fn nats_url(&self) -> &str {
        self.runtime.nats_url()
    }

    /// Where the REST API listens.
    pub const fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// Resolves when this program can never own the store again, with the reason: a later one has written it.
    pub async fn failed(&mut self) -> UpError {
        match (&mut self.failed).await {
            Ok(error) => error,
            Err(_never) => std::future::pending().await,
        }
    }

    /// Ends in order: no more requests, what is in flight, ownership, our own server.
    pub async fn shut_down(self) {
        self.closing.cancel();
        let _ = tokio::join!(self.ruling, self.serving);
        self.runtime.nats().expect_end();
        if let Some(server) = self.server {
            server.stop().await;
        }
    }
}

/// Runs a coordinator until it is told to end.
pub async fn run(settings: Settings, options: UpOptions) -> Result<(), UpError> {
    let mut signals = Signals::listen();
    let early = Early::open(&settings.api).await?;
    let mut notice = Notice::begin(&settings, early.address());
    let why = early.watch();
    let standby = options.standby;
    let starting = Box::pin(Coordinator::start_behind(early, &settings, options));
    let mut coordinator = tokio::select! {
        started = starting => started?,
        () = signals.next() => {
            tracing::info!("ended before it served");
            return Ok(());
        }
        () = notice.stand_by(why, standby) => return Ok(()),
    };
    let nats_url = coordinator.nats().shown_url.clone();
    notice.tell(Standing::Serves, nats_url);
    say(&format!(
        "loom is up · API http://{} · NATS {} · project {}",
        coordinator.api_address(),
        coordinator.nats_url(),
        coordinator.service().default_project(),
    ));
    let outcome = tokio::select! {
        () = signals.next() => Ok(()),
        error = coordinator.failed() => Err(error),
    };
    tracing::info!("ending; a second signal ends at once");
    tokio::select! {
        () = coordinator.shut_down() => {}
        () = signals.next() => tracing::warn!("ended at once"),
    }
    drop(notice);
    outcome
}

/// Says something on stdout, if anybody reads it.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// What stands in the data directory of this process, from the moment that its port is taken until it has ended.
struct Notice {
    running: Running,
    noted: Option<Noted>,
}

impl Notice {
    fn begin(settings: &Settings, api: SocketAddr) -> Self {
        let url = settings.nats.url.as_ref();
        let shown = url.map(|url| without_credentials(url.expose()));
        let running = Running::here(
            format!("http://{api}"),
            shown.unwrap_or_default(),
            Clock::system().now(),
        );
        let data_dir = data_directory(&settings.nats).map_err(std::io::Error::other);
        let noted = data_dir.and_then(|data_dir| running.note(&data_dir));
        Self {
            running,
            // Who looks for it does not find it; everything else works.
            noted: noted.inspect_err(not_noted).ok(),
        }
    }

    fn tell(&mut self, standing: Standing, nats_url: String) {
        self.running.standing = standing;
        self.running.nats_url = nats_url;
        self.running.since = Clock::system().now();
        if let Some(noted) = &self.noted {
            let _ = noted.again(&self.running).inspect_err(not_noted);
        }
    }

    /// Tells that a standby waits, once. Does not end.
    async fn stand_by(&mut self, why: watch::Receiver<Option<OwnerError>>, standby: bool) {
        let mut why = why;
        if standby && why.wait_for(Option::is_some).await.is_ok() {
            let nats_url = self.running.nats_url.clone();
            say(&format!(
                "loom stands by · API {} · NATS {nats_url}",
                self.running.api
            ));
            self.tell(Standing::StandsBy, nats_url);
        }
        std::future::pending::<()>().await;
    }
}

fn not_noted(error: &std::io::Error) {
    tracing::warn!("that this coordinator runs cannot be noted in the data directory: {error}");
}

/// SIGINT and SIGTERM.
struct Signals {
    #[cfg(unix)]
    terminate: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    fn listen() -> Self {
        Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .ok(),
        }
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(terminate) = &mut self.terminate {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
        let _ = tokio::signal::ctrl_c().await;
    }
}

async fn start_server(
    settings: &NatsSettings,
    data_dir: PathBuf,
) -> Result<ManagedServer, UpError> {
    let options = ManagedOptions {
        listen: settings.listen,
        profile: settings.profile,
        ..ManagedOptions::new(data_dir)
    };
    Ok(ManagedServer::start(options).await?)
}

/// Where agents find NATS.
fn url_for_agents(settings: &Settings, nats: &Nats) -> String {
    match &settings.nats.advertise_url {
        Some(url) => url.expose().to_owned(),
        None => nats.shown_url.clone(),
    }
}

/// How agents are started by this process.
fn births(
    settings: &Settings,
    data_dir: &Path,
    nats: &Nats,
    api: SocketAddr,
    options: &UpOptions,
) -> BirthTerms {
    let nats_url = without_credentials(&url_for_agents(settings, nats));
    let urls = (nats_url, nats.shown_url.as_str());
    let launchers = Launchers::new(data_dir, api, urls, options.clock.clone());
    BirthTerms::new(settings.targets.births(), Arc::new(launchers))
        .telling(options.on_birth_step.clone())
}

/// Looks at the store of NATS for as long as the coordinator lives.
fn watch_store(nats: &Nats, server: Option<&ManagedServer>) -> Vec<AbortOnDropHandle<()>> {
    let of_server = server.map(|server| {
        let watch = nats.store.clone().watch_server(server.control());
        AbortOnDropHandle::new(tokio::spawn(watch))
    });
    let of_nats = tokio::spawn(nats.store.clone().watch_nats(nats.clone()));
    let of_nats = AbortOnDropHandle::new(of_nats);
    of_server.into_iter().chain([of_nats]).collect()
}

fn nats_options(settings: &NatsSettings, url: String) -> NatsOptions {
    NatsOptions {
        url,
        user: settings.user.clone(),
        password: settings.password.as_ref().map(|p| p.expose().to_owned()),
        credentials: settings.credentials.clone(),
        name: "loom coordinator".into(),
    }
}

/// Where this user's coordinators keep what they must remember.
pub fn data_directory(settings: &NatsSettings) -> Result<PathBuf, UpError> {
    if let Some(directory) = &settings.data_dir {
        return Ok(directory.clone());
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(data) = variable("XDG_DATA_HOME") {
        return Ok(PathBuf::from(data).join("loom"));
    }
    let home = variable("HOME").ok_or(UpError::NoDataDirectory)?;
    Ok(PathBuf::from(home).join(".local/share/loom"))
}

/// Who this coordinator is. With a NATS of somebody else's, several of one user may stand by for
/// it on one machine: each takes the next free place.
fn identity(data_dir: &Path, foreign: Option<&String>) -> Result<Identity, UpError> {
    let Some(url) = foreign else {
        return Ok(Identity::of_data_directory(data_dir)?);
    };
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = url.chars().map(plain).take(100).collect();
    let mut place = 1;
    loop {
        match Identity::of_data_directory(&data_dir.join(format!("at-{name}-{place}"))) {
            Err(IdentityError::InUse(_)) if place < MAX_STANDBYS => place += 1,
            outcome => return Ok(outcome?),
        }
    }
}
