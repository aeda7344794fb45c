//! What is broken when: a pure function of the seed.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use super::world::{PROCESSES, ROUGH, SETTLES, STEADY};
use crate::fleet::Role;

/// Which form the coordinator has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// On threads of this process: its actors can be killed.
    Threads,
    /// A child process: it can be killed and stopped by signals.
    Process,
}

/// How something is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// In order.
    Stop,
    /// `kill -9`.
    Kill,
    /// `SIGSTOP`, and `SIGCONT` later.
    Pause,
}

/// Something that is broken on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// These actors are killed at the same time.
    KillActors(Vec<Role>),
    /// The coordinator is away so long, and goes on in this form.
    Coordinator {
        /// How it goes away.
        nature: Nature,
        /// How long it is away.
        away: Duration,
        /// How it comes back.
        back_as: Stage,
    },
    /// nats-server is away so long.
    Nats {
        /// How it goes away.
        nature: Nature,
        /// How long it is away.
        away: Duration,
        /// Whether the coordinator is killed meanwhile.
        coordinator_too: bool,
    },
    /// These agents stand still so long.
    PauseAgents {
        /// Their places.
        which: Vec<usize>,
        /// How long.
        pause: Duration,
    },
    /// These agents die without a word; others take their places.
    KillAgents(Vec<usize>),
    /// A second run of this agent begins, with the same guid; the first one goes on asking.
    RunTwice(usize),
    /// An agent process stands still so long, or is killed and another one comes.
    AgentProcess {
        /// Which.
        which: usize,
        /// How it goes away: [`Nature::Pause`] or [`Nature::Kill`].
        nature: Nature,
        /// How long it stands still.
        away: Duration,
    },
}

impl Fault {
    /// What is counted in the report.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::KillActors(roles) if roles.len() > 1 => "actors killed together",
            Self::KillActors(_) => "actor killed",
            Self::Coordinator { nature, .. } => match nature {
                Nature::Stop => "coordinator stopped",
                Nature::Kill => "coordinator killed",
                Nature::Pause => "coordinator paused",
            },
            Self::Nats {
                coordinator_too: true,
                ..
            } => "nats-server and coordinator killed",
            Self::Nats { nature, .. } => match nature {
                Nature::Stop => "nats-server stopped",
                Nature::Kill => "nats-server killed",
                Nature::Pause => "nats-server paused",
            },
            Self::PauseAgents { .. } => "agents paused",
            Self::KillAgents(_) => "agents killed",
            Self::RunTwice(_) => "agent run twice",
            Self::AgentProcess {
                nature: Nature::Pause,
                ..
            } => "agent process paused",
            Self::AgentProcess { .. } => "agent process killed",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::KillActors(roles) => write!(f, "{kind}: {roles:?}"),
            Self::Coordinator { away, back_as, .. } => {
                write!(f, "{kind} for {away:?}, back as {back_as:?}")
            }
            Self::Nats { away, .. } => write!(f, "{kind} for {away:?}"),
            Self::PauseAgents { which, pause } => write!(f, "{kind} for {pause:?}: {which:?}"),
            Self::KillAgents(which) => write!(f, "{kind}: {which:?}"),
            Self::RunTwice(which) => write!(f, "{kind}: {which}"),
            Self::AgentProcess { which, away, .. } if away.is_zero() => {
                write!(f, "{kind}: {which}")
            }
            Self::AgentProcess { which, away, .. } => write!(f, "{kind} for {away:?}: {which}"),
        }
    }
}

/// A fault, so long after the one before is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// How long after.
    pub after: Duration,
    /// What.
    pub fault: Fault,
}

/// What a run breaks, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Every fault.
    pub faults: Vec<Planned>,
}

/// What a fault costs beside the time that something is away.
const EACH: Duration = Duration::from_millis(400);
/// Longer than every deadline but that of the ownership.
const PAST_LEASES: Duration = Duration::from_secs(5);
/// Longer than that of the ownership too.
const PAST_OWNERSHIP: Duration = Duration::from_secs(16);

impl Schedule {
    /// The schedule of a seed. It lasts about `length`, and contains every kind of fault if there is time.
    pub fn draw(seed: u64, length: Duration) -> Self {
        let mut draw = Draw {
            rng: Rng::with_seed(seed),
            stage: Stage::Threads,
            round: 0,
            // Everything is calm at first.
            gaps: CALM_EVERY - 1,
        };
        let (mut faults, mut lasts) = (Vec::new(), Duration::ZERO);
        while lasts < length {
            for fault in draw.round() {
                let after = draw.gap();
                lasts += after + fault.lasts() + EACH;
                faults.push(Planned { after, fault });
            }
        }
        Self { faults }
    }

    /// One nats-server after the other is killed, `every` so often, and is back after a third of that.
    pub fn of_cluster(length: Duration, every: Duration) -> Self {
        let away = every / 3;
        let mut faults = Vec::new();
        let mut lasts = every;
        while lasts <= length {
            let fault = Fault::Nats {
                nature: Nature::Kill,
                away,
                coordinator_too: false,
            };
            let after = every.saturating_sub(away);
            faults.push(Planned { after, fault });
            lasts += every;
        }
        Self { faults }
    }
}

impl Fault {
    const fn lasts(&self) -> Duration {
        match self {
            Self::Coordinator { away, .. } | Self::Nats { away, .. } => *away,
            _ => Duration::ZERO,
        }
    }
}

/// How many faults come between two times without any.
const CALM_EVERY: usize = 6;

struct Draw {
    rng: Rng,
    stage: Stage,
    round: usize,
    gaps: usize,
}

impl Draw {
    /// One of everything that is possible in this form, in random order, and then the other form.
    fn round(&mut self) -> Vec<Fault> {
        let mut faults = match self.stage {
            Stage::Threads => self.on_threads(),
            Stage::Process => self.as_process(),
        };
        self.rng.shuffle(&mut faults);
        self.stage = match self.stage {
            Stage::Threads => Stage::Process,
            Stage::Process => Stage::Threads,
        };
        let nature = if self.rng.bool() {
            Nature::Stop
        } else {
            Nature::Kill
        };
        faults.push(self.coordinator(nature, 0..300));
        faults.insert(0, Fault::RunTwice(self.rng.usize(STEADY..STEADY + ROUGH)));
        self.round += 1;
        faults
    }

    fn on_threads(&mut self) -> Vec<Fault> {
        let mut faults: Vec<Fault> = Role::ALL.map(|role| Fault::KillActors(vec![role])).into();
        let two = self.rng.choose_multiple(Role::ALL, 2);
        faults.push(Fault::KillActors(two));
        faults.push(Fault::KillActors(Role::ALL.to_vec()));
        faults.push(self.coordinator(Nature::Kill, 0..300));
        faults.push(self.nats(Nature::Kill, 100..1_200, false));
        faults.push(self.agents_stand_still());
        faults.push(self.agents_die());
        faults.push(self.agent_process(Nature::Kill));
        faults
    }

    fn as_process(&mut self) -> Vec<Fault> {
        let mut faults = vec![
            self.coordinator(Nature::Kill, 0..1_000),
            self.coordinator(Nature::Pause, 300..2_000),
            Fault::Coordinator {
                nature: Nature::Pause,
                away: PAST_LEASES,
                back_as: Stage::Process,
            },
            self.nats(Nature::Stop, 100..1_500, false),
            self.nats(Nature::Pause, 300..2_500, false),
            self.nats(Nature::Kill, 100..1_000, true),
            self.agents_stand_still(),
            self.agents_die(),
            self.agent_process(Nature::Pause),
        ];
        // Twice a minute and less would leave no time for anything else.
        if self.round % 4 == 3 {
            let away = PAST_OWNERSHIP;
            faults.push(if self.rng.bool() {
                let (nature, back_as) = (Nature::Pause, Stage::Process);
                Fault::Coordinator {
                    nature,
                    away,
                    back_as,
                }
            } else {
                let (nature, coordinator_too) = (Nature::Pause, false);
                Fault::Nats {
                    nature,
                    away,
                    coordinator_too,
                }
            });
        }
        faults
    }

    fn coordinator(&mut self, nature: Nature, millis: std::ops::Range<u64>) -> Fault {
        Fault::Coordinator {
            nature,
            away: Duration::from_millis(self.rng.u64(millis)),
            back_as: self.stage,
        }
    }

    fn nats(
        &mut self,
        nature: Nature,
        millis: std::ops::Range<u64>,
        coordinator_too: bool,
    ) -> Fault {
        Fault::Nats {
            nature,
            away: Duration::from_millis(self.rng.u64(millis)),
            coordinator_too,
        }
    }

    fn agents_stand_still(&mut self) -> Fault {
        Fault::PauseAgents {
            which: self.rough(4),
            pause: Duration::from_millis(self.rng.u64(1_000..8_000)),
        }
    }

    fn agents_die(&mut self) -> Fault {
        let count = self.rng.usize(1..3);
        Fault::KillAgents(self.rough(count))
    }

    fn agent_process(&mut self, nature: Nature) -> Fault {
        let away = match nature {
            Nature::Pause => PAST_LEASES + Duration::from_millis(self.rng.u64(0..4_000)),
            Nature::Stop | Nature::Kill => Duration::ZERO,
        };
        Fault::AgentProcess {
            which: self.rng.usize(0..PROCESSES),
            nature,
            away,
        }
    }

    fn rough(&mut self, count: usize) -> Vec<usize> {
        self.rng.choose_multiple(STEADY..STEADY + ROUGH, count)
    }

    /// Mostly short, now and then long enough for everything to be calm.
    fn gap(&mut self) -> Duration {
        self.gaps += 1;
        if self.gaps.is_multiple_of(CALM_EVERY) {
            SETTLES + Duration::from_millis(self.rng.u64(500..2_000))
        } else {
            Duration::from_millis(self.rng.u64(50..600))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const LENGTH: Duration = Duration::from_mins(1);

    #[test]
    fn a_seed_always_gives_the_same_schedule() {
        assert_eq!(Schedule::draw(7, LENGTH), Schedule::draw(7, LENGTH));
        assert_ne!(Schedule::draw(7, LENGTH), Schedule::draw(8, LENGTH));
    }

    #[test]
    fn a_few_minutes_have_every_kind_of_fault() {
        // Whether the coordinator is stopped or killed is drawn each time.
        let faults = (1..=3).flat_map(|seed| Schedule::draw(seed, LENGTH).faults);
        let kinds: HashSet<_> = faults.map(|planned| planned.fault.kind()).collect();
        assert_eq!(kinds.len(), 14, "{kinds:?}");
    }

    #[test]
    fn actors_are_killed_only_where_they_can_be_reached() {
        for seed in 0..50 {
            let mut stage = Stage::Threads;
            for planned in Schedule::draw(seed, LENGTH).faults {
                match planned.fault {
                    Fault::KillActors(_) => assert_eq!(stage, Stage::Threads),
                    Fault::Coordinator {
                        nature: Nature::Pause,
                        back_as,
                        ..
                    } => {
                        assert_eq!((stage, back_as), (Stage::Process, Stage::Process));
                    }
                    Fault::Coordinator { back_as, .. } => stage = back_as,
                    _ => {}
                }
            }
        }
    }
}
