//! The SDK against a coordinator that misbehaves: what is repeated, what is believed, what is given up.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod claims;
mod fake;
mod orders;
mod reports;
mod requests;

use fake::LIMIT;
use loom_client::{CancelCause, Job, JobEnd, JobError, JobResult};
use tokio::sync::mpsc;
use tokio::time::timeout;

macro_rules! case {
    ($(#[$doc:meta])* $name:ident($fake:ident) $body:block) => {
        $(#[$doc])*
        #[tokio::test]
        #[ignore = "needs a nats-server: run `cargo xtask test`"]
        async fn $name() {
            #[allow(unused_mut, reason = "only some cases look at the requests")]
            let mut $fake = Fake::open().await;
            $body
        }
    };
}

async fn done(_: Job) -> Result<JobResult, JobError> {
    Ok(JobResult::summary("done"))
}

/// A handler that waits to be told to stop, and tells why.
fn patient() -> (
    impl Fn(Job) -> futures_util::future::BoxFuture<'static, JobEnd> + Send + Sync,
    mpsc::UnboundedReceiver<CancelCause>,
) {
    let (tell, told) = mpsc::unbounded_channel();
    let handler = move |job: Job| -> futures_util::future::BoxFuture<'static, JobEnd> {
        let tell = tell.clone();
        Box::pin(async move {
            job.cancelled().cancelled().await;
            tell.send(job.cancel_cause().unwrap()).unwrap();
            JobEnd::Failed(JobError::recoverable("stopped"))
        })
    };
    (handler, told)
}

async fn cause(told: &mut mpsc::UnboundedReceiver<CancelCause>) -> CancelCause {
    timeout(LIMIT, told.recv()).await.unwrap().unwrap()
}

pub(crate) use case;
