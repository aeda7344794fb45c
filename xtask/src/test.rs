//! Every test, also those that need a nats-server. Doctests belong to `verify`.

use anyhow::Result;

use crate::nats;
use crate::shell::{become_command, cargo, output_of};

/// Runs them with cargo-nextest where that is installed, else with `cargo test`: the same tests either way.
pub fn test(arguments: &[String]) -> Result<()> {
    let server = nats::server()?;
    let has_nextest = output_of(cargo().args(["nextest", "--version"])).is_some();
    let mut command = cargo();
    command
        .args(if has_nextest {
            nextest(arguments)
        } else {
            cargo_test(arguments)
        })
        .env(nats::VARIABLE, server)
        .env("RUN_INTEGRATION", "true");
    become_command(command)
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
    let mut command = words(&["test"]);
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
    fn both_runners_take_everything_by_default() {
        assert_eq!(
            nextest(&[]).join(" "),
            "nextest run --run-ignored all --workspace"
        );
        assert_eq!(
            cargo_test(&[]).join(" "),
            "test --workspace --tests -- --include-ignored"
        );
    }

    #[test]
    fn arguments_are_passed_on_to_where_they_belong() {
        let arguments = words(&["-p", "loom-actors", "--lib", "find", "--", "--nocapture"]);
        assert_eq!(
            cargo_test(&arguments).join(" "),
            "test -p loom-actors --lib find -- --include-ignored --nocapture"
        );
        assert_eq!(
            nextest(&words(&["-p", "xtask"])).join(" "),
            "nextest run --run-ignored all -p xtask"
        );
    }
}
