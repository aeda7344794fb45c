//! What the reaper says: what is to come, and what was done.

use std::time::Duration;

use loom_protocol::gc::{GcAction, GcAgent, GcReport};
use ractor::RpcReplyPort;

use super::actor::{GcReaperArgs, State};
use super::inspection::Snapshot;

/// How many agents a report names.
const MOST: usize = 1000;

impl State {
    /// Looks at everybody now, whatever their deadlines say.
    pub(super) fn sweep(&mut self, reply: RpcReplyPort<GcReport>) {
        self.sweeps.push(reply);
        self.look_at_all();
    }

    pub(super) fn answer_sweeps(&mut self) {
        if self.sweeps.is_empty() {
            return;
        }
        let mut agents = std::mem::take(&mut self.done);
        agents.truncate(MOST);
        let report = GcReport {
            agents,
            graves: self.graves.len(),
            dry_run: false,
            ..empty(&self.args)
        };
        for reply in self.sweeps.drain(..) {
            let _ = reply.send(report.clone());
        }
    }

    /// What is to come, for those with whom anything is: the offline, the idle, the leaving, and those
    /// who have been silent for a third of the time that they may be.
    pub(super) fn preview(&self) -> GcReport {
        let snapshot = Snapshot::now(&self.args);
        let mut agents = Vec::new();
        for entry in self.args.directory.all() {
            let agent = entry.snapshot();
            let next_action = snapshot.next_action(&entry, self.orders_given(agent.guid));
            let is_fresh =
                next_action.action == GcAction::MarkOffline && !snapshot.is_silent(&entry);
            if !is_fresh {
                agents.push(GcAgent {
                    guid: agent.guid,
                    handle: agent.handle,
                    status: agent.status,
                    last_heartbeat: agent.last_heartbeat,
                    leases: self.args.work.lease_count(agent.guid),
                    action: next_action.action,
                    due_in_ms: millis(next_action.after),
                });
            }
        }
        agents.sort_by_key(|agent| agent.due_in_ms);
        agents.truncate(MOST);
        GcReport {
            agents,
            graves: self.graves.len(),
            ..empty(&self.args)
        }
    }
}

fn empty(args: &GcReaperArgs) -> GcReport {
    GcReport {
        project_id: args.project.to_string(),
        dry_run: true,
        timestamp: args.clock.now(),
        examined: args.directory.len(),
        agents: Vec::new(),
        graves: 0,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
