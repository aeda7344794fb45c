//! Looking things up, calling them off, and claiming by hand.

use std::time::Duration;

use loom_protocol::agent::{Agent, GuidRequest, ListAgentsRequest};
use loom_protocol::names::NEXT_CURSOR_HEADER;
use loom_protocol::work::{
    CancelRequest, ClaimAnswer, ClaimRequest, ClaimedItem, IdRequest, ListWorkRequest, WorkItem,
};
use loom_protocol::{VerbName, WorkId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::client::{Client, header};
use crate::error::ClientError;

/// One page of a listing.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// The cursor of the next page, where there is one.
    pub next_cursor: Option<String>,
}

impl Client {
    /// An item with its bodies.
    pub async fn get(&self, id: WorkId) -> Result<WorkItem, ClientError> {
        self.request(VerbName::WorkGet, &IdRequest { id: id.to_string() })
            .await
    }

    /// Items that match, oldest first, without their bodies.
    pub async fn list(&self, filter: &ListWorkRequest) -> Result<Page<WorkItem>, ClientError> {
        self.page(VerbName::WorkList, filter).await
    }

    /// Calls an item off. One that an agent works on is stopped there.
    ///
    /// # Errors
    /// The code `terminal-state` if it has ended already.
    pub async fn cancel(
        &self,
        id: WorkId,
        reason: impl Into<String>,
    ) -> Result<WorkItem, ClientError> {
        let request = CancelRequest {
            id: id.to_string(),
            reason: Some(reason.into()),
            by: Some(self.options().name.clone()),
        };
        self.request(VerbName::WorkCancel, &request).await
    }

    /// Claims items for an agent that is written without [`Agent`](crate::Agent), which claims by itself. Where the
    /// claim has no `claim_id` it is given one, so that a repeated request gives the same items.
    ///
    /// With `resume` it has items again that were taken from it while it was away, each as a new attempt, where nobody
    /// else has had them since; what it cannot have is not in the answer. With `max` 0 beside it nothing but these.
    pub async fn claim(&self, request: &ClaimRequest) -> Result<Vec<ClaimedItem>, ClientError> {
        let mut request = request.clone();
        let claim = &mut request.claim;
        claim
            .claim_id
            .get_or_insert_with(|| Uuid::new_v4().to_string());
        let wait = Duration::from_millis(claim.wait_ms.unwrap_or(0));
        let payload = self.encode(&request)?;
        let mut patience = self.patience(self.options().request_deadline + wait);
        patience.per_try += wait;
        let message = self
            .call(VerbName::WorkClaim.as_str(), payload, patience)
            .await?;
        Ok(self.decode::<ClaimAnswer>(&message)?.items)
    }

    /// An agent; the beginning of its guid will do if it is unambiguous.
    pub async fn agent(&self, guid: impl Into<String>) -> Result<Agent, ClientError> {
        let request = GuidRequest { guid: guid.into() };
        self.request(VerbName::AgentsGet, &request).await
    }

    /// Agents that match.
    pub async fn agents(&self, filter: &ListAgentsRequest) -> Result<Page<Agent>, ClientError> {
        self.page(VerbName::AgentsList, filter).await
    }

    pub(crate) async fn page<T: DeserializeOwned>(
        &self,
        verb: VerbName,
        filter: &impl Serialize,
    ) -> Result<Page<T>, ClientError> {
        let payload = self.encode(filter)?;
        let patience = self.patience(self.options().request_deadline);
        let message = self.call(verb.as_str(), payload, patience).await?;
        Ok(Page {
            items: self.decode(&message)?,
            next_cursor: header(&message, NEXT_CURSOR_HEADER).map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use loom_protocol::verbs::VERBS;

    /// A verb that is written as text could be misspelt, or be gone from the table, and still compile.
    #[test]
    fn no_file_of_this_crate_writes_the_name_of_a_verb_by_itself() {
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        let mut read = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text
                    .lines()
                    .filter(|line| !line.trim_start().starts_with("//"));
                for line in code {
                    let written = VERBS
                        .iter()
                        .filter(|row| row.name.contains('.'))
                        .find(|row| line.contains(&format!("\"{}\"", row.name)));
                    assert!(written.is_none(), "{}: {line}", path.display());
                }
                read += 1;
            }
        }
        assert!(read > 20, "the files are read");
    }
}
