//! Tools for tests around Loom, for this project's own and for those of programs that use it.
//!
//! | module | what it gives |
//! |---|---|
//! | [`births`] | a place where targets start real processes, and a gate at the steps of a birth |
//! | [`chaos`] | a run that breaks everything at random while agents work, made of a seed |
//! | [`cluster`] | three nats-servers that are one cluster; each can be killed and started again |
//! | [`fleet`] | a coordinator with its own NATS in this process, fresh projects, signals, killed actors |
//! | [`agent`] | agents that behave as told: diligent, stalling, lying, late, dead |
//! | [`github`] | a stand-in for the part of GitHub that runs workflows, on GitHub's real wire |
//! | [`history`] | a recorder of what happened, and a checker that holds it against Loom's promises |
//! | [`kubernetes`] | an API server of Kubernetes without a cluster; pods are processes |
//! | [`nats`] | a private nats-server that can be stopped, killed, paused and restarted on its store |
//! | [`outside`] | programs that somebody else starts because a coordinator asked for it |
//! | [`process`] | the program `loom` as a child process that can be killed, paused and started again |
//! | [`programs`] | stubs that speak like Claude Code, Codex, Gemini CLI and Copilot CLI |
//! | [`sshd`] | a real ssh server on loopback |
//! | [`webhook`] | a receiver of webhooks, which may start agents as it is asked to |
//!
//! # Spawning agents in a test
//!
//! ```no_run
//! use loom_protocol::event::WorkEventKind;
//! use loom_protocol::work::WorkStatus;
//! use loom_testkit::agent::Behaviour;
//! use loom_testkit::fleet::{Fleet, Role};
//! use serde_json::json;
//!
//! #[tokio::test]
//! async fn work_goes_on_when_an_actor_dies() -> anyhow::Result<()> {
//!     let fleet = Fleet::shared().await?; // one coordinator for all tests of the binary
//!     let project = fleet.project().await?; // and a project for this one alone
//!     let mut signals = project.signals().await?;
//!
//!     let agent = project.agent("rust").behaviour(Behaviour::Hold).spawn().await?;
//!     let item = json!({"description": "mend it", "capability": "rust", "priority": 8});
//!     let id = project.submit(item).await?.id;
//!     signals.work(WorkEventKind::Assigned, id).await?; // no sleep: a signal
//!
//!     project.kill(Role::WorkLedger)?; // an actor dies in the middle of its work
//!     project.wait_until_restarted(Role::WorkLedger, 1).await?;
//!
//!     agent.behave(Behaviour::Diligent);
//!     signals.work(WorkEventKind::Completed, id).await?;
//!     assert_eq!(project.work(id).await?.status, WorkStatus::Completed);
//!     Ok(())
//! }
//! # fn main() {}
//! ```
//!
//! The same as a program: `examples/spawn_agents.rs`. The server is found as `loom up` finds it: `NATS_SERVER_BIN`,
//! then `PATH`; `cargo xtask test` provides one.
#![deny(missing_docs)]

pub mod agent;
pub mod births;
pub mod chaos;
pub mod cluster;
pub mod fleet;
pub mod github;
pub mod history;
pub mod kubernetes;
pub mod nats;
pub mod outside;
pub mod process;
pub mod programs;
pub mod received;
pub mod sshd;
mod store_folder;
pub mod webhook;
