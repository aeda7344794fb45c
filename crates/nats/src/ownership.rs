//! Whether somebody who writes owns at this moment.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;

/// Tells whoever writes whether the ownership lasts: a process that was stopped for longer than its
/// lease learns it before its first write. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ownership(Whose);

#[derive(Debug, Clone)]
enum Whose {
    /// Nobody else can own.
    Alone,
    /// Not ours, and it never was.
    NotOurs,
    Leased(Arc<dyn Lease>),
}

/// What an ownership lasts by. How it is kept, and where, is nothing to those who write.
pub(crate) trait Lease: Debug + Send + Sync {
    /// Whether it lasts at this moment.
    fn is_held(&self) -> bool;

    /// Asks the server whether it is still to be had.
    fn is_nobody_elses(&self) -> BoxFuture<'_, bool>;
}

impl Ownership {
    /// Of somebody who is alone on a NATS of his own, and needs no lease.
    pub const fn alone() -> Self {
        Self(Whose::Alone)
    }

    pub(crate) fn leased(lease: impl Lease + 'static) -> Self {
        Self(Whose::Leased(Arc::new(lease)))
    }

    /// Of somebody who has not won any yet.
    pub const fn none() -> Self {
        Self(Whose::NotOurs)
    }

    /// Whether it lasts at this moment.
    pub fn is_held(&self) -> bool {
        match &self.0 {
            Whose::Alone => true,
            Whose::NotOurs => false,
            Whose::Leased(lease) => lease.is_held(),
        }
    }

    /// Asks the server whether it is still to be had: nobody else owns. No where the server does not say.
    pub async fn is_nobody_elses(&self) -> bool {
        match &self.0 {
            Whose::Alone => true,
            Whose::NotOurs => false,
            Whose::Leased(lease) => lease.is_nobody_elses().await,
        }
    }
}
