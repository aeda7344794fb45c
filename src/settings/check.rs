//! Rules that concern more than one key, or more than the form of a value.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use humantime::format_duration;
use loom_actors::settings::Strategy;

use super::error::{Origin, Problem};
use super::types::{ApiSettings, Settings};

/// How many missed heartbeats make an agent stale, at the least.
const BEATS: u32 = 3;

/// What is wrong with the whole.
pub fn check(settings: &Settings, origins: &BTreeMap<String, Origin>) -> Vec<Problem> {
    let mut checks = Checks {
        origins,
        problems: Vec::new(),
    };
    checks.projects(settings);
    checks.agents(settings);
    checks.bare_agents(settings);
    checks.api(settings);
    checks.nats(settings);
    checks.backoffs(settings);
    checks.lifetimes(settings);
    checks.problems
}

/// What is taken and has no effect any more.
pub fn warnings(origins: &BTreeMap<String, Origin>, settings: &Settings) -> Vec<Problem> {
    let supervision = &settings.supervision;
    let own = supervision
        .own()
        .map(|(name, own)| (format!(".{name}"), own.strategy));
    let general = (String::new(), Some(supervision.general.strategy));
    std::iter::once(general)
        .chain(own)
        .filter(|(_, strategy)| *strategy == Some(Strategy::RestForOne))
        .map(|(name, _)| {
            let key = format!("supervision{name}.strategy");
            let origin = origins.get(&key).cloned().unwrap_or_default();
            let message = "= \"rest-for-one\" has no effect any more: the actor that crashed is restarted and nobody else; remove the line, the key goes in the next release";
            Problem::new(origin, key, message)
        })
        .collect()
}

/// Whether an address can be reached from this machine only.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether the door would stand open to everybody on the network.
pub fn is_open_door(api: &ApiSettings) -> bool {
    !is_loopback(&api.host) && api.tokens.is_empty()
}

struct Checks<'a> {
    origins: &'a BTreeMap<String, Origin>,
    problems: Vec<Problem>,
}

impl Checks<'_> {
    /// Notes a problem of the first of `keys` that somebody set.
    fn refuse(&mut self, keys: &[&str], message: String) {
        let set = keys.iter().find(|key| self.origins.contains_key(**key));
        let key = set.or(keys.first()).copied().unwrap_or_default();
        let origin = self.origins.get(key).cloned().unwrap_or_default();
        self.problems.push(Problem::new(origin, key, message));
    }

    fn projects(&mut self, settings: &Settings) {
        let (max, known) = (settings.projects.max, settings.projects.max_known);
        // One that nobody chose is at least as large.
        if known < max && self.origins.contains_key("projects.max_known") {
            let message = format!(
                "breaks a rule: max_known ({known}) counts the projects that are awake too and must be at least max ({max}); write max_known = {max} or more"
            );
            self.refuse(&["projects.max_known", "projects.max"], message);
        }
    }

    fn agents(&mut self, settings: &Settings) {
        let (stale, beat) = (settings.agents.stale_after, settings.agents.heartbeat_every);
        let least = beat.saturating_mul(BEATS);
        if stale < least {
            let message = format!(
                "breaks a rule: stale_after ({}) must be at least {BEATS} times heartbeat_every ({}); write stale_after = \"{}\" or more, or a shorter heartbeat_every",
                format_duration(stale),
                format_duration(beat),
                format_duration(least),
            );
            self.refuse(&["agents.stale_after", "agents.heartbeat_every"], message);
        }
    }

    /// The default does not hinder a longer stale_after: the longer one of the two counts.
    fn bare_agents(&mut self, settings: &Settings) {
        let key = "agents.bare_stale_after";
        let (bare, stale) = (
            settings.agents.bare_stale_after,
            settings.agents.stale_after,
        );
        let is_chosen = self.origins.contains_key(key)
            || bare != loom_actors::settings::AgentSettings::default().bare_stale_after;
        if is_chosen && bare < stale {
            let message = format!(
                "breaks a rule: bare_stale_after ({}) must be at least agents.stale_after ({}): an agent that knows nothing of Loom beats more rarely; write bare_stale_after = \"{}\" or more",
                format_duration(bare),
                format_duration(stale),
                format_duration(stale),
            );
            self.refuse(&[key, "agents.stale_after"], message);
        }
    }

    fn api(&mut self, settings: &Settings) {
        if is_open_door(&settings.api) && !settings.api.allow_open {
            let message = format!(
                "= {:?} listens beyond this machine without tokens; set API_TOKENS (or [api] tokens), or allow_open = true if everybody may",
                settings.api.host
            );
            self.refuse(&["api.host"], message);
        }
    }

    fn nats(&mut self, settings: &Settings) {
        let nats = &settings.nats;
        if nats.credentials.is_some() && (nats.user.is_some() || nats.password.is_some()) {
            let message = "stands beside user or password; keep one of the two ways".into();
            self.refuse(&["nats.credentials"], message);
        }
        if nats.user.is_some() != nats.password.is_some() {
            let message = "takes both, user and password; the other one is missing".into();
            self.refuse(&["nats.user", "nats.password"], message);
        }
        if nats.url.is_none() && !nats.listen.ip().is_loopback() && !nats.allow_open {
            let message = format!(
                "= \"{}\" opens Loom's own nats-server, which asks for no credentials, to the network; use a server of your own by nats.url, or allow_open = true if everybody may",
                nats.listen
            );
            self.refuse(&["nats.listen"], message);
        }
        if nats.url.is_none() && nats.replicas > 1 {
            let message = format!(
                "= {} needs a cluster, and Loom's own nats-server is a single one; set nats.url (or NATS_URL), or replicas = 1",
                nats.replicas
            );
            self.refuse(&["nats.replicas"], message);
        }
        if !matches!(nats.replicas, 1 | 3 | 5) {
            let message = format!("= {} is not 1, 3 or 5", nats.replicas);
            self.refuse(&["nats.replicas"], message);
        }
    }

    /// What must not go before something that leans on it.
    fn lifetimes(&mut self, settings: &Settings) {
        let (agents, work, dlq) = (&settings.agents, &settings.work, &settings.dlq);
        let lean = [
            (
                ("agents.bury_after", agents.bury_after),
                ("agents.stale_after", agents.stale_after),
                "an agent is offline before it is buried",
            ),
            (
                ("dlq.retention", dlq.retention),
                ("work.retention", work.retention),
                "a failed item must not outlive its dead letter",
            ),
        ];
        for ((key, value), (other, least), why) in lean {
            if value < least {
                let message = format!(
                    "breaks a rule: {key} ({}) must be at least {other} ({}): {why}; write {} = \"{}\" or more, or a shorter {other}",
                    format_duration(value),
                    format_duration(least),
                    key.rsplit('.').next().unwrap_or(key),
                    format_duration(least),
                );
                self.refuse(&[key, other], message);
            }
        }
    }

    fn backoffs(&mut self, settings: &Settings) {
        let (retry, supervision) = (&settings.work.retry, &settings.supervision);
        let general = &supervision.general;
        self.backoff("work.retry", retry.backoff_first, retry.backoff_max);
        self.backoff("supervision", general.backoff_first, general.backoff_max);
        for (name, own) in supervision.own() {
            if own.backoff_first.is_some() || own.backoff_max.is_some() {
                let own = own.over(general);
                let section = format!("supervision.{name}");
                self.backoff(&section, own.backoff_first, own.backoff_max);
            }
        }
    }

    fn backoff(&mut self, section: &str, first: Duration, max: Duration) {
        if first > max {
            let message = format!(
                "breaks a rule: backoff_first ({}) is longer than backoff_max ({}); write a shorter first or a longer max",
                format_duration(first),
                format_duration(max),
            );
            let keys = [
                format!("{section}.backoff_first"),
                format!("{section}.backoff_max"),
            ];
            self.refuse(&[&keys[0], &keys[1]], message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Secret, ServerUrl};

    fn keys_of(change: impl FnOnce(&mut Settings)) -> Vec<String> {
        let mut settings = Settings::default();
        change(&mut settings);
        check(&settings, &BTreeMap::new())
            .into_iter()
            .map(|problem| problem.key)
            .collect()
    }

    #[test]
    fn defaults_are_sound() {
        assert!(keys_of(|_| ()).is_empty());
    }

    #[test]
    fn rules_between_keys() {
        let second = Duration::from_secs(1);
        assert_eq!(
            keys_of(|s| s.agents.stale_after = second),
            ["agents.stale_after"]
        );
        assert_eq!(
            keys_of(|s| s.agents.bury_after = second),
            ["agents.bury_after"]
        );
        assert_eq!(
            keys_of(|s| s.agents.bare_stale_after = second),
            ["agents.bare_stale_after"]
        );
        assert!(keys_of(|s| s.agents.stale_after = second * 600).is_empty());
        assert_eq!(keys_of(|s| s.dlq.retention = second), ["dlq.retention"]);
        assert_eq!(keys_of(|s| s.api.host = "0.0.0.0".into()), ["api.host"]);
        assert!(
            keys_of(|s| {
                s.api.host = "0.0.0.0".into();
                s.api.tokens = vec![Secret::new("t")];
            })
            .is_empty()
        );
        assert!(
            keys_of(|s| {
                s.api.host = "0.0.0.0".into();
                s.api.allow_open = true;
            })
            .is_empty()
        );
        assert_eq!(keys_of(|s| s.nats.replicas = 3), ["nats.replicas"]);
        let everywhere = ([0, 0, 0, 0], 4222).into();
        assert_eq!(keys_of(|s| s.nats.listen = everywhere), ["nats.listen"]);
        assert!(
            keys_of(|s| {
                s.nats.replicas = 3;
                s.nats.url = Some(ServerUrl::new("nats://h"));
            })
            .is_empty()
        );
        assert_eq!(keys_of(|s| s.nats.user = Some("u".into())), ["nats.user"]);
        assert_eq!(
            keys_of(|s| s.supervision.project.backoff_first = Some(second * 60)),
            ["supervision.project.backoff_first"]
        );
    }

    #[test]
    fn loopback_by_any_name() {
        for host in ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["0.0.0.0", "::", "192.168.0.1", "build-host"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
