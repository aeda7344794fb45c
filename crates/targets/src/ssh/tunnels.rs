//! Which tunnels are held, and for how long: those of agents that are started on other machines (`reverseTunnel`).
//!
//! A tunnel belongs to a target and to the machine that it leads to, is opened before the first start that needs it, so
//! that its port there is known, and is shared by all agents of that target. The port is in the reference of each start,
//! and in a note on that machine: whoever finds the start again knows it. So no coordinator has to remember anything.
//!
//! ```text
//!            a start needs one, or starts with its port are found
//!   (none) ──────────────────────────► opening ──────────► up ◄─────────────┐
//!                                         │                │ the connection │ the same port, after a pause
//!                                         │ ssh says no    ▼ ends           │ that doubles, 0.5 to 30 s
//!                                         └──────────────► down ────────────┘
//!   any ── no start under way and no agent is left, for 5 s; or this process or its actor ends ──► (none)
//! ```
//!
//! | told | by whom | then |
//! |---|---|---|
//! | [`Tunnels::lend`] | a start | the tunnel of the target; opened, at a port that the server there chooses, where none is |
//! | [`Tunnels::keep`] | whoever knows what stands at a target, at its own start and after each change | opened at the ports that are noted; what nobody needs is closed |
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | no connection, or forwarding is not allowed | nothing is started; the reason is that of the start, and of the probe |
//! | the connection ends, or `ssh` is killed | opened again at the same port; its agents reconnect |
//! | the port is still the dead connection's | the server there refuses until it has noticed; tried again |
//! | the port is somebody else's by now | tried again for as long as agents have it; said in the log with the remedy; a new start gets another tunnel |
//! | this process is killed | `ssh` ends with it (Linux); the next one opens it at the port that the references have |
//! | it is killed before the reference is stored | the note on that machine has the port: it is opened when the start is found |
//! | an agent that leaves waits for an answer still | the tunnel stays for 5 s more |
//! | the target leads to another machine by now | its agents lose their tunnel within 5 s, as they can be neither seen nor ended; where the host is set back, it is opened at their port |

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use loom_protocol::TargetId;
use loom_protocol::target::{MechanismConfig, SshConfig, TargetConfig};
use tokio::time::Instant;

use super::tunnel::{Forward, Tunnel, TunnelState};
use super::{SshProgram, way::Way};
use crate::reference::{Reference, SshReference};

/// How long a tunnel that nobody needs stays: an agent that leaves hears the answer.
const LINGER: Duration = Duration::from_secs(5);

/// Why there is none in a program that does not say where they are to lead.
pub(super) const NO_WAY: &str = "no tunnel (reverseTunnel) can be opened: where NATS is, as this coordinator reaches it, is not known";

/// The tunnels of a process. Clones are the same ones; when the last is dropped they are closed.
#[derive(Clone, Default)]
pub struct Tunnels {
    way: Option<Way>,
    of: Arc<Mutex<HashMap<TargetId, OfTarget>>>,
}

/// Those of one target.
#[derive(Default)]
struct OfTarget {
    /// The ports that agents and starts of it have.
    ports: BTreeSet<u16>,
    /// Whether a start is recorded of which no port is known.
    is_undecided: bool,
    held: Vec<Held>,
}

struct Held {
    tunnel: Arc<Tunnel>,
    route: SshConfig,
    /// Since when nobody needs it.
    idle_since: Option<Instant>,
}

/// A tunnel for as long as a start is under way.
#[derive(Debug)]
pub(super) struct Lent {
    tunnel: Option<Arc<Tunnel>>,
    target: TargetId,
    from: Tunnels,
}

impl fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnels")
            .field("way", &self.way)
            .finish_non_exhaustive()
    }
}

impl Tunnels {
    /// Tunnels that lead to the NATS at this URL, as this process reaches it; of several the first.
    pub fn to(nats_url: &str) -> Self {
        Self {
            way: Way::to(nats_url),
            of: Arc::default(),
        }
    }

    /// Where they lead.
    pub(super) const fn way(&self) -> Option<&Way> {
        self.way.as_ref()
    }

    /// The tunnel of a target, for a start. To be called within a runtime.
    pub(super) fn lend(
        &self,
        target: TargetId,
        config: &SshConfig,
        ssh: &SshProgram,
        to: &Forward,
    ) -> Lent {
        let route = route_of(config);
        let mut of = self.lock();
        let of_target = of.entry(target).or_default();
        let usable = of_target
            .held
            .iter()
            .filter(|held| held.route == route && !held.is_refused());
        // One that stands rather than one that may.
        let known = usable.max_by_key(|held| held.tunnel.is_up());
        let tunnel = if let Some(held) = known {
            held.tunnel.clone()
        } else {
            of_target.open(route, ssh, to, None)
        };
        Lent {
            tunnel: Some(tunnel),
            target,
            from: self.clone(),
        }
    }

    /// What stands at a target: by what each of its starts and agents is found, where that is known. Its tunnels are
    /// opened, at the ports that are noted, or closed. To be told of a target at the beginning and after each change; of one
    /// that is gone, nothing. To be called within a runtime.
    pub fn keep(
        &self,
        target: TargetId,
        config: &TargetConfig,
        ssh: &SshProgram,
        starts: &[Option<Reference>],
    ) {
        let MechanismConfig::Ssh(config) = config.of() else {
            return;
        };
        let ports: BTreeSet<u16> = starts
            .iter()
            .flatten()
            .filter_map(|start| port_at(start, &config.host))
            .collect();
        let is_undecided = config.reverse_tunnel && starts.iter().any(Option::is_none);
        let mut of = self.lock();
        if ports.is_empty() && !is_undecided && !of.contains_key(&target) {
            return;
        }
        let of_target = of.entry(target).or_default();
        (of_target.ports, of_target.is_undecided) = (ports, is_undecided);
        let route = route_of(config);
        // Another key, or another way to the same machine: what is asked for now.
        let is_other = |held: &Held| {
            let port = held.tunnel.port();
            held.route != route && port.is_some_and(|port| of_target.ports.contains(&port))
        };
        let others: Vec<bool> = of_target.held.iter().map(is_other).collect();
        let mut others = others.into_iter();
        of_target
            .held
            .retain(|_| !others.next().unwrap_or_default());
        for port in of_target.ports.clone() {
            let has_port = |held: &Held| held.tunnel.port() == Some(port);
            if !of_target.held.iter().any(has_port)
                && let Some(way) = &self.way
            {
                of_target.open(route.clone(), ssh, &way.forward, Some(port));
            }
        }
        drop(of);
        self.tidy(target);
    }

    /// Closes, after a while, what nobody needs.
    fn tidy(&self, target: TargetId) {
        let Some(wait) = self.close_idle(target) else {
            return;
        };
        // Where the runtime ends, so do the tunnels.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let tunnels = self.clone();
        runtime.spawn(async move {
            let mut wait = Some(wait);
            while let Some(time) = wait {
                tokio::time::sleep(time).await;
                wait = tunnels.close_idle(target);
            }
        });
    }

    /// Closes what nobody has needed for a while. In what time the next may be closed, if one may.
    fn close_idle(&self, target: TargetId) -> Option<Duration> {
        let mut of = self.lock();
        let of_target = of.get_mut(&target)?;
        let now = Instant::now();
        let (ports, is_undecided) = (&of_target.ports, of_target.is_undecided);
        let mut next: Option<Duration> = None;
        of_target.held.retain_mut(|held| {
            let has_agents = held.tunnel.port().is_some_and(|port| ports.contains(&port));
            if has_agents || is_undecided || Arc::strong_count(&held.tunnel) > 1 {
                held.idle_since = None;
                return true;
            }
            let idle = now - *held.idle_since.get_or_insert(now);
            let left = LINGER.saturating_sub(idle);
            if !left.is_zero() {
                next = Some(next.map_or(left, |next| next.min(left)));
            }
            !left.is_zero()
        });
        if of_target.held.is_empty() && of_target.ports.is_empty() && !of_target.is_undecided {
            of.remove(&target);
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TargetId, OfTarget>> {
        // What is in it is whole after each step.
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfTarget {
    fn open(
        &mut self,
        route: SshConfig,
        ssh: &SshProgram,
        to: &Forward,
        port: Option<u16>,
    ) -> Arc<Tunnel> {
        let tunnel = Arc::new(Tunnel::open(route.clone(), ssh.clone(), to.clone(), port));
        self.held.push(Held {
            tunnel: tunnel.clone(),
            route,
            idle_since: None,
        });
        tunnel
    }
}

impl Held {
    fn is_refused(&self) -> bool {
        let state = self.tunnel.state();
        let state = state.borrow();
        matches!(
            *state,
            TunnelState::Down {
                is_refused: true,
                ..
            }
        )
    }
}

impl Lent {
    /// Waits until it stands, and says at which port there; or why it does not, within this limit.
    pub(super) async fn up(&self, limit: Duration) -> Result<u16, String> {
        match &self.tunnel {
            Some(tunnel) => tunnel.up_within(limit).await,
            None => Err("it was given back".to_owned()),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Given back before it is looked who needs it.
        self.tunnel = None;
        self.from.tidy(self.target);
    }
}

/// What of a target makes a connection another one.
fn route_of(config: &SshConfig) -> SshConfig {
    SshConfig {
        host: config.host.clone(),
        user: config.user.clone(),
        port: config.port,
        private_key_path: config.private_key_path.clone(),
        connection_timeout_ms: config.connection_timeout_ms,
        jump_host: config.jump_host.clone(),
        known_hosts: config.known_hosts,
        ..SshConfig::default()
    }
}

/// The port by which a start on this machine reaches NATS.
fn port_at(start: &Reference, host: &str) -> Option<u16> {
    match start {
        Reference::Ssh(SshReference {
            host: there,
            tunnel_port,
            ..
        }) if there == host => *tunnel_port,
        _ => None,
    }
}
