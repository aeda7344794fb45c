use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// What may happen at any moment, on time or late.
#[derive(Debug, Clone)]
enum Step {
    /// It is its turn; `certain`: whether anything is left of it need not be looked at.
    Begin {
        certain: bool,
    },
    /// A timer fires: of the pause that is under way (0), or of one long given up.
    PauseOver(usize),
    /// A start has ended well, or has not; this one or one from before.
    Started {
        which: usize,
        loads: bool,
    },
    StartFailed {
        which: usize,
        /// It was killed, and is still there.
        hangs: bool,
    },
    Up(usize),
    Down(usize),
    /// An incarnation ends: by a panic, a kill, a drain, or long after it was killed.
    Ends(usize),
    Stop,
    Passes(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let which = || prop_oneof![4 => Just(0_usize), 1 => 1_usize..4];
    prop_oneof![
        2 => any::<bool>().prop_map(|certain| Step::Begin { certain }),
        6 => which().prop_map(Step::PauseOver),
        4 => (which(), any::<bool>()).prop_map(|(which, loads)| Step::Started { which, loads }),
        3 => (which(), any::<bool>()).prop_map(|(which, hangs)| Step::StartFailed { which, hangs }),
        3 => which().prop_map(Step::Up),
        1 => which().prop_map(Step::Down),
        4 => which().prop_map(Step::Ends),
        1 => Just(Step::Stop),
        2 => (0_u64..5_000).prop_map(Step::Passes),
    ]
}

/// A supervisor that does what it is told to, and what is there in truth.
struct World {
    child: Child,
    policy: RestartPolicy,
    now: Instant,
    last_attempt: u64,
    /// Of pauses and starts, the last first.
    pauses: Vec<u64>,
    starts: Vec<u64>,
    alive: BTreeSet<u64>,
    stopped: bool,
    escalations: usize,
    /// Of pauses of one that was given up, since it was up.
    parked: Vec<Duration>,
    restarts: Vec<Instant>,
}

impl World {
    fn new(exhaustion: Exhaustion, max_restarts: u32) -> Self {
        Self {
            child: Child::new(exhaustion),
            policy: RestartPolicy {
                max_restarts,
                within: Duration::from_mins(1),
                ..RestartPolicy::default()
            },
            now: Instant::now(),
            last_attempt: 0,
            pauses: Vec::new(),
            starts: Vec::new(),
            alive: BTreeSet::new(),
            stopped: false,
            escalations: 0,
            parked: Vec::new(),
            restarts: Vec::new(),
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let which = match step {
            Step::PauseOver(which) | Step::Up(which) | Step::Down(which) | Step::Ends(which) => {
                *which
            }
            Step::Started { which, .. } | Step::StartFailed { which, .. } => *which,
            Step::Begin { .. } | Step::Stop | Step::Passes(_) => 0,
        };
        let nth = |of: &[u64]| of.iter().rev().nth(which).copied();
        let (pause, start) = (nth(&self.pauses), nth(&self.starts));
        let reason: Arc<str> = "it failed".into();
        let former_ended = self.alive.is_empty();
        let event = match (step, pause, start) {
            (Step::Begin { certain }, ..) => Event::Begin {
                former_ended: former_ended && *certain,
            },
            (Step::PauseOver(_), Some(attempt), _) => Event::PauseOver {
                attempt,
                former_ended,
            },
            (Step::Started { loads, .. }, _, Some(attempt)) => Event::Started {
                attempt,
                loads: *loads,
            },
            (Step::StartFailed { hangs, .. }, _, Some(attempt)) => {
                if !hangs {
                    self.alive.remove(&attempt);
                }
                Event::StartFailed { attempt, reason }
            }
            (Step::Up(_), _, Some(attempt)) => Event::Up { attempt },
            (Step::Down(_), _, Some(attempt)) => Event::Down { attempt },
            (Step::Ends(_), _, Some(attempt)) => {
                self.alive.remove(&attempt);
                Event::Ended { attempt, reason }
            }
            (Step::Stop, ..) => {
                self.stopped = true;
                Event::Stop
            }
            (Step::Passes(ms), ..) => {
                self.now += Duration::from_millis(*ms);
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.tell(&event)
    }

    fn tell(&mut self, event: &Event) -> Result<(), TestCaseError> {
        let (before, last) = (self.child.phase(), self.child.attempt());
        let stale = event.attempt().is_some_and(|attempt| attempt != last);
        let effect = self.child.on(
            event.clone(),
            &mut Circumstances {
                policy: &self.policy,
                now: self.now,
                jitter: 1.0,
                last_attempt: &mut self.last_attempt,
            },
        );
        if stale {
            prop_assert_eq!(&effect, &Effect::None, "a late {:?}", event);
            prop_assert_eq!(self.child.phase(), before);
        }
        if self.stopped || self.escalations > 0 {
            let runs = matches!(self.child.phase(), Phase::Stopping | Phase::Gone);
            prop_assert!(runs, "{:?} after its end", self.child.phase());
        }
        match effect {
            Effect::None | Effect::Load | Effect::Forget => {}
            Effect::Start { attempt } => {
                prop_assert!(
                    !self.stopped && self.escalations == 0,
                    "started after its end"
                );
                prop_assert!(self.alive.is_empty(), "beside {:?}", self.alive);
                prop_assert!(matches!(before, Phase::Idle | Phase::Pausing));
                self.alive.insert(attempt);
                self.starts.push(attempt);
            }
            Effect::Announce => {
                prop_assert!(matches!(before, Phase::Starting | Phase::Loading));
                prop_assert!(self.child.parked().is_none());
                self.parked.clear();
            }
            Effect::Drain => prop_assert!(matches!(before, Phase::Loading | Phase::Up)),
            Effect::Pause {
                attempt,
                after,
                crash,
            } => {
                prop_assert!(after <= self.policy.backoff_max);
                prop_assert_eq!(crash.is_none(), before == Phase::Idle);
                if crash.is_some() {
                    prop_assert!(self.child.parked().is_none(), "one try each");
                    self.restarts.push(self.now);
                }
                self.pauses.push(attempt);
            }
            Effect::Park { attempt, after, .. } => {
                prop_assert_eq!(self.child.exhaustion, Exhaustion::Parks);
                let longest = Duration::from_mins(1);
                if let Some(former) = self.parked.last() {
                    prop_assert_eq!(after, longest.min(*former * 2));
                }
                prop_assert!(after >= Duration::from_secs(1) && after <= longest);
                let parked = self.child.parked().map(|parked| parked.next_try);
                prop_assert_eq!(parked, Some(Some(self.now + after)));
                self.parked.push(after);
                self.pauses.push(attempt);
                self.restarts.clear();
            }
            Effect::Escalate { .. } => {
                prop_assert_eq!(self.child.exhaustion, Exhaustion::Escalates);
                self.escalations += 1;
                prop_assert_eq!(self.escalations, 1, "escalated twice");
            }
        }
        let within = self.policy.within;
        self.restarts
            .retain(|at| self.now.duration_since(*at) < within);
        prop_assert!(self.restarts.len() <= self.policy.max_restarts as usize);
        Ok(())
    }
}

proptest! {
    /// Whatever happens, late or in time: never two incarnations, nothing from a stale timer, nothing after a stop, one
    /// escalation, and pauses of what was given up that double up to the longest.
    #[test]
    fn no_sequence_of_crashes_timers_and_stops_breaks_what_is_promised(
        parks in any::<bool>(),
        max_restarts in 0_u32..4,
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let exhaustion = if parks { Exhaustion::Parks } else { Exhaustion::Escalates };
        let mut world = World::new(exhaustion, max_restarts);
        for step in &steps {
            world.take(step)?;
        }
    }

    /// Wherever it is when nobody stops it: it comes up as soon as its starts go well, unless it has escalated.
    #[test]
    fn it_is_never_stuck(
        parks in any::<bool>(),
        max_restarts in 0_u32..4,
        steps in proptest::collection::vec(step(), 1..100),
    ) {
        let exhaustion = if parks { Exhaustion::Parks } else { Exhaustion::Escalates };
        let mut world = World::new(exhaustion, max_restarts);
        for step in steps.iter().filter(|step| !matches!(step, Step::Stop)) {
            world.take(step)?;
        }
        // What runs goes on; what hung has ended by now.
        let current = world.child.attempt();
        let runs = matches!(world.child.phase(), Phase::Starting | Phase::Loading | Phase::Up);
        world.alive.retain(|attempt| runs && *attempt == current);
        for step in [BEGIN, Step::PauseOver(0), Step::Started { which: 0, loads: true }, Step::Up(0)] {
            world.take(&step)?;
        }
        let end = if world.escalations == 1 { Phase::Gone } else { Phase::Up };
        prop_assert_eq!(world.child.phase(), end);
    }
}

/// Tells one event after another; the last effect.
fn told(world: &mut World, steps: &[Step]) {
    for step in steps {
        world.take(step).unwrap();
    }
}

const BEGIN: Step = Step::Begin { certain: true };
const WELL: Step = Step::Started {
    which: 0,
    loads: false,
};

#[test]
fn a_child_that_is_stopped_during_its_backoff_stays_stopped() {
    for exhaustion in [Exhaustion::Escalates, Exhaustion::Parks] {
        // The second one is parked, where it does not escalate.
        for max_restarts in [1, 0] {
            let mut world = World::new(exhaustion, max_restarts);
            told(&mut world, &[BEGIN, WELL, Step::Ends(0), Step::Stop]);
            told(&mut world, &[Step::PauseOver(0), BEGIN, Step::Up(0)]);
            assert_eq!(world.child.phase(), Phase::Gone);
            assert_eq!(world.starts.len(), 1);
        }
    }
}

#[test]
fn what_is_parked_is_tried_after_pauses_that_double_up_to_a_minute() {
    let mut world = World::new(Exhaustion::Parks, 0);
    told(&mut world, &[BEGIN, WELL, Step::Ends(0)]);
    for _ in 0..5 {
        told(&mut world, &[Step::PauseOver(0)]);
        assert_eq!(world.child.parked().unwrap().next_try, None, "it is tried");
        told(&mut world, &[Step::Ends(0)]);
    }
    assert_eq!(
        world.parked,
        [5, 10, 20, 40, 60, 60].map(Duration::from_secs)
    );
    told(&mut world, &[Step::PauseOver(0), WELL]);
    assert_eq!(world.child.parked(), None);
}

#[test]
fn a_start_that_ends_well_after_it_timed_out_is_not_announced() {
    let mut world = World::new(Exhaustion::Escalates, 3);
    let late = Step::StartFailed {
        which: 0,
        hangs: true,
    };
    told(&mut world, &[BEGIN, late, WELL, Step::Up(0)]);
    assert_eq!(world.child.phase(), Phase::Pausing);
    // It blocks its thread: that is a crash too, and nothing is started beside it.
    told(&mut world, &[Step::PauseOver(0)]);
    assert_eq!(
        (world.child.phase(), world.starts.len()),
        (Phase::Pausing, 1)
    );
    world.alive.clear();
    told(&mut world, &[Step::PauseOver(0), WELL]);
    assert_eq!(world.child.phase(), Phase::Up);
}
