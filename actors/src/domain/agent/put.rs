//! Entries of the agents bucket: what an agent may put there by itself, and what the registry
//! puts there.

use std::borrow::Cow;

use loom_protocol::agent::{Agent, AgentStatus, Directive};
use loom_protocol::token::check_token;
use loom_protocol::{AgentGuid, Encoding, WireError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Terms, boundaries_in, check, check_limit_group, default_boundaries, hear, kept, millis,
    replaced_by, say_goodbye, type_in, without_repeats,
};

/// The longest entry that is read, in bytes.
const MAX_ENTRY: usize = 64 * 1024;

/// An entry of the bucket that cannot be taken for an agent; the text says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

impl Unreadable {
    /// There is no room for one more agent.
    pub fn too_many(most: usize) -> Self {
        Self(format!("the project has {most} agents, which is the most"))
    }
}

impl From<WireError> for Unreadable {
    fn from(error: WireError) -> Self {
        Self(error.message)
    }
}

/// What an agent put into its own entry: the fields that are its to write. Everything else that
/// stands there is passed over.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentPut {
    /// Its id; the same as the key.
    pub guid: AgentGuid,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Its name.
    #[serde(default)]
    pub handle: Option<String>,
    /// Its type.
    #[serde(default)]
    pub agent_type: Option<String>,
    /// Its boundaries.
    #[serde(default)]
    pub boundaries: Option<Vec<String>>,
    /// What it says of its state.
    #[serde(default)]
    pub status: Option<String>,
    /// Where it runs.
    #[serde(default)]
    pub hostname: Option<String>,
    /// On whose behalf it runs.
    #[serde(default)]
    pub username: Option<String>,
    /// Who may see it.
    #[serde(default, alias = "scope")]
    pub visibility: Option<String>,
    /// How many items it has.
    #[serde(default)]
    pub current_task_count: Option<u32>,
    /// How many it may have.
    #[serde(default)]
    pub max_concurrent_tasks: Option<u32>,
    /// How often it beats.
    #[serde(default)]
    pub heartbeat_interval_ms: Option<u64>,
    /// After how much idleness it may be sent home.
    #[serde(default)]
    pub spindown_after_idle_ms: Option<u64>,
    /// The account whose usage limit it shares.
    #[serde(default)]
    pub limit_group: Option<String>,
    /// Which run of the program it is.
    #[serde(default)]
    pub instance_id: Option<String>,
    /// Whatever else it says about itself.
    #[serde(default)]
    pub metadata: Option<Value>,
}

/// What the registry puts: the agent as clients see it, and the order to end that it has not
/// obeyed yet, so that a restarted coordinator goes on repeating it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnEntry<'a> {
    /// The agent.
    #[serde(flatten)]
    pub agent: Cow<'a, Agent>,
    /// The order, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shutdown_order: Option<Directive>,
}

impl AgentPut {
    /// The state that it tells, where that is one.
    pub fn status(&self) -> Option<AgentStatus> {
        self.status.as_deref().and_then(AgentStatus::parse)
    }

    /// The run that it names; what is no token names none.
    pub fn run(&self) -> Option<&str> {
        let run = self.instance_id.as_deref();
        run.filter(|run| check_token("instanceId", run).is_ok())
    }
}

/// The agent whose entry has this key. Only the usual form (hyphens, lower case) is a key, so
/// that an agent has one entry.
pub fn guid_of_key(key: &str) -> Result<AgentGuid, Unreadable> {
    key.parse::<AgentGuid>()
        .ok()
        .filter(|guid| guid.to_string() == key)
        .ok_or_else(|| {
            Unreadable("its key is not a UUID of 8-4-4-4-12 lower-case hex digits".into())
        })
}

/// Reads an entry that an agent wrote.
pub fn read_put(guid: AgentGuid, value: &[u8]) -> Result<AgentPut, Unreadable> {
    let put: AgentPut = read(value)?;
    same_guid(guid, put.guid)?;
    Ok(put)
}

/// Reads an entry that the registry wrote.
pub fn read_own(guid: AgentGuid, value: &[u8]) -> Result<OwnEntry<'static>, Unreadable> {
    let entry: OwnEntry<'static> = read(value)?;
    same_guid(guid, entry.agent.guid)?;
    check(&entry.agent)?;
    Ok(entry)
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, Unreadable> {
    if value.len() > MAX_ENTRY {
        let length = value.len();
        return Err(Unreadable(format!(
            "it has {length} bytes; at most {MAX_ENTRY} are read"
        )));
    }
    Encoding::Json
        .decode_request(value)
        .map_err(|e| Unreadable(format!("it is not an agent as JSON: {e}")))
}

fn same_guid(key: AgentGuid, guid: AgentGuid) -> Result<(), Unreadable> {
    if key == guid {
        return Ok(());
    }
    Err(Unreadable(format!(
        "its guid is {guid} and its key is {key}"
    )))
}

/// The agent that is there after an agent's own put. What the put leaves out stays as it was;
/// what is not the agent's to write stays as it was in any case. `status: offline` is a goodbye.
pub fn merge(
    known: Option<&Agent>,
    put: &AgentPut,
    leaving: bool,
    terms: &Terms<'_>,
) -> Result<Agent, Unreadable> {
    let metadata = put.metadata.as_ref();
    let mut agent = known.map_or_else(|| bare(put.guid, terms), Clone::clone);
    agent.capabilities = without_repeats(&put.capabilities);
    agent.last_heartbeat = terms.now;
    replace(&mut agent.handle, put.handle.as_ref());
    replace(
        &mut agent.agent_type,
        put.agent_type
            .clone()
            .or_else(|| type_in(metadata))
            .as_ref(),
    );
    let boundaries = put
        .boundaries
        .clone()
        .filter(|boundaries| !boundaries.is_empty())
        .or_else(|| boundaries_in(metadata));
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
    fill(
        &mut agent.heartbeat_interval_ms,
        put.heartbeat_interval_ms.as_ref(),
    );
    fill(
        &mut agent.spindown_after_idle_ms,
        put.spindown_after_idle_ms.as_ref(),
    );
    fill(&mut agent.limit_group, put.limit_group.as_ref());
    if let Some(run) = put.run() {
        agent.replaced_runs = replaced_by(known, Some(run), terms.now);
        agent.instance_id = Some(run.to_owned());
    }
    fill(&mut agent.metadata, metadata);
    agent.status = hear(kept(&agent, terms.now), put.status(), leaving);
    if put.status() == Some(AgentStatus::Offline) {
        agent = say_goodbye(&agent).unwrap_or(agent);
    }
    check(&agent)?;
    check_limit_group(put.limit_group.as_ref())?;
    Ok(agent)
}

/// An agent of which nothing is known but its guid.
fn bare(guid: AgentGuid, terms: &Terms<'_>) -> Agent {
    Agent {
        guid,
        handle: format!("agent-{guid}"),
        agent_type: "unknown".to_owned(),
        status: AgentStatus::Offline,
        capabilities: Vec::new(),
        boundaries: default_boundaries(),
        hostname: None,
        project_id: terms.project.to_string(),
        username: None,
        visibility: None,
        current_task_count: 0,
        max_concurrent_tasks: 1,
        heartbeat_interval_ms: Some(millis(terms.heartbeat_every)),
        spindown_after_idle_ms: None,
        last_heartbeat: terms.now,
        last_activity: terms.now,
        registered_at: terms.now,
        limit_group: None,
        paused_until: None,
        pause_reason: None,
        quarantine: None,
        target_id: None,
        instance_id: None,
        replaced_runs: Vec::new(),
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
