//! The requests of a client and of its agents, in MessagePack, over one connection.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Request, Subject};
use bytes::Bytes;
use loom_protocol::agent::{ListAgentsRequest, RegisterRequest};
use loom_protocol::codec::{CONTENT_TYPE, MSGPACK};
use loom_protocol::error::ERROR_CODE_HEADER;
use loom_protocol::rest::Stats;
use loom_protocol::work::{
    BatchAnswer, ClaimRequest, CompleteItem, CompleteRequest, PurgeAnswer, PurgeRequest,
    ReportedResult, SubmitAnswer, SubmitRequest, ThenClaim, limits,
};
use loom_protocol::{AgentGuid, Encoding, ProjectId, WireError, WorkId, names};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

const ENCODING: Encoding = Encoding::MessagePack;
/// So long is an agent of a run believed to be there without a word: longer than any run.
const HEARTBEAT_INTERVAL: Duration = Duration::from_mins(20);
/// How many slots each agent has: as many as one may have.
pub(super) const SLOTS: u32 = 1_000;
/// How long one request may take. Longer than the coordinator takes to say `unavailable`.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a purge, or a question about all agents, may take.
const LONG_ANSWER_WITHIN: Duration = Duration::from_mins(2);

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
    headers: HeaderMap,
    project: ProjectId,
    submit: Subject,
    claim: Subject,
    complete: Subject,
}

impl Requests {
    pub fn new(client: Client, project: ProjectId) -> Self {
        let subject = |action| Subject::from(names::request(&project, action));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, MSGPACK);
        Self {
            client,
            headers,
            submit: subject("work.submit"),
            claim: subject("work.claim"),
            complete: subject("work.complete"),
            project,
        }
    }

    /// Submits one item.
    pub async fn submit(&self, item: &SubmitRequest) -> Result<WorkId, RequestError> {
        let answer: SubmitAnswer = self.ask(&self.submit, item).await?;
        Ok(answer.id)
    }

    /// Submits an array of items.
    pub async fn submit_array(&self, array: &SubmitRequest) -> Result<(), RequestError> {
        let answer: BatchAnswer<SubmitAnswer> = self.ask(&self.submit, array).await?;
        for item in answer.items {
            Result::<SubmitAnswer, WireError>::from(item).map_err(|error| error.message)?;
        }
        Ok(())
    }

    /// Claims up to `max` items, and starts them.
    pub async fn claim(&self, guid: AgentGuid, max: usize) -> Result<Vec<Given>, RequestError> {
        let claim = claim_of(max);
        let answer: ClaimAnswer = self
            .ask(
                &self.claim,
                &ClaimRequest {
                    guid,
                    instance_id: None,
                    claim,
                },
            )
            .await?;
        all_of(answer.items, max)
    }

    /// Completes one item.
    pub async fn complete(&self, guid: AgentGuid, given: &Given) -> Result<(), RequestError> {
        let request = CompleteRequest {
            guid,
            instance_id: None,
            id: Some(given.work_item.id),
            attempt: Some(given.lease.attempt),
            result: Some(result()),
            usage: None,
            items: None,
            then_claim: None,
        };
        let _: IgnoredAny = self.ask(&self.complete, &request).await?;
        Ok(())
    }

    /// Completes what is `held`, and claims the next `max` in the same request.
    pub async fn complete_array(
        &self,
        guid: AgentGuid,
        held: &[Given],
        max: Option<usize>,
    ) -> Result<Vec<Given>, RequestError> {
        let items = held.iter().map(|given| CompleteItem {
            id: given.work_item.id,
            attempt: given.lease.attempt,
            result: Some(result()),
            usage: None,
        });
        let request = CompleteRequest {
            guid,
            instance_id: None,
            id: None,
            attempt: None,
            result: None,
            usage: None,
            items: Some(items.collect()),
            then_claim: max.map(claim_of),
        };
        let answer: CompleteAnswer = self.ask(&self.complete, &request).await?;
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
        let registered: Registered = self.action("agents.register", &request).await?;
        Ok(registered.guid)
    }

    /// Lets an agent go.
    pub async fn deregister(&self, guid: AgentGuid) -> Result<(), RequestError> {
        let request = loom_protocol::agent::DeregisterRequest {
            guid: guid.to_string(),
            instance_id: None,
        };
        let _: IgnoredAny = self.action("agents.deregister", &request).await?;
        Ok(())
    }

    /// One page of agents, as many as `limit` at the most.
    pub async fn list_agents(&self, limit: usize) -> Result<usize, RequestError> {
        let request = ListAgentsRequest {
            limit: Some(limit),
            ..ListAgentsRequest::default()
        };
        let page: Vec<loom_protocol::agent::Agent> = self.action("agents.list", &request).await?;
        Ok(page.len())
    }

    /// How many items of the project are completed and remembered.
    pub async fn completed(&self) -> Result<usize, RequestError> {
        let stats: Stats = self.action("stats", &IgnoredFields {}).await?;
        Ok(stats.completed)
    }

    /// Calls off what is pending of a capability.
    pub async fn purge(&self, capability: &str) -> Result<usize, RequestError> {
        let request = PurgeRequest {
            capability: Some(capability.into()),
            ..PurgeRequest::default()
        };
        let answer: PurgeAnswer = self.action("queue.purge", &request).await?;
        Ok(answer.purged)
    }

    async fn action<T: DeserializeOwned>(
        &self,
        action: &str,
        request: &impl Serialize,
    ) -> Result<T, RequestError> {
        let subject = Subject::from(names::request(&self.project, action));
        self.ask_within(&subject, request, LONG_ANSWER_WITHIN).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        subject: &Subject,
        request: &impl Serialize,
    ) -> Result<T, RequestError> {
        self.ask_within(subject, request, ANSWER_WITHIN).await
    }

    async fn ask_within<T: DeserializeOwned>(
        &self,
        subject: &Subject,
        request: &impl Serialize,
        within: Duration,
    ) -> Result<T, RequestError> {
        let request = Request::new()
            .headers(self.headers.clone())
            .payload(encode(request)?)
            .timeout(Some(within));
        let answer = self
            .client
            .send_request(subject.clone(), request)
            .await
            .map_err(|error| format!("{subject}: {error}"))?;
        let is_error = answer
            .headers
            .is_some_and(|headers| headers.get(ERROR_CODE_HEADER).is_some());
        if is_error {
            let error: WireError = decode(&answer.payload)?;
            return Err(format!("{subject}: {}", error.message));
        }
        decode(&answer.payload)
    }
}

#[derive(Serialize)]
struct IgnoredFields {}

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

/// A request as it goes over the wire.
pub(super) fn encode(request: &impl Serialize) -> Result<Bytes, RequestError> {
    let bytes = ENCODING.encode(request);
    Ok(bytes.map_err(|error| error.to_string())?.into())
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RequestError> {
    ENCODING.decode(bytes).map_err(|error| error.to_string())
}

fn claim_of(max: usize) -> ThenClaim {
    ThenClaim {
        max: Some(u32::try_from(max).unwrap_or(limits::CLAIM_MAX)),
        start: true,
        ..ThenClaim::default()
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
