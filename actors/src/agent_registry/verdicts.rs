//! Our verdict, where the entry is not ours.
//!
//! An entry that a client keeps by itself stays as it wrote it, and its compare-and-set goes on
//! working, for as long as our verdict need not be seen:
//!
//! | the verdict | the entry shows | what is written |
//! |---|---|---|
//! | none | what the client wrote | nothing |
//! | offline, paused, quarantined | the same | nothing |
//! | offline, paused, quarantined | something else | the client's entry, with the verdict in it |
//! | none any more | a verdict that we wrote | the client's entry, with its status |

use bytes::Bytes;
use loom_protocol::AgentGuid;
use loom_protocol::agent::Agent;

use super::actor::State;
use super::entry_state::{InFlightWrite, Keeper};
use crate::domain::agent::{Verdict, with_verdict};

impl State {
    /// Writes our verdict into a client's entry, if it has to be seen there.
    pub fn show_in_a_clients(&mut self, guid: AgentGuid, agent: &Agent) {
        let verdict = Verdict::of(agent);
        let slot = self.slot(guid);
        let is_told = slot.shown == verdict;
        let is_silent = verdict.status.is_none() && !verdict.is_durable();
        if is_told || (is_silent && !slot.shown_by_us) {
            slot.dirty = false;
            return;
        }
        if !slot.holds {
            // The client's entry is not there: only what must outlast us is worth one of our own.
            if verdict.is_durable() {
                return self.begin_writing(guid, agent);
            }
            slot.dirty = false;
            return;
        }
        let Some(raw) = slot.raw.take() else {
            slot.wants_raw = true;
            return self.begin_reading(guid);
        };
        let expected = slot.revision;
        slot.dirty = false;
        match with_verdict(&raw, agent) {
            Ok(value) => {
                let shown = verdict;
                let what = InFlightWrite::Showing { expected, shown };
                self.write(guid, what, Bytes::from(value), expected, Keeper::Client);
            }
            Err(problem) => {
                tracing::debug!(%guid, %problem, "our verdict is not written into this entry");
            }
        }
    }

    /// Keeps what must outlast us of an agent whose entry is in the bucket of all projects.
    pub fn remember_of_a_shared(&mut self, guid: AgentGuid, agent: &Agent) {
        let verdict = Verdict::of(agent);
        let slot = self.slot(guid);
        slot.dirty = false;
        if !verdict.is_durable() {
            if slot.holds {
                self.begin_forgetting(guid);
            }
            return;
        }
        if slot.holds && slot.shown.lasts_as(&verdict) {
            return;
        }
        let expected = slot.revision;
        match self.encoded(guid, agent, true) {
            Ok(value) => {
                let shown = verdict;
                let what = InFlightWrite::Remembering { expected, shown };
                self.write(guid, what, value, expected, Keeper::Shared);
            }
            Err(error) => tracing::error!(%guid, %error, "an agent cannot be written"),
        }
    }

    /// What must outlast us of an agent in the bucket of all projects is not needed any more.
    fn begin_forgetting(&mut self, guid: AgentGuid) {
        let slot = self.slot(guid);
        let (key, expected) = (slot.key(guid), slot.revision);
        let bucket = self.bucket.clone();
        let writer = self.fence.writer().to_owned();
        let what = InFlightWrite::Forgetting { expected };
        let remove = async move { bucket.remove(&key, expected, &writer).await };
        self.begin_write(guid, what, remove);
    }
}
