//! One ownership: its lease, its actors, its NATS door. A process may have several, one after the other.

use std::sync::Arc;
use std::time::Duration;

use loom_actors::barrier::{Grace, InFlight};
use loom_actors::clock::Clock;
use loom_actors::events::EventHub;
use loom_actors::nats::connection::Nats;
use loom_actors::nats::owner::{Identity, OwnerLease, OwnerOptions, Ownership};
use loom_actors::nats::server::ServerControl;
use loom_actors::project::Terms;
use loom_actors::projects::Projects;
use loom_actors::supervision::Jitter;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::UpError;
use crate::doors::nats::NatsDoor;
use crate::service::{Owning, Service, ServiceOptions};
use crate::settings::Settings;

/// How long what is in flight may take at the end.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take when the ownership is lost: it cannot be written any more.
const ABANDON_WITHIN: Duration = Duration::from_secs(1);
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(1);

/// What stays over all ownerships of a process.
pub(super) struct Shell {
    settings: Settings,
    nats: Nats,
    nats_url: String,
    identity: Identity,
    owner: watch::Sender<Owning>,
    service: Service,
}

impl Shell {
    pub const fn service(&self) -> &Service {
        &self.service
    }

    pub const fn nats(&self) -> &Nats {
        &self.nats
    }

    pub fn nats_url(&self) -> &str {
        &self.nats_url
    }
}

/// An ownership, and everything that lives by it.
pub(super) struct Reign {
    lease: OwnerLease,
    projects: Projects,
    door: NatsDoor,
    _discovering: AbortOnDropHandle<()>,
}

/// The part that is there before the door: the lease and the projects.
struct Accession {
    lease: OwnerLease,
    projects: Projects,
}

impl Reign {
    /// The first ownership of a process, and the shell around it.
    pub async fn first(
        settings: &Settings,
        nats: Nats,
        identity: Identity,
        standby: bool,
        server: Option<ServerControl>,
    ) -> Result<(Arc<Shell>, Self), UpError> {
        let events = EventHub::default();
        // Nobody reads before there is a service.
        let accession = accede(settings, &nats, &events, identity.clone(), standby, |_| {}).await?;
        let (owner, owner_seen) = watch::channel(Owning::Yes);
        let nats_url = match &settings.nats.advertise_url {
            Some(url) => url.expose().to_owned(),
            None => nats.shown_url.clone(),
        };
        let options = ServiceOptions {
            default_project: settings.projects.default.clone(),
            nats_url: Some(nats_url.clone()),
            owner: owner_seen,
            events,
            server,
            since: Clock::system().now(),
        };
        let shell = Arc::new(Shell {
            settings: settings.clone(),
            nats,
            nats_url,
            identity,
            owner,
            service: Service::new(accession.projects.clone(), options),
        });
        let reign = Self::open(&shell, accession).await?;
        Ok((shell, reign))
    }

    /// A later one: waits until it can be won.
    async fn again(shell: &Shell, former: &mut Option<FormerDoor>) -> Result<Self, UpError> {
        let identity = shell.identity.clone();
        let events = shell.service.events();
        let serve = |projects: &Projects| shell.service.serve_from(projects.clone());
        let accession = accede(&shell.settings, &shell.nats, events, identity, true, serve).await?;
        if let Some(door) = former.take() {
            door.close().await;
        }
        let reign = Self::open(shell, accession).await?;
        shell.owner.send_replace(Owning::Yes);
        Ok(reign)
    }

    async fn open(shell: &Shell, accession: Accession) -> Result<Self, UpError> {
        let lease = &accession.lease;
        let (client, service) = (shell.nats.client.clone(), shell.service.clone());
        let door = NatsDoor::open(client, service, lease.queue_group(), lease.ownership())
            .await
            .map_err(|source| refused(&shell.nats, source))?;
        tokio::spawn(accession.projects.clone().greet_agents());
        let discovering = tokio::spawn(accession.projects.clone().keep_discovering());
        Ok(Self {
            lease: accession.lease,
            projects: accession.projects,
            door,
            _discovering: AbortOnDropHandle::new(discovering),
        })
    }

    /// Takes no more requests and ends the actors after what is in flight.
    ///
    /// Both at once: the claims that wait at the door are answered by the drain.
    async fn close(door: NatsDoor, projects: &Projects, within: Duration) {
        let drain = async {
            if let Err(error) = projects.shut_down(within).await {
                tracing::warn!("{error}");
            }
        };
        let _ = tokio::join!(tokio::time::timeout(within, door.close()), drain);
    }
}

/// Wins the ownership and wakes what is there. `serve`: reads go to the new projects before the first of
/// them tells an event.
async fn accede(
    settings: &Settings,
    nats: &Nats,
    events: &EventHub,
    identity: Identity,
    standby: bool,
    serve: impl FnOnce(&Projects),
) -> Result<Accession, UpError> {
    let replicas = usize::from(settings.nats.replicas);
    let options = OwnerOptions {
        replicas,
        health: nats.store.clone(),
        ..OwnerOptions::default()
    };
    let lease = OwnerLease::acquire_with(&nats.jetstream, identity, standby, options).await?;
    let terms = Terms {
        nats: nats.clone(),
        clock: Clock::system(),
        agents: settings.agents.clone(),
        work: settings.work.clone(),
        dlq: settings.dlq.clone(),
        supervision: settings.supervision.clone(),
        grace: Grace::of_process(nats),
        jitter: Jitter::random(),
        events: events.clone(),
        in_flight: InFlight::new(),
        epoch: lease.epoch(),
        ownership: lease.ownership(),
        replicas,
    };
    let projects = Projects::start(terms, settings.projects.max).await?;
    serve(&projects);
    projects
        .discover()
        .await
        .map_err(|source| refused(nats, source))?;
    Ok(Accession { lease, projects })
}

fn refused(nats: &Nats, source: async_nats::Error) -> UpError {
    UpError::Nats {
        url: nats.shown_url.clone(),
        source,
    }
}

/// The door of an ownership that is over; see [`NatsDoor::outlast`].
struct FormerDoor {
    over: CancellationToken,
    closing: JoinHandle<()>,
}

impl FormerDoor {
    fn keep(door: NatsDoor, ownership: Ownership) -> Self {
        let over = CancellationToken::new();
        let closing = tokio::spawn(door.outlast(ownership, over.clone()));
        Self { over, closing }
    }

    async fn close(self) {
        self.over.cancel();
        if let Err(error) = self.closing.await {
            tracing::error!("the door of an ownership that is over met a defect: {error}");
        }
    }
}

/// Keeps an ownership until `closing`, and wins it again whenever it is lost.
pub(super) async fn rule(shell: Arc<Shell>, first: Reign, closing: CancellationToken) {
    let mut reign = first;
    loop {
        let lost = tokio::select! {
            lost = reign.lease.lost() => lost,
            () = closing.cancelled() => {
                Reign::close(reign.door, &reign.projects, DRAIN_WITHIN).await;
                let _ = tokio::time::timeout(FLUSH_WITHIN, shell.nats.client.flush()).await;
                reign.lease.release().await;
                return;
            }
        };
        tracing::warn!("the ownership is lost ({lost}); work goes on when it is won again");
        shell.owner.send_replace(Owning::lost(&lost));
        if let Err(error) = reign.projects.shut_down(ABANDON_WITHIN).await {
            tracing::warn!("{error}");
        }
        let mut former = Some(FormerDoor::keep(reign.door, reign.lease.ownership()));
        drop(reign.lease);
        reign = loop {
            let again = tokio::select! {
                again = Reign::again(&shell, &mut former) => again,
                () = closing.cancelled() => {
                    if let Some(door) = former {
                        door.close().await;
                    }
                    return;
                }
            };
            match again {
                Ok(reign) => break reign,
                Err(error) => tracing::warn!("the ownership cannot be won yet: {error}"),
            }
            tokio::time::sleep(RETRY).await;
        };
    }
}
