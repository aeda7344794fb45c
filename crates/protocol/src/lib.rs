//! The words of Loom's wire: tokens, subjects, payloads, work states, errors and codecs.
//!
//! Everything here is a value. There is no I/O, no clock and no actor in this crate, so that a
//! client, a test and the coordinator can share it without sharing anything else.
//!
//! | module | what it holds |
//! |---|---|
//! | [`token`] | project ids, capabilities, boundaries: what may be written, and how it is escaped in a subject |
//! | [`names`] | the names of subjects, streams and buckets |
//! | [`agent`], [`work`] | the two things everything is about, and the requests that concern them |
//! | [`target`] | where and how agents can be started, and the requests about it |
//! | [`dead_letter`] | work that was given up, and the requests about it |
//! | [`batch`] | requests about many things at once |
//! | [`verbs`] | the table of everything that may be asked, with the role that it needs |
//! | [`event`] | what is told after a transition |
//! | [`readiness`] | whether the coordinator can serve, and if not, why |
//! | [`error`] | the closed set of error codes |
//! | [`codec`] | JSON and MessagePack, with a check for trailing bytes |
//! | [`body`] | opaque JSON that is carried, never read |
//! | [`url`] | addresses of servers: what of them may be shown |
//! | [`store`] | which store is worked with, and what is lost |
//! | [`time`], [`id`] | instants in milliseconds, and UUIDs that are always text |
#![deny(missing_docs)]

pub mod agent;
mod always;
pub mod batch;
pub mod body;
mod bounded;
pub mod codec;
pub mod dead_letter;
pub mod error;
pub mod event;
pub mod gc;
pub mod id;
pub mod names;
pub mod readiness;
pub mod rest;
#[cfg(any(test, feature = "schemas"))]
pub mod schemas;
pub mod store;
pub mod target;
pub mod text;
pub mod time;
pub mod token;
pub mod url;
pub mod verbs;
pub mod work;

pub use always::visibility::DEFAULT as DEFAULT_VISIBILITY;
pub use body::Body;
pub use bounded::AtMost;
pub use codec::Encoding;
pub use error::{ErrorCode, WireError};
pub use id::{AgentGuid, SpinUpId, TargetId, WorkId};
pub use time::Timestamp;
pub use token::{ProjectId, TokenError};
pub use verbs::VerbName;

/// The version of the wire that this crate speaks; told by `agents.register` and `coord.global.info`.
pub const PROTOCOL_VERSION: u32 = 1;
