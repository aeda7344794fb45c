//! The requests of a client and of its agents, by the SDK, in MessagePack, over one connection.

use std::time::Duration;

use bytes::Bytes;
use loom_client::{Client, ClientError};
use loom_protocol::agent::{DeregisterRequest, ListAgentsRequest, RegisterRequest};
use loom_protocol::rest::Stats;
use loom_protocol::verbs::Nothing;
use loom_protocol::work::{
    BatchAnswer, ClaimRequest, CompleteItem, CompleteRequest, PurgeAnswer, PurgeRequest,
    ReportedResult, SubmitAnswer, SubmitRequest, ThenClaim, limits,
};
use loom_protocol::{AgentGuid, VerbName, WireError, WorkId};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

/// So long is an agent of a run believed to be there without a word: longer than any run.
const HEARTBEAT_INTERVAL: Duration = Duration::from_mins(20);
/// How many slots each agent has: as many as one may have.
pub(super) const SLOTS: u32 = 1_000;
/// How long one request may take. Longer than the coordinator takes to say `unavailable`.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a purge, or a question about all agents, may take.
pub(super) const LONG_ANSWER_WITHIN: Duration = Duration::from_mins(2);

/// A request that was not answered as it should.
pub(super) type RequestError = String;

/// What an agent needs to know of an item that it was given.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Given {
    work_item: GivenItem,
    lease: GivenLease,
}

impl Given {
    /// Which item it is.
    pub const fn id(&self) -> WorkId {
        self.work_item.id
    }
}

#[derive(Debug, Clone, Deserialize)]
struct GivenItem {
    id: WorkId,
    #[allow(dead_code, reason = "an agent reads it, so the measurement does")]
    description: String,
}

#[derive(Debug, Clone, Deserialize)]
struct GivenLease {
    attempt: u32,
}

#[derive(Debug, Deserialize)]
struct ClaimAnswer {
    items: Vec<Given>,
}

#[derive(Debug, Deserialize)]
struct CompleteAnswer {
    claimed: Option<Vec<Given>>,
    items: Option<Vec<Completed>>,
}

/// One place of the answer to several completions.
#[derive(Debug, Deserialize)]
struct Completed {
    code: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Registered {
    guid: AgentGuid,
}

/// A client of one project, and the agents that it plays. Cheap to clone.
#[derive(Clone)]
pub(super) struct Requests {
    client: Client,
}

impl Requests {
    pub const fn new(client: Client) -> Self {
        Self { client }
    }

    /// The version of the server.
    pub fn server_version(&self) -> String {
        self.client.nats().server_info().version
    }

    /// A request as it goes over the wire.
    pub fn encoded(&self, request: &impl Serialize) -> Result<Bytes, RequestError> {
        let bytes = self.client.options().encoding.encode(request);
        Ok(bytes.map_err(|error| error.to_string())?.into())
    }

    /// Submits one item.
    pub async fn submit(&self, item: &SubmitRequest) -> Result<WorkId, RequestError> {
        let answer: SubmitAnswer = self.ask(VerbName::WorkSubmit, item).await?;
        Ok(answer.id)
    }

    /// Submits an array of items.
    pub async fn submit_array(&self, array: &SubmitRequest) -> Result<(), RequestError> {
        let answer: BatchAnswer<SubmitAnswer> = self.ask(VerbName::WorkSubmit, array).await?;
        for item in answer.items {
            Result::<SubmitAnswer, WireError>::from(item).map_err(|error| error.message)?;
        }
        Ok(())
    }

    /// Claims up to `max` items, and starts them.
    pub async fn claim(&self, guid: AgentGuid, max: usize) -> Result<Vec<Given>, RequestError> {
        let request = ClaimRequest {
            guid,
            instance_id: None,
            claim: claim_of(max),
        };
        let answer: ClaimAnswer = self.ask(VerbName::WorkClaim, &request).await?;
        all_of(answer.items, max)
    }

    /// Completes what is `held`, as an array where it is not one item, and claims the next `max` in the same request.
    pub async fn complete(
        &self,
        guid: AgentGuid,
        held: &[Given],
        max: Option<usize>,
    ) -> Result<Vec<Given>, RequestError> {
        let (one, array) = match held {
            [one] => (Some(one), None),
            array => (None, Some(array.iter().map(completed).collect())),
        };
        let request = CompleteRequest {
            guid,
            instance_id: None,
            id: one.map(Given::id),
            attempt: one.map(|given| given.lease.attempt),
            result: one.map(|_| result()),
            usage: None,
            session: None,
            evidence: None,
            items: array,
            then_claim: max.map(claim_of),
        };
        let answer: CompleteAnswer = self.ask(VerbName::WorkComplete, &request).await?;
        let mut items = answer.items.into_iter().flatten();
        if let Some(refused) = items.find(|item| item.code.is_some()) {
            return Err(refused.message.unwrap_or_default());
        }
        match max {
            Some(max) => all_of(answer.claimed.unwrap_or_default(), max),
            None => Ok(Vec::new()),
        }
    }

    /// Registers an agent for a capability.
    pub async fn register(
        &self,
        handle: String,
        capability: &str,
    ) -> Result<AgentGuid, RequestError> {
        let interval = u64::try_from(HEARTBEAT_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        let request = RegisterRequest {
            handle,
            agent_type: "bench".into(),
            capabilities: vec![capability.into()],
            max_concurrent_tasks: Some(SLOTS),
            heartbeat_interval_ms: Some(interval),
            ..RegisterRequest::default()
        };
        let registered: Registered = self.ask_long(VerbName::AgentsRegister, &request).await?;
        Ok(registered.guid)
    }

    /// Lets an agent go.
    pub async fn deregister(&self, guid: AgentGuid) -> Result<(), RequestError> {
        let request = DeregisterRequest {
            guid: guid.to_string(),
            instance_id: None,
        };
        let _: IgnoredAny = self.ask_long(VerbName::AgentsDeregister, &request).await?;
        Ok(())
    }

    /// One page of agents, as many as `limit` at the most.
    pub async fn list_agents(&self, limit: usize) -> Result<usize, RequestError> {
        let filter = ListAgentsRequest {
            limit: Some(limit),
            ..ListAgentsRequest::default()
        };
        let page = self
            .client
            .agents(&filter)
            .await
            .map_err(|error| sentence(&error))?;
        Ok(page.items.len())
    }

    /// How many items of the project are completed and remembered.
    pub async fn completed(&self) -> Result<usize, RequestError> {
        let stats: Stats = self.ask_long(VerbName::Stats, &Nothing {}).await?;
        Ok(stats.completed)
    }

    /// Calls off what is pending of a capability.
    pub async fn purge(&self, capability: &str) -> Result<usize, RequestError> {
        let request = PurgeRequest {
            capability: Some(capability.into()),
            ..PurgeRequest::default()
        };
        let answer: PurgeAnswer = self.ask_long(VerbName::QueuePurge, &request).await?;
        Ok(answer.purged)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        verb: VerbName,
        request: &impl Serialize,
    ) -> Result<T, RequestError> {
        self.client
            .request(verb, request)
            .await
            .map_err(|error| sentence(&error))
    }

    async fn ask_long<T: DeserializeOwned>(
        &self,
        verb: VerbName,
        request: &impl Serialize,
    ) -> Result<T, RequestError> {
        let answer = self
            .client
            .request_within(verb, request, LONG_ANSWER_WITHIN);
        answer.await.map_err(|error| sentence(&error))
    }
}

fn sentence(error: &ClientError) -> RequestError {
    error.to_string()
}

/// An item to submit, with a description of so many bytes.
pub(super) fn item(capability: &str, payload: usize) -> SubmitRequest {
    SubmitRequest {
        description: "x".repeat(payload),
        capability: capability.into(),
        ..SubmitRequest::default()
    }
}

/// So many of them in one request.
pub(super) fn array_of(item: &SubmitRequest, count: usize) -> SubmitRequest {
    SubmitRequest {
        items: Some(vec![item.clone(); count]),
        ..SubmitRequest::default()
    }
}

fn claim_of(max: usize) -> ThenClaim {
    ThenClaim {
        max: Some(u32::try_from(max).unwrap_or(limits::CLAIM_MAX)),
        start: true,
        ..ThenClaim::default()
    }
}

fn completed(given: &Given) -> CompleteItem {
    CompleteItem {
        id: given.id(),
        attempt: given.lease.attempt,
        result: Some(result()),
        usage: None,
        session: None,
        evidence: None,
    }
}

fn result() -> ReportedResult {
    ReportedResult {
        summary: Some("done".into()),
        ..ReportedResult::default()
    }
}

fn all_of(given: Vec<Given>, max: usize) -> Result<Vec<Given>, RequestError> {
    if given.len() == max {
        return Ok(given);
    }
    let count = given.len();
    Err(format!("a claim for {max} items was given {count}"))
}
