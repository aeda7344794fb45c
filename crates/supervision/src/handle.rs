//! The one way to talk to a supervised actor: a handle that outlives its incarnations.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorCell, ActorRef, Message, RpcReplyPort};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::held::{Held, Place};

/// How long a caller whose reply port was dropped waits for news of the actor before it asks again.
const NEWS_PAUSE: Duration = Duration::from_millis(50);
/// Stands for "for ever" where a bound overflows.
const FAR_FUTURE: Duration = Duration::from_hours(30 * 365 * 24);

/// Why a message did not reach an actor, or its answer did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The actor is there and did not answer in time. Whether it acted is unknown.
    #[error("{actor} did not answer within {within:?}; whether it acted is unknown")]
    TimedOut {
        /// Which.
        actor: Arc<str>,
        /// The bound the caller gave.
        within: Duration,
    },
    /// The actor is being started or restarted, or loads what it works with. It was not asked.
    #[error("{actor} is being started{}; try again in a moment", because(why.as_deref()))]
    Down {
        /// Which.
        actor: Arc<str>,
        /// Why that takes long, where it is known: how its last try to load failed.
        why: Option<Arc<str>>,
    },
    /// The actor's tree crashed too often and is tried again later. A call that is told so has it tried soon.
    #[error("{actor} is parked, it crashed too often: {reason}")]
    Parked {
        /// Which.
        actor: Arc<str>,
        /// What the last failure was.
        reason: Arc<str>,
    },
    /// The actor was stopped on purpose.
    #[error("{actor} has been stopped")]
    Stopped {
        /// Which.
        actor: Arc<str>,
    },
}

fn because(why: Option<&str>) -> String {
    why.map_or_else(String::new, |why| format!(" ({why})"))
}

/// Reaches an actor whichever incarnation of it lives. Cheap to clone; all clones are the same handle.
///
/// A new one is empty until a supervisor fills it (see [`super::ChildSpec::actor`]): calls wait, also while an actor
/// loads what it works with (see [`super::Loading`]). They are sent in the order in which they came, and none whose
/// caller has gone, or was told when its bound was over that the actor is not up. At the most 16,384 wait; more are
/// answered [`CallError::Down`] at once.
pub struct ActorHandle<M: Message> {
    shared: Arc<Shared<M>>,
}

struct Shared<M: Message> {
    name: Arc<str>,
    /// Requests that wait for it. Filled while the slot is read, and emptied while it is written.
    held: Held<M>,
    slot: watch::Sender<Slot<M>>,
}

struct Slot<M: Message> {
    presence: Presence<M>,
    /// Grows with every incarnation.
    incarnation: u64,
    restarts: u64,
    /// The next incarnation is no restart: somebody started the tree.
    fresh: bool,
}

impl<M: Message> Slot<M> {
    fn never_reaches(&self, incarnation: u64) -> bool {
        let will_not = matches!(self.presence, Presence::Parked { .. } | Presence::Stopped);
        will_not && self.incarnation < incarnation
    }
}

enum Presence<M: Message> {
    Up(ActorRef<M>),
    Down {
        why: Option<Arc<str>>,
    },
    Parked {
        reason: Arc<str>,
        wanted: Arc<Notify>,
    },
    Stopped,
}

impl<M: Message> ActorHandle<M> {
    /// An empty handle of an actor called `name` in errors and logs.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let slot = watch::Sender::new(Slot {
            presence: Presence::Down { why: None },
            incarnation: 0,
            restarts: 0,
            fresh: true,
        });
        Self {
            shared: Arc::new(Shared {
                name: name.into(),
                held: Held::new(),
                slot,
            }),
        }
    }

    /// What the actor is called in errors and logs.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Sends without waiting. An error when the actor is not up just now.
    pub fn cast(&self, message: M) -> Result<(), CallError> {
        let actor = {
            let slot = self.shared.slot.borrow();
            match &slot.presence {
                Presence::Up(actor) => actor.clone(),
                absent => return Err(self.absence(absent)),
            }
        };
        actor.send_message(message).map_err(|_| CallError::Down {
            actor: Arc::clone(&self.shared.name),
            why: None,
        })
    }

    /// Sends a request and waits for its answer; while the actor restarts it waits too, until `within` is over.
    ///
    /// When the actor dies after it took the request, the request is made and sent again, so `make` must describe
    /// one that may be carried out twice; a port that is dropped without an answer counts as a death. A parked or stopped
    /// actor is an error at once; a parked one is tried again because of the call, for the next one.
    pub async fn call<T: Send + 'static>(
        &self,
        within: Duration,
        make: impl Fn(RpcReplyPort<T>) -> M + Send + Sync,
    ) -> Result<T, CallError> {
        let deadline = deadline_after(within);
        let mut slot = self.shared.slot.subscribe();
        loop {
            if Instant::now() >= deadline {
                return Err(self.too_late(false, within));
            }
            let (port, answer) = oneshot::channel();
            let (incarnation, place) = self.send_or_hold(make(port.into()))?;
            let answered = timeout_at(deadline, answer_of(answer, incarnation, &mut slot)).await;
            if let Ok(Some(answer)) = answered {
                return Ok(answer);
            }
            // What has left the line was sent.
            let was_sent = !place.is_some_and(Place::give_up);
            if answered.is_err() {
                return Err(self.too_late(was_sent, within));
            }
            // Its supervisor may not have heard of its end yet.
            let news = slot.wait_for(|slot| {
                slot.incarnation != incarnation || !matches!(slot.presence, Presence::Up(_))
            });
            let _ = timeout_at(deadline.min(Instant::now() + NEWS_PAUSE), news).await;
        }
    }

    /// Waits until the actor is up. A parked or stopped one is an error at once, as for [`ActorHandle::call`].
    pub async fn wait_until_up(&self, within: Duration) -> Result<(), CallError> {
        let mut slot = self.shared.slot.subscribe();
        let decided = slot.wait_for(|slot| !matches!(slot.presence, Presence::Down { .. }));
        let _ = timeout_at(deadline_after(within), decided).await;
        match &self.shared.slot.borrow().presence {
            Presence::Up(_) => Ok(()),
            absent => Err(self.refused(absent)),
        }
    }

    /// Whether the actor is up just now.
    pub fn is_up(&self) -> bool {
        matches!(self.shared.slot.borrow().presence, Presence::Up(_))
    }

    /// How often it was restarted; a start that somebody asked for does not count.
    pub fn restarts(&self) -> u64 {
        self.shared.slot.borrow().restarts
    }

    /// Fault injection: kills the present incarnation. `false` when there is none.
    pub fn kill(&self) -> bool {
        match &self.shared.slot.borrow().presence {
            Presence::Up(actor) => {
                actor.kill();
                true
            }
            _ => false,
        }
    }

    /// Sends a request, or has it wait for as long as its place is kept. Gives the incarnation that gets it; where
    /// that cannot take it, its port is dropped.
    fn send_or_hold(&self, message: M) -> Result<(u64, Option<Place<'_, M>>), CallError> {
        let slot = self.shared.slot.borrow();
        match &slot.presence {
            Presence::Up(actor) => {
                let (actor, incarnation) = (actor.clone(), slot.incarnation);
                drop(slot);
                let _ = actor.send_message(message);
                Ok((incarnation, None))
            }
            Presence::Down { .. } => match self.shared.held.hold(message) {
                Some(place) => Ok((slot.incarnation + 1, Some(place))),
                None => Err(CallError::Down {
                    actor: Arc::clone(&self.shared.name),
                    why: Some("too many requests wait for it".into()),
                }),
            },
            absent => Err(self.refused(absent)),
        }
    }

    /// The bound of a request is over. One that was sent may be carried out, whatever has become of the actor.
    fn too_late(&self, was_sent: bool, within: Duration) -> CallError {
        let slot = self.shared.slot.borrow();
        match &slot.presence {
            Presence::Parked { .. } | Presence::Stopped | Presence::Down { .. } if !was_sent => {
                self.absence(&slot.presence)
            }
            _ => CallError::TimedOut {
                actor: Arc::clone(&self.shared.name),
                within,
            },
        }
    }

    /// A call is told that the actor is not there. A parked one is wanted.
    fn refused(&self, absent: &Presence<M>) -> CallError {
        if let Presence::Parked { wanted, .. } = absent {
            wanted.notify_one();
        }
        self.absence(absent)
    }

    fn absence(&self, presence: &Presence<M>) -> CallError {
        let actor = Arc::clone(&self.shared.name);
        match presence {
            Presence::Parked { reason, .. } => CallError::Parked {
                actor,
                reason: Arc::clone(reason),
            },
            Presence::Stopped => CallError::Stopped { actor },
            Presence::Down { why } => CallError::Down {
                actor,
                why: why.clone(),
            },
            Presence::Up(_) => CallError::Down { actor, why: None },
        }
    }
}

impl<M: Message> Clone for ActorHandle<M> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<M: Message> fmt::Debug for ActorHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorHandle")
            .field("name", &self.shared.name)
            .field("up", &self.is_up())
            .finish()
    }
}

/// What one incarnation answers; `None` where it has dropped the port, another one is up, or it will never be there. A
/// port may outlive its actor: what is sent while a mailbox is being closed can be left lying in it.
async fn answer_of<M: Message, T>(
    answer: oneshot::Receiver<T>,
    incarnation: u64,
    slot: &mut watch::Receiver<Slot<M>>,
) -> Option<T> {
    tokio::select! {
        biased;
        answer = answer => answer.ok(),
        _ = slot.wait_for(|slot| slot.incarnation > incarnation || slot.never_reaches(incarnation)) => None,
    }
}

/// What a supervisor says through a handle, whatever its actor's message type.
pub(super) trait Presentation: Send + Sync {
    /// Somebody started the tree: callers wait.
    fn expected(&self);
    /// The incarnation is up.
    fn up(&self, cell: ActorCell);
    /// It has ended and comes back: callers wait.
    fn down(&self);
    /// It is there and could not load yet, for this reason: callers wait.
    fn loading(&self, why: Arc<str>);
    /// It was given up for now: callers fail. `wanted` hears of each of their calls.
    fn parked(&self, reason: &Arc<str>, wanted: &Arc<Notify>);
    /// It was stopped on purpose.
    fn stopped(&self);
    /// Whether it is up, and how often it was restarted.
    fn facts(&self) -> (bool, u64);
}

impl<M: Message> Presentation for ActorHandle<M> {
    fn expected(&self) {
        self.shared.slot.send_modify(|slot| {
            slot.presence = Presence::Down { why: None };
            slot.fresh = true;
        });
    }

    fn up(&self, cell: ActorCell) {
        self.shared.slot.send_modify(|slot| {
            let actor = ActorRef::from(cell);
            for message in self.shared.held.release() {
                let _ = actor.send_message(message);
            }
            slot.presence = Presence::Up(actor);
            slot.incarnation += 1;
            slot.restarts += u64::from(!slot.fresh);
            slot.fresh = false;
        });
    }

    fn down(&self) {
        self.shared
            .slot
            .send_modify(|slot| slot.presence = Presence::Down { why: None });
    }

    fn loading(&self, why: Arc<str>) {
        self.shared
            .slot
            .send_modify(|slot| slot.presence = Presence::Down { why: Some(why) });
    }

    fn parked(&self, reason: &Arc<str>, wanted: &Arc<Notify>) {
        self.shared.slot.send_modify(|slot| {
            slot.presence = Presence::Parked {
                reason: Arc::clone(reason),
                wanted: Arc::clone(wanted),
            };
        });
    }

    fn stopped(&self) {
        self.shared
            .slot
            .send_modify(|slot| slot.presence = Presence::Stopped);
    }

    fn facts(&self) -> (bool, u64) {
        let slot = self.shared.slot.borrow();
        (matches!(slot.presence, Presence::Up(_)), slot.restarts)
    }
}

/// `within` from now; a bound too large to add means "for ever".
pub(super) fn deadline_after(within: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(within).unwrap_or(now + FAR_FUTURE)
}
