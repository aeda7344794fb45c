//! What the operating system says of processes, where it has a `/proc`.

use std::num::NonZeroI32;
use std::sync::LazyLock;

use rustix::process::{Pid, Signal, test_kill_process_group};

use crate::plain;

/// One process as the system's table has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its number, which is another one's some day.
    pub pid: Pid,
    /// Its state (`R`, `S`, `Z`…).
    pub state: String,
    /// The number of who started it, or has adopted it.
    pub parent: i32,
    /// The number of its group.
    pub group: i32,
    /// When it was started, in whatever unit: with its number that is nobody else, until the system starts again.
    pub started: String,
}

impl Entry {
    /// Whether it runs or could; what has ended may lie in the table until somebody takes it away.
    pub fn is_alive(&self) -> bool {
        !matches!(self.state.as_str(), "Z" | "X")
    }

    /// Sends a signal to this process and no other one; false where it has ended.
    pub fn signal(&self, signal: Signal) -> bool {
        let is_it = || {
            let now = entry(plain(self.pid));
            now.is_some_and(|now| now.started == self.started && now.is_alive())
        };
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
            // Held open, the number is not given to anybody else.
            if let Ok(held) = pidfd_open(self.pid, PidfdFlags::empty()) {
                return is_it() && pidfd_send_signal(&held, signal).is_ok();
            }
        }
        is_it() && rustix::process::kill_process(self.pid, signal).is_ok()
    }

    /// Whether it was started with this variable of this value.
    fn has_variable(&self, assignment: &[u8]) -> bool {
        let environment = std::fs::read(format!("/proc/{}/environ", plain(self.pid)));
        environment.is_ok_and(|all| all.split(|byte| *byte == 0).any(|one| one == assignment))
    }
}

/// All processes.
pub fn table() -> Vec<Entry> {
    let Ok(folders) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = folders.flatten().filter_map(|folder| {
        let name = folder.file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    pids.filter_map(entry).collect()
}

/// The living processes that were started with a variable of this value, and so whatever they have started without
/// taking it away. Of other users' processes that can't be told.
pub fn with_variable(name: &str, value: &str) -> Vec<Entry> {
    let assignment = format!("{name}={value}");
    let mut found = table();
    found.retain(|entry| entry.is_alive() && entry.has_variable(assignment.as_bytes()));
    found
}

/// The living processes of a group.
pub fn in_group(group: Pid) -> Vec<Entry> {
    let group = group.as_raw_nonzero().get();
    let mut found = table();
    found.retain(|entry| entry.group == group && entry.is_alive());
    found
}

/// Whether nobody of the group lives. The program's own zombie is taken away at once; those of its
/// children are somebody else's to take away, and may lie there for long.
pub fn is_group_gone(group: Pid) -> bool {
    test_kill_process_group(group).is_err() || only_zombies(group)
}

/// Whether all that is left of a group are zombies, as far as `/proc` can tell.
fn only_zombies(group: Pid) -> bool {
    // Without a table nobody is in it.
    let table = table();
    let group = group.as_raw_nonzero().get();
    let mut members = table.iter().filter(|entry| entry.group == group);
    !table.is_empty() && members.all(|entry| !entry.is_alive())
}

/// One process, where it is there.
pub fn entry(pid: u32) -> Option<Entry> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let pid = NonZeroI32::new(i32::try_from(pid).ok()?)?;
    // pid (name) state parent group …; the name may hold anything. The start is the 20th field behind it.
    let mut behind = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some(Entry {
        pid: Pid::from_raw(pid.get())?,
        state: behind.next()?.to_owned(),
        parent: behind.next()?.parse().ok()?,
        group: behind.next()?.parse().ok()?,
        started: behind.nth(16)?.to_owned(),
    })
}

/// When a process was started, in whatever unit, where that can be told.
pub fn started_at(pid: u32) -> Option<String> {
    entry(pid).map(|entry| entry.started)
}

/// The state of a process, and when it was started.
pub fn state_and_start(pid: u32) -> Option<(String, String)> {
    entry(pid).map(|entry| (entry.state, entry.started))
}

/// Which start of the system this is; numbers and times of processes hold for one only.
pub fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Among which processes this one is: the machine, and on it the space of process numbers (that of a container, say).
pub fn place() -> Option<String> {
    // The same for as long as this process lives.
    static PLACE: LazyLock<Option<String>> = LazyLock::new(read_place);
    PLACE.clone()
}

fn read_place() -> Option<String> {
    let text = |path: &str| Some(std::fs::read_to_string(path).ok()?.trim().to_owned());
    let machine = text("/etc/machine-id").filter(|id| !id.is_empty());
    let machine = machine.or_else(|| text("/proc/sys/kernel/hostname"))?;
    let numbers = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{machine} {}", numbers.display()))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn this_very_process_has_a_start_that_stays_the_same() {
        let start = started_at(std::process::id());
        assert!(
            start
                .as_deref()
                .is_some_and(|start| start.parse::<u64>().is_ok_and(|start| start > 0))
        );
        assert_eq!(started_at(std::process::id()), start);
        assert!(boot_id().is_some());
    }

    #[test]
    fn a_process_is_found_by_its_variable_and_signalled_only_if_it_is_still_the_same() {
        let mark = format!("mark {}", std::process::id());
        let mut child = Command::new("sleep")
            .arg("600")
            .env("LOOM_TEST_MARK", &mark)
            .spawn()
            .unwrap();
        let found = with_variable("LOOM_TEST_MARK", &mark);
        assert_eq!(found.len(), 1);
        let entry = found[0].clone();
        assert_eq!(plain(entry.pid), child.id());
        let group = in_group(Pid::from_raw(entry.group).unwrap());
        assert!(group.iter().any(|one| one.pid == entry.pid));
        let mut another = entry.clone();
        another.started.push('1');
        assert!(!another.signal(Signal::KILL));
        assert!(child.try_wait().unwrap().is_none());
        assert!(entry.signal(Signal::KILL));
        child.wait().unwrap();
        assert!(!entry.signal(Signal::KILL));
        assert!(with_variable("LOOM_TEST_MARK", &mark).is_empty());
    }
}
