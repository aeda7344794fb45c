//! The work stream of a project, and the names of its consumers.

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use loom_protocol::{ProjectId, WireError, names};

use crate::nats::error::{Resource, StoreError};
use crate::nats::listing::StreamIdentity;
use crate::nats::overlap::not_made;
use crate::nats::store_guard::StoreGuard;
use crate::nats::terms;
use crate::nats::verdicts::stream_terms::StreamTerms;

/// The key in the stream's metadata that says whose it is. A stream without it was made by somebody else.
pub(crate) const PROJECT_KEY: &str = "loom.project";
/// The kind of what is submitted by publishing.
pub(super) const QUEUE: &str = "queue";
/// The kind of messages that end an attempt.
pub(super) const REPORTS: &str = "reports";

/// Why a project has no work stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Another project has a stream of that name.
    #[error(
        "project {project} cannot be used: its stream {stream} belongs to project {owner}; choose an id that differs in more than case, '-' and '_'"
    )]
    Collision {
        /// The project.
        project: ProjectId,
        /// The stream.
        stream: String,
        /// Whose it is.
        owner: String,
    },
    /// It cannot be made or opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<StreamError> for WireError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Store(error) => error.into(),
            StreamError::Collision { .. } => Self::new(
                loom_protocol::ErrorCode::ProjectNameCollision,
                error.to_string(),
            ),
        }
    }
}

/// Opens the work stream of a project, and makes it where there is none.
pub async fn ensure_stream(
    jetstream: &jetstream::Context,
    project: &ProjectId,
    replicas: usize,
) -> Result<stream::Stream, StreamError> {
    let name = names::work_stream(project);
    let stream = jetstream
        .get_or_create_stream(stream::Config {
            name: name.clone(),
            description: Some("Loom: published work and reports".into()),
            subjects: names::work_stream_subjects(project),
            retention: stream::RetentionPolicy::WorkQueue,
            num_replicas: replicas,
            metadata: [(PROJECT_KEY.to_owned(), project.to_string())].into(),
            ..Default::default()
        })
        .await;
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => {
            let subjects = names::work_stream_subjects(project);
            let resource = Resource::stream(name);
            return Err(not_made(jetstream, &resource, &subjects, &error)
                .await
                .into());
        }
    };
    match stream.cached_info().config.metadata.get(PROJECT_KEY) {
        Some(owner) if owner != project.as_str() => Err(StreamError::Collision {
            project: project.clone(),
            stream: name,
            owner: owner.clone(),
        }),
        _ => Ok(stream),
    }
}

/// Sets the configuration of the work stream back to what keeps what was published; where somebody else has made the stream,
/// it is left alone, and warned of. Which
/// stream it is; `None`: it is gone again.
///
/// # Errors
/// The server does not say how it is.
pub(super) async fn keep_stream(
    jetstream: &jetstream::Context,
    stream: &stream::Stream,
    project: &ProjectId,
    replicas: usize,
    guard: &StoreGuard,
) -> Result<Option<StreamIdentity>, StoreError> {
    let config = &stream.cached_info().config;
    let terms = StreamTerms {
        per_subject: None,
        max_age: Duration::ZERO,
        is_queue: true,
        is_bucket: false,
        is_shared: false,
        replicas,
    };
    if config.metadata.get(PROJECT_KEY).map(String::as_str) != Some(project.as_str()) {
        let warned = terms::warn(jetstream, &config.name, &terms, guard).await?;
        return Ok(warned.map(|looked| looked.identity));
    }
    let kept = terms::keep(jetstream, &config.name, &terms, guard).await?;
    Ok(kept.map(|looked| looked.identity))
}

/// The name of the consumer of reports that an ownership has.
pub fn reports_consumer(epoch: u64) -> String {
    format!("{}{epoch}", consumer_prefix(REPORTS))
}

/// What the consumers of one kind of message have in common, whoever owns them.
pub(super) fn consumer_prefix(kind: &str) -> String {
    format!("loom-{kind}-")
}
