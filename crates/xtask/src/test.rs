//! Every test, also those that need a nats-server or an sshd. Doctests belong to `verify`.
//!
//! The same tests with either runner, and every failing one is shown. cargo-nextest gives each test a process of its
//! own; with `cargo test` the tests of one binary are threads of one process.

use std::num::NonZero;
use std::thread::available_parallelism;

use anyhow::{Result, bail};

use crate::nats;
use crate::shell::{become_command, cargo, command, output_of};
use crate::sshd;

/// Of so many commits one is tested with `cargo test` where `--runner by-commit` is asked for.
const CARGO_FOR_ONE_IN: u32 = 16;

/// What runs the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runner {
    Nextest,
    Cargo,
}

/// Runs them. `--runner nextest|cargo|by-commit` as the first argument; without it cargo-nextest where that is
/// installed, else `cargo test`.
pub fn test(arguments: &[String]) -> Result<()> {
    let (asked, arguments) = runner_asked_for(arguments)?;
    let server = nats::server()?;
    let has_nextest = output_of(cargo().args(["nextest", "--version"])).is_some();
    let commit = output_of(command("git").args(["rev-parse", "HEAD"]));
    let (runner, why) = choose(asked, has_nextest, commit.as_deref())?;
    println!("the tests run with {}: {why}", runner.name());
    let mut command = cargo();
    command
        .args(match runner {
            Runner::Nextest => nextest(arguments),
            Runner::Cargo => cargo_test(arguments),
        })
        .env(nats::VARIABLE, server)
        .env("RUN_INTEGRATION", "true")
        .envs(at_once(runner))
        .envs(sshd::missing().map(|why| (sshd::MISSING, why)));
    become_command(command)
}

impl Runner {
    /// The variable by which it is told how many tests run at once.
    const fn threads(self) -> &'static str {
        match self {
            Self::Nextest => "NEXTEST_TEST_THREADS",
            Self::Cargo => "RUST_TEST_THREADS",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Nextest => "cargo-nextest",
            Self::Cargo => "`cargo test`",
        }
    }
}

/// How many tests run at once, where nobody has said it: half as many again as there are cores, because most of the time of
/// most tests is waiting.
fn at_once(runner: Runner) -> Option<(&'static str, String)> {
    let variable = runner.threads();
    let cores = available_parallelism().map_or(1, NonZero::get);
    std::env::var_os(variable)
        .is_none()
        .then(|| (variable, more_than(cores).to_string()))
}

const fn more_than(cores: usize) -> usize {
    cores + cores.div_ceil(2)
}

/// What `--runner` names, and the arguments after it.
fn runner_asked_for(arguments: &[String]) -> Result<(Option<&str>, &[String])> {
    match arguments {
        [first, rest @ ..] if first == "--runner" => match rest {
            [name, rest @ ..] => Ok((Some(name), rest)),
            [] => bail!("--runner wants one of nextest, cargo, by-commit"),
        },
        [first, rest @ ..] if first.starts_with("--runner=") => {
            Ok((first.strip_prefix("--runner="), rest))
        }
        _ => Ok((None, arguments)),
    }
}

/// The runner, and the reason for it, to be printed. By commit: the last digit of its hash decides, so that the same
/// commit is always tested in the same way, in a shallow clone too.
fn choose(
    asked: Option<&str>,
    has_nextest: bool,
    commit: Option<&str>,
) -> Result<(Runner, String)> {
    let missing = "cargo-nextest is not installed";
    match asked {
        Some("cargo") => Ok((Runner::Cargo, "as asked for".to_owned())),
        Some("nextest") if !has_nextest => {
            bail!("{missing}; install it, or take --runner cargo")
        }
        Some("nextest") => Ok((Runner::Nextest, "as asked for".to_owned())),
        None | Some("by-commit") if !has_nextest => Ok((Runner::Cargo, missing.to_owned())),
        None => Ok((Runner::Nextest, "it is installed".to_owned())),
        Some("by-commit") => {
            let last = commit.and_then(|commit| commit.trim().chars().last());
            let Some(digit) = last.and_then(|last| last.to_digit(16)) else {
                return Ok((Runner::Nextest, "there is no commit to go by".to_owned()));
            };
            let runner = match digit % CARGO_FOR_ONE_IN {
                0 => Runner::Cargo,
                _ => Runner::Nextest,
            };
            let why = format!(
                "the hash of the commit ends in {digit:x}, and one commit in {CARGO_FOR_ONE_IN} is tested with `cargo test`"
            );
            Ok((runner, why))
        }
        Some(unknown) => {
            bail!("there is no runner {unknown:?}; there are nextest, cargo, by-commit")
        }
    }
}

fn nextest(arguments: &[String]) -> Vec<String> {
    let mut command = words(&["nextest", "run", "--run-ignored", "all"]);
    command.extend(everything(arguments));
    command.extend_from_slice(arguments);
    command
}

fn cargo_test(arguments: &[String]) -> Vec<String> {
    let (before, after) = match arguments.iter().position(|word| word == "--") {
        Some(dashes) => (&arguments[..dashes], &arguments[dashes + 1..]),
        None => (arguments, &[][..]),
    };
    let mut command = words(&["test", "--no-fail-fast"]);
    command.extend(everything(before));
    let selects = |word: &String| {
        [
            "--lib",
            "--bin",
            "--bins",
            "--test",
            "--tests",
            "--example",
            "--examples",
            "--doc",
        ]
        .contains(&word.split('=').next().unwrap_or_default())
    };
    if !before.iter().any(selects) {
        command.push("--tests".to_owned());
    }
    command.extend_from_slice(before);
    command.extend(words(&["--", "--include-ignored"]));
    command.extend_from_slice(after);
    command
}

/// The whole workspace, unless a package is named.
fn everything(arguments: &[String]) -> Option<String> {
    let names_package = |word: &String| word.starts_with("-p") || word.starts_with("--package");
    (!arguments.iter().any(names_package)).then(|| "--workspace".to_owned())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_tests_than_cores_run_at_once() {
        let at_once = [1, 2, 3, 16].map(more_than);
        assert_eq!(at_once, [2, 3, 5, 24]);
    }

    #[test]
    fn both_runners_take_everything_by_default() {
        assert_eq!(
            nextest(&[]).join(" "),
            "nextest run --run-ignored all --workspace"
        );
        assert_eq!(
            cargo_test(&[]).join(" "),
            "test --no-fail-fast --workspace --tests -- --include-ignored"
        );
    }

    #[test]
    fn the_runner_is_chosen_by_what_is_there_and_by_what_is_asked_for() {
        let chosen = |asked, installed, commit| choose(asked, installed, commit).unwrap().0;
        assert_eq!(chosen(None, true, None), Runner::Nextest);
        assert_eq!(chosen(None, false, None), Runner::Cargo);
        assert_eq!(chosen(Some("cargo"), true, None), Runner::Cargo);
        assert_eq!(chosen(Some("nextest"), true, None), Runner::Nextest);
        for (commit, runner) in [
            ("06927140\n", Runner::Cargo),
            ("0692714c", Runner::Nextest),
            ("0692714d", Runner::Nextest),
            ("", Runner::Nextest),
        ] {
            assert_eq!(chosen(Some("by-commit"), true, Some(commit)), runner);
            assert_eq!(
                chosen(Some("by-commit"), false, Some(commit)),
                Runner::Cargo
            );
        }
        for (asked, installed) in [("nextest", false), ("make", true)] {
            choose(Some(asked), installed, None).unwrap_err();
        }
    }

    #[test]
    fn the_runner_is_the_first_argument() {
        let (asked, rest) = (
            words(&["--runner", "cargo", "-p", "xtask"]),
            ["-p", "xtask"],
        );
        assert_eq!(
            runner_asked_for(&asked).unwrap(),
            (Some("cargo"), &words(&rest)[..])
        );
        let asked = words(&["--runner=by-commit"]);
        assert_eq!(
            runner_asked_for(&asked).unwrap(),
            (Some("by-commit"), &[][..])
        );
        let none = words(&["find"]);
        assert_eq!(runner_asked_for(&none).unwrap(), (None, &none[..]));
        runner_asked_for(&words(&["--runner"])).unwrap_err();
    }

    #[test]
    fn arguments_are_passed_on_to_where_they_belong() {
        let arguments = words(&["-p", "loom-actors", "--lib", "find", "--", "--nocapture"]);
        assert_eq!(
            cargo_test(&arguments).join(" "),
            "test --no-fail-fast -p loom-actors --lib find -- --include-ignored --nocapture"
        );
        assert_eq!(
            nextest(&words(&["-p", "xtask"])).join(" "),
            "nextest run --run-ignored all -p xtask"
        );
    }
}
