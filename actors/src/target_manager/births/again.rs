//! A start that is recorded and surely never began is begun again: its ticket is lost with whoever made it, so that it gets
//! another one.
//!
//! It takes a place of `targets.max_concurrent` as a new one does, since whoever waited for it while it was not known what
//! had become of it may have taken them all. Until there is one it waits, and its time does not run.

use std::time::Duration;

use loom_protocol::SpinUpId;
use loom_protocol::target::BirthTicket;
use tokio::time::Instant;

use super::Births;
use crate::domain::targets::digest_of;
use crate::target_manager::change::Changed;
use crate::target_manager::env::Env;
use crate::target_manager::messages::TargetMsg;
use crate::target_manager::plans::{Planned, Plans};
use crate::target_manager::queue::ChangeQueue;
use crate::target_manager::running::Phase;

/// The pause before it is looked for a place once more.
const NO_PLACE: Duration = Duration::from_millis(250);

impl Births {
    /// Launched → on its way into its record, with a ticket that is known; or it waits for a place.
    pub fn begin_again(
        &mut self,
        env: &Env,
        (plans, queue): (&mut Plans, &mut ChangeQueue),
        id: SpinUpId,
    ) {
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        if !running.has_never_begun() || plans.contains(id) {
            return;
        }
        let own = self.places.leave(id);
        let Some(permit) = own.or_else(|| plans.room_for_one(env)) else {
            running.since = Instant::now();
            self.due.set(id, running.until());
            return env.tell_after(NO_PLACE, move || TargetMsg::PlaceWanted { id });
        };
        let ticket = BirthTicket::generate();
        running.digest = digest_of(&ticket);
        plans.begin_again(queue, (id, &*running), permit, ticket);
    }

    /// Pending → pending: recorded with another ticket, it is launched again.
    pub fn begun_again(
        &mut self,
        env: &Env,
        queue: &mut ChangeQueue,
        (id, planned): (SpinUpId, Option<Planned>),
        changed: &Changed,
    ) {
        // One that is being ended for its time was over comes to its end.
        let running = self.running.get(&id);
        let Some(key) = running
            .filter(|running| running.phase != Phase::Ending)
            .map(|running| running.key)
        else {
            return;
        };
        self.forget(id);
        if let (Some((record, birth)), Some(planned)) = (changed.birth(id), planned) {
            let (ticket, permit) = (planned.ticket, planned.permit);
            return self.launch(env, queue, (key, record), birth, ticket, permit);
        }
        // Somebody else has begun it meanwhile.
        if let Some((record, _)) = &changed.now {
            let mut births = record.births.iter();
            if let Some(birth) = births.find(|birth| birth.operation.operation_id == id) {
                self.take_over(env, queue, (key, record), birth);
            }
        }
    }
}
