//! From a decision to a known outcome: what follows from the end of a write, and the whole way in one task.

use crate::nats::error::{Cause, StoreError, StoreErrorKind};

/// What follows from how a write has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterWrite {
    /// Stored, with this revision.
    Stored(u64),
    /// Something else is stored, or an earlier try of the same write: the leader knows.
    Overtaken,
    /// Whether it is stored, or will be, is not known.
    InDoubt(StoreError),
    /// It is not known just now whether the store is the right one: again after a pause.
    NotYet(StoreError),
    /// It is not stored, and never will be.
    Refused(StoreError),
}

impl AfterWrite {
    /// `was_in_doubt`: whether the outcome of an earlier try of the same write is not known.
    pub fn of(outcome: Result<u64, StoreError>, was_in_doubt: bool) -> Self {
        let error = match outcome {
            Ok(revision) => return Self::Stored(revision),
            Err(error) => error,
        };
        match error.kind() {
            StoreErrorKind::Conflict => Self::Overtaken,
            StoreErrorKind::Unknown => Self::InDoubt(error),
            StoreErrorKind::Refused(Cause::StoreInDoubt) => Self::NotYet(error),
            // No try was stored: none was small enough. Or whatever is stored is no business of ours any more.
            StoreErrorKind::Refused(Cause::TooLarge | Cause::OtherStore | Cause::NotOwner) => {
                Self::Refused(error)
            }
            StoreErrorKind::Refused(_) if was_in_doubt => Self::InDoubt(error),
            StoreErrorKind::Refused(_) => Self::Refused(error),
        }
    }
}

/// How often in a row a decision was overtaken. What is changed by others all the time is given up for now, so that nobody
/// waits for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conflicts(u32);

impl Conflicts {
    /// One more: whether the decision is to be made again, which is done `most` times in a row. Afterwards counts anew.
    pub const fn decide_again(&mut self, most: u32) -> bool {
        self.0 += 1;
        let may = self.0 <= most;
        if !may {
            self.0 = 0;
        }
        may
    }

    /// A write was stored.
    pub const fn end(&mut self) {
        self.0 = 0;
    }
}

/// What is to be done.
#[derive(Debug)]
pub enum Decided<N, D> {
    /// It is so already, or refused: the request has its outcome.
    Done(D),
    /// This is to be written.
    Write(N),
}

/// What stands in the store instead of what was to be written.
#[derive(Debug)]
pub enum Found<P> {
    /// The write itself, by an earlier try; the write id says so.
    Mine(u64),
    /// Something else, or nothing: to be decided on.
    Instead(P),
    /// The leader cannot say just now; it is asked again after a pause.
    NotKnown,
}

/// One request, carried out in one task by [`carry_out`]: what is read, decided and written.
pub trait Transition: Send {
    /// What a decision is made on, with its revision.
    type Present: Send;
    /// What is to be written, with the condition on the revision and the write id.
    type Next: Send + Sync;
    /// What a request that was carried out comes to.
    type Done: Send;
    /// Why one was not.
    type Error: Send;

    /// How often in a row a decision is made again.
    const MOST_CONFLICTS: u32;

    /// Reads what there is.
    fn read(&mut self) -> impl Future<Output = Result<Self::Present, Self::Error>> + Send;

    /// Decides on that. No I/O.
    fn decide(
        &mut self,
        present: Self::Present,
    ) -> Result<Decided<Self::Next, Self::Done>, Self::Error>;

    /// Whether it may be written just now; asked before each try.
    fn may_write(&self, next: &Self::Next) -> Result<(), Self::Error>;

    /// Writes, if nobody else has meanwhile. The same write each time it is called with the same.
    fn put(&self, next: &Self::Next) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Somebody else has: asks the leader what stands there.
    fn look(
        &mut self,
        next: &Self::Next,
    ) -> impl Future<Output = Result<Found<Self::Present>, Self::Error>> + Send;

    /// It is stored with this revision.
    fn stored(&mut self, next: Self::Next, revision: u64) -> Self::Done;

    /// It is not stored and never will be: why the request ends, or what the decision is made on again (something smaller).
    fn refused(
        &mut self,
        next: Self::Next,
        error: StoreError,
    ) -> Result<Self::Present, Self::Error>;

    /// A write has become in doubt (`is_news`), or still is.
    fn in_doubt(&self, next: &Self::Next, error: &StoreError, is_news: bool);

    /// The pause before a try is repeated; no shorter than it takes for a try to make sense again.
    fn pause(&self) -> impl Future<Output = ()> + Send;

    /// It was decided as often as may be.
    fn contended(&self) -> Self::Error;
}

/// Carries a request out. Ends when its outcome is known, however long that takes.
///
/// # Errors
/// Whatever the transition says.
pub async fn carry_out<T: Transition>(mut transition: T) -> Result<T::Done, T::Error> {
    let mut conflicts = Conflicts::default();
    let mut present = transition.read().await?;
    loop {
        let next = match transition.decide(present)? {
            Decided::Done(done) => return Ok(done),
            Decided::Write(next) => next,
        };
        present = match write(&mut transition, &next).await? {
            Written::At(revision) => return Ok(transition.stored(next, revision)),
            Written::Instead(present) => present,
            Written::Refused(error) => transition.refused(next, error)?,
        };
        if !conflicts.decide_again(T::MOST_CONFLICTS) {
            return Err(transition.contended());
        }
    }
}

/// How a write became known.
enum Written<P> {
    At(u64),
    Instead(P),
    Refused(StoreError),
}

/// Writes until it is known whether this write or another one is stored.
async fn write<T: Transition>(
    transition: &mut T,
    next: &T::Next,
) -> Result<Written<T::Present>, T::Error> {
    let mut in_doubt = false;
    loop {
        transition.may_write(next)?;
        match AfterWrite::of(transition.put(next).await, in_doubt) {
            AfterWrite::Stored(revision) => return Ok(Written::At(revision)),
            AfterWrite::Refused(error) => return Ok(Written::Refused(error)),
            AfterWrite::NotYet(_) => {}
            AfterWrite::InDoubt(error) => {
                let is_news = !std::mem::replace(&mut in_doubt, true);
                transition.in_doubt(next, &error, is_news);
            }
            AfterWrite::Overtaken => match Box::pin(transition.look(next)).await? {
                Found::Mine(revision) => return Ok(Written::At(revision)),
                Found::Instead(present) => return Ok(Written::Instead(present)),
                Found::NotKnown => in_doubt = true,
            },
        }
        Box::pin(transition.pause()).await;
    }
}
