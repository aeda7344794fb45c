//! What an agent puts into its own entry, read as it comes.
//!
//! | what stands there | is |
//! |---|---|
//! | `scope` and `visibility` | both read; `visibility` counts |
//! | no `guid` | the key has it; another one than the key is a mistake |
//! | no `capabilities`, or none in it | an agent that takes no work yet |
//! | a number as text | read as that number |
//! | a status that is none | a sign of life, and nothing else |
//! | a date that is none, or is yet to come | passed over |
//! | a handle or type that is no text of 1 to 64 characters | as if it were not there |
//! | anything else that breaks a rule | unreadable, with the reason |

use loom_protocol::agent::{Agent, AgentStatus};
use loom_protocol::token::check_token;
use loom_protocol::{AgentGuid, DEFAULT_VISIBILITY, ProjectId, Timestamp, WireError};
use serde_json::{Map, Value};

use super::{
    Terms, boundaries_in, check_bounds, check_limit_group, default_boundaries, effective_status,
    on_heartbeat, on_offline_announced, replaced_by, type_in, without_repeats,
};
use crate::domain::reaping::ReapTerms;

/// The longest entry that is read, in bytes.
const MAX_ENTRY: usize = 64 * 1024;
/// The longest handle or type, in characters.
const MAX_NAME: usize = 64;

/// An entry of the bucket that cannot be taken for an agent; the text says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub(super) String);

impl Unreadable {
    /// There is no room for one more agent.
    pub fn too_many(most: usize) -> Self {
        Self(format!("the project has {most} agents, which is the most"))
    }

    /// Another key spells the same id, and was put later.
    pub fn superseded(by: &str) -> Self {
        Self(format!(
            "its key is another spelling of {by}, which was put later and counts; delete one of the two"
        ))
    }
}

impl From<WireError> for Unreadable {
    fn from(error: WireError) -> Self {
        Self(error.message)
    }
}

/// What an agent put into its own entry: the fields that are its to write. Everything else that
/// stands there is passed over.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentPut {
    /// Its id: that of the key.
    pub guid: AgentGuid,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Its name.
    pub handle: Option<String>,
    /// Its type.
    pub agent_type: Option<String>,
    /// Its boundaries.
    pub boundaries: Option<Vec<String>>,
    /// What it says of its state, where that is a state.
    pub status: Option<AgentStatus>,
    /// Where it runs.
    pub hostname: Option<String>,
    /// On whose behalf it runs.
    pub username: Option<String>,
    /// Who may see it.
    pub visibility: Option<String>,
    /// How many items it has.
    pub current_task_count: Option<u32>,
    /// How many it may have.
    pub max_concurrent_tasks: Option<u32>,
    /// How often it beats.
    pub heartbeat_interval_ms: Option<u64>,
    /// After how much idleness it may be sent home; 0: never.
    pub spindown_after_idle_ms: Option<u64>,
    /// The account whose usage limit it shares.
    pub limit_group: Option<String>,
    /// Which run of the program it is.
    pub instance_id: Option<String>,
    /// When it says that it first registered.
    pub registered_at: Option<Timestamp>,
    /// When it says that it last beat.
    pub last_heartbeat: Option<Timestamp>,
    /// When it says that it last had to do with work.
    pub last_activity: Option<Timestamp>,
    /// Whatever else it says about itself.
    pub metadata: Option<Value>,
}

impl AgentPut {
    /// The run that it names; what is no token names none.
    pub fn run(&self) -> Option<&str> {
        let run = self.instance_id.as_deref();
        run.filter(|run| check_token("instanceId", run).is_ok())
    }
}

/// How we came to see an entry.
#[derive(Debug, Clone, Copy)]
pub enum Seen {
    /// It was put before our eyes: a sign of life, whatever time stands in it.
    Put,
    /// It was there when we looked for the first time: as old as it says, or as the server says.
    Found {
        /// When the server stored it.
        stored_at: Timestamp,
        /// Whether we were there already: then it was put by a client, not restored with its age,
        /// and the time in it counts for nothing.
        in_our_time: bool,
        /// How long an agent may be silent.
        terms: ReapTerms,
    },
}

impl Seen {
    /// When the agent gave the sign of life that its entry is.
    fn sign(&self, put: &AgentPut, now: Timestamp) -> Timestamp {
        match self {
            Self::Put => now,
            Self::Found {
                stored_at,
                in_our_time,
                ..
            } => {
                let stored_at = (*stored_at).min(now);
                let said = put.last_heartbeat.filter(|_| !in_our_time);
                said.map_or(stored_at, |said| said.min(stored_at))
            }
        }
    }

    /// Whether that sign is young enough for an agent that is online.
    pub fn is_alive(&self, put: &AgentPut, now: Timestamp) -> bool {
        match self {
            Self::Put => true,
            Self::Found { terms, .. } => {
                let interval = put
                    .heartbeat_interval_ms
                    .map(std::time::Duration::from_millis);
                now.since(self.sign(put, now)) < terms.allowance(interval, false)
            }
        }
    }
}

/// The agent whose entry has this key: a UUID in either case, or its 32 hex digits.
pub fn guid_of_key(key: &str) -> Result<AgentGuid, Unreadable> {
    let shape = |c: char| c.is_ascii_hexdigit() || c == '-';
    let is_spelled = matches!(key.len(), 32 | 36) && key.chars().all(shape);
    key.parse::<AgentGuid>()
        .ok()
        .filter(|_| is_spelled)
        .ok_or_else(|| {
            Unreadable("its key is not a UUID: 8-4-4-4-12 hex digits, or 32 without hyphens".into())
        })
}

/// Refuses what is too long to be read.
pub(super) fn check_size(value: &[u8]) -> Result<(), Unreadable> {
    let length = value.len();
    if length <= MAX_ENTRY {
        return Ok(());
    }
    Err(Unreadable(format!(
        "it has {length} bytes; at most {MAX_ENTRY} are read"
    )))
}

/// The fields of an entry that an agent wrote.
pub(super) fn fields_of(value: &[u8]) -> Result<Map<String, Value>, Unreadable> {
    check_size(value)?;
    match serde_json::from_slice(value) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Unreadable("it is JSON, but not an object".into())),
        Err(error) => Err(Unreadable(format!("it is not an agent as JSON: {error}"))),
    }
}

/// Reads an entry that an agent wrote.
pub fn read_put(guid: AgentGuid, value: &[u8]) -> Result<AgentPut, Unreadable> {
    let fields = fields_of(value)?;
    if let Some(said) = text(&fields, "guid")
        && said.parse::<AgentGuid>().ok() != Some(guid)
    {
        let shown: String = said.chars().take(64).collect();
        return Err(Unreadable(format!(
            "its guid is {shown:?} and its key is {guid}; leave the guid out, or write the key's"
        )));
    }
    let metadata = fields.get("metadata").filter(|value| !value.is_null());
    let slots = number(&fields, "maxConcurrentTasks")?;
    let interval = number(&fields, "heartbeatIntervalMs")?.filter(|ms| *ms != 0);
    Ok(AgentPut {
        guid,
        capabilities: names(&fields, "capabilities")?.unwrap_or_default(),
        handle: name(&fields, "handle"),
        agent_type: name(&fields, "agentType"),
        boundaries: names(&fields, "boundaries")?.filter(|names| !names.is_empty()),
        status: text(&fields, "status")
            .and_then(|said| AgentStatus::parse(&said.trim().to_ascii_lowercase())),
        hostname: some_text(&fields, "hostname"),
        username: some_text(&fields, "username"),
        visibility: some_text(&fields, "visibility").or_else(|| some_text(&fields, "scope")),
        current_task_count: number(&fields, "currentTaskCount")
            .ok()
            .flatten()
            .map(narrow),
        max_concurrent_tasks: slots.map(narrow),
        heartbeat_interval_ms: interval,
        spindown_after_idle_ms: number(&fields, "spindownAfterIdleMs")?,
        limit_group: some_text(&fields, "limitGroup"),
        instance_id: some_text(&fields, "instanceId"),
        registered_at: date(&fields, "registeredAt"),
        last_heartbeat: date(&fields, "lastHeartbeat"),
        last_activity: date(&fields, "lastActivity"),
        metadata: metadata.cloned(),
    })
}

/// The project that an entry in the bucket of all projects names, be it an agent's or not.
pub fn project_of(value: &[u8]) -> Result<ProjectId, Unreadable> {
    let fields = fields_of(value)?;
    let Some(named) = text(&fields, "projectId") else {
        let problem = "it names no project; write projectId into it";
        return Err(Unreadable(problem.into()));
    };
    ProjectId::new(named).map_err(|error| Unreadable(error.to_string()))
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name)?.as_str()
}

fn some_text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    text(fields, name)
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

/// A text that people can read in a list.
fn name(fields: &Map<String, Value>, field: &str) -> Option<String> {
    let name = text(fields, field)?.trim();
    let length = name.chars().count();
    let is_name = (1..=MAX_NAME).contains(&length) && !name.chars().any(char::is_control);
    is_name.then(|| name.to_owned())
}

/// A list of names; a text alone is a list with commas.
fn names(fields: &Map<String, Value>, field: &str) -> Result<Option<Vec<String>>, Unreadable> {
    let list = match fields.get(field) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => {
            let parts = text.split(',').map(str::trim);
            let parts = parts.filter(|part| !part.is_empty());
            return Ok(Some(parts.map(str::to_owned).collect()));
        }
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Unreadable(format!("{field} is not a list of texts"))),
    };
    list.iter()
        .map(|value| value.as_str().map(str::to_owned))
        .collect::<Option<Vec<_>>>()
        .map(Some)
        .ok_or_else(|| Unreadable(format!("{field} has something in it that is not text")))
}

/// A whole number, also as text.
fn number(fields: &Map<String, Value>, field: &str) -> Result<Option<u64>, Unreadable> {
    let value = match fields.get(field) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
        Some(value) => value,
    };
    let parsed = match value {
        Value::String(text) => text.trim().parse().ok().and_then(whole),
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().and_then(whole)),
        _ => None,
    };
    parsed.map(Some).ok_or_else(|| {
        let shown: String = value.to_string().chars().take(64).collect();
        Unreadable(format!("{field} is {shown}; write a whole number"))
    })
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is whole and within bounds"
)]
fn whole(number: f64) -> Option<u64> {
    let is_whole = number.fract() == 0.0 && (0.0..=9e15).contains(&number);
    is_whole.then_some(number as u64)
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A time, as text or in milliseconds since the Unix epoch.
fn date(fields: &Map<String, Value>, field: &str) -> Option<Timestamp> {
    match fields.get(field)? {
        Value::String(text) => text.trim().parse().ok(),
        Value::Number(number) => number.as_i64().map(Timestamp::from_millis),
        _ => None,
    }
}

/// The agent that is there after an agent's own put. What the put leaves out stays as it was;
/// what is not the agent's to write stays as it was in any case. `status: offline` is a goodbye.
/// An entry that was found and is old says who the agent is, and that it is silent.
pub fn merge(
    known: Option<&Agent>,
    put: &AgentPut,
    leaving: bool,
    seen: Seen,
    terms: &Terms<'_>,
) -> Result<Agent, Unreadable> {
    let metadata = put.metadata.as_ref();
    let sign = seen.sign(put, terms.now);
    let mut agent = known.map_or_else(|| bare(put, seen, sign, terms), Clone::clone);
    agent.capabilities = without_repeats(&put.capabilities);
    agent.last_heartbeat = match known {
        Some(known) => known.last_heartbeat.max(sign),
        None => sign,
    };
    replace(&mut agent.handle, put.handle.as_ref());
    replace(
        &mut agent.agent_type,
        put.agent_type
            .clone()
            .or_else(|| type_in(metadata))
            .as_ref(),
    );
    let boundaries = put.boundaries.clone().or_else(|| boundaries_in(metadata));
    if let Some(boundaries) = boundaries {
        agent.boundaries = without_repeats(&boundaries);
    }
    replace(
        &mut agent.current_task_count,
        put.current_task_count.as_ref(),
    );
    replace(
        &mut agent.max_concurrent_tasks,
        put.max_concurrent_tasks.as_ref(),
    );
    fill(&mut agent.hostname, put.hostname.as_ref());
    fill(&mut agent.username, put.username.as_ref());
    fill(&mut agent.visibility, put.visibility.as_ref());
    agent.visibility = agent.visibility.filter(|word| word != DEFAULT_VISIBILITY);
    fill(
        &mut agent.heartbeat_interval_ms,
        put.heartbeat_interval_ms.as_ref(),
    );
    fill(
        &mut agent.spindown_after_idle_ms,
        put.spindown_after_idle_ms.as_ref(),
    );
    agent.spindown_after_idle_ms = agent.spindown_after_idle_ms.filter(|ms| *ms != 0);
    fill(&mut agent.limit_group, put.limit_group.as_ref());
    if let Some(run) = put.run() {
        let former = replaced_by(known, Some(run), terms.now);
        agent.replaced_runs = former.replaced;
        agent.earlier_runs = former.earlier;
        agent.instance_id = Some(run.to_owned());
    }
    fill(&mut agent.metadata, metadata);
    if seen.is_alive(put, terms.now) {
        agent.status = on_heartbeat(effective_status(&agent, terms.now), put.status, leaving);
    }
    if put.status == Some(AgentStatus::Offline) {
        agent = on_offline_announced(&agent).unwrap_or(agent);
    }
    check_bounds(&agent)?;
    check_limit_group(put.limit_group.as_ref())?;
    Ok(agent)
}

/// An agent of which nothing is known but what it put. Since when it has been there it says only
/// where it was there before us.
fn bare(put: &AgentPut, seen: Seen, sign: Timestamp, terms: &Terms<'_>) -> Agent {
    let is_found = matches!(seen, Seen::Found { .. });
    let past = |said: Option<Timestamp>| {
        let said = said.filter(|said| is_found && *said <= sign);
        said.unwrap_or(sign)
    };
    Agent {
        guid: put.guid,
        handle: format!("agent-{}", put.guid),
        agent_type: "unknown".to_owned(),
        status: AgentStatus::Offline,
        status_reason: None,
        capabilities: Vec::new(),
        boundaries: default_boundaries(),
        hostname: None,
        project_id: terms.project.to_string(),
        username: None,
        visibility: None,
        current_task_count: 0,
        max_concurrent_tasks: 1,
        heartbeat_interval_ms: None,
        spindown_after_idle_ms: None,
        last_heartbeat: sign,
        last_activity: past(put.last_activity),
        registered_at: past(put.registered_at),
        limit_group: None,
        paused_until: None,
        pause_reason: None,
        quarantine: None,
        target_id: None,
        instance_id: None,
        replaced_runs: Vec::new(),
        earlier_runs: String::new(),
        metadata: None,
    }
}

fn replace<T: Clone>(field: &mut T, put: Option<&T>) {
    if let Some(value) = put {
        *field = value.clone();
    }
}

fn fill<T: Clone>(field: &mut Option<T>, put: Option<&T>) {
    if let Some(value) = put {
        *field = Some(value.clone());
    }
}
