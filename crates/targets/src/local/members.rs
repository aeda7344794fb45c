//! The processes of a start: found by what was noted, by the id in their environment, and by the lock that they hold.

use loom_process::stat::{self, Entry};
use loom_protocol::SpinUpId;
use rustix::process::Pid;

use super::files::Files;
use crate::order::MARK;
use crate::reference::LocalReference;

/// The living process that a start is: the one that was noted, or the oldest with its id in the environment, which is
/// `here`.
pub(super) async fn living(
    spin_up: SpinUpId,
    noted: Option<LocalReference>,
    here: Option<&str>,
) -> Option<LocalReference> {
    let boot_id = stat::boot_id()?;
    if let Some(noted) = noted
        && leader(&noted).is_some()
    {
        return Some(noted);
    }
    let looking = move || {
        let mut found = stat::with_variable(MARK, &spin_up.to_string());
        found.sort_by_key(|entry| (entry.started.parse::<u64>().unwrap_or(u64::MAX), raw(entry)));
        found.into_iter().next()
    };
    // All environments are read.
    let oldest = tokio::task::spawn_blocking(looking).await.ok()??;
    Some(LocalReference {
        spin_up,
        pid: raw(&oldest).cast_unsigned(),
        started_at: oldest.started,
        boot_id,
        place: here.map(ToOwned::to_owned),
    })
}

fn raw(entry: &Entry) -> i32 {
    entry.pid.as_raw_nonzero().get()
}

/// The process that was noted, while it lives.
fn leader(noted: &LocalReference) -> Option<Entry> {
    let entry = stat::entry(noted.pid)?;
    let is_it = entry.is_alive()
        && entry.started == noted.started_at
        && stat::boot_id().as_ref() == Some(&noted.boot_id);
    is_it.then_some(entry)
}

/// All that lives of a start.
pub(super) fn members(
    spin_up: SpinUpId,
    noted: Option<&LocalReference>,
    files: &Files,
) -> Vec<Entry> {
    let mut found = stat::with_variable(MARK, &spin_up.to_string());
    for entry in noted
        .map(|noted| group_of(noted, files))
        .unwrap_or_default()
    {
        if !found.iter().any(|there| there.pid == entry.pid) {
            found.push(entry);
        }
    }
    found
}

/// The group of the process that was noted.
fn group_of(noted: &LocalReference, files: &Files) -> Vec<Entry> {
    let pid = i32::try_from(noted.pid).ok().and_then(Pid::from_raw);
    let Some(pid) = pid.filter(|_| stat::boot_id().as_ref() == Some(&noted.boot_id)) else {
        return Vec::new();
    };
    match (leader(noted), stat::entry(noted.pid)) {
        (Some(leader), _) if raw(&leader) == leader.group => stat::in_group(pid),
        (Some(leader), _) => vec![leader],
        // Without its leader it could be another one's, unless the lock says that something of the start lives.
        (None, there) if !there.as_ref().is_some_and(Entry::is_alive) && files.is_held() => {
            stat::in_group(pid)
        }
        _ => Vec::new(),
    }
}
