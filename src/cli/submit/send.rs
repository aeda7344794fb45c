//! Sends what may be sent again: every item has its id, so nothing is doubled.

use std::time::Duration;

use tokio::time::Instant;

use crate::api_client::ApiError;
use crate::cli::output::note;

/// How long a request is tried again after its first failure.
const PATIENCE: Duration = Duration::from_mins(1);
/// After how long a refusal for the moment is told; most are over by then.
const TOLD_AFTER: Duration = Duration::from_secs(2);
/// The first pause where the coordinator names none, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// An answer.
#[derive(Debug)]
pub(super) struct Answered<T> {
    pub answer: T,
    /// Whether an earlier try of the same request got no answer: what is said to be there already
    /// may be there by that one.
    pub was_in_doubt: bool,
}

/// A request that got no answer to use.
#[derive(Debug)]
pub(super) struct GivenUp {
    pub error: ApiError,
    /// Whether it may have been done all the same.
    pub in_doubt: bool,
}

/// Sends until there is an answer: what was refused for the moment, after the time that the
/// coordinator names; and what got no answer. `reached`: the coordinator answered before, so that
/// it is waited for where nobody is there now.
pub(super) async fn patiently<T, F>(
    reached: bool,
    send: impl Fn() -> F,
) -> Result<Answered<T>, GivenUp>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let mut was_in_doubt = false;
    let mut first_failure: Option<Instant> = None;
    let mut next_pause = PAUSES.0;
    let mut is_told = false;
    loop {
        let error = match send().await {
            Ok(answer) => {
                return Ok(Answered {
                    answer,
                    was_in_doubt,
                });
            }
            Err(error) => error,
        };
        was_in_doubt |= matches!(error, ApiError::InDoubt(_));
        let is_news = first_failure.is_none();
        let since = *first_failure.get_or_insert_with(Instant::now);
        let nobody_was_there = matches!(error, ApiError::Unreachable(_)) && is_news && !reached;
        let is_over = !is_news && since.elapsed() >= PATIENCE;
        if !error.is_transient() || nobody_was_there || is_over {
            return Err(GivenUp {
                error,
                in_doubt: was_in_doubt,
            });
        }
        let is_due = error.code().is_none() || since.elapsed() >= TOLD_AFTER;
        if is_due && !is_told {
            is_told = true;
            let left = PATIENCE.saturating_sub(since.elapsed()).as_secs();
            note(&format!(
                "{error}; it is sent again, under the same ids, for {left} s more"
            ));
        }
        tokio::time::sleep(error.asked_pause().unwrap_or(next_pause).min(PATIENCE)).await;
        next_pause = (next_pause * 2).min(PAUSES.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom_protocol::WireError;
    use std::cell::RefCell;

    /// Answers with these, one after the other, and then with `true` for ever.
    async fn sent(
        reached: bool,
        failures: Vec<ApiError>,
    ) -> (Result<Answered<bool>, GivenUp>, Duration) {
        let failures = RefCell::new(failures.into_iter());
        let start = Instant::now();
        let next = || {
            let failure = failures.borrow_mut().next();
            async move { failure.map_or(Ok(true), Err) }
        };
        let outcome = patiently(reached, next).await;
        (outcome, start.elapsed())
    }

    fn overloaded(millis: u64) -> ApiError {
        ApiError::Refused(WireError::unavailable(
            "later",
            Duration::from_millis(millis),
        ))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_for_the_moment_is_sent_after_the_time_that_is_named() {
        let (outcome, took) = sent(false, vec![overloaded(7_000), overloaded(500)]).await;
        let answered = outcome.unwrap();
        assert!(answered.answer && !answered.was_in_doubt);
        assert_eq!(took.as_millis(), 7_500);
    }

    #[tokio::test(start_paused = true)]
    async fn what_got_no_answer_is_sent_again_and_stays_in_doubt() {
        let failures = vec![
            ApiError::InDoubt("broke off".into()),
            ApiError::Unreachable("restarting".into()),
        ];
        assert!(sent(false, failures).await.0.unwrap().was_in_doubt);
    }

    #[tokio::test(start_paused = true)]
    async fn a_coordinator_that_was_never_there_is_not_waited_for() {
        let nobody = || vec![ApiError::Unreachable("nobody".into())];
        let given_up = sent(false, nobody()).await.0.unwrap_err();
        assert!(!given_up.in_doubt);
        assert!(sent(true, nobody()).await.0.is_ok());
        let for_good = ApiError::Refused(WireError::invalid("no"));
        assert!(sent(true, vec![for_good]).await.0.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn patience_has_an_end() {
        let failures = (0..1_000).map(|_| ApiError::InDoubt("no answer".into()));
        let (outcome, took) = sent(true, failures.collect()).await;
        assert!(outcome.unwrap_err().in_doubt);
        assert!(
            took >= PATIENCE && took < PATIENCE + PAUSES.1 * 2,
            "{took:?}"
        );
    }
}
