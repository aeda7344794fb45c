//! How the store of NATS is, judged by what was seen of it: free space, refused writes, whose server it is.
//!
//! | what was seen | verdict | submits | other writes |
//! |---|---|---|---|
//! | nothing bad | sound | taken | tried |
//! | less than the reserve is free | short | refused, so that ends can still be written | tried |
//! | a write was refused, or the server's disk failed it | refusing | refused | tried, they fail by themselves |
//! | the server's store was removed under it | missing | refused | tried |
//!
//! A nats-server that could not write does not write to that stream again until it is restarted, whatever is free.
//! Our own is restarted ([`restart_verdict`]) once enough is free; somebody else's never.

use std::time::Duration;

const MIB: u64 = 1024 * 1024;
/// What is kept for the ends of work that was taken in; on a small disk a tenth of it.
const RESERVE: u64 = 256 * MIB;
/// What has to be free before a restart is worth it; on a small disk half of it.
const ENOUGH: u64 = 64 * MIB;
/// How long a refusal by a limit counts that is not repeated.
pub const REFUSAL_LASTS: Duration = Duration::from_secs(10);
/// How long writes to a stream may stay unconfirmed while NATS answers; an election takes up to 7 s.
const UNCONFIRMED_FOR: Duration = Duration::from_secs(8);
/// How recently a majority must have been seen for something else to be wrong.
const MAJORITY_SEEN_WITHIN: Duration = Duration::from_secs(3);
/// How long a majority may be missing; an election takes 4 to 6.5 s.
const NO_MAJORITY_AFTER: Duration = Duration::from_millis(6_500);
/// The pause between two restarts; doubles with each.
const RESTART_PAUSE: Duration = Duration::from_mins(1);
/// The longest pause, and how long without a restart makes the next one the first.
const RESTART_PAUSE_MAX: Duration = Duration::from_hours(1);

/// The disk that a store lies on, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What may still be written.
    pub free: u64,
    /// What it holds in all.
    pub total: u64,
}

impl Space {
    /// Below this, submits are refused.
    pub fn reserve(&self) -> u64 {
        RESERVE.min(self.total / 10)
    }

    /// From this on a server that got stuck is restarted.
    pub fn enough(&self) -> u64 {
        ENOUGH.min(self.total / 2)
    }

    fn shown(&self) -> String {
        format!("{} of {} free", bytes(self.free), bytes(self.total))
    }
}

/// What a write was refused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The disk is full, or does not write.
    Disk,
    /// A limit of JetStream: of the server, the account or the stream.
    Limit,
}

/// Reads out of what the server says whether it is its store that refuses.
pub fn refusal_in(said: &str) -> Option<RefusalKind> {
    let said = said.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    if has(&[
        "no space left",
        "critical write error",
        "disk quota",
        "error creating store",
    ]) {
        return Some(RefusalKind::Disk);
    }
    has(&[
        "insufficient resources",
        "insufficient storage",
        "resource limits exceeded",
        "maximum bytes exceeded",
    ])
    .then_some(RefusalKind::Limit)
}

/// A write that was refused. Times count from when the store began to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What for.
    pub kind: RefusalKind,
    /// What the server said.
    pub said: String,
    /// When.
    pub at: Duration,
}

/// Writes to one stream that stay without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unconfirmed {
    /// Which.
    pub stream: String,
    /// Since when.
    pub since: Duration,
    /// When one was tried last.
    pub last: Duration,
}

/// What is known of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreFacts {
    /// The server is one of ours, and this is the folder of its store.
    pub ours: Option<String>,
    /// The server may hold as much as the disk does, and not what somebody configured.
    pub own_limit: bool,
    /// The disk of our own server.
    pub space: Option<Space>,
    /// The folder was removed or replaced while the server runs.
    pub missing: bool,
    /// Our own server failed to write, and does not write any more until it is restarted.
    pub stuck: Option<Refusal>,
    /// The last refusal that reached a writer and was not followed by a write that was confirmed.
    pub refused: Option<Refusal>,
    /// Writes that stay without an answer.
    pub unconfirmed: Option<Unconfirmed>,
    /// When a majority of the servers was seen last to have the stream that says who owns; `None`: nobody looked yet.
    pub majority_seen: Option<Duration>,
    /// What JetStream holds for this account, and the most that it may, where there is a limit.
    pub held: Option<(u64, Option<u64>)>,
    /// When our own server was restarted last because of its store, and how often in a row.
    pub restarts: Option<(Duration, u32)>,
}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreVerdict {
    /// It writes.
    Sound,
    /// So little is free that no more work is taken in.
    Short(String),
    /// It refuses to write.
    Refusing(String),
    /// It was removed under its server.
    Missing(String),
}

impl StoreVerdict {
    /// What is wrong, with numbers; `None`: nothing.
    pub fn sentence(&self) -> Option<&str> {
        match self {
            Self::Sound => None,
            Self::Short(sentence) | Self::Refusing(sentence) | Self::Missing(sentence) => {
                Some(sentence)
            }
        }
    }
}

/// Whether our own server is to be restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartVerdict {
    /// It would not help, or is not ours to do.
    No,
    /// When that much more time is over.
    In(Duration),
    /// At once.
    Now,
}

/// How the store is at `now`.
pub fn store_verdict(facts: &StoreFacts, now: Duration) -> StoreVerdict {
    if let (Some(folder), true) = (&facts.ours, facts.missing) {
        return StoreVerdict::Missing(format!(
            "the store of nats-server, {folder}, was removed or replaced while its server runs: what is written now is gone with its next start; stop Loom, put the folder back, and start Loom again"
        ));
    }
    if let Some(refusal) = current_refusal(facts, now) {
        return StoreVerdict::Refusing(match (&facts.ours, facts.space) {
            (Some(folder), Some(space)) => ours_refuses(facts, folder, space, refusal, now),
            _ => others_refuses(facts, refusal),
        });
    }
    if let Some(space) = facts.space
        && space.free < space.reserve()
    {
        let how = if space.free < space.reserve() / 2 {
            "full"
        } else {
            "nearly full"
        };
        return StoreVerdict::Short(format!(
            "the store of nats-server is {how}: {}; new work is refused until {} are free, what was taken in can still end; free space on its disk{}",
            space.shown(),
            bytes(space.reserve()),
            of_folder(facts),
        ));
    }
    match &facts.unconfirmed {
        Some(writes) if is_unconfirmed(writes, facts.majority_seen, now) => {
            let (stream, secs) = (&writes.stream, now.saturating_sub(writes.since).as_secs());
            StoreVerdict::Refusing(format!(
                "NATS answers, but has confirmed no write to {stream} for {secs} s: its store may be full or broken; look into the log of nats-server, free space on its disk, and restart it"
            ))
        }
        _ => StoreVerdict::Sound,
    }
}

/// Since when no majority of the servers is seen, where that is longer than an election takes; where the ownership is
/// lost (`is_owner` is false) a moment is enough, because that is the consequence.
pub fn without_majority(facts: &StoreFacts, now: Duration, is_owner: bool) -> Option<Duration> {
    let since = now.saturating_sub(facts.majority_seen?);
    let most = if is_owner {
        NO_MAJORITY_AFTER
    } else {
        MAJORITY_SEEN_WITHIN
    };
    (since >= most).then_some(since)
}

/// Whether a store does not write, and nothing else explains it: NATS is there and has its majority, and somebody is
/// still trying.
fn is_unconfirmed(writes: &Unconfirmed, majority_seen: Option<Duration>, now: Duration) -> bool {
    now.saturating_sub(writes.since) >= UNCONFIRMED_FOR
        && now.saturating_sub(writes.last) < REFUSAL_LASTS
        && majority_seen.is_some_and(|seen| now.saturating_sub(seen) < MAJORITY_SEEN_WITHIN)
}

/// Whether our own server is to be restarted at `now`: it got stuck, or runs with a limit that is not what somebody
/// wants, and there is enough space again.
pub fn restart_verdict(facts: &StoreFacts, now: Duration) -> RestartVerdict {
    let Some(space) = facts.space.filter(|_| facts.ours.is_some()) else {
        return RestartVerdict::No;
    };
    let limited = current_refusal(facts, now)
        .is_some_and(|refusal| refusal.kind == RefusalKind::Limit && facts.own_limit);
    if facts.missing || !(facts.stuck.is_some() || limited) || space.free < space.enough() {
        return RestartVerdict::No;
    }
    let Some((last, times)) = facts.restarts else {
        return RestartVerdict::Now;
    };
    match restart_pause(times).saturating_sub(now.saturating_sub(last)) {
        Duration::ZERO => RestartVerdict::Now,
        left => RestartVerdict::In(left),
    }
}

/// The restarts in a row, with one more at `now`.
pub fn restarted(before: Option<(Duration, u32)>, now: Duration) -> (Duration, u32) {
    match before {
        Some((last, times)) if now.saturating_sub(last) < 2 * RESTART_PAUSE_MAX => {
            (now, times.saturating_add(1))
        }
        _ => (now, 1),
    }
}

fn restart_pause(times: u32) -> Duration {
    let doubled = 1_u32.checked_shl(times.saturating_sub(1));
    doubled
        .and_then(|factor| RESTART_PAUSE.checked_mul(factor))
        .map_or(RESTART_PAUSE_MAX, |pause| pause.min(RESTART_PAUSE_MAX))
}

/// The refusal that counts: a server that is stuck stays so, one by a limit is over when it is not repeated.
fn current_refusal(facts: &StoreFacts, now: Duration) -> Option<&Refusal> {
    let recent = |refusal: &&Refusal| now.saturating_sub(refusal.at) < REFUSAL_LASTS;
    let refused = facts.refused.as_ref().filter(recent);
    facts.stuck.as_ref().or(refused)
}

fn ours_refuses(
    facts: &StoreFacts,
    folder: &str,
    space: Space,
    refusal: &Refusal,
    now: Duration,
) -> String {
    let (shown, said) = (space.shown(), &refusal.said);
    let why = match refusal.kind {
        RefusalKind::Limit => format!(
            "the store of nats-server is full: JetStream's limit is reached ({said}), {shown} on its disk ({folder})"
        ),
        RefusalKind::Disk if space.free < space.enough() => {
            format!("the store of nats-server is full: {shown} ({folder})")
        }
        RefusalKind::Disk => {
            format!("nats-server could not write ({said}), and {shown} now ({folder})")
        }
    };
    let then = match restart_verdict(facts, now) {
        RestartVerdict::Now => "it is being restarted".to_owned(),
        RestartVerdict::In(left) => format!("it is restarted in {} s", left.as_secs() + 1),
        RestartVerdict::No if space.free < space.enough() => format!(
            "nothing can be written until {} are free; free space on that disk",
            bytes(space.enough())
        ),
        RestartVerdict::No => "free some of it, or raise the limit".to_owned(),
    };
    format!("{why}; {then}")
}

fn others_refuses(facts: &StoreFacts, refusal: &Refusal) -> String {
    let held = match facts.held {
        Some((held, Some(most))) => {
            format!(
                ", JetStream holds {} of {} for this account",
                bytes(held),
                bytes(most)
            )
        }
        Some((held, None)) => format!(", JetStream holds {} for this account", bytes(held)),
        None => String::new(),
    };
    let what = match refusal.kind {
        RefusalKind::Disk => "free space on its disk, and restart it",
        RefusalKind::Limit => {
            "free some of it, or raise the limit (max_file_store, that of the account, or of the stream)"
        }
    };
    format!(
        "the store of NATS is full, it refuses to write ({}){held}; {what}",
        refusal.said
    )
}

fn of_folder(facts: &StoreFacts) -> String {
    let folder = facts.ours.as_ref();
    folder.map_or_else(String::new, |folder| format!(" ({folder})"))
}

/// A number of bytes as people write it: `3 MB`, `1.5 GB`.
pub fn bytes(count: u64) -> String {
    const MB: u64 = 1_000_000;
    const GB: u64 = 1_000 * MB;
    match count {
        0..MB => format!("{} kB", count / 1_000),
        MB..GB => format!("{} MB", count / MB),
        _ => format!("{}.{} GB", count / GB, count % GB / (GB / 10)),
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
