//! The scripts that run there, and what they answer. Pure.

use std::time::Duration;

use loom_protocol::SpinUpId;
use loom_protocol::target::SshConfig;

use crate::order::StartOrder;
use crate::reference::SshReference;
use crate::shell::{first_word, quoted};

const PRELUDE: &str = include_str!("scripts/prelude.sh");
const START: &str = include_str!("scripts/start.sh");
const FIND: &str = include_str!("scripts/find.sh");
const STOP: &str = include_str!("scripts/stop.sh");
const PROBE: &str = include_str!("scripts/probe.sh");
const FORGET: &str = include_str!("scripts/forget.sh");

/// What is sent before any script.
pub(super) const GREETING: &str = "printf 'loom-ready\\n'\n";
/// What a shell answers that waits for one.
pub(super) const READY: &str = "loom-ready";
/// What the line of the answer begins with.
const ANSWER: &str = "loom-answer ";

/// A process there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) started_at: String,
    pub(super) boot_id: String,
    /// The port of the tunnel that it was told of.
    pub(super) tunnel: Option<u16>,
}

/// What a script answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was started by this script.
    Started(Process),
    /// It had been started before.
    Existing(Process),
    /// It lives.
    Running(Process),
    /// It has ended; the end of what it said.
    Ended(Vec<u8>),
    /// There is no sign of it.
    Absent,
    /// Somebody else is just starting it.
    Pending,
    /// Nothing was done, and why.
    Refused(String),
    /// It was ended.
    Stopped {
        processes: usize,
        killed: usize,
        said: Vec<u8>,
    },
    /// All is as it should be.
    Fine,
}

/// Starts an agent, once; with the port there by which it reaches NATS, where that is a tunnel.
pub(super) fn start(config: &SshConfig, order: &StartOrder, tunnel: Option<u16>) -> String {
    let mut variables: Vec<(String, String)> = Vec::new();
    let own = config.env.expose();
    variables.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    variables.extend(order.variables());
    let tunnel = tunnel.map(|port| port.to_string()).unwrap_or_default();
    let tunnel = format!("loom_tunnel_wanted={}\n", quoted(&tunnel));
    let settings = [settings_of(config), tunnel, exports(&variables)].concat();
    script(order.spin_up, &settings, START)
}

/// Looks for one.
pub(super) fn find(spin_up: SpinUpId, reference: Option<&SshReference>) -> String {
    script(spin_up, &settings_of_reference(reference), FIND)
}

/// Ends one.
pub(super) fn stop(spin_up: SpinUpId, reference: Option<&SshReference>, grace: Duration) -> String {
    let seconds = grace.as_millis().div_ceil(1000);
    let settings = format!("{}loom_grace={seconds}\n", settings_of_reference(reference));
    script(spin_up, &settings, STOP)
}

/// Looks whether one could be started.
pub(super) fn probe(config: &SshConfig) -> String {
    let own: Vec<(String, String)> = config
        .env
        .expose()
        .filter(|(name, _)| *name == "PATH")
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let settings = [settings_of(config), exports(&own)].concat();
    script(SpinUpId::new(uuid_of_nobody()), &settings, PROBE)
}

/// Removes what is kept of one.
pub(super) fn forget(spin_up: SpinUpId) -> String {
    script(spin_up, "", FORGET)
}

/// No start has this id.
const fn uuid_of_nobody() -> uuid::Uuid {
    uuid::Uuid::nil()
}

fn script(spin_up: SpinUpId, settings: &str, body: &str) -> String {
    let id = quoted(&spin_up.to_string());
    // Only the last line does anything: half a script is none.
    format!("loom_id={id}\n{settings}{PRELUDE}{body}\nloom_main\nexit\n")
}

fn settings_of(config: &SshConfig) -> String {
    let word = first_word(&config.command).unwrap_or_default();
    let dir = config.working_directory.as_deref().unwrap_or_default();
    format!(
        "loom_word={}\nloom_dir_wanted={}\nloom_command={}\n",
        quoted(&word),
        quoted(dir),
        quoted(&config.command)
    )
}

fn settings_of_reference(reference: Option<&SshReference>) -> String {
    let [pid, start, boot] = match reference {
        Some(reference) => [
            reference.pid.to_string(),
            reference.started_at.clone(),
            reference.boot_id.clone(),
        ],
        None => Default::default(),
    };
    format!(
        "loom_ref_pid={}\nloom_ref_start={}\nloom_ref_boot={}\n",
        quoted(&pid),
        quoted(&start),
        quoted(&boot)
    )
}

/// A function that gives the variables to whoever calls it.
fn exports(variables: &[(String, String)]) -> String {
    let lines = variables
        .iter()
        .map(|(name, value)| format!("export {name}={}\n", quoted(value)));
    format!("loom_exports() {{\n:\n{}}}\n", lines.collect::<String>())
}

/// Reads the answer out of what came; what a login says before it does no harm.
pub(super) fn answer(stdout: &str) -> Option<Answer> {
    let mut at = 0;
    let (line, rest) = loop {
        let (line, rest) = stdout[at..].split_once('\n').unwrap_or((&stdout[at..], ""));
        if let Some(line) = line.strip_prefix(ANSWER) {
            break (line.trim_end(), rest);
        }
        at += line.len() + 1;
        if at >= stdout.len() {
            return None;
        }
    };
    let (kind, words) = line.split_once(' ').unwrap_or((line, ""));
    let said = || rest.as_bytes().to_vec();
    Some(match kind {
        "started" => Answer::Started(process(words)?),
        "existing" => Answer::Existing(process(words)?),
        "running" => Answer::Running(process(words)?),
        "ended" => Answer::Ended(said()),
        "absent" => Answer::Absent,
        "pending" => Answer::Pending,
        "refused" => Answer::Refused(words.to_owned()),
        "fine" => Answer::Fine,
        "stopped" => {
            let (processes, killed) = words.split_once(' ')?;
            Answer::Stopped {
                processes: processes.parse().ok()?,
                killed: killed.parse().ok()?,
                said: said(),
            }
        }
        _ => return None,
    })
}

fn process(words: &str) -> Option<Process> {
    let mut words = words.split(' ');
    Some(Process {
        pid: words.next()?.parse().ok()?,
        started_at: words.next()?.to_owned(),
        boot_id: words.next()?.to_owned(),
        tunnel: words.next().and_then(|port| port.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::path::Path;
    use std::process::{Command, Stdio};

    #[test]
    fn the_answer_is_the_first_line_of_its_kind() {
        let said = "Welcome!\nloom-ready\nloom-answer ended\nfirst\nloom-answer absent\n";
        assert_eq!(
            answer(said),
            Some(Answer::Ended(b"first\nloom-answer absent\n".to_vec()))
        );
        assert_eq!(
            answer("loom-answer running 12 345 ab-c"),
            Some(Answer::Running(Process {
                pid: 12,
                started_at: "345".into(),
                boot_id: "ab-c".into(),
                tunnel: None,
            }))
        );
        for nothing in [
            "",
            "\n",
            "Welcome!",
            "loom-answer",
            "loom-answer started x y z",
            "loom-answer stopped 1",
        ] {
            assert_eq!(answer(nothing), None, "{nothing}");
        }
    }

    /// What a shell says that reads a script as it comes through a connection.
    fn said_by(shell: &str, folder: &Path, script: &str) -> String {
        let mut shell = Command::new(shell)
            .arg("-s")
            .env("TMPDIR", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // One that has read enough does not read the rest.
        let _ = shell.stdin.take().unwrap().write_all(script.as_bytes());
        String::from_utf8(shell.wait_with_output().unwrap().stdout).unwrap()
    }

    /// What systems have as `/bin/sh`.
    #[test]
    fn every_shell_starts_finds_and_ends_an_agent() {
        let folder = tempfile::tempdir().unwrap();
        let is_there = |shell: &&str| {
            let tried = Command::new(shell).args(["-c", ":"]).status();
            tried.is_ok_and(|status| status.success())
        };
        for shell in ["sh", "dash", "bash", "ksh", "mksh"]
            .into_iter()
            .filter(is_there)
        {
            let ask = |script: &str| answer(&said_by(shell, folder.path(), script));
            let spin_up = SpinUpId::generate();
            let id = quoted(&spin_up.to_string());
            let settings = format!(
                "loom_word=sleep\nloom_dir_wanted=/\nloom_tunnel_wanted=4223\nloom_command='echo said; exec sleep 600'\nloom_exports() {{\nexport LOOM_SPIN_UP_ID={id}\n}}\n"
            );
            let start = script(spin_up, &settings, START);
            let Some(Answer::Started(process)) = ask(&start) else {
                panic!("{shell} started nothing");
            };
            assert_eq!(process.tunnel, Some(4223), "{shell}");
            assert_eq!(
                ask(&start),
                Some(Answer::Existing(process.clone())),
                "{shell}"
            );
            assert_eq!(
                ask(&find(spin_up, None)),
                Some(Answer::Running(process)),
                "{shell}"
            );
            let stopped = ask(&stop(spin_up, None, Duration::from_secs(20)));
            let said = b"said\n".to_vec();
            let expected = Answer::Stopped {
                processes: 1,
                killed: 0,
                said,
            };
            assert_eq!(stopped, Some(expected), "{shell}");
            assert_eq!(
                ask(&find(spin_up, None)),
                Some(Answer::Ended(b"said\n".to_vec())),
                "{shell}"
            );
            assert_eq!(ask(&forget(spin_up)), Some(Answer::Fine), "{shell}");
            assert_eq!(ask(&find(spin_up, None)), Some(Answer::Absent), "{shell}");
        }
    }

    #[test]
    fn half_a_script_does_nothing() {
        let script = find(SpinUpId::generate(), None);
        let folder = tempfile::tempdir().unwrap();
        let said = said_by("sh", folder.path(), &script);
        assert_eq!(answer(&said), Some(Answer::Absent));
        let all = script.trim_end().trim_end_matches("exit").trim_end().len();
        for cut in (0..all - 1).step_by(all / 50) {
            let half = &script[..script.floor_char_boundary(cut)];
            let said = said_by("sh", folder.path(), half);
            assert_eq!(said, "", "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn any_words_are_read_or_not(said in "(loom-answer |started|stopped|[a-z0-9 \n]|\\PC){0,12}") {
            let _ = answer(&said);
        }
    }
}
