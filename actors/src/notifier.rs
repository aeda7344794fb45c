//! "Something changed": one who tells, and however many listen.
//!
//! | who listens | hears of a change | is slow |
//! |---|---|---|
//! | a hook: an actor that wants a message, a number that is to be set | at once, in the course of [`Notifier::notify`] | it must not be: it does not wait, and asks nothing that the teller has locked |
//! | a [`Listener`]: whoever has the time to look at each change | when it asks for the next one | the oldest are lost to it, and it is told exactly how many |
//!
//! Both hear the changes of one teller in the order in which they were told. Nobody is waited for, and while there are
//! no listeners nothing is kept: the room for what they have not taken yet is made for the first one, is one for all of
//! them, and goes with the last.

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

type Hook<T> = Box<dyn Fn(&T) + Send + Sync>;

/// Tells of changes. Clones are the same one; it ends with the last of them.
pub struct Notifier<T>(Arc<Shared<T>>);

struct Shared<T> {
    capacity: usize,
    hooks: RwLock<Vec<(&'static str, Hook<T>)>>,
    /// There while somebody listens.
    kept: RwLock<Option<broadcast::Sender<T>>>,
}

/// What a listener hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification<T> {
    /// Something changed.
    Change(T),
    /// So many changes were lost to this listener, between what it heard before and what it hears next.
    Lagged(u64),
}

/// One who listens, until it is dropped.
pub struct Listener<T> {
    kept: broadcast::Receiver<T>,
    // After what it listens to: fields are dropped in their order.
    _place: Place<T>,
}

/// Dropped, it frees what is kept if nobody listens any more.
struct Place<T>(Weak<Shared<T>>);

impl<T: Clone> Notifier<T> {
    /// Nobody listens yet. For each listener at most `capacity` changes are kept that it has not taken, in powers of
    /// two.
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Shared {
            capacity: capacity.max(1),
            hooks: RwLock::default(),
            kept: RwLock::default(),
        }))
    }

    /// Calls `hook` with every change from now on, instead of the one of that name before: an actor that starts again
    /// takes the place of its last incarnation. It must not wait, nor tell or listen here.
    pub fn hook(&self, name: &'static str, hook: impl Fn(&T) + Send + Sync + 'static) {
        let mut hooks = self.0.hooks.write();
        hooks.retain(|(known, _)| *known != name);
        hooks.push((name, Box::new(hook)));
    }

    /// Hears every change from now on.
    pub fn listen(&self) -> Listener<T> {
        let mut kept = self.0.kept.write();
        let sender = kept.get_or_insert_with(|| broadcast::Sender::new(self.0.capacity));
        Listener {
            kept: sender.subscribe(),
            _place: Place(Arc::downgrade(&self.0)),
        }
    }

    /// Tells whoever listens. Two that tell at the same time are heard in an order of their own by each: who wants one
    /// order tells under a lock of its own.
    pub fn notify(&self, change: T) {
        for (_, hook) in self.0.hooks.read().iter() {
            hook(&change);
        }
        if let Some(kept) = &*self.0.kept.read() {
            // The last listener may be leaving: nobody misses it.
            let _ = kept.send(change);
        }
    }
}

impl<T: Clone> Listener<T> {
    /// The next change; `None` when there will be no more, because nobody is left who could tell one.
    pub async fn next(&mut self) -> Option<Notification<T>> {
        match self.kept.recv().await {
            Ok(change) => Some(Notification::Change(change)),
            Err(RecvError::Lagged(missed)) => Some(Notification::Lagged(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            let mut kept = shared.kept.write();
            if kept.as_ref().is_some_and(|kept| kept.receiver_count() == 0) {
                *kept = None;
            }
        }
    }
}

impl<T> Clone for Notifier<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Notifier<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listeners = self
            .0
            .kept
            .read()
            .as_ref()
            .map(broadcast::Sender::receiver_count);
        f.debug_struct("Notifier")
            .field("hooks", &self.0.hooks.read().len())
            .field("listeners", &listeners.unwrap_or(0))
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Listener<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use parking_lot::Mutex;
    use proptest::prelude::*;
    use tokio::task::coop::unconstrained;

    use super::*;

    /// What a listener can hear without waiting; `None` in it: the end.
    fn there<T: Clone>(listener: &mut Listener<T>) -> Vec<Option<Notification<T>>> {
        let mut heard = Vec::new();
        while let Some(next) = unconstrained(listener.next()).now_or_never() {
            let is_end = next.is_none();
            heard.push(next);
            if is_end {
                break;
            }
        }
        heard
    }

    fn is_kept<T>(notifier: &Notifier<T>) -> bool {
        notifier.0.kept.read().is_some()
    }

    #[test]
    fn everybody_hears_every_change_in_order() {
        let notifier = Notifier::new(8);
        let hooked = Arc::new(Mutex::new(Vec::new()));
        for name in ["one", "another"] {
            let hooked = hooked.clone();
            notifier.hook(name, move |change: &u32| {
                hooked.lock().push((name, *change));
            });
        }
        let mut listeners: Vec<_> = (0..100).map(|_| notifier.listen()).collect();
        notifier.notify(1);
        notifier.clone().notify(2);
        for listener in &mut listeners {
            let heard = there(listener);
            assert_eq!(
                heard,
                [1, 2].map(|change| Some(Notification::Change(change)))
            );
        }
        let told = [("one", 1), ("another", 1), ("one", 2), ("another", 2)];
        assert_eq!(*hooked.lock(), told);
    }

    #[test]
    fn a_hook_takes_the_place_of_the_one_of_its_name() {
        let notifier = Notifier::new(1);
        let (before, now) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for count in [&before, &now] {
            let count = count.clone();
            notifier.hook("actor", move |()| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            notifier.notify(());
        }
        assert_eq!(before.load(Ordering::Relaxed), 1);
        assert_eq!(now.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_slow_listener_is_told_how_many_it_missed_and_slows_nobody() {
        let notifier = Notifier::new(4);
        let (mut slow, mut quick) = (notifier.listen(), notifier.listen());
        for change in 0..10 {
            notifier.notify(change);
            assert_eq!(there(&mut quick), [Some(Notification::Change(change))]);
        }
        let mut expected = vec![Some(Notification::Lagged(6))];
        expected.extend((6..10).map(|change| Some(Notification::Change(change))));
        assert_eq!(there(&mut slow), expected);
    }

    #[test]
    fn nothing_is_kept_while_nobody_listens() {
        let notifier = Notifier::new(1 << 20);
        let change = Arc::new(());
        notifier.hook("hook", |_| {});
        notifier.notify(change.clone());
        assert!(!is_kept(&notifier));
        assert_eq!(Arc::strong_count(&change), 1);

        let (first, second) = (notifier.listen(), notifier.listen());
        notifier.notify(change.clone());
        drop(first);
        assert!(is_kept(&notifier));
        assert_eq!(Arc::strong_count(&change), 2);
        drop(second);
        assert!(!is_kept(&notifier));
        assert_eq!(Arc::strong_count(&change), 1);
        assert_eq!(
            there(&mut notifier.listen()),
            [],
            "what was before is not heard"
        );
    }

    #[test]
    fn the_end_is_heard_after_what_was_told_before() {
        let notifier = Notifier::new(4);
        let mut listener = notifier.listen();
        let clone = notifier.clone();
        drop(notifier);
        clone.notify(1);
        drop(clone);
        assert_eq!(there(&mut listener), [Some(Notification::Change(1)), None]);
    }

    #[tokio::test]
    async fn who_waits_hears_the_next_change() {
        let notifier = Notifier::new(4);
        let mut listener = notifier.listen();
        let (heard, ()) = tokio::join!(listener.next(), async { notifier.notify(7) });
        assert_eq!(heard, Some(Notification::Change(7)));
    }

    proptest! {
        /// Of what was told while it listened, a listener hears each change in order, or is told that so many are
        /// missing at that place; nothing is left out, and nothing comes twice.
        #[test]
        fn a_listener_hears_everything_in_order_or_how_much_is_missing(
            capacity in 1_usize..20,
            before in 0_u64..30,
            steps in prop::collection::vec((0_u64..50, 0_usize..50), 0..20),
        ) {
            let notifier = Notifier::new(capacity);
            let _other = notifier.listen();
            let mut told = 0..;
            for change in told.by_ref().take(usize::try_from(before).unwrap()) {
                notifier.notify(change);
            }
            let mut listener = notifier.listen();
            let mut next = before;
            let mut last = before;
            let mut take = |most: usize, last: u64| {
                for _ in 0..most {
                    match unconstrained(listener.next()).now_or_never() {
                        None => break,
                        Some(Some(Notification::Change(change))) => {
                            prop_assert_eq!(change, next);
                            next += 1;
                        }
                        Some(Some(Notification::Lagged(missed))) => {
                            prop_assert!(missed > 0);
                            next += missed;
                            // What is left is what there is room for.
                            let room = capacity.next_power_of_two() as u64;
                            prop_assert_eq!(last - next, room);
                        }
                        Some(None) => prop_assert!(false, "it has ended"),
                    }
                }
                prop_assert!(next <= last);
                Ok(next)
            };
            for (tells, takes) in steps {
                for change in told.by_ref().take(usize::try_from(tells).unwrap()) {
                    notifier.notify(change);
                }
                last += tells;
                take(takes, last)?;
            }
            prop_assert_eq!(take(usize::MAX, last)?, last);
        }
    }
}
