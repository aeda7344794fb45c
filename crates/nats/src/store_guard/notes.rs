//! What a guard is told: streams that cannot be used, what is to be known of others, and items that are missing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{FollowedStream, Lack, StoreGuard};
use crate::listing::{StreamChange, StreamIdentity, StreamListing};

impl StoreGuard {
    /// The list of all streams of this NATS; `None`: it is not known here.
    pub fn listing(&self) -> Option<&StreamListing> {
        self.0.as_ref().map(|inner| &inner.listing)
    }

    /// The stream was opened, and was this.
    pub fn opened_as(&self, identity: StreamIdentity) {
        if let Some(inner) = &self.0 {
            *inner.opened_as.lock() = Some(identity);
        }
    }

    /// Looks as soon as a list of all streams, or the server, says that the stream is not the one that was looked at; until
    /// [`unfollow`](Self::unfollow).
    pub fn follow(&self) {
        let Some(inner) = &self.0 else {
            return;
        };
        let suspected = Arc::downgrade(inner);
        let followed = inner
            .listing
            .follow(&inner.guarded.stream(), move |change| {
                if let (StreamChange::Other, Some(inner)) = (change, suspected.upgrade()) {
                    Self(Some(inner)).suspect();
                }
            });
        // Without it nothing would speak against the stream before it is looked at the next time.
        if let Some(identity) = *inner.opened_as.lock() {
            followed.note(Some(identity));
        }
        *inner.followed.lock() = Some(followed);
    }

    /// Nobody works with it any more.
    pub fn unfollow(&self) {
        if let Some(inner) = &self.0 {
            *inner.followed.lock() = None;
        }
    }

    /// Whether the last list of all streams says that it is the one that was looked at.
    pub fn is_listed(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| {
            let followed = inner.followed.lock();
            followed.as_ref().is_some_and(FollowedStream::is_as_noted)
        })
    }

    /// Whether its stamp was given, and is not to be learned: it is never forgotten.
    pub fn is_pinned(&self) -> bool {
        let inner = self.0.as_ref();
        inner.is_some_and(|inner| inner.is_pinned.load(Ordering::Acquire))
    }

    /// As [`forget`](Self::forget), unless it is pinned; whether it did.
    pub fn forget_unless_pinned(&self) -> bool {
        let forgets = self.0.is_some() && !self.is_pinned();
        if forgets {
            self.forget();
        }
        forgets
    }

    /// So many items that were acknowledged, and had not ended, are not in the store. Counts where it is more than was
    /// known.
    pub fn lacks(&self, items: usize) {
        if let Some(inner) = &self.0 {
            let mut lacks = inner.lacks.lock();
            if items <= lacks.items {
                return;
            }
            *lacks = Lack {
                items,
                connects: inner.connects(),
            };
            drop(lacks);
            self.suspect();
        }
    }

    /// Whether items are missing, and another server may have come since that was found.
    pub fn may_be_whole_again(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| {
            let lacks = inner.lacks.lock();
            lacks.items > 0 && lacks.connects != inner.connects()
        })
    }

    /// So many items are missing in what the present server holds.
    pub fn compared(&self, connects: u64, items: usize) {
        if let Some(inner) = &self.0 {
            *inner.lacks.lock() = Lack { items, connects };
            inner.to_be_looked_at.notify_one();
        }
    }

    /// What is to be known about a stream of the project that can be used, instead of what was. Logged where it is new.
    pub fn note_warnings(&self, stream: &str, warnings: Vec<String>) {
        let Some(inner) = &self.0 else {
            return;
        };
        let mut known = inner.warnings.lock();
        let before = known.get(stream).map_or(&[][..], Vec::as_slice);
        for warning in warnings.iter().filter(|warning| !before.contains(warning)) {
            tracing::warn!(
                "the stream {stream} of {}: {warning}",
                inner.guarded.whose()
            );
        }
        if warnings.is_empty() {
            known.remove(stream);
        } else {
            known.insert(stream.to_owned(), warnings);
        }
    }

    /// What is to be known about streams of the project, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let Some(inner) = &self.0 else {
            return Vec::new();
        };
        let (whose, warnings) = (inner.guarded.whose(), inner.warnings.lock());
        let each = |(stream, warnings): (&String, &Vec<String>)| {
            let told = |warning| format!("the stream {stream} of {whose}: {warning}");
            warnings.iter().map(told).collect::<Vec<_>>()
        };
        warnings.iter().flat_map(each).collect()
    }

    /// A stream of the project cannot be made or used, for this reason, or can again. Logged when it changes.
    pub fn note_problem(&self, stream: &str, problem: Option<&str>) {
        let Some(inner) = &self.0 else {
            return;
        };
        let mut problems = inner.problems.lock();
        if problems.get(stream).map(String::as_str) == problem {
            return;
        }
        if let Some(problem) = problem {
            tracing::error!(
                "the stream {stream} of {} cannot be used: {problem}",
                inner.guarded.whose()
            );
            problems.insert(stream.to_owned(), problem.to_owned());
        } else {
            tracing::warn!(
                "the stream {stream} of {} can be used again",
                inner.guarded.whose()
            );
            problems.remove(stream);
        }
    }

    /// Nothing is there of the project, so that nothing of it is in the way of anything.
    pub fn forget_problems(&self) {
        if let Some(inner) = &self.0 {
            inner.problems.lock().clear();
        }
    }

    /// What is wrong with streams of the project, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        let Some(inner) = &self.0 else {
            return Vec::new();
        };
        let whose = inner.guarded.whose();
        let problems = inner.problems.lock();
        problems
            .iter()
            .map(|(stream, problem)| {
                format!("the stream {stream} of {whose} cannot be used: {problem}")
            })
            .collect()
    }

    /// What is wrong with one stream of the project.
    pub fn problem_of(&self, stream: &str) -> Option<String> {
        self.0.as_ref()?.problems.lock().get(stream).cloned()
    }
}
