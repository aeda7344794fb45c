//! The work stream of a project, and the names of its consumers.

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use loom_protocol::{ProjectId, WireError, names};

use crate::nats::overlap::{is_refused, why_not_made};
use crate::nats::store_guard::StoreGuard;
use crate::nats::terms;
use crate::nats::verdicts::stream_terms::StreamTerms;

/// The key in the stream's metadata that says whose it is. A stream without it was made by somebody else.
pub(crate) const PROJECT_KEY: &str = "loom.project";
/// When a caller may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
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
    /// NATS says no.
    #[error("the stream {stream} cannot be made or opened: {source}")]
    Nats {
        /// The stream.
        stream: String,
        /// The server answered: it will not do better before somebody mends it.
        is_refused: bool,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<StreamError> for WireError {
    fn from(error: StreamError) -> Self {
        let text = error.to_string();
        match error {
            StreamError::Collision { .. } => {
                Self::new(loom_protocol::ErrorCode::ProjectNameCollision, text)
            }
            StreamError::Nats { .. } => Self::unavailable(text, RETRY_AFTER),
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
        Err(error) => return Err(not_made(jetstream, project, name, &error).await),
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
/// it is left alone, and warned of.
///
/// # Errors
/// The server does not say how it is.
pub(super) async fn keep_stream(
    jetstream: &jetstream::Context,
    stream: &stream::Stream,
    project: &ProjectId,
    replicas: usize,
    guard: &StoreGuard,
) -> Result<(), String> {
    let config = &stream.cached_info().config;
    let terms = StreamTerms {
        per_subject: None,
        max_age: Duration::ZERO,
        is_queue: true,
        is_bucket: false,
        replicas,
    };
    if config.metadata.get(PROJECT_KEY).map(String::as_str) != Some(project.as_str()) {
        return terms::warn(jetstream, &config.name, &terms, guard).await;
    }
    let kept = terms::keep(jetstream, &config.name, &terms, guard).await;
    kept.map(drop)
}

async fn not_made(
    jetstream: &jetstream::Context,
    project: &ProjectId,
    stream: String,
    error: &jetstream::context::CreateStreamError,
) -> StreamError {
    let mut why = error.to_string();
    for subject in names::work_stream_subjects(project) {
        let reason = why_not_made(jetstream, &subject, error).await;
        if reason.contains(&subject) {
            why = reason;
            break;
        }
    }
    StreamError::Nats {
        stream,
        is_refused: is_refused(error),
        source: why.into(),
    }
}

/// The name of the consumer of reports that an ownership has.
pub fn reports_consumer(epoch: u64) -> String {
    format!("{}{epoch}", consumer_prefix(REPORTS))
}

/// What the consumers of one kind of message have in common, whoever owns them.
pub(super) fn consumer_prefix(kind: &str) -> String {
    format!("loom-{kind}-")
}
