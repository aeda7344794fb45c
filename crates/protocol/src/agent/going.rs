//! Ending an agent: by itself, or by an order.

use serde::{Deserialize, Serialize};

use crate::id::AgentGuid;
use crate::work::LeaseRef;

/// `agents.deregister`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeregisterRequest {
    /// The agent.
    pub guid: String,
    /// Which run of it, if it registered with that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance_id: Option<String>,
}

/// A request that only names an agent: `agents.get`, `agents.resume`. A prefix will do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct GuidRequest {
    /// The agent, or the beginning of its guid.
    pub guid: String,
}

/// `agents.shutdown`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ShutdownRequest {
    /// The agent, or the beginning of its guid.
    #[serde(default)]
    pub guid: String,
    /// Whether it may finish what it has; yes where absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub graceful: Option<bool>,
    /// Within which time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grace_period_ms: Option<u64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// The answer to `agents.deregister`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct DeregisterAnswer {
    /// Always true.
    pub ok: bool,
    /// The agent.
    pub guid: AgentGuid,
    /// What it held and gave back.
    pub released: Vec<LeaseRef>,
}
