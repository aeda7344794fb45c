//! `loom status`: how a coordinator is, for the people who run it.

use loom_protocol::rest::Status;

use super::Context;
use super::exit::{CliError, CliResult};
use super::output::note;
use super::show::sheet;
use super::times::at;

/// Says how the coordinator is; an error where it cannot serve.
pub async fn run(context: &Context) -> CliResult {
    let status: Status = context.api()?.get(&["status"], &[]).await?;
    if context.out.is_json() {
        context.out.json(&status)?;
    } else {
        context.out.text(&sheet(&rows(&status)))?;
        let parked: Vec<String> = status.readiness.parked_projects().collect();
        let starting = status.readiness.starting_projects().take(SHOWN);
        let starting: Vec<String> = starting.collect();
        let problems = status.readiness.problems.iter();
        let of_projects = parked.iter().chain(&starting);
        for sentence in problems.chain(of_projects).chain(&status.warnings) {
            note(sentence);
        }
    }
    if status.readiness.ready {
        Ok(())
    } else {
        Err(CliError::Unreachable(
            "the coordinator cannot serve just now; `loom doctor` says what to do".into(),
        ))
    }
}

/// How many are awake, and how many sleep where any does.
fn projects_of(status: &Status) -> String {
    match status.asleep {
        0 => status.projects.to_string(),
        asleep => format!("{} awake, {asleep} asleep", status.projects),
    }
}

/// How many projects that are not up yet are named.
const SHOWN: usize = 10;

fn rows(status: &Status) -> Vec<(&'static str, String)> {
    let nats = &status.nats;
    let standing = if nats.up { "connected" } else { "away" };
    let own = nats.own.as_ref();
    let disk = own.and_then(|own| {
        Some(format!(
            "{} of {} free",
            bytes(own.free_bytes?),
            bytes(own.total_bytes?)
        ))
    });
    let own_pid = own.map(|own| {
        own.pid
            .map_or("being restarted".into(), |pid| pid.to_string())
    });
    let starting = &status.readiness.starting;
    let starting: Vec<&str> = starting.keys().map(String::as_str).take(SHOWN).collect();
    let parked: Vec<&str> = status.readiness.parked.keys().map(String::as_str).collect();
    vec![
        (
            "ready",
            if status.readiness.ready { "yes" } else { "no" }.into(),
        ),
        ("version", status.version.clone()),
        ("pid", status.pid.to_string()),
        ("up since", at(Some(status.since))),
        ("owner", if status.owner { "yes" } else { "no" }.into()),
        ("epoch", status.epoch.to_string()),
        ("projects", projects_of(status)),
        ("not up yet", starting.join(" ")),
        ("gave up", parked.join(" ")),
        ("NATS", format!("{} {}, {standing}", nats.url, nats.version)),
        ("nats-server pid", own_pid.unwrap_or_default()),
        (
            "store",
            own.map(|own| own.store.clone()).unwrap_or_default(),
        ),
        ("disk", disk.unwrap_or_default()),
        (
            "nats-server log",
            own.map(|own| own.log.clone()).unwrap_or_default(),
        ),
    ]
}

/// A number of bytes in one unit.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut unit) = (count, 0);
    while whole >= 10 * 1024 && unit < UNITS.len() - 1 {
        whole /= 1024;
        unit += 1;
    }
    format!("{whole} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_one_unit() {
        for (count, shown) in [
            (0, "0 B"),
            (10_239, "10239 B"),
            (10_240, "10 KiB"),
            (64 * 1024 * 1024, "64 MiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(bytes(count), shown);
        }
    }
}
