//! Subjects of NATS and filters over them, compared token by token.

/// Whether there is a subject that both filters match (or that one of them is).
pub fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

/// Whether a consumer with these filters, of which none means everything, gets messages that one of `ours` gets.
pub fn takes_of(filters: &[String], ours: &[String]) -> bool {
    filters.is_empty()
        || filters
            .iter()
            .any(|theirs| ours.iter().any(|ours| overlap(theirs, ours)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Written in another way than what is tested.
    fn matches(filter: &[&str], subject: &[&str]) -> bool {
        match (filter.split_first(), subject.split_first()) {
            (None, None) | (Some((&">", [])), Some(_)) => true,
            (Some((first, rest)), Some((token, tokens))) => {
                (*first == "*" || first == token) && matches(rest, tokens)
            }
            _ => false,
        }
    }

    fn all_subjects() -> Vec<Vec<&'static str>> {
        let mut all: Vec<Vec<&str>> = vec![vec![]];
        let mut last = all.clone();
        for _ in 0..4 {
            last = last
                .iter()
                .flat_map(|begin| ["a", "b"].map(|token| [begin.as_slice(), &[token]].concat()))
                .collect();
            all.extend(last.clone());
        }
        all.retain(|subject| !subject.is_empty());
        all
    }

    fn filters() -> impl Strategy<Value = String> {
        let tokens = prop::collection::vec(prop::sample::select(vec!["a", "b", "*"]), 1..4);
        (tokens, any::<bool>()).prop_map(|(tokens, open)| {
            let begin = tokens.join(".");
            if open { format!("{begin}.>") } else { begin }
        })
    }

    proptest! {
        #[test]
        fn two_filters_overlap_where_a_subject_matches_both(one in filters(), other in filters()) {
            let split = |filter: &str| filter.split('.').map(str::to_owned).collect::<Vec<_>>();
            let (a, b) = (split(&one), split(&other));
            let a: Vec<_> = a.iter().map(String::as_str).collect();
            let b: Vec<_> = b.iter().map(String::as_str).collect();
            let common = all_subjects().iter().any(|s| matches(&a, s) && matches(&b, s));
            prop_assert_eq!(overlap(&one, &other), common);
            prop_assert_eq!(overlap(&other, &one), common);
        }
    }

    #[test]
    fn no_filter_is_everything() {
        let ours = ["loom.p.work.queue.*".to_owned()];
        assert!(takes_of(&[], &ours));
        assert!(takes_of(&[">".into()], &ours));
        assert!(takes_of(
            &["x".into(), "loom.*.work.queue.rust".into()],
            &ours
        ));
        assert!(!takes_of(&["loom.p.work.completed".into()], &ours));
        assert!(!takes_of(&["loom.q.work.queue.rust".into()], &ours));
    }
}
