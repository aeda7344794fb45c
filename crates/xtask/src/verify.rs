//! What CI checks beside the tests. The quick steps come first; the first failing one ends it.

use std::io::{IsTerminal as _, Write as _};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::guards;
use crate::shell::{cargo, command};
use crate::tools;

struct Step {
    name: &'static str,
    run: fn() -> Result<()>,
    /// What to do when it fails.
    remedy: &'static str,
}

const STEPS: &[Step] = &[
    Step {
        name: "format",
        run: || check(cargo().args(["fmt", "--all", "--check"])),
        remedy: "run `cargo fmt --all`",
    },
    Step {
        name: "house rules",
        run: || guards::text(),
        remedy: "mend each line above; the rules and their reasons are in crates/xtask/src/guards/",
    },
    Step {
        name: "dependencies",
        run: || check(cargo().args(["fetch", "--locked", "--quiet"])),
        remedy: "run `cargo update --workspace` and commit Cargo.lock, if that is what differs",
    },
    Step {
        name: "layers",
        run: || guards::layers(),
        remedy: "take the dependency out, or move the code to the layer that may have it",
    },
    Step {
        name: "spelling",
        run: || check(&mut command(tools::TYPOS.get()?)),
        remedy: "mend the word, or add it to _typos.toml with a reason",
    },
    Step {
        name: "licences",
        run: deny,
        remedy: "choose another crate, or extend deny.toml with a reason",
    },
    Step {
        name: "unused crates",
        run: machete,
        remedy: "take the dependency out of that Cargo.toml",
    },
    Step {
        name: "clippy",
        run: || {
            let arguments = [
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--quiet",
            ];
            check(cargo().args(arguments).args(["--", "-D", "warnings"]))
        },
        remedy: "mend it; an `#[allow]` needs a `reason`",
    },
    Step {
        name: "rustdoc",
        run: || {
            let arguments = ["doc", "--workspace", "--no-deps", "--locked", "--quiet"];
            check(cargo().args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
        },
        remedy: "mend the documentation",
    },
    Step {
        name: "doctests",
        run: || check(cargo().args(["test", "--workspace", "--doc", "--locked", "--quiet"])),
        remedy: "mend the example, or the code that it shows",
    },
];

/// Runs every step, or those whose names are given.
pub fn verify(only: &[String]) -> Result<()> {
    let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        bail!(
            "there is no step {unknown:?}; there are: {}",
            names.join(", ")
        );
    }
    let chosen = |step: &&Step| only.is_empty() || only.iter().any(|name| name == step.name);
    let began = Instant::now();
    for step in STEPS.iter().filter(chosen) {
        one(step)?;
    }
    println!(
        "{:<15} {:>6.1} s  all passed",
        "verify",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn one(step: &Step) -> Result<()> {
    if std::io::stdout().is_terminal() {
        print!("{} …\r", step.name);
        std::io::stdout().flush()?;
    }
    let began = Instant::now();
    let outcome = (step.run)();
    let line = format!(
        "{:<15} {:>6.1} s ",
        step.name,
        began.elapsed().as_secs_f64()
    );
    match outcome {
        Ok(()) => println!("{line} ok"),
        Err(error) => {
            println!("{line} FAILED\n\n{error:#}\n");
            bail!("`verify` failed at {:?}: {}", step.name, step.remedy);
        }
    }
    Ok(())
}

/// Runs a program; all that it wrote is the error if it fails.
fn check(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("start {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
}

fn deny() -> Result<()> {
    let arguments = ["--offline", "check", "bans", "licenses", "sources"];
    check(command(tools::cargo_deny()?).args(arguments))
}

fn machete() -> Result<()> {
    check(&mut tools::cargo_machete()?)
}
