//! The steps of a birth. A coordinator may die between any two of them, and tests let it.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

/// A step of a birth that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BirthStep {
    /// The start stands in the record of its target.
    Recorded,
    /// The mechanism has started it.
    Launched,
    /// Its reference stands in the record.
    Referenced,
    /// The end of the operation is written, and the record has it still.
    EndWritten,
    /// The operation has left the record.
    Decided,
}

impl BirthStep {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [
        Self::Recorded,
        Self::Launched,
        Self::Referenced,
        Self::EndWritten,
        Self::Decided,
    ];
}

/// Is told each [`BirthStep`] once it is done, and waited for; by default nobody is. Cheap to clone.
#[derive(Clone, Default)]
pub struct BirthStepHook(Option<Arc<Hook>>);

type Hook = dyn Fn(BirthStep) -> BoxFuture<'static, ()> + Send + Sync;

impl BirthStepHook {
    /// Tells `hook`, and goes on when its future has ended.
    pub fn new(hook: impl Fn(BirthStep) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    pub(super) async fn reached(&self, step: BirthStep) {
        if let Some(hook) = &self.0 {
            hook(step).await;
        }
    }
}

impl fmt::Debug for BirthStepHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BirthStepHook")
    }
}
