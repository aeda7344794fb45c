//! One ownership: its lease, its actors, its NATS door. A process may have several, one after the other.

mod defining;
mod ruling;

use std::sync::Arc;
use std::time::Duration;

use loom_actors::clock::Clock;
use loom_actors::events::EventHub;
use loom_actors::liveness::{InFlight, StallGuard};
use loom_actors::nats::connection::Nats;
use loom_actors::nats::owner::{Identity, OwnerError, OwnerLease, OwnerOptions, Ownership};
use loom_actors::nats::server::ServerControl;
use loom_actors::project::Terms;
use loom_actors::projects::{ProjectLimits, Projects};
use loom_actors::shared_agents::SharedAgents;
use loom_actors::stores::Stores;
use loom_actors::supervision::Jitter;
use loom_actors::target_manager::BirthTerms;
use loom_protocol::{ErrorCode, WireError};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use self::defining::define_targets;
use self::ruling::Outlasting;
pub(super) use self::ruling::run_ownership;
use super::{UpError, UpOptions};
use crate::api::nats::{FormerApi, NatsApi};
use crate::service::{Owning, Service, ServiceOptions};
use crate::settings::Settings;

/// How long it may take when the ownership is lost: it cannot be written any more.
const ABANDON_WITHIN: Duration = Duration::from_secs(1);
/// How long a start waits until it is known whether the store is the one of `nats.store_id`: a cluster takes 12 s to be
/// sure that it is not.
const STORE_KNOWN_WITHIN: Duration = Duration::from_secs(15);

/// What stays over all ownerships of a process.
pub(super) struct Runtime {
    settings: Settings,
    clock: Clock,
    nats: Nats,
    nats_url: String,
    identity: Identity,
    owner: watch::Sender<Owning>,
    service: Service,
    stores: Stores,
    births: BirthTerms,
}

impl Runtime {
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
pub(super) struct OwnershipTerm {
    lease: OwnerLease,
    projects: Projects,
    api: NatsApi,
    _discovering: AbortOnDropHandle<()>,
    _reading: AbortOnDropHandle<()>,
    _defining: AbortOnDropHandle<()>,
}

/// The part that is there before the door: the lease and the projects. Dropped before it becomes a reign, it ends the
/// projects: nothing that was half started goes on under an ownership that nobody has.
struct Prepared {
    lease: OwnerLease,
    projects: Started,
}

/// Projects that are to be shut down unless somebody takes them.
struct Started(Option<Projects>);

impl Started {
    fn take(mut self) -> Option<Projects> {
        self.0.take()
    }

    /// Ends them now.
    async fn give_up(mut self) {
        if let Some(projects) = self.0.take() {
            end(&projects).await;
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(projects) = self.0.take() {
            tokio::spawn(async move { end(&projects).await });
        }
    }
}

async fn end(projects: &Projects) {
    if let Err(error) = projects.shut_down(ABANDON_WITHIN).await {
        tracing::warn!("projects that were half started: {error}");
    }
}

/// How an acquisition waits.
#[derive(Debug)]
struct Waiting {
    what: For,
    /// Is told why it waits.
    why_not_yet: Option<watch::Sender<Option<OwnerError>>>,
}

/// What an acquisition waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// Nothing: it is refused where another coordinator owns.
    Nothing,
    /// That the other coordinator ends.
    Owner,
    /// That, and that the right store is there.
    OwnerAndStore,
}

impl OwnershipTerm {
    /// The first ownership of a process, and the shell around it. No ownership yet where the store is another one than
    /// `nats.store_id` names: the process is up, says so, and waits.
    pub async fn first(
        settings: &Settings,
        (nats, births): (Nats, BirthTerms),
        identity: Identity,
        options: UpOptions,
        server: Option<ServerControl>,
        why_not_yet: watch::Sender<Option<OwnerError>>,
    ) -> Result<(Arc<Runtime>, Option<Self>), UpError> {
        let directory = Some(identity.directory().to_owned());
        let stores = Stores::new(&nats, directory, settings.nats.store_id.as_deref());
        let events = EventHub::publishing(nats.client.clone());
        if stores.whole().is_pinned() {
            // Where that is not known in time, the acquisition says why.
            let _ = stores.whole().settled_within(STORE_KNOWN_WITHIN).await;
        }
        let clock = options.clock;
        let waiting = Waiting {
            what: if options.standby {
                For::Owner
            } else {
                For::Nothing
            },
            why_not_yet: Some(why_not_yet),
        };
        // Nobody reads before there is a service.
        let whose = identity.clone();
        let how = (waiting, &clock, &births);
        let won = acquire(settings, &nats, &events, whose, how, &stores, |_| {}).await;
        let (prepared, projects, owning) = match won {
            Ok(prepared) => {
                let projects = prepared.projects()?;
                (Some(prepared), projects, Owning::Yes)
            }
            Err(UpError::Owner(OwnerError::OtherStore(_))) => {
                let how = (&clock, &births);
                let projects = no_projects(settings, &nats, &events, &stores, how).await?;
                (None, projects, Owning::not_yet())
            }
            Err(error) => return Err(error),
        };
        let (owner, owner_seen) = watch::channel(owning);
        let nats_url = super::url_for_agents(settings, &nats);
        let options = ServiceOptions {
            default_project: settings.projects.default.clone(),
            nats_url: Some(nats_url.clone()),
            owner: owner_seen,
            events,
            server,
            api_mechanisms: settings.targets.api_mechanisms.clone(),
            since: clock.now(),
        };
        let runtime = Arc::new(Runtime {
            settings: settings.clone(),
            clock,
            nats,
            nats_url,
            identity,
            owner,
            service: crate::metrics::observed(Service::new(projects, options)),
            stores,
            births,
        });
        let term = match prepared {
            Some(prepared) => Some(Self::open(&runtime, prepared, None).await?),
            None => None,
        };
        Ok((runtime, term))
    }

    /// A later one: waits until it can be won.
    async fn again(runtime: &Runtime, former: &mut Option<Outlasting>) -> Result<Self, UpError> {
        let identity = runtime.identity.clone();
        let events = runtime.service.events();
        let serve = |projects: &Projects| runtime.service.serve_from(projects.clone());
        let (settings, nats, stores) = (&runtime.settings, &runtime.nats, &runtime.stores);
        // Why it waits is said by the service.
        let waiting = Waiting {
            what: For::OwnerAndStore,
            why_not_yet: None,
        };
        let how = (waiting, &runtime.clock, &runtime.births);
        let prepared = acquire(settings, nats, events, identity, how, stores, serve).await?;
        let former = match former.take() {
            Some(former) => former.stop().await,
            None => None,
        };
        let term = Self::open(runtime, prepared, former).await?;
        runtime.owner.send_replace(Owning::Yes);
        runtime.service.owns_again();
        Ok(term)
    }

    async fn open(
        runtime: &Runtime,
        prepared: Prepared,
        former: Option<FormerApi>,
    ) -> Result<Self, UpError> {
        let lease = &prepared.lease;
        let (client, service) = (runtime.nats.client.clone(), runtime.service.clone());
        let (group, ownership) = (lease.queue_group(), lease.ownership());
        let opened = NatsApi::open(client, service, &group, ownership, former).await;
        let api = match opened {
            Ok(api) => api,
            Err(source) => {
                prepared.give_up().await;
                return Err(refused(&runtime.nats, source));
            }
        };
        let projects = prepared.projects()?;
        let shared = projects.terms().shared_agents.clone();
        let reading = tokio::spawn(shared.keep_reading(projects.clone()));
        let discovering = tokio::spawn(projects.clone().keep_discovering());
        let settings = &runtime.settings;
        let (defined, default) = (&settings.targets.define, &settings.projects.default);
        let defining = define_targets(projects.clone(), defined.clone(), default.clone());
        let Prepared {
            lease,
            projects: started,
        } = prepared;
        let _taken = started.take();
        Ok(Self {
            lease,
            projects,
            api,
            _discovering: AbortOnDropHandle::new(discovering),
            _reading: AbortOnDropHandle::new(reading),
            _defining: AbortOnDropHandle::new(tokio::spawn(defining)),
        })
    }

    /// Takes no more requests and ends the actors after what is in flight.
    ///
    /// Both at once: the claims that wait at the door are answered by the drain.
    async fn close(api: NatsApi, projects: &Projects, within: Duration) {
        let drain = async {
            if let Err(error) = projects.shut_down(within).await {
                tracing::warn!("{error}");
            }
        };
        let _ = tokio::join!(tokio::time::timeout(within, api.close()), drain);
    }
}

/// Wins the ownership and lists the projects that are there. `serve`: reads go to the new projects before the first of
/// them tells an event.
async fn acquire(
    settings: &Settings,
    nats: &Nats,
    events: &EventHub,
    identity: Identity,
    (waiting, clock, births): (Waiting, &Clock, &BirthTerms),
    stores: &Stores,
    serve: impl FnOnce(&Projects),
) -> Result<Prepared, UpError> {
    let options = OwnerOptions {
        replicas: usize::from(settings.nats.replicas),
        guard: stores.whole().clone(),
        health: nats.store.clone(),
        store_may_come: waiting.what == For::OwnerAndStore,
        why_not_yet: waiting.why_not_yet,
        ..OwnerOptions::default()
    };
    let waits = waiting.what != For::Nothing;
    let lease = OwnerLease::acquire_with(&nats.jetstream, identity, waits, options).await?;
    nats.store.majority_seen();
    if lease.others_owned() {
        stores.others_owned();
    }
    let (epoch, ownership) = (lease.epoch(), lease.ownership());
    let how = (clock, births);
    let terms = terms(settings, nats, events, stores, epoch, ownership, how);
    let projects = Projects::start(terms, limits(settings)).await?;
    let prepared = Prepared {
        lease,
        projects: Started(Some(projects.clone())),
    };
    serve(&projects);
    if let Err(source) = projects.list().await {
        prepared.give_up().await;
        return Err(refused(nats, source));
    }
    let there = projects.not_up_yet();
    stores
        .compare_with_memory(|project| there.contains_key(project) || projects.is_asleep(project));
    Ok(prepared)
}

fn limits(settings: &Settings) -> ProjectLimits {
    let projects = &settings.projects;
    ProjectLimits {
        awake: projects.max,
        known: projects.max_known.max(projects.max),
        sleep_after: Some(projects.sleep_after).filter(|after| !after.is_zero()),
    }
}

/// What the service has before the first ownership: nothing can be started in it.
async fn no_projects(
    settings: &Settings,
    nats: &Nats,
    events: &EventHub,
    stores: &Stores,
    how: (&Clock, &BirthTerms),
) -> Result<Projects, WireError> {
    let terms = terms(settings, nats, events, stores, 0, Ownership::none(), how);
    let projects = Projects::start(terms, limits(settings)).await?;
    end(&projects).await;
    Ok(projects)
}

fn terms(
    settings: &Settings,
    nats: &Nats,
    events: &EventHub,
    stores: &Stores,
    epoch: u64,
    ownership: Ownership,
    (clock, births): (&Clock, &BirthTerms),
) -> Terms {
    Terms {
        nats: nats.clone(),
        clock: clock.clone(),
        agents: settings.agents.clone(),
        work: settings.work.clone(),
        dlq: settings.dlq.clone(),
        supervision: settings.supervision.clone(),
        grace: StallGuard::of_process(nats),
        jitter: Jitter::random(),
        events: events.clone(),
        in_flight: InFlight::new(),
        epoch,
        ownership,
        begun_at: clock.now(),
        shared_agents: SharedAgents::new(nats, settings.compat.agent_registry, clock),
        replicas: usize::from(settings.nats.replicas),
        stores: stores.clone(),
        births: births.clone(),
    }
}

impl Prepared {
    fn projects(&self) -> Result<Projects, WireError> {
        let taken = || WireError::new(ErrorCode::Internal, "the projects have been ended");
        self.projects.0.clone().ok_or_else(taken)
    }

    /// Ends the projects and gives the ownership back.
    async fn give_up(self) {
        self.projects.give_up().await;
        self.lease.release().await;
    }
}

fn refused(nats: &Nats, source: async_nats::Error) -> UpError {
    UpError::Nats {
        url: nats.shown_url.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use loom_actors::nats::connection::NatsOptions;
    use loom_testkit::nats::TestNats;

    use super::*;

    #[tokio::test]
    #[ignore = "needs a nats-server: run `cargo xtask test`"]
    async fn an_ownership_that_comes_to_nothing_leaves_no_project_running() {
        let server = TestNats::start().await.unwrap();
        let clock = Clock::system();
        let options = NatsOptions {
            url: server.url(),
            ..NatsOptions::default()
        };
        let nats = Nats::connect(&options).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity::of_data_directory(directory.path()).unwrap();
        let stores = Stores::new(&nats, None, None);
        let settings = Settings::default();
        let events = EventHub::default();
        let waiting = Waiting {
            what: For::Nothing,
            why_not_yet: None,
        };
        let births = BirthTerms::of_nobody();
        let prepared = acquire(
            &settings,
            &nats,
            &events,
            identity,
            (waiting, &clock, &births),
            &stores,
            |_| {},
        );
        let prepared = prepared.await.unwrap();
        let projects = prepared.projects().unwrap();
        projects.activate(&"half".parse().unwrap()).await.unwrap();
        assert_eq!(projects.trees().len(), 1);
        // As where the door cannot be opened, or the program ends in the middle.
        drop(prepared);
        let ended = async {
            while !projects.trees().is_empty() {
                // deliberate sleep: between two looks, before the deadline
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
        ended.expect("a project runs under an ownership that nobody has");
    }
}
