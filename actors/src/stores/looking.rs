//! Looking at the stores that are in doubt, and now and then at those of which the list of all streams does not say that they
//! are the same.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};

use super::{LOOK_EVERY, LOOK_FOR_THE_RIGHT_ONE, Stores};
use crate::nats::store_guard::{LOOK_AGAIN, StoreGuard};

/// How many looks are under way at once.
const LOOKS: usize = 32;

impl Stores {
    /// Looks at what has to be looked at, or at everything. Gives after how long to look again.
    pub(super) async fn look(&self, at_everything: bool) -> Duration {
        let is_due = |guard: &StoreGuard, in_turn: bool| {
            (at_everything && in_turn && !guard.is_listed())
                || guard.is_in_doubt()
                || guard.foreign().is_some()
        };
        let whole = Some(self.0.whole.clone()).filter(|whole| is_due(whole, true));
        let mut guards: Vec<StoreGuard> = whole.into_iter().collect();
        // Nothing is written to one that is closed, and what it was is compared when it is opened again.
        let due = self.0.projects.iter();
        let due = due.filter(|kept| is_due(&kept.guard, kept.read.is_some()));
        guards.extend(due.map(|kept| kept.guard.clone()));
        let turned = stream::iter(&guards)
            .map(StoreGuard::look)
            .buffer_unordered(LOOKS)
            .filter(|turned| std::future::ready(*turned))
            .count()
            .await;
        for guard in &guards {
            if guard.may_be_whole_again() && guard.foreign().is_some() {
                self.compare_again(guard).await;
            }
        }
        if turned > 0 {
            self.0.turns.send_modify(|turns| *turns += 1);
        }
        if guards.iter().any(StoreGuard::is_in_doubt) {
            return LOOK_AGAIN;
        }
        if guards.iter().any(|guard| guard.foreign().is_some()) {
            return LOOK_FOR_THE_RIGHT_ONE;
        }
        LOOK_EVERY
    }
}
