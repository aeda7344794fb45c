//! What an exit code means for the item. Pure.

use std::fmt;
use std::ops::RangeInclusive;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::str::FromStr;
use std::time::Duration;

/// What becomes of an item when its program has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitVerdict {
    /// It is done.
    Complete,
    /// This attempt failed; another may help, not before the pause is over.
    Retry(Option<Duration>),
    /// It failed for good: a dead letter.
    Permanent,
    /// It goes back unspent, to another agent first.
    Release,
}

/// One `--exit-code WHICH=WHAT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitRule {
    which: Vec<Which>,
    verdict: ExitVerdict,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    Codes(RangeInclusive<u8>),
    Signal,
    Other,
}

/// A rule that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{rule:?} is no exit-code rule: {problem}; write WHICH=WHAT, like 2=permanent, 3-9=retry:30s, signal=release or other=permanent"
)]
pub struct ExitRuleError {
    rule: String,
    problem: String,
}

impl FromStr for ExitRule {
    type Err = ExitRuleError;

    fn from_str(rule: &str) -> Result<Self, ExitRuleError> {
        let read = || {
            let (which, what) = rule.split_once('=').ok_or("the '=' is missing")?;
            Ok(Self {
                which: which.split(',').map(read_which).collect::<Result<_, _>>()?,
                verdict: read_verdict(what.trim())?,
            })
        };
        read().map_err(|problem: String| ExitRuleError {
            rule: rule.into(),
            problem,
        })
    }
}

fn read_which(text: &str) -> Result<Which, String> {
    let text = text.trim();
    let code = |code: &str| {
        code.trim()
            .parse::<u8>()
            .map_err(|_| format!("{code:?} is no exit code from 0 to 255"))
    };
    match (text, text.split_once('-')) {
        ("other", _) => Ok(Which::Other),
        ("signal", _) => Ok(Which::Signal),
        (_, Some((first, last))) => {
            let range = code(first)?..=code(last)?;
            if range.is_empty() {
                return Err(format!("{text:?} has its end before its beginning"));
            }
            Ok(Which::Codes(range))
        }
        (_, None) => code(text).map(|code| Which::Codes(code..=code)),
    }
}

fn read_verdict(text: &str) -> Result<ExitVerdict, String> {
    match text.split_once(':') {
        None => match text {
            "complete" => Ok(ExitVerdict::Complete),
            "retry" => Ok(ExitVerdict::Retry(None)),
            "permanent" => Ok(ExitVerdict::Permanent),
            "release" => Ok(ExitVerdict::Release),
            _ => Err(format!(
                "{text:?} is none of complete, retry, retry:PAUSE, permanent, release"
            )),
        },
        Some(("retry", pause)) => humantime::parse_duration(pause)
            .map(|pause| ExitVerdict::Retry(Some(pause)))
            .map_err(|e| format!("{pause:?} is no pause ({e})")),
        Some((what, _)) => Err(format!("{what:?} takes no pause, only retry does")),
    }
}

/// All rules together. Of several that match, the last one given counts; a rule for a code counts
/// before `signal`, and that before `other`.
///
/// Without rules: 0 completes, everything else is retried (75, `EX_TEMPFAIL`, stays so unless a rule
/// names it: `other` does not mean it).
#[derive(Debug, Clone, Default)]
pub struct ExitRules(Vec<ExitRule>);

/// The exit code by which a program says that it failed for the time being.
const TEMPORARY_FAILURE: u8 = 75;

impl ExitRules {
    /// Takes the rules in the order in which they were given.
    pub const fn new(rules: Vec<ExitRule>) -> Self {
        Self(rules)
    }

    /// What the end of a program means.
    pub fn verdict(&self, exit: Exit) -> ExitVerdict {
        let last_of = |matches: &dyn Fn(&Which) -> bool| {
            let rules = self.0.iter().rev();
            let mut matching = rules.filter(|rule| rule.which.iter().any(matches));
            matching.next().map(|rule| rule.verdict)
        };
        let other = || last_of(&|which| *which == Which::Other);
        let own = match exit {
            Exit::Code(code) => {
                last_of(&|which| matches!(which, Which::Codes(codes) if codes.contains(&code)))
            }
            Exit::Signal(_) => last_of(&|which| *which == Which::Signal),
        };
        match (own, exit) {
            (Some(verdict), _) => verdict,
            (None, Exit::Code(0)) => ExitVerdict::Complete,
            (None, Exit::Code(TEMPORARY_FAILURE)) => ExitVerdict::Retry(None),
            (None, _) => other().unwrap_or(ExitVerdict::Retry(None)),
        }
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> ExitRules {
        ExitRules::new(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn without_rules_zero_completes_and_the_rest_is_retried() {
        let rules = rules(&[]);
        assert_eq!(rules.verdict(Exit::Code(0)), ExitVerdict::Complete);
        for code in [1, 2, 75, 127, 255] {
            assert_eq!(rules.verdict(Exit::Code(code)), ExitVerdict::Retry(None));
        }
        assert_eq!(rules.verdict(Exit::Signal(9)), ExitVerdict::Retry(None));
    }

    #[test]
    fn the_more_particular_rule_counts_and_then_the_later() {
        let rules = rules(&[
            "2=permanent",
            "other=permanent",
            "3-9,40=retry:30s",
            "5=complete",
            "signal=release",
        ]);
        let pause = ExitVerdict::Retry(Some(Duration::from_secs(30)));
        for (code, verdict) in [
            (0, ExitVerdict::Complete),
            (1, ExitVerdict::Permanent),
            (2, ExitVerdict::Permanent),
            (3, pause),
            (5, ExitVerdict::Complete),
            (9, pause),
            (40, pause),
            (75, ExitVerdict::Retry(None)),
        ] {
            assert_eq!(rules.verdict(Exit::Code(code)), verdict, "{code}");
        }
        assert_eq!(rules.verdict(Exit::Signal(15)), ExitVerdict::Release);
    }

    #[test]
    fn temporary_failure_can_be_named() {
        let rules = rules(&["75=retry:5m"]);
        let pause = ExitVerdict::Retry(Some(Duration::from_mins(5)));
        assert_eq!(rules.verdict(Exit::Code(75)), pause);
    }

    #[test]
    fn what_is_no_rule_is_explained() {
        for (bad, hint) in [
            ("2", "'='"),
            ("256=retry", "256"),
            ("-1=retry", "no exit code"),
            ("9-3=retry", "before"),
            ("2=maybe", "maybe"),
            ("2=retry:soon", "soon"),
            ("2=complete:5s", "takes no pause"),
            ("=retry", "no exit code"),
        ] {
            let error = bad.parse::<ExitRule>().unwrap_err().to_string();
            assert!(error.contains(hint), "{bad}: {error}");
        }
    }
}
