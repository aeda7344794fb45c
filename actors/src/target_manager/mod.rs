//! Knows where agents can be started, and starts as few as are needed: the targets of a project, the births from them, and
//! the agents that were born.
//! Owns: KV `loom-targets-{p}`. Writes nowhere else.
//!
//! Reads go to the [`TargetDirectory`], which survives the actor. What is written is decided on the record as it is known
//! and stored by one compare-and-set, one at a time for each name (`keyed_writer`). A name is there once, in whatever case,
//! because the key is the name in lower case and a registration is written on the condition that nothing is there. An
//! operation that is not decided is a part of its target's record; its end is written before it leaves that.
//!
//! The bucket is made with the first target. The actor of a project without one asks for it once, and has nothing to do.
//!
//! | part | what it does |
//! |---|---|
//! | `actor` | which part each message concerns, and what a stored change means for each |
//! | `queue` | writes what is to be changed, one change at a time for each name |
//! | `planning` | looks who is missing, and says when to look again |
//! | `plans` | has starts recorded, because somebody is missing or a person asks |
//! | `births` | one birth from its record to the agent, or to the end of what was started; also what a crash has left |
//! | `places` | how many starts are begun at once, and which of them keep others waiting |
//! | `launching` | talks to the mechanism of one start, in a task of its own |
//! | `linked` | the agents that were born: which of them have gone |
//! | `tidying` | ends what was started, and removes what is kept of it, in tasks of their own |
//! | `leftovers` | what the incarnation before was about to end or to remove |
//! | `health` | looks whether agents could be started |
//! | `in_use` | tells the mechanisms what stands at the targets |
//! | `following` | reads the bucket again when it is not as it was read |
//! | `events` | what listeners are told of a change that is stored |
//!
//! # Messages
//! | message | from | effect |
//! |---|---|---|
//! | loaded | own task | the directory is what the bucket holds; what is undecided is gone on with; the actor is up |
//! | carry out | handle | queued by name, then decided and written; answered when it is durable |
//! | trigger | handle | a start that a person asks for; answered when it is recorded |
//! | end agent | handle | ended by its mechanism in the background; answered at once |
//! | order | the actor itself, after a pause | a command of its own, once more |
//! | done | own task | the directory has it, whoever waits is answered, listeners are told, the start goes on |
//! | place wanted | after a pause | a start that never began is begun again, where there is a place for it |
//! | launch, ended what was started, crossed, absent crossed, departed | own tasks | the next step of that start, or agent |
//! | births due, absent due | timers | the start whose time is over, the agent that is not there after its time, is suspected |
//! | places due | timer | the start waits for its agent without a place; who is missing is looked for |
//! | agent gone, agent offline | hooks of the agents | unlinked; asked after |
//! | look wanted, look due | hooks of items and agents, timer | at most every 50 ms: who is missing is started |
//! | reload due | own task, after a reconnect, or because the bucket is not as it was read | it is read again |
//! | discard | handle | a record that cannot be read is removed by its name |
//! | health | handle, own tasks, timer | looks whether agents could be started |
//! | drain | supervisor | nothing new; answered when nothing is under way. Nobody who was started is ended |
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | two registrations of one name at once, in whatever case | one is stored; the other finds it there: `already-exists` |
//! | the actor dies during a write | the request is sent again to its successor, which has read the bucket: a registration is recognised by its id, a removal is done already |
//! | the coordinator dies during a write | it is stored or not; whoever asked has no answer, and sees it in the list |
//! | the coordinator or the actor dies between two steps of a birth | `births` goes on with it; the mechanism takes a start with the same id for the same one |
//! | this process was frozen and owns no longer | the record is not written, or the start not begun |
//! | a write without an answer | repeated until it is known; the write id tells mine from another one |
//! | the record was changed meanwhile | decided again on what is there, at most 15 times in a row |
//! | a record cannot be read | left alone, counted, told with its remedy; its name stays taken until it is removed by it, what is asked of it is `unavailable`. The end of a start that cannot be read is passed over |
//! | the store is full | a removal purges what it removes, which takes no room; all else is `unavailable` |
//! | the bucket was destroyed or purged | noticed within seconds, and what is gone is listed no longer; made again by the next registration; the agents of undecided starts are refused, and what was started is ended |
//! | NATS away | reads go on; a change is `unavailable`, and may happen all the same; nothing is started; what the actor has to write of itself is tried again |
//! | as many targets as may be | `too-large`; `overloaded` where there would be with those under way |
//! | a start fails | its target rests, and another one is tried |
//! | an agent registers while its start is given up | `unavailable` until what was started has ended; then it is born late, where there is room |
//! | a start comes to nothing that its mechanism knows | it takes one of `targets.max_concurrent` for half a minute at the most, and waits on without |
//! | the coordinator dies between the link of a late birth and its end | the agent is linked; the end is written from the link, which does not go before |
//! | a ticket that nobody knows, while a record or an end cannot be read | `unavailable`: it may be that of a start that stands there |
//! | another run of an agent that was born registers without its ticket | it is another agent: the link goes before that one is written, and the process of old is ended |
//! | the project has nothing else to do while a process is to be ended | it does not fall asleep before that is done |
//! | the coordinator dies while a process is to be ended, or files are to be removed | the next one finds it by the ends of the starts and by what the mechanism keeps, and does it |
//! | what was started cannot be ended | said in the operation, and tried again for an hour |
//!
//! Events: `target:registered`, `target:updated` (enabled too), `target:disabled`, `target:removed`,
//! `target:health-changed`; `spin-up:triggered`, `spin-up:started`, `spin-up:completed`, `spin-up:failed`.

mod actor;
mod admission;
mod args;
mod birth_command;
mod birth_step;
mod births;
mod bucket;
mod change;
mod command;
mod directory;
mod discard;
mod env;
mod events;
mod following;
mod handle;
mod health;
mod in_use;
mod key;
mod late_ends;
mod launching;
mod leftovers;
mod linked;
mod mechanism;
mod messages;
mod operations;
mod page;
mod paging;
mod places;
mod planning;
mod plans;
mod queue;
mod running;
mod terms;
mod tidying;
mod trigger;

pub use actor::TargetManager;
pub use args::TargetManagerArgs;
pub use birth_command::BirthCommand;
pub use birth_step::{BirthStep, BirthStepHook};
pub use command::{Command, Outcome};
pub use directory::{LinkedTo, StartAt, TargetDirectory, TargetView};
pub use handle::TargetManagerHandle;
pub use mechanism::{
    AgentEnd, FailureKind, Found, Mechanism, Mechanisms, NoMechanisms, Start, StartFailure,
    Started, Stopped,
};
pub use messages::TargetMsg;
pub use operations::{MOST_OPERATIONS, OperationFilter, OperationsFound};
pub use page::TargetsFound;
pub use places::PlacesTaken;
pub use terms::BirthTerms;
pub use trigger::{AgentToEnd, Trigger};

/// How many targets a project may have.
pub const MOST_TARGETS: usize = 512;

/// After how long a client that was turned away should ask again.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_millis(500);

/// What a mechanism finds a start again by; of no interest to anybody else.
pub(crate) type Reference = serde_json::Value;
/// An operation that is decided, as it is kept here.
pub(crate) type Ended = crate::domain::targets::DecidedBirth<Reference>;
/// A target as it is kept here.
pub(crate) type Record = crate::domain::targets::TargetRecord<Reference>;
