//! What the operating system says of a process, where it has a `/proc`.

/// When a process was started, in whatever unit, where that can be told.
pub fn started_at(pid: u32) -> Option<String> {
    state_and_start(pid).map(|(_, started)| started)
}

/// The state of a process, and when it was started.
pub fn state_and_start(pid: u32) -> Option<(String, String)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; the state is the first field behind it, the start the 20th.
    let mut behind = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = behind.next()?.to_owned();
    Some((state, behind.nth(18)?.to_owned()))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_very_process_has_a_start_that_stays_the_same() {
        let start = started_at(std::process::id());
        assert!(
            start
                .as_deref()
                .is_some_and(|start| start.parse::<u64>().is_ok_and(|start| start > 0))
        );
        assert_eq!(started_at(std::process::id()), start);
    }
}
