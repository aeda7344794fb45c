//! Whether this host lets the agent work: its directories can be made, its program can be started. What is wrong with
//! the host is no item's fault. While it is, the agent takes nothing, so that it does not run through the queue.
//!
//! | what fails | whose fault | what becomes of the item |
//! |---|---|---|
//! | a directory, a lock or a file: no space, inode, memory or descriptor, read-only, broken or gone | the host's | given back, unspent, with the reason |
//! | a directory, otherwise: where another one can be made beside it | the item's | fails, with the reason |
//! | starting the program: arguments too long, or a program named by the item that is not there | the item's | fails, with the reason |
//! | starting the program: not there any more | the agent's | given back; the agent ends |
//! | starting the program, otherwise: no memory, no process, no interpreter, no right | the host's | given back, unspent, with the reason |
//!
//! Output is kept in memory: a full disk does not concern it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use loom_client::AgentStopper;
use parking_lot::Mutex;
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};
use rustix::io::Errno;
use tokio::sync::Notify;

use super::{template, workdir};

/// How often is looked whether there is still room.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The rest after a trouble, at first and at the most; it doubles until an item could be begun again.
const REST: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));
/// The pause between two looks whether a trouble is over, at the most.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Before nobody is offered an item again that met a trouble: by then other agents of the host have looked, too.
pub const HOLD_BACK: Duration = Duration::from_secs(10);

/// What the host is to an agent.
pub struct Host {
    places: Vec<Place>,
    /// Whether an item can't do without the directory for temporary files.
    needs_temp: bool,
    state: Mutex<State>,
    troubled: Notify,
}

/// A directory in which others have to be made.
#[derive(Debug, Clone)]
struct Place {
    dir: PathBuf,
    what: &'static str,
    /// Whether nothing can be done without a right to write there: not where the directories of the items may
    /// be there already.
    must_be_writable: bool,
}

#[derive(Debug, Default)]
struct State {
    trouble: Option<String>,
    /// How many troubles there were since an item was begun.
    troubles: u32,
}

impl Host {
    /// Tries out what a plan needs: the constant part of the template of `--workdir`, and the directory for temporary
    /// files. Where nothing can be made there now, reports are done without, unless `needs_temp`.
    ///
    /// # Errors
    /// What can't be made, and why.
    pub fn new(workdir: Option<&str>, needs_temp: bool) -> Result<Self, String> {
        let mut places = Vec::new();
        if let Some(workdir) = workdir {
            let (dir, varying) = constant_part(workdir);
            places.push(Place {
                dir,
                what: "--workdir",
                must_be_writable: varying.contains("{id}"),
            });
        }
        for place in &places {
            place.try_out()?;
        }
        let temp = Place {
            dir: std::env::temp_dir(),
            what: "the directory for temporary files (TMPDIR)",
            must_be_writable: true,
        };
        let needs_temp = match temp.try_out() {
            Ok(()) => true,
            Err(problem) if needs_temp => return Err(problem),
            Err(problem) => {
                tracing::warn!(problem, "no directories for reports");
                false
            }
        };
        if needs_temp {
            places.push(temp);
        }
        Ok(Self {
            places,
            needs_temp,
            state: Mutex::default(),
            troubled: Notify::new(),
        })
    }

    /// Whether an item can't do without the directory for temporary files.
    pub const fn needs_temp(&self) -> bool {
        self.needs_temp
    }

    /// Whether a directory could not be made because of the host, and not because of the item.
    pub fn is_to_blame(&self, error: &io::Error) -> bool {
        is_of_host(error) || self.try_out().is_err()
    }

    /// Takes note of a trouble: the agent takes nothing from now on, until it is over.
    pub fn trouble(&self, why: &str, agent: Option<&AgentStopper>) {
        {
            let mut state = self.state.lock();
            state.trouble = Some(why.to_owned());
        }
        if let Some(agent) = agent {
            agent.suspend(why);
        }
        self.troubled.notify_one();
    }

    /// An item could be begun.
    pub fn works(&self) {
        self.state.lock().troubles = 0;
    }

    /// Keeps the agent from taking work while the host is in trouble.
    pub async fn watch(self: Arc<Self>, agent: AgentStopper) {
        loop {
            let seen = tokio::select! {
                () = self.troubled.notified() => None,
                () = tokio::time::sleep(LOOK_EVERY) => self.apart(Self::look).await.err(),
            };
            let (why, rest) = {
                let mut state = self.state.lock();
                let met = state.trouble.take();
                let Some(why) = met.clone().or(seen) else {
                    continue;
                };
                let rest = rest_after(state.troubles);
                // What was only seen has cost no item anything.
                state.troubles = state.troubles.saturating_add(u32::from(met.is_some()));
                (why, rest)
            };
            agent.suspend(&why);
            self.outlast(rest, &agent).await;
            // What running items have met meanwhile is over too.
            self.state.lock().trouble = None;
            agent.go_on();
        }
    }

    /// Waits until a rest is over, and then until everything can be made again.
    async fn outlast(self: &Arc<Self>, rest: Duration, agent: &AgentStopper) {
        tokio::time::sleep(rest).await;
        let mut pause = REST.0;
        while let Err(why) = self.apart(Self::try_out).await {
            agent.suspend(&why);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_AGAIN);
        }
    }

    /// A look at the disk, apart from everything else: it may take long.
    async fn apart(
        self: &Arc<Self>,
        look: impl FnOnce(&Self) -> Result<(), String> + Send + 'static,
    ) -> Result<(), String> {
        let host = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || look(&host)).await;
        looked.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Whether there is room, without writing anything where there is.
    fn look(&self) -> Result<(), String> {
        let mut doubtful = self.places.iter().filter(|place| !place.has_room());
        doubtful.try_for_each(Place::try_out)
    }

    fn try_out(&self) -> Result<(), String> {
        self.places.iter().try_for_each(Place::try_out)
    }
}

impl Place {
    fn try_out(&self) -> Result<(), String> {
        let tried = workdir::try_out(&self.dir);
        let is_denied = |error: &io::Error| {
            error.kind() == io::ErrorKind::PermissionDenied && self.dir.is_dir()
        };
        match tried {
            Err(error) if self.must_be_writable || !is_denied(&error) => Err(format!(
                "no directory can be made in {} ({}): {error}",
                self.dir.display(),
                self.what
            )),
            _ => Ok(()),
        }
    }

    fn has_room(&self) -> bool {
        let Ok(disk) = statvfs(&self.dir) else {
            return false;
        };
        // Some file systems count no inodes.
        let has_inodes = disk.f_files == 0 || disk.f_favail > 0;
        let is_writable =
            !self.must_be_writable || access(&self.dir, Access::WRITE_OK | Access::EXEC_OK).is_ok();
        disk.f_bavail > 0
            && has_inodes
            && is_writable
            && !disk.f_flag.contains(StatVfsMountFlags::RDONLY)
    }
}

/// How long to take nothing after a trouble, when there were so many before it since an item was begun.
fn rest_after(troubles: u32) -> Duration {
    let factor = 1_u32.checked_shl(troubles).unwrap_or(u32::MAX);
    REST.0.saturating_mul(factor).min(REST.1)
}

/// What of a template is the same for all items, and what differs.
fn constant_part(template: &str) -> (PathBuf, &str) {
    let mut end = 0;
    for (at, _) in template.match_indices('/') {
        if template::has_placeholder(&template[..at]) {
            break;
        }
        end = at;
    }
    let (constant, varying) = template.split_at(end);
    (Path::new("/").join(constant), varying)
}

/// Whether an error can only be the host's.
pub fn is_of_host(error: &io::Error) -> bool {
    const OF_HOST: [Errno; 17] = [
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::ROFS,
        Errno::IO,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::MFILE,
        Errno::NFILE,
        Errno::AGAIN,
        Errno::NOLCK,
        Errno::STALE,
        Errno::NODEV,
        Errno::NXIO,
        Errno::NOTCONN,
        Errno::TIMEDOUT,
        Errno::HOSTDOWN,
        Errno::MLINK,
    ];
    Errno::from_io_error(error).is_some_and(|error| OF_HOST.contains(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_constant_part_ends_before_the_first_placeholder() {
        for (template, constant, varying) in [
            ("/srv/work/{id}", "/srv/work", "/{id}"),
            ("/srv/{label.a}/x/{id}", "/srv", "/{label.a}/x/{id}"),
            ("/srv/a-{taskId}", "/srv", "/a-{taskId}"),
            ("/{id}", "/", "/{id}"),
            ("/a{print}/{id}", "/a{print}", "/{id}"),
        ] {
            let expected = (PathBuf::from(constant), varying);
            assert_eq!(constant_part(template), expected, "{template}");
        }
    }

    #[test]
    fn a_place_is_made_and_left_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let place = temp.path().join("a/b");
        let host = Host::new(Some(&format!("{}/{{id}}", place.display())), false).unwrap();
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
        assert_eq!(host.look(), Ok(()));
        let of_item = io::Error::from(io::ErrorKind::NotADirectory);
        assert!(!host.is_to_blame(&of_item));
        assert!(host.is_to_blame(&io::Error::from(Errno::NOSPC)));
        // Something else has taken its place.
        fs::remove_dir(&place).unwrap();
        fs::write(&place, "").unwrap();
        assert!(host.look().unwrap_err().contains("--workdir"));
        assert!(host.is_to_blame(&of_item));
    }

    #[test]
    fn what_cannot_be_made_is_told_at_the_start() {
        for dir in ["/proc/nope/{id}", "/dev/null/x/{label.a}"] {
            let problem = Host::new(Some(dir), false).err().unwrap();
            assert!(problem.contains("(--workdir): "), "{problem}");
        }
    }

    #[test]
    fn the_rest_doubles_to_five_minutes() {
        let rests = [0, 1, 2, 5, 6, 31, 32, 99].map(|n| rest_after(n).as_secs());
        assert_eq!(rests, [5, 10, 20, 160, 300, 300, 300, 300]);
    }
}
