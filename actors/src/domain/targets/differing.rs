//! What two versions of a list differ by.

/// What two lists have between the beginning and the end that both have. One that comes, goes or changes is all of it; of
/// several it may be what lies between them too.
pub(crate) fn differing<'b, 'n, T>(
    before: &'b [T],
    now: &'n [T],
    is_same: impl Fn(&T, &T) -> bool,
) -> (&'b [T], &'n [T]) {
    let pairs = before.iter().zip(now);
    let begin = pairs.take_while(|(one, other)| is_same(one, other)).count();
    let (before, now) = (&before[begin..], &now[begin..]);
    let pairs = before.iter().rev().zip(now.iter().rev());
    let end = pairs.take_while(|(one, other)| is_same(one, other)).count();
    (&before[..before.len() - end], &now[..now.len() - end])
}
