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
    /// It takes nothing more for now, for a reason of its own ([`AgentStopper::suspend`](super::AgentStopper::suspend)).
    Suspended(String),
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
    /// Why it takes nothing for now, for a reason of its own.
    suspended: Mutex<Option<String>>,
}

impl NewsDesk {
    pub(crate) fn new(listener: Option<Listener>) -> Self {
        Self {
            listener,
            pause: Mutex::default(),
            suspended: Mutex::default(),
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
        match why {
            Some(why) => self.tell(AgentNews::Paused(why.into())),
            None => self.tell_resumed(),
        }
        before.is_some() != why.is_some()
    }

    /// Takes nothing for now for a reason of its own, or goes on. Told once, however the reason changes
    /// meanwhile. Gives whether anything is new.
    pub(crate) fn suspend(&self, why: Option<&str>) -> bool {
        let before = {
            let mut suspended = self.suspended.lock();
            if suspended.as_deref() == why {
                return false;
            }
            std::mem::replace(&mut *suspended, why.map(str::to_owned))
        };
        match why {
            Some(why) if before.is_none() => self.tell(AgentNews::Suspended(why.into())),
            Some(_) => {}
            None => self.tell_resumed(),
        }
        true
    }

    /// Why it takes nothing for now for a reason of its own, if it does.
    pub(crate) fn suspended(&self) -> Option<String> {
        self.suspended.lock().clone()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.pause.lock().is_some() || self.suspended.lock().is_some()
    }

    /// The last of what kept it from work is over.
    fn tell_resumed(&self) {
        if !self.is_paused() {
            self.tell(AgentNews::Resumed);
        }
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

    #[test]
    fn a_suspension_is_told_once_and_ends_with_the_last_reason() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        let desk = NewsDesk::new(Some(Arc::new(move |news| heard.lock().push(news))));
        assert!(desk.suspend(Some("disk full")) && desk.suspend(Some("disk gone")));
        assert!(!desk.suspend(Some("disk gone")) && desk.is_paused());
        assert!(desk.pause(Some("until noon")) && desk.pause(None));
        assert!(desk.is_paused() && desk.suspend(None) && !desk.is_paused());
        let expected = [
            AgentNews::Suspended("disk full".into()),
            AgentNews::Paused("until noon".into()),
            AgentNews::Resumed,
        ];
        assert_eq!(*told.lock(), expected);
    }
}
