//! What happens to an agent beside its items, for whoever watches it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// Something that a person who watches an agent wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AgentNotification {
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

type Listener = Arc<dyn Fn(AgentNotification) + Send + Sync>;

/// Notifies whoever watches, of each thing once.
#[derive(Default)]
pub(crate) struct Notifier {
    listener: Option<Listener>,
    /// What the agent was last told of its pause.
    pause: Mutex<Option<String>>,
    /// Why it takes nothing for now, for a reason of its own.
    suspended: Mutex<Option<String>>,
}

impl Notifier {
    pub(crate) fn new(listener: Option<Listener>) -> Self {
        Self {
            listener,
            pause: Mutex::default(),
            suspended: Mutex::default(),
        }
    }

    pub(crate) fn notify(&self, notification: AgentNotification) {
        if let Some(listener) = &self.listener {
            listener(notification);
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
            Some(why) => self.notify(AgentNotification::Paused(why.into())),
            None => self.notify_resumed(),
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
            Some(why) if before.is_none() => self.notify(AgentNotification::Suspended(why.into())),
            Some(_) => {}
            None => self.notify_resumed(),
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
    fn notify_resumed(&self) {
        if !self.is_paused() {
            self.notify(AgentNotification::Resumed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_is_repeated_is_told_once() {
        let received = Arc::new(Mutex::new(Vec::new()));
        let sink = received.clone();
        let notifier = Notifier::new(Some(Arc::new(move |notification| {
            sink.lock().push(notification);
        })));
        assert!(!notifier.pause(None), "it was not paused");
        assert!(notifier.pause(Some("until noon")));
        assert!(!notifier.pause(Some("until noon")));
        assert!(!notifier.pause(Some("quarantined")) && notifier.is_paused());
        assert!(notifier.pause(None) && !notifier.pause(None));
        let paused = |why: &str| AgentNotification::Paused(why.into());
        let expected = [
            paused("until noon"),
            paused("quarantined"),
            AgentNotification::Resumed,
        ];
        assert_eq!(*received.lock(), expected);
    }

    #[test]
    fn a_suspension_is_told_once_and_ends_with_the_last_reason() {
        let received = Arc::new(Mutex::new(Vec::new()));
        let sink = received.clone();
        let notifier = Notifier::new(Some(Arc::new(move |notification| {
            sink.lock().push(notification);
        })));
        assert!(notifier.suspend(Some("disk full")) && notifier.suspend(Some("disk gone")));
        assert!(!notifier.suspend(Some("disk gone")) && notifier.is_paused());
        assert!(notifier.pause(Some("until noon")) && notifier.pause(None));
        assert!(notifier.is_paused() && notifier.suspend(None) && !notifier.is_paused());
        let expected = [
            AgentNotification::Suspended("disk full".into()),
            AgentNotification::Paused("until noon".into()),
            AgentNotification::Resumed,
        ];
        assert_eq!(*received.lock(), expected);
    }
}
