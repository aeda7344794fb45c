//! Breaks everything that can be broken while agents work, and judges what they saw: `cargo xtask chaos`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use loom_testkit::chaos::Chaos;

const USAGE: &str = "\
chaos --program PATH [--minutes N] [--seed S] [--rate N] [--cluster]

  --program  the loom to be broken
  --minutes  how long things are broken; 10 where absent
  --seed     which faults come when; random where absent
  --rate     items a second; 25 where absent
  --cluster  on three nats-servers, of which one after the other is killed, one every 15 s; nothing else breaks";
/// How often a server of a cluster is killed.
const KILL_EVERY: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let (mut program, mut minutes, mut seed, mut rate) = (None, 10.0, None, 25);
    let mut arguments = std::env::args().skip(1);
    let mut cluster = false;
    while let Some(name) = arguments.next() {
        if name == "--cluster" {
            cluster = true;
            continue;
        }
        let value = arguments
            .next()
            .with_context(|| format!("{name} needs a value\n\n{USAGE}"))?;
        let what = || format!("read {name} {value}");
        match name.as_str() {
            "--program" => program = Some(PathBuf::from(value)),
            "--minutes" => minutes = value.parse().with_context(what)?,
            "--seed" => seed = Some(value.parse().with_context(what)?),
            "--rate" => rate = value.parse().with_context(what)?,
            _ => bail!("there is no option {name}\n\n{USAGE}"),
        }
    }
    let program = program.with_context(|| format!("--program is missing\n\n{USAGE}"))?;
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let length = Duration::try_from_secs_f64(60.0 * minutes)
        .with_context(|| format!("{minutes} minutes are no length of a run"))?;
    eprintln!("seed {seed}, {minutes} minutes");
    let mut run = Chaos::new(program, seed).length(length).per_second(rate);
    if cluster {
        run = run.cluster(KILL_EVERY);
    }
    let report = Box::pin(run.run()).await?;
    println!("{report}");
    Ok(if report.is_sound() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
