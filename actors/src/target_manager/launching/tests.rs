//! What is told of a start, with a mechanism that says what it is told to.

use std::collections::VecDeque;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use loom_protocol::ProjectId;
use loom_protocol::target::BirthTicket;
use parking_lot::Mutex;
use serde_json::json;

use super::super::mechanism::{Started, Stopped};
use super::*;
use crate::domain::targets::testing::operation;

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
                output: None,
                waits: None,
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

    fn probe(&self, _limit: Duration) -> BoxFuture<'_, Result<String, String>> {
        async { Err("it is not looked at".to_owned()) }.boxed()
    }

    fn forget(&self, _id: SpinUpId) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

fn new() -> Beginning {
    Beginning::New(Box::new(Start {
        project: ProjectId::new("p").unwrap(),
        operation: operation(SpinUpId::generate()),
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
                LaunchNews::Said(said) => format!("said {said:?}"),
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
async fn why_a_start_waits_is_told_when_it_is_news() {
    let waiting = |why: &str| Found::Waiting {
        reference: json!(7),
        why: why.into(),
    };
    let finds = [
        waiting("no room"),
        waiting("no room"),
        waiting("no image"),
        Found::Unknown { why: "?".into() },
        running(),
        running(),
        ENDED,
    ];
    let beginning = Beginning::Recorded {
        reference: Some(json!(7)),
        place: None,
    };
    let (told, _) = told([], finds, beginning, Ownership::alone()).await;
    let expected = [
        "started 7",
        "said Some(\"no room\")",
        "said Some(\"no image\")",
        "said None",
        "over, may live: true",
    ];
    assert_eq!(told, expected);
}

/// One that waits for another reason each millisecond, for ten seconds, and then ends.
struct Restless;

impl Mechanism for Restless {
    fn start<'a>(&'a self, _start: &'a Start) -> BoxFuture<'a, Result<Started, StartFailure>> {
        let (tell, waits) = watch::channel(None);
        let end = async move {
            for reason in 0..10_000 {
                tell.send_replace(Some(format!("reason {reason}")));
                sleep(Duration::from_millis(1)).await;
            }
            AgentEnd {
                success: false,
                how: "it gave up".into(),
                output: None,
            }
        };
        let started = Started {
            reference: json!(7),
            end: Some(end.boxed()),
            output: Some("its page".into()),
            waits: Some(waits),
        };
        async { Ok(started) }.boxed()
    }

    fn find<'a>(
        &'a self,
        _id: SpinUpId,
        _reference: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<Found, String>> {
        async { Ok(ENDED) }.boxed()
    }

    fn place(&self) -> Option<String> {
        None
    }

    fn find_recorded<'a>(
        &'a self,
        id: SpinUpId,
        _place: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Found, String>> {
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

    fn probe(&self, _limit: Duration) -> BoxFuture<'_, Result<String, String>> {
        async { Err("it is not looked at".to_owned()) }.boxed()
    }

    fn forget(&self, _id: SpinUpId) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn what_changes_all_the_time_is_told_every_few_seconds() {
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = said.clone();
    let launch = Launch {
        id: SpinUpId::generate(),
        mechanism: Arc::new(Restless),
        ownership: Ownership::alone(),
        on_step: BirthStepHook::default(),
        tell: move |news| {
            if let LaunchNews::Said(text) = news {
                told.lock().push(text.unwrap());
            }
        },
    };
    launch.run(new()).await;
    let said = said.lock().clone();
    let all: Vec<&str> = said.iter().map(String::as_str).collect();
    assert!((3..=6).contains(&said.len()), "{all:?}");
    assert!(all.iter().all(|text| text.ends_with("its page")), "{all:?}");
    assert!(
        all.iter().any(|text| text.starts_with("reason ")),
        "{all:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_recorded_elsewhere_is_asked_for_as_one_of_there() {
    for (reference, expected) in [
        (None, &[][..]),
        (Some(json!(7)), &["over, may live: true"][..]),
    ] {
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
