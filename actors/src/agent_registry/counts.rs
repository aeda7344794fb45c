//! The number of an agent's items, told when it changes.
//!
//! A claim and a completion each change it, so it is told together: half a second after the first
//! change, once for each agent whose number is another one than was told last. Nobody is told of an
//! item that came and went in between.

use std::time::Duration;

use loom_protocol::event::{AgentEvent, AgentEventKind};

use super::actor::State;
use super::messages::Msg;

/// How long changes are gathered.
const TOGETHER: Duration = Duration::from_millis(500);

impl State {
    pub fn listen_to_counts(&self) {
        let me = self.me.clone();
        self.args.directory.on_recount(move || {
            let _ = me.send_message(Msg::Recounted);
        });
    }

    pub fn counts_begin_to_change(&self) {
        self.me.send_after(TOGETHER, || Msg::CountsDue);
    }

    pub fn notify_counts(&self) {
        let directory = &self.args.directory;
        for guid in directory.take_recounted() {
            let Some(entry) = directory.get(guid) else {
                continue;
            };
            let Some(count) = entry.take_unannounced_count() else {
                continue;
            };
            let agent = entry.agent();
            self.notify(AgentEvent {
                previous_status: Some(agent.status),
                new_status: Some(agent.status),
                current_task_count: Some(count),
                ..self.event(AgentEventKind::Updated, agent)
            });
        }
    }
}
