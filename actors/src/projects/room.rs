//! Making room for one more project where no more may be awake.

use std::time::Duration;

use loom_protocol::ProjectId;

use super::Projects;
use super::sleeping::signs_of;
use crate::domain::sleep::why_awake;

/// How long one has been unused that may make room for another one, and how long one is left alone that could not.
const IN_USE: Duration = Duration::from_secs(1);
/// How many are tried for one request: each is asked for its streams. The next request tries others.
const TRIED: usize = 8;

impl Projects {
    /// The one that was unused longest falls asleep, of those that may. False: none may. Costs one look at each project that
    /// is awake, without a request, and the tries.
    pub(super) async fn make_room(&self) -> bool {
        if self.0.limits.sleep_after.is_none() {
            return false;
        }
        for id in self.unused_longest() {
            self.deactivate_unused(id.clone(), IN_USE).await;
            if self.is_asleep(&id) {
                return true;
            }
        }
        false
    }

    /// Those that may make room as far as is known without a request, unused longest first; at most [`TRIED`]. By their ids:
    /// whoever holds a project uses it.
    fn unused_longest(&self) -> Vec<ProjectId> {
        let mut unused: Vec<(Duration, ProjectId)> = self
            .0
            .active
            .iter()
            .filter(|entry| {
                let project = entry.value();
                project.last_use.may_sleep_after(IN_USE)
                    && why_awake(&signs_of(project, 0), IN_USE).is_none()
            })
            .map(|entry| (entry.last_use.unused(), entry.key().clone()))
            .collect();
        longest_first(&mut unused, TRIED);
        unused.into_iter().map(|(_, id)| id).collect()
    }
}

/// The `most` longest, in order. Linear in their number.
fn longest_first<T: Ord>(all: &mut Vec<(Duration, T)>, most: usize) {
    let longer = |one: &(Duration, T), other: &(Duration, T)| other.cmp(one);
    if all.len() > most {
        all.select_nth_unstable_by(most, longer);
        all.truncate(most);
    }
    all.sort_unstable_by(longer);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn those_that_were_unused_longest_are_tried_in_order(seconds in proptest::collection::vec(0..50_u64, 0..40), most in 0..12_usize) {
            let mut all: Vec<_> = seconds.iter().enumerate().map(|(n, s)| (Duration::from_secs(*s), n)).collect();
            let mut sorted = all.clone();
            sorted.sort_by(|one, other| other.cmp(one));
            sorted.truncate(most);
            longest_first(&mut all, most);
            prop_assert_eq!(all, sorted);
        }
    }
}
