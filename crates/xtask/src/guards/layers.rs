//! Which crate may know which: the layers of the architecture, held against the real dependency tree.

use anyhow::{Context as _, Result, bail};

use crate::shell::{cargo, output_of};

/// A package, and what it may not depend on, be it through others.
const LAYERS: &[(&str, &[&str])] = &[
    // The words: values only, no input or output, no actor.
    (
        "loom-protocol",
        &[
            "tokio",
            "async-nats",
            "ractor",
            "loom-actors",
            "loom-client",
        ],
    ),
    // Who restarts actors: knows ractor, and nothing of ours.
    (
        "loom-supervision",
        &["async-nats", "loom-protocol", "loom-actors", "loom-client"],
    ),
    // Children: knows the operating system only.
    (
        "loom-process",
        &[
            "async-nats",
            "ractor",
            "clap",
            "loom-protocol",
            "loom-nats",
            "loom-actors",
            "loom-client",
        ],
    ),
    // NATS, resource by resource: no actor, no settings.
    (
        "loom-nats",
        &[
            "ractor",
            "loom-supervision",
            "loom-actors",
            "loom-client",
            "loom-coordinator",
            "loom-testkit",
        ],
    ),
    // The core: no web, no command line.
    (
        "loom-actors",
        &[
            "axum",
            "clap",
            "reqwest",
            "loom-client",
            "loom-coordinator",
            "loom-testkit",
        ],
    ),
    // The SDK: a program that uses it does not get the coordinator with it.
    (
        "loom-client",
        &[
            "ractor",
            "loom-actors",
            "axum",
            "clap",
            "loom-coordinator",
            "loom-testkit",
        ],
    ),
    // The agent runner: on the SDK, without the coordinator.
    (
        "loom-agent",
        &[
            "ractor",
            "axum",
            "reqwest",
            "loom-supervision",
            "loom-nats",
            "loom-actors",
            "loom-bench",
            "loom-coordinator",
            "loom-testkit",
        ],
    ),
    // The mechanisms that start agents: processes and HTTP, no actor, no setting, no NATS.
    (
        "loom-targets",
        &[
            "ractor",
            "async-nats",
            "axum",
            "clap",
            "loom-supervision",
            "loom-nats",
            "loom-actors",
            "loom-client",
            "loom-agent",
            "loom-coordinator",
            "loom-testkit",
        ],
    ),
    // The measurement: a client like any other, and no server or coordinator that it had in its own process.
    (
        "loom-bench",
        &[
            "ractor",
            "axum",
            "reqwest",
            "loom-supervision",
            "loom-nats",
            "loom-actors",
            "loom-agent",
            "loom-coordinator",
            "loom-testkit",
        ],
    ),
    // The program: nothing but tests depends on the test tools.
    ("loom-coordinator", &["loom-testkit"]),
];

/// Checks every layer.
pub fn layers() -> Result<()> {
    let mut broken = Vec::new();
    for (package, forbidden) in LAYERS {
        let tree = output_of(cargo().args([
            "tree",
            "--offline",
            "--locked",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--package",
            package,
        ]))
        .with_context(|| format!("`cargo tree --package {package}` failed"))?;
        broken.extend(
            violations(&tree, forbidden)
                .map(|crate_name| format!("{package} must not depend on {crate_name}, and does")),
        );
    }
    if broken.is_empty() {
        return Ok(());
    }
    bail!("{}", broken.join("\n"));
}

fn violations<'a>(tree: &str, forbidden: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let names: Vec<String> = tree
        .lines()
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect();
    forbidden
        .iter()
        .copied()
        .filter(move |name| names.iter().any(|there| there == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_crate_is_found_by_its_whole_name() {
        let tree = "loom-protocol v0.1.0 (/x)\nserde v1.0.0\ntokio-util v0.7.0\nractor v0.16.0\n";
        let found: Vec<_> = violations(tree, &["tokio", "ractor"]).collect();
        assert_eq!(found, ["ractor"]);
    }
}
