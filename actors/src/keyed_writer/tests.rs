use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::oneshot;

use super::lanes::Lanes;
use super::*;
use crate::nats::error::{Cause, Resource, StoreError};

const KEYS: u8 = 5;
const BOUNDS: Bounds = Bounds {
    tasks: 3,
    requests_of_a_key: 4,
    requests: 12,
};

#[derive(Debug, Clone)]
enum Step {
    Push(u8),
    Chore(u8),
    /// All turns that there are; of those with a request so many begin no task, and answer at once.
    Turns(u8),
    /// The task that began so long ago ends, and its request has its outcome or another turn.
    End(u8, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..KEYS).prop_map(Step::Push),
        1 => (0..KEYS).prop_map(Step::Chore),
        3 => (0..3u8).prop_map(Step::Turns),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(which, done)| Step::End(which, done)),
    ]
}

/// What the lanes should do, said in the plainest way.
#[derive(Default)]
struct Model {
    waiting: BTreeMap<u8, VecDeque<u32>>,
    chores: BTreeMap<u8, bool>,
    under_way: Vec<u8>,
    answered: Vec<u32>,
}

impl Model {
    fn answer(&mut self, key: u8, request: Option<u32>) -> Result<(), TestCaseError> {
        let due = self.waiting.get_mut(&key).and_then(VecDeque::pop_front);
        prop_assert_eq!(request, due, "in the order in which they came");
        self.answered.extend(request);
        Ok(())
    }

    fn is_waiting(&self, key: u8) -> bool {
        self.waiting.get(&key).is_some_and(|all| !all.is_empty())
    }

    fn turns(
        &mut self,
        lanes: &mut Lanes<u8, u32, ()>,
        mut at_once: u8,
    ) -> Result<(), TestCaseError> {
        while let Some(key) = lanes.next_turn() {
            prop_assert!(!self.under_way.contains(&key), "a second task");
            prop_assert!(self.under_way.len() < BOUNDS.tasks, "too many tasks");
            let is_chore = !self.is_waiting(key);
            prop_assert_eq!(
                lanes.first(&key),
                self.waiting.get(&key).and_then(|all| all.front())
            );
            if is_chore {
                prop_assert_eq!(self.chores.insert(key, false), Some(true), "nothing to do");
                let urgent =
                    (0..KEYS).any(|key| self.is_waiting(key) && !self.under_way.contains(&key));
                prop_assert!(!urgent, "urgent before idle");
            } else if at_once > 0 {
                at_once -= 1;
                let request = lanes.take_first(&key);
                self.answer(key, request)?;
                continue;
            }
            prop_assert!(lanes.begin(key, ()));
            prop_assert!(!lanes.begin(key, ()), "one task for each key");
            self.under_way.push(key);
        }
        // Nobody waits for nothing.
        let is_full = self.under_way.len() == BOUNDS.tasks;
        for key in 0..KEYS {
            let has_work = self.is_waiting(key) || self.chores.get(&key) == Some(&true);
            prop_assert!(is_full || !has_work || self.under_way.contains(&key));
        }
        Ok(())
    }

    fn end(
        &mut self,
        lanes: &mut Lanes<u8, u32, ()>,
        which: u8,
        done: bool,
    ) -> Result<(), TestCaseError> {
        if self.under_way.is_empty() {
            return Ok(());
        }
        let key = self
            .under_way
            .remove(usize::from(which) % self.under_way.len());
        if done {
            let request = lanes.finish(&key);
            self.answer(key, request)
        } else {
            prop_assert_eq!(lanes.ended(&key), Some(()));
            prop_assert_eq!(lanes.ended(&key), None);
            Ok(())
        }
    }
}

proptest! {
    #[test]
    fn every_request_has_its_turn_in_order_and_every_bound_holds(
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut lanes = Lanes::new(BOUNDS);
        let mut model = Model::default();
        let (mut taken, mut number) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Push(key) => {
                    number += 1;
                    let of_key = model.waiting.get(&key).map_or(0, VecDeque::len);
                    let all: usize = model.waiting.values().map(VecDeque::len).sum();
                    let due = if all >= BOUNDS.requests {
                        Some(Rejection::Full)
                    } else {
                        (of_key >= BOUNDS.requests_of_a_key).then_some(Rejection::KeyFull)
                    };
                    let rejected = lanes.push(key, number).err();
                    prop_assert_eq!(rejected.as_ref().map(|r| (r.why, r.request)), due.map(|d| (d, number)));
                    if rejected.is_none() {
                        model.waiting.entry(key).or_default().push_back(number);
                        taken.push(number);
                    }
                }
                Step::Chore(key) => {
                    lanes.ask_for_chore(key);
                    model.chores.insert(key, true);
                }
                Step::Turns(at_once) => model.turns(&mut lanes, at_once)?,
                Step::End(which, done) => model.end(&mut lanes, which, done)?,
            }
            prop_assert_eq!(lanes.requests(), model.waiting.values().map(VecDeque::len).sum::<usize>());
        }
        model.turns(&mut lanes, 0)?;
        while !model.under_way.is_empty() {
            model.end(&mut lanes, 0, true)?;
            model.turns(&mut lanes, 0)?;
        }
        prop_assert!(lanes.is_at_rest(), "and nothing is left of them");
        model.answered.sort_unstable();
        prop_assert_eq!(model.answered, taken);
    }

    /// The table of outcomes: a refusal never hides that an earlier try may be stored, but for one that would not have been.
    #[test]
    fn what_is_in_doubt_stays_so_until_the_server_says_otherwise(was_in_doubt in any::<bool>()) {
        let resource = Resource::bucket("b");
        let refused = |cause| StoreError::refused(cause, "writing", &resource, "no");
        let after = |error: StoreError| AfterWrite::of(Err(error), was_in_doubt);
        prop_assert_eq!(AfterWrite::of(Ok(3), was_in_doubt), AfterWrite::Stored(3));
        prop_assert_eq!(after(StoreError::conflict(&resource)), AfterWrite::Overtaken);
        let unknown = StoreError::unknown("writing", &resource, "no answer");
        prop_assert_eq!(after(unknown.clone()), AfterWrite::InDoubt(unknown));
        for cause in [Cause::TooLarge, Cause::OtherStore, Cause::NotOwner] {
            prop_assert_eq!(after(refused(cause)), AfterWrite::Refused(refused(cause)));
        }
        let not_sure = refused(Cause::StoreInDoubt);
        prop_assert_eq!(after(not_sure.clone()), AfterWrite::NotYet(not_sure));
        for cause in [Cause::Server, Cause::NotNow, Cause::NoStream, Cause::Unsuited] {
            let error = refused(cause);
            let due = if was_in_doubt {
                AfterWrite::InDoubt(error.clone())
            } else {
                AfterWrite::Refused(error.clone())
            };
            prop_assert_eq!(after(error), due);
        }
    }
}

/// How a try to write ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stored,
    /// Somebody else writes first.
    Overtaken,
    /// No answer comes, and it is stored.
    LostAnswer,
    /// No answer comes, and it is not.
    LostWrite,
    /// The server has no room.
    NoRoom,
    NotSure,
    Panics,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Stored),
        2 => Just(Fate::Overtaken),
        2 => Just(Fate::LostAnswer),
        2 => Just(Fate::LostWrite),
        1 => Just(Fate::NoRoom),
        1 => Just(Fate::NotSure),
        1 => Just(Fate::Panics),
    ]
}

/// A bucket whose values are the ids of the requests that were stored, in order; 0 is somebody else's.
#[derive(Default)]
struct Store {
    values: HashMap<u8, Vec<u32>>,
    fates: VecDeque<Fate>,
    writing: Vec<u8>,
    most_at_once: usize,
    had_two_for_one: bool,
}

type Shared = Arc<Mutex<Store>>;

/// Says for how long a key is written.
struct Writing(Shared, u8);

impl Writing {
    fn begin(store: &Shared, key: u8) -> Self {
        let mut open = store.lock();
        open.had_two_for_one |= open.writing.contains(&key);
        open.writing.push(key);
        open.most_at_once = open.most_at_once.max(open.writing.len());
        Self(store.clone(), key)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.lock().writing.retain(|key| *key != self.1);
    }
}

/// Adds the id of a request to the value of its key.
struct Append {
    store: Shared,
    key: u8,
    id: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Failed {
    NoRoom,
    Contended,
    Lost,
}

impl Append {
    fn present(&self) -> Vec<u32> {
        let store = self.store.lock();
        store.values.get(&self.key).cloned().unwrap_or_default()
    }
}

impl Transition for Append {
    type Present = Vec<u32>;
    type Next = Vec<u32>;
    type Done = usize;
    type Error = Failed;

    const MOST_CONFLICTS: u32 = 3;

    async fn read(&mut self) -> Result<Vec<u32>, Failed> {
        Ok(self.present())
    }

    fn decide(&mut self, mut present: Vec<u32>) -> Result<Decided<Vec<u32>, usize>, Failed> {
        present.push(self.id);
        Ok(Decided::Write(present))
    }

    fn may_write(&self, _next: &Vec<u32>) -> Result<(), Failed> {
        Ok(())
    }

    async fn put(&self, next: &Vec<u32>) -> Result<u64, StoreError> {
        tokio::time::sleep(Duration::from_millis(u64::from(self.id % 7))).await;
        let resource = Resource::bucket("b");
        let mut store = self.store.lock();
        let fate = store.fates.pop_front().unwrap_or(Fate::Stored);
        let value = store.values.entry(self.key).or_default();
        let is_expected = value[..] == next[..next.len() - 1];
        let unknown = || Err(StoreError::unknown("writing", &resource, "no answer"));
        match fate {
            Fate::Overtaken => {
                value.push(0);
                Err(StoreError::conflict(&resource))
            }
            Fate::LostWrite => unknown(),
            Fate::NoRoom => Err(StoreError::refused(
                Cause::Server,
                "writing",
                &resource,
                "full",
            )),
            Fate::NotSure => Err(StoreError::refused(
                Cause::StoreInDoubt,
                "writing",
                &resource,
                "?",
            )),
            Fate::Panics => {
                drop(store);
                panic!("as the test wants it")
            }
            Fate::Stored | Fate::LostAnswer if !is_expected => Err(StoreError::conflict(&resource)),
            Fate::Stored | Fate::LostAnswer => {
                next.clone_into(value);
                if fate == Fate::LostAnswer {
                    return unknown();
                }
                Ok(u64::try_from(next.len()).unwrap())
            }
        }
    }

    async fn look(&mut self, _next: &Vec<u32>) -> Result<Found<Vec<u32>>, Failed> {
        tokio::task::yield_now().await;
        let present = self.present();
        Ok(match present.iter().position(|id| *id == self.id) {
            Some(at) => Found::Mine(u64::try_from(at + 1).unwrap()),
            None if self.id.is_multiple_of(5) && present.len() % 2 == 1 => Found::NotKnown,
            None => Found::Instead(present),
        })
    }

    fn stored(&mut self, _next: Vec<u32>, revision: u64) -> usize {
        usize::try_from(revision).unwrap()
    }

    fn refused(&mut self, _next: Vec<u32>, _error: StoreError) -> Result<Vec<u32>, Failed> {
        Err(Failed::NoRoom)
    }

    fn in_doubt(&self, _next: &Vec<u32>, _error: &StoreError, _is_news: bool) {}

    async fn pause(&self) {
        tokio::time::sleep(Duration::from_millis(3)).await;
        // Somebody else goes on meanwhile, so that a leader that cannot say will.
        self.store
            .lock()
            .values
            .entry(self.key)
            .or_default()
            .push(0);
    }

    fn contended(&self) -> Failed {
        Failed::Contended
    }
}

struct Asked {
    id: u32,
    reply: oneshot::Sender<Result<usize, Failed>>,
}

enum Msg {
    Ask(u8, Asked),
    Ended(u8, Result<Result<usize, Failed>, Panicked>),
    Drain(RpcReplyPort<()>),
}

struct Appender;

struct State {
    store: Shared,
    writer: KeyedWriter<u8, Asked, Msg>,
}

impl Actor for Appender {
    type Msg = Msg;
    type State = State;
    type Arguments = Shared;

    async fn pre_start(
        &self,
        me: ActorRef<Msg>,
        store: Shared,
    ) -> Result<State, ActorProcessingErr> {
        let bounds = Bounds {
            requests: usize::MAX,
            requests_of_a_key: 8,
            ..BOUNDS
        };
        let writer = KeyedWriter::new(me, bounds);
        Ok(State { store, writer })
    }

    async fn handle(
        &self,
        _me: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            // Dropped where it is refused: the channel closes, which is an answer too.
            Msg::Ask(key, asked) => drop(state.writer.push(key, asked)),
            Msg::Ended(key, outcome) => {
                if let Some(asked) = state.writer.finish(&key) {
                    let _ = asked.reply.send(outcome.unwrap_or(Err(Failed::Lost)));
                }
            }
            Msg::Drain(reply) => state.writer.drain(reply),
        }
        while let Some(key) = state.writer.next_turn() {
            let Some(asked) = state.writer.first(&key) else {
                continue;
            };
            let store = state.store.clone();
            let append = Append {
                store: store.clone(),
                key,
                id: asked.id,
            };
            let work = async move {
                let _writing = Writing::begin(&store, key);
                carry_out(append).await
            };
            let ended = move |outcome| Msg::Ended(key, outcome);
            state.writer.begin(key, (), work, ended);
        }
        Ok(())
    }
}

async fn append_all(asks: Vec<u8>, fates: Vec<Fate>) -> Result<(), TestCaseError> {
    let store = Shared::default();
    store.lock().fates = fates.into();
    let (actor, ended) = Actor::spawn(None, Appender, store.clone()).await.unwrap();
    let mut answers = Vec::new();
    for (id, key) in (1..).zip(asks) {
        let (reply, answer) = oneshot::channel();
        actor.cast(Msg::Ask(key, Asked { id, reply })).unwrap();
        answers.push((id, key, answer));
    }
    let drained = actor.call(Msg::Drain, None).await;
    prop_assert!(drained.is_ok_and(|drained| drained.is_success()));
    let (reply, late) = oneshot::channel();
    actor
        .cast(Msg::Ask(0, Asked { id: 99_999, reply }))
        .unwrap();
    prop_assert!(late.await.is_err(), "nothing new is taken");
    let values = store.lock().values.clone();
    let mut told: HashMap<u8, Vec<u32>> = HashMap::new();
    for (id, key, mut answer) in answers {
        let value = values.get(&key).map_or(&[][..], Vec::as_slice);
        let stored = value.iter().filter(|stored| **stored == id).count();
        // After a drain everything has its answer.
        match answer.try_recv() {
            Ok(Ok(at)) => {
                prop_assert_eq!(
                    (stored, value[at - 1]),
                    (1, id),
                    "stored once, and where it was said"
                );
                told.entry(key).or_default().push(id);
            }
            Ok(Err(Failed::Lost)) => prop_assert!(stored <= 1, "a task that panicked"),
            Ok(Err(Failed::NoRoom | Failed::Contended)) => prop_assert_eq!(stored, 0),
            Err(oneshot::error::TryRecvError::Closed) => prop_assert_eq!(stored, 0, "refused"),
            Err(oneshot::error::TryRecvError::Empty) => prop_assert!(false, "not answered"),
        }
    }
    for (key, told) in told {
        let stored = values[&key].iter().filter(|id| told.contains(id));
        prop_assert_eq!(stored.copied().collect::<Vec<_>>(), told, "in order");
    }
    let store = store.lock();
    prop_assert!(!store.had_two_for_one && store.most_at_once <= BOUNDS.tasks);
    actor.stop(None);
    drop(store);
    let _ = ended.await;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn conflicts_lost_answers_and_panics_lose_no_request_and_double_none(
        asks in proptest::collection::vec(0..KEYS, 0..60),
        fates in proptest::collection::vec(fate(), 0..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(append_all(asks, fates))?;
    }
}
