//! One function per promise. Each accuses only where no order of the effects would be innocent.

mod attempts;
mod dead_letters;
mod ends;
mod leases;
mod matching;
mod order;
mod runs;

use super::stories::Stories;
use super::verdict::Violation;

/// Looks for what breaks one promise.
pub(super) type Check = fn(&Stories, &mut Vec<Violation>);

pub(super) const ALL: &[Check] = &[
    ends::every_item_ends,
    ends::nothing_is_there_unasked,
    ends::the_end_is_the_answered_one,
    attempts::one_attempt_at_a_time,
    attempts::no_stale_completion,
    attempts::one_completion,
    attempts::no_more_than_allowed,
    matching::only_those_who_may,
    matching::not_before_its_time,
    order::higher_and_older_first,
    dead_letters::one_for_each_failed_item,
    leases::whoever_keeps_the_clocks_keeps_the_lease,
    runs::no_request_of_a_replaced_run_counts,
];
