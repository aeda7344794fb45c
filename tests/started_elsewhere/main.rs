//! From an empty project to a done item and back, where agents are not started beside the coordinator: over ssh, by the
//! service behind a webhook, as Jobs of Kubernetes and as runs of a workflow. Each of them really is `loom agent run`.
#![cfg(unix)]
#![allow(clippy::expect_used, reason = "a test may panic")]

mod github;
mod house;
mod kubernetes;
mod redefined;
mod ssh;
mod tunnel;
mod webhook;
