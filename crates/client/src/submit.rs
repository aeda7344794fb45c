//! Submitting work.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use loom_protocol::work::{BatchAnswer, SubmitAnswer, SubmitRequest};
use loom_protocol::{Body, Timestamp, VerbName, WorkId};
use serde::Serialize;

use crate::client::Client;
use crate::error::{ClientError, ErrorKind};

/// How many items one request carries at the most.
const PER_REQUEST: usize = 64;
/// How many requests of one `submit_many` are under way at the same time.
const IN_FLIGHT: usize = 4;

/// Work to be submitted. Its id is made here, before the first try, so that a repeated submit
/// changes nothing.
#[derive(Debug, Clone)]
pub struct NewWork {
    id: WorkId,
    request: SubmitRequest,
}

impl NewWork {
    /// Work that needs an agent with `capability` to do what `description` says.
    pub fn new(capability: impl Into<String>, description: impl Into<String>) -> Self {
        let id = WorkId::generate();
        let request = SubmitRequest {
            capability: capability.into(),
            description: description.into(),
            id: Some(id.to_string()),
            ..SubmitRequest::default()
        };
        Self { id, request }
    }

    /// Its id.
    pub const fn id(&self) -> WorkId {
        self.id
    }

    /// Another id than the one made for it.
    #[must_use]
    pub fn with_id(mut self, id: WorkId) -> Self {
        self.id = id;
        self.request.id = Some(id.to_string());
        self
    }

    /// The name of the task that it belongs to. Its id unless set.
    #[must_use]
    pub fn task_id(mut self, task: impl Into<String>) -> Self {
        self.request.task_id = Some(task.into());
        self
    }

    /// The isolation boundary that an agent must be in. `default` unless set.
    #[must_use]
    pub fn boundary(mut self, boundary: impl Into<String>) -> Self {
        self.request.boundary = Some(boundary.into());
        self
    }

    /// 1 to 10, higher first. 5 unless set.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.request.priority = Some(priority.into());
        self
    }

    /// A mark of the submitter's own.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.labels.insert(name.into(), value.into());
        self
    }

    /// When it is too late to begin.
    #[must_use]
    pub fn deadline(mut self, deadline: Timestamp) -> Self {
        self.request.deadline = Some(deadline);
        self
    }

    /// Not offered before.
    #[must_use]
    pub fn not_before(mut self, instant: Timestamp) -> Self {
        self.request.not_before = Some(instant);
        self
    }

    /// How long an agent may be silent about it. The coordinator's `work.timeout` unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.request.timeout_ms = Some(millis);
        self
    }

    /// How many attempts may be spent. The coordinator's `work.max_attempts` unless set.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.request.max_attempts = Some(attempts);
        self
    }

    /// The agent type that is served first.
    #[must_use]
    pub fn preferred_agent_type(mut self, agent_type: impl Into<String>) -> Self {
        self.request.preferred_agent_type = Some(agent_type.into());
        self
    }

    /// The only agent type that may take it.
    #[must_use]
    pub fn required_agent_type(mut self, agent_type: impl Into<String>) -> Self {
        self.request.required_agent_type = Some(agent_type.into());
        self
    }

    /// Who submits it.
    #[must_use]
    pub fn offered_by(mut self, name: impl Into<String>) -> Self {
        self.request.offered_by = Some(name.into());
        self
    }

    /// What the agent needs to know, as any value that can be written as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`] if the value can't be written.
    pub fn context(mut self, value: &impl Serialize) -> Result<Self, ClientError> {
        let body = Body::of(value).map_err(|e| {
            let message = format!("the context can't be written as JSON: {e}");
            ClientError::new(ErrorKind::Codec, message)
        })?;
        self.request.context_data = Some(body);
        Ok(self)
    }

    /// The request that will be sent.
    pub const fn request(&self) -> &SubmitRequest {
        &self.request
    }
}

impl Client {
    /// Submits one item. When this returns `Ok`, the work is durable and will not be lost.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with the code, or a transient kind after the deadline. In the second
    /// case the item may have been taken: submit the same `NewWork` again to be sure.
    pub async fn submit(&self, work: &NewWork) -> Result<SubmitAnswer, ClientError> {
        self.request(VerbName::WorkSubmit, &work.request).await
    }

    /// Submits many items, up to 64 in a request; the answers are in the order of the items. Each
    /// stands for itself: one that is refused doesn't hold up the others.
    pub async fn submit_many(&self, work: &[NewWork]) -> Vec<Result<SubmitAnswer, ClientError>> {
        stream::iter(work.chunks(PER_REQUEST))
            .map(|chunk| self.submit_chunk(chunk))
            .buffered(IN_FLIGHT)
            .concat()
            .await
    }

    /// Submits a chunk in one request, or in smaller ones where it is over the payload limit.
    async fn submit_chunk(&self, chunk: &[NewWork]) -> Vec<Result<SubmitAnswer, ClientError>> {
        let mut answers = Vec::with_capacity(chunk.len());
        let mut rest = vec![chunk];
        while let Some(part) = rest.pop() {
            match self.submit_at_once(part).await {
                Err(error) if error.kind() == ErrorKind::TooLarge && part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    rest.extend([second, first]);
                }
                Err(error) => answers.extend(part.iter().map(|_| Err(error.clone()))),
                Ok(batch) if batch.items.len() == part.len() => {
                    let each = batch.items.into_iter();
                    answers.extend(each.map(|a| Result::from(a).map_err(ClientError::from)));
                }
                Ok(batch) => {
                    let error = ClientError::new(
                        ErrorKind::Codec,
                        format!("{} answers to {} items", batch.items.len(), part.len()),
                    );
                    answers.extend(part.iter().map(|_| Err(error.clone())));
                }
            }
        }
        answers
    }

    async fn submit_at_once(
        &self,
        part: &[NewWork],
    ) -> Result<BatchAnswer<SubmitAnswer>, ClientError> {
        let request = SubmitRequest {
            items: Some(part.iter().map(|work| work.request.clone()).collect()),
            ..SubmitRequest::default()
        };
        self.request(VerbName::WorkSubmit, &request).await
    }
}
