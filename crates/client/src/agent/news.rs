//! What happens to an agent beside its items, for whoever watches it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// Something that a person who watches an agent wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AgentNews {
    /// It wants to register and nobody answers; why. Told once, and tried until somebody does.
    Waiting(String),
    /// It was told to take nothing more for now: paused or quarantined. Why, until when, and what ends
    /// it, in the coordinator's words.
    Paused(String),
    /// It takes work again.
    Resumed,
    /// It takes no more work and ends; a shorter grace may follow.
    ShuttingDown {
        /// Why.
        because: String,
        /// How long what it has may still take; zero: it is stopped and given back now.
        grace: Duration,
        /// How many items it has.
        running: usize,
    },
    /// Another run of the same guid has registered: it stops what it has, discards it and ends.
    Replaced {
        /// Who runs now, in the coordinator's words.
        because: String,
        /// How many items it had.
        running: usize,
    },
    /// It has nothing to do, and nothing that it may take came within one wait. Told again after
    /// each such wait.
    Idle,
}

type Listener = Arc<dyn Fn(AgentNews) + Send + Sync>;

/// Who is told.
#[derive(Default)]
pub(crate) struct NewsDesk {
    listener: Option<Listener>,
    /// What the agent was last told of its pause.
    pause: Mutex<Option<String>>,
}

impl NewsDesk {
    pub(crate) fn new(listener: Option<Listener>) -> Self {
        Self {
            listener,
            pause: Mutex::default(),
        }
    }

    pub(crate) fn tell(&self, news: AgentNews) {
        if let Some(listener) = &self.listener {
            listener(news);
        }
    }

    /// Tells of a pause, or of its end, where that is something new; orders are repeated. Gives whether
    /// the agent begins or ceases to be paused.
    pub(crate) fn pause(&self, why: Option<&str>) -> bool {
        let before = {
            let mut pause = self.pause.lock();
            if pause.as_deref() == why {
                return false;
            }
            std::mem::replace(&mut *pause, why.map(str::to_owned))
        };
        self.tell(why.map_or(AgentNews::Resumed, |why| AgentNews::Paused(why.into())));
        before.is_some() != why.is_some()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.pause.lock().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_is_repeated_is_told_once() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        let desk = NewsDesk::new(Some(Arc::new(move |news| heard.lock().push(news))));
        assert!(!desk.pause(None), "it was not paused");
        assert!(desk.pause(Some("until noon")));
        assert!(!desk.pause(Some("until noon")));
        assert!(!desk.pause(Some("quarantined")) && desk.is_paused());
        assert!(desk.pause(None) && !desk.pause(None));
        let paused = |why: &str| AgentNews::Paused(why.into());
        let expected = [
            paused("until noon"),
            paused("quarantined"),
            AgentNews::Resumed,
        ];
        assert_eq!(*told.lock(), expected);
    }
}
