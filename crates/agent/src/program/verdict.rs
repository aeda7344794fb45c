//! From what a program says and how it ended to what the run came to. Pure.

use super::facts::{Facts, ResultEvent};
use crate::limit_met::Class;

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Code(u8),
    /// By a signal.
    Signal,
    /// It had told its result, did not exit, and was ended.
    Lingering,
    /// It was silent, or ran, for too long, and was ended.
    TimedOut,
}

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The work is done.
    Done,
    /// It failed, by the program's own word.
    Failed,
    /// It ended without a word of what it came to.
    NoResult,
    /// Tools were denied to it, and it changed nothing.
    Denied,
    /// It was silent, or ran, for too long.
    TimedOut,
    /// It is nobody's failure.
    Unspent(Class),
}

/// The verdict; the result counts first, then whose matter it is, then how the program ended.
///
/// | result | tools denied, nothing changed | class | ended | verdict |
/// |---|---|---|---|---|
/// | good | no | any | any | done |
/// | good | yes | any | any | denied |
/// | bad | any | one | any | unspent |
/// | bad | no | none | any | failed |
/// | bad | yes | none | any | denied |
/// | none | any | one | any | unspent |
/// | none | any | none | timed out | timed out |
/// | none | yes | none | any other | denied |
/// | none | no | none | any other | no result |
pub const fn verdict(
    result: Option<&ResultEvent>,
    ended: Ended,
    class: Option<Class>,
    is_denied: bool,
) -> Verdict {
    match (result, class, ended) {
        (Some(ResultEvent::Good), _, _) if is_denied => Verdict::Denied,
        (Some(ResultEvent::Good), _, _) => Verdict::Done,
        (_, Some(class), _) => Verdict::Unspent(class),
        (None, None, Ended::TimedOut) => Verdict::TimedOut,
        (_, None, _) if is_denied => Verdict::Denied,
        (Some(ResultEvent::Bad { .. }), None, _) => Verdict::Failed,
        (None, None, _) => Verdict::NoResult,
    }
}

/// Whether tools were denied, and nothing came of the run. Where nobody knows whether it changed anything, it may have.
pub fn is_denied(facts: &Facts, has_changed: Option<bool>) -> bool {
    !facts.denied.is_empty() && has_changed == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table: each result, each class, each end, denied or not.
    #[test]
    fn every_combination_has_the_verdict_of_the_table() {
        let bad = ResultEvent::Bad {
            code: "x".into(),
            message: "y".into(),
        };
        let classes = [
            None,
            Some(Class::Limit),
            Some(Class::Outage),
            Some(Class::Account),
        ];
        let ends = [
            Ended::Code(0),
            Ended::Code(1),
            Ended::Code(137),
            Ended::Signal,
            Ended::Lingering,
            Ended::TimedOut,
        ];
        let mut looked_at = 0;
        for class in classes {
            for ended in ends {
                for is_denied in [false, true] {
                    let of = |result| verdict(result, ended, class, is_denied);
                    let good = if is_denied {
                        Verdict::Denied
                    } else {
                        Verdict::Done
                    };
                    assert_eq!(of(Some(&ResultEvent::Good)), good);
                    let (failed, nothing) = match (class, is_denied) {
                        (Some(class), _) => (Verdict::Unspent(class), Verdict::Unspent(class)),
                        (None, true) => (Verdict::Denied, Verdict::Denied),
                        (None, false) => (Verdict::Failed, Verdict::NoResult),
                    };
                    assert_eq!(of(Some(&bad)), failed);
                    let nothing = match (class, ended) {
                        (None, Ended::TimedOut) => Verdict::TimedOut,
                        _ => nothing,
                    };
                    assert_eq!(of(None), nothing);
                    looked_at += 3;
                }
            }
        }
        assert_eq!(looked_at, 4 * 6 * 2 * 3);
    }

    #[test]
    fn denied_tools_matter_only_where_nothing_is_known_to_have_changed() {
        let mut facts = Facts::default();
        assert!(!is_denied(&facts, Some(false)));
        facts.deny("Bash");
        assert!(is_denied(&facts, Some(false)));
        assert!(!is_denied(&facts, Some(true)) && !is_denied(&facts, None));
    }
}
