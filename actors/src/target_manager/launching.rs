//! One start, from its record on: begun by its mechanism, or looked for after a crash; watched until its agent is born
//! or it has ended. A task for each; what it learns it tells the actor, which writes it down.
//!
//! | it begins with | it asks | then |
//! |---|---|---|
//! | a start that was just recorded | the ownership; then the mechanism is to start it | below |
//! | one that was recorded by an earlier incarnation | the mechanism what became of it | below |
//!
//! | the mechanism says | told is | then |
//! |---|---|---|
//! | started, or running | its reference | its end is watched |
//! | surely not started, and it won't be | over | – |
//! | in doubt | – | it is asked what became of it |
//! | absent | of one that was just recorded nothing: it is started again under the same id; of an older one, that it is to be begun again | – |
//! | it has ended | over, with its output | – |
//! | it cannot say | nothing: its birth tells, or the end of its time | it is asked again |

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use loom_protocol::SpinUpId;
use serde_json::Value;
use tokio::time::sleep;

use super::birth_step::{BirthStep, BirthStepHook};
use super::mechanism::{AgentEnd, FailureKind, Found, Mechanism, Start, StartFailure};
use crate::nats::owner::Ownership;

/// How often a start that is in doubt and not to be found is repeated.
const TRIES: u32 = 3;
/// The pause before it is looked at again what became of a start; doubles up to the longest.
const LOOK_FIRST: Duration = Duration::from_millis(500);
const LOOK_MAX: Duration = Duration::from_secs(15);

/// What a start has come to.
#[derive(Debug)]
pub enum LaunchNews {
    /// It was begun: by this it is found again.
    Started(Value),
    /// It surely never began, and its ticket is lost.
    NeverBegan,
    /// There will be no agent.
    Over {
        /// Why.
        error: String,
        /// The end of what it said, without secrets.
        output: Option<String>,
        /// Whether something of it may live.
        may_live: bool,
    },
    /// This coordinator owns no longer: it begins nothing.
    NotOurs,
}

/// How a start comes here.
pub(super) enum Beginning {
    /// It was just recorded.
    New(Box<Start>),
    /// It was recorded earlier.
    Recorded {
        /// What it was found by then.
        reference: Option<Value>,
        /// Where it was recorded, if it is not to be seen from everywhere.
        place: Option<String>,
    },
}

/// One start.
pub(super) struct Launch<T> {
    pub id: SpinUpId,
    pub mechanism: Arc<dyn Mechanism>,
    pub ownership: Ownership,
    pub on_step: BirthStepHook,
    /// Told what it has come to.
    pub tell: T,
}

/// The pauses between looks, which grow.
struct Pauses(Duration);

impl Pauses {
    const fn new() -> Self {
        Self(LOOK_FIRST)
    }

    async fn pause(&mut self) {
        sleep(self.0).await;
        self.0 = LOOK_MAX.min(self.0 * 2);
    }
}

impl<T: Fn(LaunchNews) + Send + Sync> Launch<T> {
    /// Ends when there is nothing more to be told.
    pub async fn run(self, beginning: Beginning) {
        match beginning {
            Beginning::New(start) => self.begin(&start).await,
            Beginning::Recorded { reference, place } => {
                self.find(reference, place.as_deref(), false).await;
            }
        }
    }

    async fn begin(&self, start: &Start) {
        self.on_step.reached(BirthStep::Recorded).await;
        let mut pauses = Pauses::new();
        for tries_left in (0..TRIES).rev() {
            if !self.ownership.is_held() {
                return (self.tell)(LaunchNews::NotOurs);
            }
            let begun = self.mechanism.start(start).await;
            let failure = match begun {
                Ok(started) => {
                    self.on_step.reached(BirthStep::Launched).await;
                    (self.tell)(LaunchNews::Started(started.reference.clone()));
                    return self.watch(started.reference, started.end).await;
                }
                Err(failure) => failure,
            };
            let StartFailure {
                kind,
                message,
                output,
            } = failure;
            if kind == FailureKind::NotStarted {
                return self.over(message, output, false);
            }
            match self.once_known().await {
                Found::Running(reference) => {
                    (self.tell)(LaunchNews::Started(reference.clone()));
                    return self.watch(reference, None).await;
                }
                Found::Ended { output: said } => {
                    let error = format!("{message}; it has ended before its agent registered");
                    return self.over(error, said.or(output), true);
                }
                Found::Absent if tries_left == 0 => return self.over(message, output, true),
                // Its ticket is known still: the same start once more.
                Found::Absent | Found::Unknown { .. } => pauses.pause().await,
            }
        }
    }

    /// Asks what became of it, until it has ended. `place`: where it was recorded, which matters while it has no
    /// reference. `is_told`: whether its reference was told.
    async fn find(&self, mut reference: Option<Value>, place: Option<&str>, mut is_told: bool) {
        let mut pauses = Pauses::new();
        loop {
            let found = match &reference {
                Some(reference) => self.mechanism.find(self.id, Some(reference)).await,
                None => self.mechanism.find_recorded(self.id, place).await,
            };
            match found {
                Ok(Found::Running(found)) => {
                    if !is_told || reference.as_ref() != Some(&found) {
                        (self.tell)(LaunchNews::Started(found.clone()));
                    }
                    is_told = true;
                    reference = Some(found);
                }
                Ok(Found::Absent) if reference.is_none() => {
                    return (self.tell)(LaunchNews::NeverBegan);
                }
                Ok(Found::Absent) => return self.ended(None),
                Ok(Found::Ended { output }) => return self.ended(output),
                Ok(Found::Unknown { why }) => {
                    tracing::debug!(id = %self.id, "what became of a start is not known: {why}");
                }
                Err(why) => {
                    tracing::debug!(id = %self.id, "what became of a start cannot be asked: {why}");
                }
            }
            pauses.pause().await;
        }
    }

    /// Watches the end of what was begun.
    async fn watch(&self, reference: Value, end: Option<BoxFuture<'static, AgentEnd>>) {
        let Some(end) = end else {
            return self.find(Some(reference), None, true).await;
        };
        let AgentEnd { how, output } = end.await;
        // What it has left behind may be the agent.
        let found = self.mechanism.find(self.id, Some(&reference)).await;
        if let Ok(Found::Running(found)) = found {
            let is_told = found == reference;
            self.find(Some(found), None, is_told).await;
        } else {
            let error = format!("it ended before its agent registered: {how}");
            self.over(error, output, true);
        }
    }

    /// Asks until the mechanism says something that it knows.
    async fn once_known(&self) -> Found {
        let mut pauses = Pauses::new();
        loop {
            match self.mechanism.find(self.id, None).await {
                Ok(Found::Unknown { why }) | Err(why) => {
                    tracing::debug!(id = %self.id, "a start is in doubt: {why}");
                }
                Ok(found) => return found,
            }
            pauses.pause().await;
        }
    }

    fn ended(&self, output: Option<String>) {
        let error = "it ended before its agent registered".to_owned();
        self.over(error, output, true);
    }

    fn over(&self, error: String, output: Option<String>, may_live: bool) {
        (self.tell)(LaunchNews::Over {
            error,
            output,
            may_live,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt as _;
    use loom_protocol::target::{BirthTicket, Mechanism as Kind, SpinUpOperation, SpinUpStatus};
    use loom_protocol::{ProjectId, TargetId, Timestamp};
    use parking_lot::Mutex;
    use serde_json::json;

    use super::super::mechanism::{Started, Stopped};
    use super::*;

    /// A mechanism that says what it was told to, in this order; afterwards that it cannot say.
    #[derive(Default)]
    struct Scripted {
        starts: Mutex<VecDeque<Result<Value, FailureKind>>>,
        finds: Mutex<VecDeque<Found>>,
        started: Mutex<usize>,
    }

    impl Mechanism for Scripted {
        fn start<'a>(&'a self, _start: &'a Start) -> BoxFuture<'a, Result<Started, StartFailure>> {
            *self.started.lock() += 1;
            let next = self.starts.lock().pop_front();
            let outcome = next.unwrap_or(Err(FailureKind::InDoubt));
            async move {
                let started = |reference| Started {
                    reference,
                    end: None,
                };
                outcome.map(started).map_err(|kind| StartFailure {
                    kind,
                    message: "no luck".into(),
                    output: None,
                })
            }
            .boxed()
        }

        fn find<'a>(
            &'a self,
            _id: SpinUpId,
            _reference: Option<&'a Value>,
        ) -> BoxFuture<'a, Result<Found, String>> {
            let next = self.finds.lock().pop_front();
            async move { next.ok_or_else(|| "it cannot say".to_owned()) }.boxed()
        }

        fn place(&self) -> Option<String> {
            Some("here".to_owned())
        }

        fn find_recorded<'a>(
            &'a self,
            id: SpinUpId,
            place: Option<&'a str>,
        ) -> BoxFuture<'a, Result<Found, String>> {
            if place.is_some_and(|place| place != "here") {
                return async { Err("that is elsewhere".to_owned()) }.boxed();
            }
            self.find(id, None)
        }

        fn stop<'a>(
            &'a self,
            _id: SpinUpId,
            _reference: Option<&'a Value>,
            _grace: Duration,
        ) -> BoxFuture<'a, Result<Stopped, String>> {
            async { Err("it ends nothing".to_owned()) }.boxed()
        }

        fn probe(&self, _limit: Duration) -> BoxFuture<'_, Result<(), String>> {
            async { Err("it is not looked at".to_owned()) }.boxed()
        }

        fn forget(&self, _id: SpinUpId) -> BoxFuture<'_, ()> {
            async {}.boxed()
        }
    }

    fn new() -> Beginning {
        let operation = SpinUpOperation {
            operation_id: SpinUpId::generate(),
            target_id: TargetId::generate(),
            target_name: "t".into(),
            mechanism: Kind::Webhook,
            status: SpinUpStatus::Pending,
            need: None,
            work_item_id: None,
            agent_guid: None,
            error: None,
            output: None,
            started_at: Timestamp::from_millis(0),
            ended_at: None,
        };
        Beginning::New(Box::new(Start {
            project: ProjectId::new("p").unwrap(),
            operation,
            agent_type: "t".into(),
            capabilities: vec!["c".into()],
            boundaries: vec!["default".into()],
            ticket: BirthTicket::generate(),
        }))
    }

    /// What is told within an hour, and how often the mechanism was to start.
    async fn told(
        starts: impl IntoIterator<Item = Result<Value, FailureKind>>,
        finds: impl IntoIterator<Item = Found>,
        beginning: Beginning,
        ownership: Ownership,
    ) -> (Vec<String>, usize) {
        let mechanism = Arc::new(Scripted {
            starts: Mutex::new(starts.into_iter().collect()),
            finds: Mutex::new(finds.into_iter().collect()),
            started: Mutex::default(),
        });
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = {
            let told = told.clone();
            move |news: LaunchNews| {
                told.lock().push(match news {
                    LaunchNews::Started(reference) => format!("started {reference}"),
                    LaunchNews::NeverBegan => "never began".to_owned(),
                    LaunchNews::Over { may_live, .. } => format!("over, may live: {may_live}"),
                    LaunchNews::NotOurs => "not ours".to_owned(),
                });
            }
        };
        let launch = Launch {
            id: SpinUpId::generate(),
            mechanism: mechanism.clone(),
            ownership,
            on_step: BirthStepHook::default(),
            tell,
        };
        // One that stands is not told of.
        let _ = tokio::time::timeout(Duration::from_hours(1), launch.run(beginning)).await;
        let started = *mechanism.started.lock();
        let told = told.lock().clone();
        (told, started)
    }

    const IN_DOUBT: Result<Value, FailureKind> = Err(FailureKind::InDoubt);

    fn running() -> Found {
        Found::Running(json!(7))
    }

    const ENDED: Found = Found::Ended { output: None };

    #[tokio::test(start_paused = true)]
    async fn who_owns_no_longer_begins_nothing() {
        let told = told([Ok(json!(7))], [], new(), Ownership::none()).await;
        assert_eq!(told, (vec!["not ours".to_owned()], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_in_doubt_is_looked_for_and_repeated_only_where_it_is_absent() {
        let owned = Ownership::alone;
        let none = Vec::<String>::new;
        let of = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        let cases = [
            (
                vec![IN_DOUBT],
                vec![running(), ENDED],
                of(&["started 7", "over, may live: true"]),
                1,
            ),
            (
                vec![IN_DOUBT],
                vec![ENDED],
                of(&["over, may live: true"]),
                1,
            ),
            // It can never say: its birth tells, or the end of its time.
            (vec![IN_DOUBT], vec![], none(), 1),
            (
                vec![IN_DOUBT, Ok(json!(8))],
                vec![Found::Absent],
                of(&["started 8"]),
                2,
            ),
            (
                vec![IN_DOUBT, IN_DOUBT, IN_DOUBT],
                vec![Found::Absent, Found::Absent, Found::Absent],
                of(&["over, may live: true"]),
                3,
            ),
            (
                vec![Err(FailureKind::NotStarted)],
                vec![],
                of(&["over, may live: false"]),
                1,
            ),
        ];
        for (starts, finds, expected, times) in cases {
            let case = format!("{starts:?} {finds:?}");
            let told = told(starts, finds, new(), owned()).await;
            assert_eq!(told, (expected, times), "{case}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_of_before_is_never_begun_by_itself() {
        let of = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        let unknown = || Found::Unknown { why: "?".into() };
        let cases = [
            (None, vec![Found::Absent], of(&["never began"])),
            (None, vec![unknown(), unknown()], of(&[])),
            (
                None,
                vec![unknown(), running(), ENDED],
                of(&["started 7", "over, may live: true"]),
            ),
            (None, vec![ENDED], of(&["over, may live: true"])),
            (
                Some(json!(7)),
                vec![running(), Found::Absent],
                of(&["started 7", "over, may live: true"]),
            ),
        ];
        for (reference, finds, expected) in cases {
            let case = format!("{reference:?} {finds:?}");
            let beginning = Beginning::Recorded {
                reference,
                place: Some("here".into()),
            };
            let told = told([], finds, beginning, Ownership::alone()).await;
            assert_eq!(told, (expected, 0), "{case}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_was_recorded_elsewhere_is_asked_for_as_one_of_there() {
        for (reference, expected) in [(None, &[][..]), (Some(json!(7)), &["over, may live: true"])]
        {
            let beginning = Beginning::Recorded {
                reference,
                place: Some("elsewhere".into()),
            };
            let told = told([], [Found::Absent], beginning, Ownership::alone()).await;
            assert_eq!(
                told,
                (expected.iter().map(|&text| text.to_owned()).collect(), 0)
            );
        }
    }
}
