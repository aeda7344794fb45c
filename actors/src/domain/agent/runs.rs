//! Two runs of one guid: a copied unit file, a scaled container, a restart that overlaps. The run that
//! registered later is the agent; what an earlier one asks is refused, so that it cannot win again.

use loom_protocol::agent::{Agent, ReplacedRun};
use loom_protocol::{AgentGuid, ErrorCode, Timestamp, WireError};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// How many replaced runs an agent remembers with the time of their end.
pub const MAX_REPLACED: usize = 8;
/// How many more it knows again by a digest. One that is forgotten altogether may register again, as a new one.
pub const MAX_EARLIER: usize = 64;
/// The length of such a digest, in hex digits.
const DIGEST: usize = 12;

/// Which run of an agent a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunVerdict {
    /// The one that is registered; also where the request, or the registration, names none.
    Present,
    /// One whose place was taken, and when; of one that was replaced long ago that is not known.
    Replaced(Option<Timestamp>),
    /// None that has registered, or one that is forgotten: it has to register (again).
    Unknown,
}

/// Judges the `instanceId` that a request names.
pub fn run_verdict(agent: &Agent, said: Option<&str>) -> RunVerdict {
    let Some(said) = said else {
        return RunVerdict::Present;
    };
    let mut replaced = agent.replaced_runs.iter();
    match agent.instance_id.as_deref() {
        Some(present) if present == said => RunVerdict::Present,
        present => match replaced.find(|run| run.instance_id == said) {
            Some(run) => RunVerdict::Replaced(Some(run.at)),
            None if is_earlier(agent, said) => RunVerdict::Replaced(None),
            None if present.is_none() => RunVerdict::Present,
            None => RunVerdict::Unknown,
        },
    }
}

/// Whether a run of an agent has registered: it is the one that is there, or its place was taken.
pub fn has_registered(agent: &Agent, run: &str) -> bool {
    let is_present = agent.instance_id.as_deref() == Some(run);
    is_present || matches!(run_verdict(agent, Some(run)), RunVerdict::Replaced(_))
}

/// The runs whose place was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FormerRuns {
    /// The latest ones.
    pub replaced: Vec<ReplacedRun>,
    /// Digests of those before.
    pub earlier: String,
}

/// The former runs of an agent once `next` has registered; the same run again replaces nothing.
pub fn replaced_by(known: Option<&Agent>, next: Option<&str>, now: Timestamp) -> FormerRuns {
    let Some(known) = known else {
        return FormerRuns::default();
    };
    let mut replaced = known.replaced_runs.clone();
    let mut earlier = known.earlier_runs.clone();
    if let Some(present) = &known.instance_id
        && next != Some(present)
    {
        replaced.push(ReplacedRun {
            instance_id: present.clone(),
            at: now,
        });
    }
    let too_many = replaced.len().saturating_sub(MAX_REPLACED);
    for run in replaced.drain(..too_many) {
        earlier.push_str(&digest(&run.instance_id));
    }
    if let Some(from) = earlier.len().checked_sub(MAX_EARLIER * DIGEST) {
        earlier = earlier.get(from..).unwrap_or_default().to_owned();
    }
    FormerRuns { replaced, earlier }
}

fn is_earlier(agent: &Agent, run: &str) -> bool {
    let earlier = agent.earlier_runs.as_bytes();
    !earlier.is_empty() && {
        let digest = digest(run);
        earlier
            .chunks(DIGEST)
            .any(|known| known == digest.as_bytes())
    }
}

fn digest(run: &str) -> String {
    let hash = Sha256::digest(run.as_bytes());
    let first = hash.iter().take(DIGEST / 2);
    let number = first.fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    format!("{number:0DIGEST$x}")
}

/// Refuses what comes from another run than the registered one.
///
/// # Errors
/// `not-registered`; of a replaced run with `details.replaced`, and who runs now.
pub fn admit(agent: &Agent, said: Option<&str>) -> Result<(), WireError> {
    match run_verdict(agent, said) {
        RunVerdict::Present => Ok(()),
        RunVerdict::Replaced(at) => Err(replaced(agent, at)),
        RunVerdict::Unknown => Err(unknown(agent.guid)),
    }
}

/// Refuses the registration of a run whose place was taken.
///
/// # Errors
/// `not-registered` with `details.replaced`.
pub fn may_register(agent: &Agent, said: Option<&str>) -> Result<(), WireError> {
    match run_verdict(agent, said) {
        RunVerdict::Replaced(at) => Err(replaced(agent, at)),
        RunVerdict::Present | RunVerdict::Unknown => Ok(()),
    }
}

/// The replaced runs without their times.
pub(super) fn timeless(agent: &Agent) -> Vec<ReplacedRun> {
    let mut runs = agent.replaced_runs.clone();
    for run in &mut runs {
        run.at = Timestamp::default();
    }
    runs
}

fn replaced(agent: &Agent, at: Option<Timestamp>) -> WireError {
    let (guid, handle) = (agent.guid, &agent.handle);
    let host = agent.hostname.as_deref();
    let when = at.map_or_else(String::new, |at| format!(", at {at}"));
    let text = format!(
        "another run of agent {guid} has registered since this one{when}: {handle} on host {}; stop the work of \
         this run and end it, or give it a guid of its own",
        host.unwrap_or("unknown")
    );
    WireError::new(ErrorCode::NotRegistered, text).with_details(json!({
        "replaced": true, "handle": handle, "hostname": host,
    }))
}

fn unknown(guid: AgentGuid) -> WireError {
    let text = format!(
        "agent {guid} is registered with another instanceId than this request's; register this run (again)"
    );
    WireError::new(ErrorCode::NotRegistered, text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use loom_protocol::ProjectId;
    use loom_protocol::agent::RegisterRequest;
    use proptest::prelude::*;

    use super::super::{Terms, register};
    use super::*;

    fn registered(known: Option<&Agent>, run: Option<&str>, at: i64) -> Result<Agent, WireError> {
        let project = ProjectId::new("p").unwrap();
        let terms = Terms {
            project: &project,
            heartbeat_every: Duration::from_secs(10),
            now: Timestamp::from_millis(at),
        };
        let request = RegisterRequest {
            handle: format!("run-{:.8}", run.unwrap_or("none")),
            agent_type: "t".into(),
            capabilities: vec!["c".into()],
            instance_id: run.map(str::to_owned),
            ..Default::default()
        };
        let guid = known.map_or_else(AgentGuid::generate, |known| known.guid);
        register(&request, guid, known, false, &terms)
    }

    #[test]
    fn a_run_has_registered_from_its_registration_on_whoever_follows_it() {
        let first = registered(None, Some("a"), 1).unwrap();
        let second = registered(Some(&first), Some("b"), 2).unwrap();
        let unnamed = registered(Some(&second), None, 3).unwrap();
        for (agent, known) in [(&first, "a"), (&second, "ab"), (&unnamed, "ab")] {
            for run in ["a", "b", "c"] {
                assert_eq!(has_registered(agent, run), known.contains(run), "{run}");
            }
        }
    }

    #[test]
    fn the_later_of_two_runs_is_the_agent_and_the_earlier_one_is_told_so() {
        let first = registered(None, Some("a"), 1).unwrap();
        let second = registered(Some(&first), Some("b"), 2).unwrap();
        assert!(admit(&second, Some("b")).is_ok() && admit(&second, None).is_ok());
        let refusal = admit(&second, Some("a")).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::NotRegistered);
        assert_eq!(refusal.details.unwrap()["replaced"], true);
        assert!(refusal.message.contains("run-b"), "{}", refusal.message);
        let again = registered(Some(&second), Some("a"), 3).unwrap_err();
        assert_eq!(again.details.unwrap()["replaced"], true);
    }

    #[test]
    fn a_registration_without_an_instance_id_replaces_a_run_that_has_one() {
        let first = registered(None, Some("a"), 1).unwrap();
        let second = registered(Some(&first), None, 2).unwrap();
        assert!(matches!(
            run_verdict(&second, Some("a")),
            RunVerdict::Replaced(_)
        ));
        assert!(admit(&second, None).is_ok() && admit(&second, Some("new")).is_ok());
    }

    #[test]
    fn an_id_that_nobody_registered_with_has_to_register() {
        let agent = registered(None, Some("a"), 1).unwrap();
        let refusal = admit(&agent, Some("made up")).unwrap_err();
        assert_eq!(
            (refusal.code, refusal.details),
            (ErrorCode::NotRegistered, None)
        );
    }

    #[test]
    fn an_instance_id_that_is_no_token_is_refused() {
        for bad in ["", "two words", "ü", &"x".repeat(65)] {
            let refusal = registered(None, Some(bad), 1).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::InvalidToken, "{bad:?}");
        }
        assert!(registered(None, Some(&"x".repeat(64)), 1).is_ok());
    }

    #[test]
    fn of_many_runs_one_that_was_replaced_long_ago_is_still_known() {
        let mut agent = registered(None, Some("0"), 0).unwrap();
        for run in 1..=80 {
            agent = registered(Some(&agent), Some(&run.to_string()), run).unwrap();
        }
        assert_eq!(agent.replaced_runs.len(), MAX_REPLACED);
        assert_eq!(agent.earlier_runs.len(), MAX_EARLIER * DIGEST);
        let verdict = |run: i64| run_verdict(&agent, Some(&run.to_string()));
        assert_eq!(
            verdict(79),
            RunVerdict::Replaced(Some(Timestamp::from_millis(80)))
        );
        // 79 to 72 by name, 71 to 8 by their digests.
        assert_eq!(
            (verdict(71), verdict(8)),
            (RunVerdict::Replaced(None), RunVerdict::Replaced(None))
        );
        assert_eq!(verdict(7), RunVerdict::Unknown);
        let refusal = registered(Some(&agent), Some("8"), 81).unwrap_err();
        assert_eq!(refusal.details.unwrap()["replaced"], true);
        assert!(!refusal.message.contains(", at "), "{}", refusal.message);
    }

    proptest! {
        /// Whatever runs register in whatever order: exactly the last accepted one is the agent, no replaced one gets
        /// in, and no more than eight are kept by name.
        #[test]
        fn a_replaced_run_never_wins_again(runs in proptest::collection::vec(0_u8..12, 1..60)) {
            let mut agent = registered(None, Some("first"), 0).unwrap();
            let mut order = vec!["first".to_owned()];
            for (at, run) in runs.into_iter().enumerate() {
                let run = run.to_string();
                let before = order.last() != Some(&run)
                    && order.iter().rev().skip(1).any(|earlier| *earlier == run);
                match registered(Some(&agent), Some(&run), i64::try_from(at).unwrap()) {
                    Ok(next) => {
                        prop_assert!(!before, "{run} has won again");
                        if order.last() != Some(&run) {
                            order.push(run.clone());
                        }
                        agent = next;
                    }
                    Err(_) => prop_assert!(before, "{run} was refused"),
                }
                prop_assert!(agent.replaced_runs.len() <= MAX_REPLACED);
                prop_assert_eq!(agent.instance_id.as_ref(), order.last());
                prop_assert_eq!(run_verdict(&agent, order.last().map(String::as_str)), RunVerdict::Present);
                for earlier in order.iter().rev().skip(1) {
                    prop_assert!(admit(&agent, Some(earlier)).is_err(), "{earlier} is let in");
                }
            }
        }
    }
}
