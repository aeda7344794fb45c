//! What a supervisor is to run: children, in order, with their policies.

use std::any::TypeId;
use std::collections::HashSet;
use std::sync::Arc;

use ractor::{Actor, Message, RpcReplyPort};

use super::control::{ActorControl, Control, DrainRequest, drain_request};
use super::handle::ActorHandle;
use super::policy::RestartPolicy;

/// One supervised actor: its name, its handle, when to restart it and how to make one.
#[derive(Clone)]
pub struct ChildSpec {
    pub(super) name: Arc<str>,
    pub(super) policy: RestartPolicy,
    pub(super) control: Arc<dyn Control>,
    pub(super) drain: Option<DrainRequest>,
    /// Whether it is up only when it has loaded.
    pub(super) loads: bool,
    message_type: TypeId,
    drain_type: Option<TypeId>,
}

impl ChildSpec {
    /// An actor that is made by `make`, now and after each crash, and reached through `handle`.
    ///
    /// `make` runs inside the supervisor and must neither wait nor panic: what may fail belongs into `pre_start`.
    pub fn actor<A: Actor>(
        name: impl Into<Arc<str>>,
        handle: ActorHandle<A::Msg>,
        policy: RestartPolicy,
        make: impl Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            policy,
            control: Arc::new(ActorControl::<A, _>::new(handle, make)),
            drain: None,
            loads: false,
            message_type: TypeId::of::<A::Msg>(),
            drain_type: None,
        }
    }

    /// The actor is up only when it has loaded what it works with, however long that takes: its `pre_start` begins
    /// a [`Loading`](super::Loading), whose end it tells by [`Loading::finish`](super::Loading::finish).
    #[must_use]
    pub fn loads_after_start(mut self) -> Self {
        self.loads = true;
        self
    }

    /// The message that asks the actor to finish what is in flight. The actor answers when it has; then it is stopped.
    ///
    /// `M` must be the message type of the actor: [`super::RootHandle::start_tree`] refuses another one.
    #[must_use]
    pub fn drain_with<M: Message>(
        mut self,
        make: impl Fn(RpcReplyPort<()>) -> M + Send + Sync + 'static,
    ) -> Self {
        self.drain = Some(drain_request(make));
        self.drain_type = Some(TypeId::of::<M>());
        self
    }
}

/// A tree: the actors of one project, in the order in which they start.
#[derive(Clone)]
pub struct TreeSpec {
    /// The project's id; the name of the tree.
    pub name: String,
    /// When the whole tree is restarted, and when it is parked.
    pub policy: RestartPolicy,
    /// The actors in the order of their start: each starts when all before it are up.
    pub children: Vec<ChildSpec>,
    /// The names of those to be drained first, in this order. The others follow, the last started first.
    pub drain_order: Vec<String>,
}

impl TreeSpec {
    /// A tree without actors.
    pub fn new(name: impl Into<String>, policy: RestartPolicy) -> Self {
        Self {
            name: name.into(),
            policy,
            children: Vec::new(),
            drain_order: Vec::new(),
        }
    }

    /// Adds an actor, started after those that were added before.
    #[must_use]
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// Names the actors that are to be drained first.
    #[must_use]
    pub fn drain_order<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.drain_order = names.into_iter().map(Into::into).collect();
        self
    }

    /// What is wrong with it, in a sentence.
    pub(super) fn problem(&self) -> Option<String> {
        let mut names = HashSet::new();
        for child in &self.children {
            if !names.insert(&*child.name) {
                return Some(format!("two of its actors are called {:?}", child.name));
            }
            if child.drain_type.is_some_and(|t| t != child.message_type) {
                return Some(format!(
                    "the drain message of {:?} is not of that actor's message type",
                    child.name
                ));
            }
        }
        self.drain_order
            .iter()
            .find(|name| !names.contains(name.as_str()))
            .map(|name| format!("its drain order names {name:?}, which it does not have"))
    }

    /// The indexes of the children in the order in which they are drained.
    pub(super) fn draining(&self) -> Vec<usize> {
        let named = self
            .drain_order
            .iter()
            .filter_map(|name| self.children.iter().position(|child| *child.name == **name));
        let mut order: Vec<usize> = named.collect();
        for index in (0..self.children.len()).rev() {
            if !order.contains(&index) {
                order.push(index);
            }
        }
        order
    }
}
