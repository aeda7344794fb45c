//! Looks at the store, for as long as the coordinator lives.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::stream::ClusterInfo;
use tokio::time::{sleep, timeout};

use super::log::LogTail;
use super::{LOOK_EVERY, StoreHealth};
use crate::connection::Nats;
use crate::overlap::is_not_found;
use crate::server::{ManagedState, ServerControl};
use crate::verdicts::store::{
    Refusal, RefusalKind, RestartVerdict, Space, restart_verdict, restarted,
};

/// The stream whose majority is asked for: every coordinator needs it.
const OWNERS: &str = "KV_LOOM_OWNERS";
const ASK_EVERY: Duration = Duration::from_secs(1);
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// A server of a cluster that its leader has not heard of for so long is away; they speak every second.
const HEARD_WITHIN: Duration = Duration::from_millis(2_500);

impl StoreHealth {
    /// Looks at the disk and the log of our own server, for ever, and has it restarted where that helps.
    pub async fn watch_server(self, control: ServerControl) {
        let folder = control.store();
        {
            let mut facts = self.0.facts.lock();
            facts.ours = Some(folder.display().to_string());
            facts.own_limit = control.limit_is_its_own();
        }
        let mut log = LogTail::new(control.log());
        let mut run = None;
        loop {
            let state = control.state();
            let looked = tokio::task::spawn_blocking({
                let folder = folder.clone();
                move || {
                    let seen = look(&folder);
                    (seen, log.stuck(), log)
                }
            });
            let Ok((seen, stuck, log_back)) = looked.await else {
                return;
            };
            log = log_back;
            self.note(&state, &seen, stuck, &mut run);
            // A restart that is begun is the last one then, and the sentence speaks of the next.
            let sentence = self.verdict();
            if matches!(state, ManagedState::Running { .. }) && self.is_to_be_restarted() {
                tracing::warn!(
                    "nats-server is restarted: {}",
                    sentence.sentence().unwrap_or("its store got stuck")
                );
                control.restart();
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn note(
        &self,
        state: &ManagedState,
        seen: &Seen,
        stuck: Option<String>,
        run: &mut Option<Run>,
    ) {
        let now = self.now();
        let mut facts = self.0.facts.lock();
        if seen.space.is_some() {
            facts.space = seen.space;
        }
        if let ManagedState::Running { pid } = *state {
            let known = run.get_or_insert(Run {
                pid,
                folder: seen.folder,
            });
            if known.pid != pid {
                *known = Run {
                    pid,
                    folder: seen.folder,
                };
                facts.stuck = None;
                facts.refused = None;
            }
            facts.missing = seen.folder.is_none() || known.folder != seen.folder;
        }
        if let Some(said) = stuck {
            self.0.refusals.fetch_add(1, Ordering::Relaxed);
            tracing::error!(said, "nats-server failed to write to its store");
            facts.stuck = Some(Refusal {
                kind: RefusalKind::Disk,
                said,
                at: now,
            });
        }
    }

    /// Whether the server is to be restarted now; then that counts as done.
    fn is_to_be_restarted(&self) -> bool {
        let now = self.now();
        let mut facts = self.0.facts.lock();
        if restart_verdict(&facts, now) != RestartVerdict::Now {
            return false;
        }
        facts.restarts = Some(restarted(facts.restarts, now));
        self.0.restarts.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Asks whether the cluster has a majority, and how much it holds while it refuses to write, for ever.
    pub async fn watch_nats(self, nats: Nats) {
        loop {
            if has_majority(&nats).await {
                let now = self.now();
                self.0.facts.lock().majority_seen = Some(now);
            }
            let is_refused = self.0.facts.lock().refused.is_some();
            if is_refused && let Some(held) = held(&nats).await {
                self.0.facts.lock().held = Some(held);
            }
            sleep(ASK_EVERY).await;
        }
    }
}

/// A process of the server, and the folder that it found at its start.
struct Run {
    pid: u32,
    folder: Option<(u64, u64)>,
}

/// What a look at the store showed.
struct Seen {
    space: Option<Space>,
    /// Which folder it is; `None`: there is none.
    folder: Option<(u64, u64)>,
}

fn look(folder: &Path) -> Seen {
    let id = std::fs::metadata(folder.join("jetstream"));
    let id = id.ok().map(|meta| (meta.dev(), meta.ino()));
    let parents = folder.ancestors();
    let space = parents.map(PathBuf::from).find_map(|path| space_at(&path));
    Seen { space, folder: id }
}

/// The disk of a path, as far as this user may write to it.
pub fn space_at(path: &Path) -> Option<Space> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(Space {
        free: disk.f_bavail.saturating_mul(disk.f_frsize),
        total: disk.f_blocks.saturating_mul(disk.f_frsize),
    })
}

/// Whether more than half of the servers that have the stream are there. A server that is alone is its own majority,
/// and that there is no such stream is the word of a majority too: that it is missing is told by whoever needs it.
async fn has_majority(nats: &Nats) -> bool {
    let asked = timeout(ASK_WITHIN, nats.jetstream.get_stream(OWNERS)).await;
    let stream = match asked {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if is_not_found(&error) => return true,
        Ok(Err(error)) => {
            tracing::debug!(%error, "whether NATS has a majority cannot be asked");
            return false;
        }
        Err(_) => {
            tracing::debug!("whether NATS has a majority is not answered");
            return false;
        }
    };
    let cluster = stream.cached_info().cluster.as_ref();
    let has_majority = cluster.is_none_or(is_majority);
    tracing::debug!(
        ?cluster,
        has_majority,
        "the servers of NATS that have {OWNERS}"
    );
    has_majority
}

fn is_majority(cluster: &ClusterInfo) -> bool {
    let all = 1 + cluster.replicas.len();
    let heard = |peer: &&async_nats::jetstream::stream::PeerInfo| {
        !peer.offline && peer.active < HEARD_WITHIN
    };
    let there = 1 + cluster.replicas.iter().filter(heard).count();
    cluster.leader.is_some() && 2 * there > all
}

/// What JetStream holds for our account, and the most that it may.
async fn held(nats: &Nats) -> Option<(u64, Option<u64>)> {
    let account = nats.jetstream.query_account().await.ok()?;
    Some((
        account.storage,
        account
            .limits
            .max_storage
            .and_then(|most| u64::try_from(most).ok()),
    ))
}
