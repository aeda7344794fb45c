//! Every key: what kind of value it takes, and the comment that `config/loom.toml` carries.
//!
//! A test keeps this table and the types equal.

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Text that nobody prints.
    Secret,
    /// A list of some of these words; commas between them in the environment.
    SomeOf(&'static [&'static str]),
    /// A list of such texts; commas between them in the environment.
    Secrets,
    /// The URL of a NATS server, or several with commas between them.
    ServerUrl,
    /// An IP address and a port.
    Address,
    /// A length of time, text with a unit; at least so many milliseconds.
    Duration(u64),
    /// A whole number between two bounds.
    Whole(i64, i64),
    /// `true` or `false`.
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A project id.
    Project,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Section and name, like `work.retry.backoff_first`.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What it means, a sentence.
    pub comment: &'static str,
    /// What stands (commented out) in the sample where there is no default.
    pub example: &'static str,
}

impl Key {
    /// The section, without brackets.
    pub fn section(&self) -> &'static str {
        self.path
            .rsplit_once('.')
            .map_or("", |(section, _)| section)
    }

    /// The name within its section.
    pub fn name(&self) -> &'static str {
        self.path
            .rsplit_once('.')
            .map_or(self.path, |(_, name)| name)
    }
}

const fn key(path: &'static str, kind: Kind, comment: &'static str) -> Key {
    Key {
        path,
        kind,
        comment,
        example: "",
    }
}

const fn optional(
    path: &'static str,
    kind: Kind,
    example: &'static str,
    comment: &'static str,
) -> Key {
    Key {
        path,
        kind,
        comment,
        example,
    }
}

/// The sections in the order of the sample, each with its comment.
pub const SECTIONS: [(&str, &str); 9] = [
    ("nats", "Where the durable truth lives."),
    ("api", "The REST door."),
    ("projects", "The projects of this coordinator."),
    (
        "agents",
        "When an agent counts as alive, and how long it is kept.",
    ),
    ("work", "The clocks and limits of work items."),
    (
        "work.retry",
        "The pause before a failed item is offered again.",
    ),
    ("dlq", "Dead letters: work that was given up."),
    ("compat", "What existing clients bring with them."),
    (
        "supervision",
        "When and how fast a crashed actor is restarted.",
    ),
];

/// The sections below `[supervision]`: the same keys for one actor, or for a project's tree.
pub const SUPERVISED: [&str; 6] = [
    "agent_registry",
    "work_dispatcher",
    "work_ledger",
    "gc_reaper",
    "dlq_retrier",
    "project",
];

const STRATEGIES: &[&str] = &["one-for-one", "rest-for-one"];
/// What may be put back: neither what was never an item, nor what somebody called off.
const RETRIABLE: &[&str] = &[
    "agent-error",
    "usage-limit",
    "timeout",
    "agent-lost",
    "not-started",
    "released",
    "deadline",
];
const U32: i64 = u32::MAX as i64;

/// Every key, in the order of the sample. Those below `[supervision.<actor>]` repeat `[supervision]`.
pub const KEYS: [Key; 47] = [
    optional(
        "nats.url",
        Kind::ServerUrl,
        "\"nats://127.0.0.1:4222\"",
        "The server to use (nats, tls, ws or wss); several of one cluster with commas between them. Without it Loom starts one of its own.",
    ),
    optional(
        "nats.user",
        Kind::Text,
        "\"loom\"",
        "The user at that server.",
    ),
    optional(
        "nats.password",
        Kind::Secret,
        "\"secret\"",
        "Its password; better given as NATS_PASS in the environment.",
    ),
    optional(
        "nats.credentials",
        Kind::Text,
        "\"/etc/loom/nats.creds\"",
        "A credentials file, instead of user and password.",
    ),
    key(
        "nats.listen",
        Kind::Address,
        "Where Loom's own nats-server listens; port 0 takes any free one and keeps it.",
    ),
    key(
        "nats.allow_open",
        Kind::Flag,
        "Let Loom's own nats-server, which asks for no credentials, listen beyond loopback.",
    ),
    optional(
        "nats.advertise_url",
        Kind::ServerUrl,
        "\"nats://build-host:4222\"",
        "Under which address agents reach Loom's own nats-server, where `listen` does not tell.",
    ),
    optional(
        "nats.data_dir",
        Kind::Text,
        "\"/var/lib/loom\"",
        "Where Loom's own nats-server keeps its store. Without it: the user's data directory.",
    ),
    key(
        "nats.profile",
        Kind::OneOf(&["safe", "fast"]),
        "How Loom's own nats-server writes: \"safe\" survives a power cut, \"fast\" (every 100 ms) only a killed process.",
    ),
    optional(
        "nats.store_id",
        Kind::Text,
        "\"0198c0de-0000-4000-8000-000000000000\"",
        "The id that the store must have (`loom store` tells it). On another store, or an empty one, the coordinator takes nothing in, and says so.",
    ),
    key(
        "nats.replicas",
        Kind::Whole(1, 5),
        "How many servers of a NATS cluster keep each stream; 1, 3 or 5.",
    ),
    key(
        "api.host",
        Kind::Text,
        "The address to listen on. Beyond loopback it takes tokens, or `allow_open`.",
    ),
    key(
        "api.port",
        Kind::Whole(0, 65535),
        "The port; 0 takes any free one.",
    ),
    key(
        "api.tokens",
        Kind::Secrets,
        "The bearer tokens that are let in; with none, everybody is. Better given as API_TOKENS (commas between them).",
    ),
    key(
        "api.allow_open",
        Kind::Flag,
        "Listen beyond loopback without tokens.",
    ),
    key(
        "projects.default",
        Kind::Project,
        "The project of a request that names none.",
    ),
    key(
        "projects.max",
        Kind::Whole(1, 1_000_000),
        "How many projects may be awake at a time; above, `overloaded`.",
    ),
    key(
        "agents.heartbeat_every",
        Kind::Duration(10),
        "How often an agent that names no interval of its own is to beat.",
    ),
    key(
        "agents.stale_after",
        Kind::Duration(10),
        "After how much silence an agent is offline and its work goes back; at least 3 x heartbeat_every.",
    ),
    key(
        "agents.bare_stale_after",
        Kind::Duration(10),
        "The same of an agent that never named an interval and never asked a request: a client that knows nothing but its entry. At least stale_after.",
    ),
    key(
        "agents.bury_after",
        Kind::Duration(10),
        "How long the entry of an offline agent is kept.",
    ),
    key(
        "agents.grave_retention",
        Kind::Duration(1000),
        "How long the grave of an agent that was taken for dead is kept; until then it is told to register anew when it returns. So long is the entry of one kept that left in quarantine.",
    ),
    key(
        "agents.idle_timeout",
        Kind::Duration(1),
        "After how much idleness an agent that was started from a target is sent home.",
    ),
    key(
        "agents.idle_grace",
        Kind::Duration(0),
        "How long an agent that was sent home may take.",
    ),
    key(
        "agents.quarantine_after",
        Kind::Whole(0, U32),
        "An agent that fails so many items in a row, each within a short time, is quarantined until `loom agents resume`; 0: never.",
    ),
    key(
        "agents.quarantine_within",
        Kind::Duration(0),
        "That short time, from the assignment to the failure.",
    ),
    key(
        "work.start_timeout",
        Kind::Duration(10),
        "How long an agent may take to start what it claimed.",
    ),
    key(
        "work.timeout",
        Kind::Duration(10),
        "How long an item may be without progress, where it names no timeoutMs.",
    ),
    key(
        "work.stop_grace",
        Kind::Duration(0),
        "How long an agent may take to stop an item that was cancelled, or is past its deadline.",
    ),
    key(
        "work.max_attempts",
        Kind::Whole(1, U32),
        "How many attempts may be spent on an item that names no maxAttempts.",
    ),
    key(
        "work.retention",
        Kind::Duration(1000),
        "How long a finished item can be read.",
    ),
    key(
        "work.max_finished",
        Kind::Whole(1, 100_000_000),
        "How many finished items can be read at the most; the oldest go first.",
    ),
    key(
        "work.retry.backoff_first",
        Kind::Duration(0),
        "The pause before the second attempt; doubles with each.",
    ),
    key(
        "work.retry.backoff_max",
        Kind::Duration(0),
        "The longest pause between two attempts.",
    ),
    key(
        "dlq.retention",
        Kind::Duration(1000),
        "How long a dead letter is kept.",
    ),
    key(
        "dlq.auto_retry",
        Kind::Flag,
        "Put dead letters back into the queue by a schedule.",
    ),
    key(
        "dlq.auto_retry_reasons",
        Kind::SomeOf(RETRIABLE),
        "Those of these reasons: agent-error, usage-limit, timeout, agent-lost, not-started, released, deadline.",
    ),
    key(
        "dlq.auto_retry_after",
        Kind::Duration(1),
        "How long after the failure for the first time; doubles with each.",
    ),
    key(
        "dlq.auto_retry_max",
        Kind::Whole(0, U32),
        "How often, at the most, before somebody has to do it by hand.",
    ),
    key(
        "compat.agent_registry",
        Kind::Flag,
        "Read the agents of all projects in the bucket agent-registry, where there is one.",
    ),
    key(
        "supervision.strategy",
        Kind::OneOf(STRATEGIES),
        "Without effect: the one that crashed is restarted and nobody else. The key goes in the next release.",
    ),
    key(
        "supervision.max_restarts",
        Kind::Whole(0, U32),
        "How many restarts are allowed within the window; the next one restarts the project's tree.",
    ),
    key("supervision.within", Kind::Duration(1), "The window."),
    key(
        "supervision.backoff_first",
        Kind::Duration(0),
        "The pause before the first restart; doubles with each in the window.",
    ),
    key(
        "supervision.backoff_max",
        Kind::Duration(0),
        "The longest pause before a restart.",
    ),
    key(
        "supervision.start_timeout",
        Kind::Duration(10),
        "How long an actor may take to start; what it reads from NATS after that is not counted.",
    ),
    optional(
        "supervision.work_dispatcher.max_restarts",
        Kind::Whole(0, U32),
        "20",
        "The same keys for one actor: agent_registry, work_dispatcher, work_ledger, gc_reaper, dlq_retrier, or project (its whole tree).",
    ),
];

/// The key of a path, if there is one.
pub fn find(path: &str) -> Option<&'static Key> {
    let exact = |path: &str| KEYS.iter().find(|key| key.path == path);
    exact(path).or_else(|| {
        let (actor, name) = path.strip_prefix("supervision.")?.split_once('.')?;
        SUPERVISED
            .contains(&actor)
            .then(|| exact(&format!("supervision.{name}")))?
    })
}

/// Whether a path is a section.
pub fn is_section(path: &str) -> bool {
    SECTIONS.iter().any(|(section, _)| *section == path)
        || path
            .strip_prefix("supervision.")
            .is_some_and(|actor| SUPERVISED.contains(&actor))
}

/// What may stand inside a section: names of keys and of sections below it.
pub fn names_in(section: &str) -> Vec<&'static str> {
    let direct = |parent: &str, path: &'static str| -> Option<&'static str> {
        let rest = if parent.is_empty() {
            path
        } else {
            path.strip_prefix(parent)?.strip_prefix('.')?
        };
        (!rest.contains('.')).then_some(rest)
    };
    let of = |parent: &str| -> Vec<&'static str> {
        let keys = KEYS.iter().map(|key| key.path);
        let sections = SECTIONS.iter().map(|(section, _)| *section);
        keys.chain(sections)
            .filter_map(|path| direct(parent, path))
            .collect()
    };
    match section.strip_prefix("supervision.") {
        Some(_) => of("supervision"),
        None if section == "supervision" => [of(section), SUPERVISED.to_vec()].concat(),
        None => of(section),
    }
}

/// The name among `names` that was probably meant, if one is near enough.
pub fn did_you_mean<'a>(wrong: &str, names: &[&'a str]) -> Option<&'a str> {
    let wrong = wrong.to_ascii_lowercase().replace('-', "_");
    names
        .iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(&wrong, name), *name))
        .filter(|(likeness, name)| {
            *likeness >= 0.65 || (wrong.len() >= 4 && name.starts_with(wrong.as_str()))
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
